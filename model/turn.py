"""One answer's bookkeeping: which tokens are kept, what is fed back, when it ends (SEMANTICS.md 5); no torch."""

from __future__ import annotations

from .config import ChatConfig
from .settings import GenerationSettings


class Turn:
    """The state between backbone steps. Whoever runs the model asks it what to feed and tells it what came out."""

    def __init__(self, config: ChatConfig, settings: GenerationSettings) -> None:
        self._config = config
        self._settings = settings
        self._eos_ids = settings.eos_ids(config.eos_ids)
        self.text_ids: list[int] = []  # generated, as upstream returns them
        self.speech_ids: list[int] = []  # stored groups, flat
        self.speaking = False
        self.done = False
        self.feedback: list[int] | None = None  # the group averaged into the next step's input

    def advance(self, token: int, group: list[int] | None) -> list[int] | None:
        """Takes one step's outcome.

        Args:
            token: the text token that was picked.
            group: the speech head's `group_size` tokens; None with `disable_speech`.

        Returns:
            The group that was stored, after masking; None where the step's speech is not output.
        """
        config, settings = self._config, self._settings
        if settings.force_text_abos and not self.text_ids:
            token = config.audio_bos_id
        self.done = token in self._eos_ids or len(self.text_ids) + 1 >= settings.max_new_tokens
        stored = None
        if self.speaking and group is not None:
            stored = group
            if config.speech_eos_id in group:
                stored = [config.speech_eos_id] * len(group)
                token = config.audio_eos_id
                self.speaking = False
            self.speech_ids.extend(stored)
        self.text_ids.append(token)
        self.speaking |= token == config.audio_bos_id
        self.feedback = stored if self.speaking else None
        return stored
