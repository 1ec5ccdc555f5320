"""Messages -> token ids: the chat template, the audio placeholders, the tokenizer (SEMANTICS.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2
import jinja2.sandbox
import numpy as np
import tokenizers
from numpy.typing import NDArray

from ..errors import BundleError, RequestError
from ..model import geometry
from ..model.config import ChatConfig
from .backend import Array

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the history; audio comes before text."""

    role: Role
    text: str | None = None
    audio: Array | None = None  # [N] 16 kHz
    speech_ids: tuple[int, ...] | None = None  # an audio given as 25 Hz ids instead of a waveform
    rows: Array | None = None  # [P, H], what was heard of the audio, where it is known already

    def __post_init__(self) -> None:
        if self.text is None and self.audio is None and self.speech_ids is None:
            raise RequestError(f"a {self.role} message holds neither text nor audio")
        if self.audio is not None and self.speech_ids is not None:
            raise RequestError(f"a {self.role} message holds audio twice: as a waveform and as speech ids")


class Prompter:
    """Renders and encodes prompts for one bundle."""

    def __init__(self, tokenizer: Path, template: Path | None, config: ChatConfig) -> None:
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the tokenizers library raises plain Exception
            raise BundleError(f"{tokenizer} is no tokenizer ({error}); export the bundle again") from None
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse  # what transformers' templates call
        try:
            self._template = environment.from_string(template.read_text(encoding="utf-8") if template else CHATML)
        except jinja2.TemplateError as error:
            raise BundleError(f"{template} is no chat template ({error}); export the bundle again") from None
        self._config = config
        marks = (
            self.tokenizer.id_to_token(i) for i in (config.audio_bos_id, config.audio_token_id, config.audio_eos_id)
        )
        self._bos, self._audio, self._eos = (mark or "" for mark in marks)
        if not (self._bos and self._audio and self._eos):
            raise BundleError(f"{tokenizer} lacks the audio marks of the model; export the bundle again")
        specials = self.tokenizer.get_added_tokens_decoder().values()
        self._reserved = [token.content for token in specials if token.special]
        self._skipped = {config.audio_bos_id, config.audio_eos_id, config.sil_id, *config.eos_ids}

    def encode(self, messages: Sequence[Message]) -> NDArray[np.int64]:
        """The prompt's ids [T], up to and with the assistant's header.

        Raises:
            RequestError: a text holds one of the model's own marks, or the template refuses the messages.
        """
        return self._render([(message.role, self._content(message)) for message in messages])

    def encode_open(self, messages: Sequence[Message], num_groups: int) -> NDArray[np.int64]:
        """The ids before and with the first `num_groups` audio placeholders of a user turn that is not over yet.

        Raises:
            RequestError: as `encode`.
        """
        given = [(message.role, self._content(message)) for message in messages]
        heard = f"{self._bos}{self._audio * (num_groups + 1)}{self._eos}"
        ids = self._render([*given, ("user", heard)])
        return ids[: np.flatnonzero(ids == self._config.audio_token_id)[-1]]

    def _render(self, contents: Sequence[tuple[Role, str]]) -> NDArray[np.int64]:
        rendered = [{"role": role, "content": content} for role, content in contents]
        try:
            prompt = self._template.render(messages=rendered, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise RequestError(f"the checkpoint's chat template refuses these messages: {error}") from None
        return np.array(self.tokenizer.encode(prompt, add_special_tokens=False).ids, np.int64)

    def num_slots(self, message: Message) -> int:
        """25 Hz slots of the message's audio."""
        if message.speech_ids is not None:
            return len(message.speech_ids)
        return 0 if message.audio is None else geometry.num_slots(len(message.audio))

    def _content(self, message: Message) -> str:
        text = message.text or ""
        for mark in self._reserved:
            if mark in text:
                raise RequestError(f"a {message.role} text holds {mark}, which is a mark of the model: remove it")
        groups = geometry.num_groups(self.num_slots(message), self._config.group_size)
        audio = f"{self._bos}{self._audio * groups}{self._eos}" if groups else ""
        return f"{audio}\n{text}" if audio and message.text else audio + text

    def decode(self, text_ids: Sequence[int]) -> str:
        """The words of an answer, without the marks around them."""
        kept = [i for i in text_ids if i not in self._skipped]
        return self.tokenizer.decode(kept, skip_special_tokens=True)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)
