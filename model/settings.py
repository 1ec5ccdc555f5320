"""How one answer is generated, in upstream's own parameter names; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError

# upstream's published settings for speech to speech: text by argmax, speech sampled (REAL_CONFIG: examples)
PUBLISHED_SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "repetition_penalty": 1.2, "text_greedy": True}

SPEECH_SYSTEM_PROMPT = "You are asked to generate both text and speech tokens at the same time."
TEXT_SYSTEM_PROMPT = "You are asked to generate text tokens."


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """One answer's settings. The defaults are the neutral ones: argmax everywhere, no penalty, speech enabled."""

    max_new_tokens: int = 512  # text tokens, so backbone steps
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # on text too, unless text_greedy
    text_greedy: bool = False  # text by argmax of the raw logits, whatever the rest says
    force_text_abos: bool = False  # the first text token is <|audio_bos|>
    disable_speech: bool = False
    eos_token_id: int | tuple[int, ...] | None = None  # None: the checkpoint's
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.max_new_tokens < 1:
            faults.append(f"max_new_tokens {self.max_new_tokens} is not at least 1")
        if not self.temperature > 0:
            faults.append(f"temperature {self.temperature} is not above 0 (argmax: do_sample=False, --greedy)")
        if self.top_k < 0:
            faults.append(f"top_k {self.top_k} is not at least 0")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p {self.top_p} is not in (0, 1]")
        if not self.repetition_penalty > 0:
            faults.append(f"repetition_penalty {self.repetition_penalty} is not above 0")
        if faults:
            raise RequestError("; ".join(faults))

    def eos_ids(self, default: tuple[int, ...]) -> frozenset[int]:
        """The text ids that end the answer."""
        if self.eos_token_id is None:
            return frozenset(default)
        return frozenset((self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id)
