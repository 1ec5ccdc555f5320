"""The Speech Refined Head ("audio_invert_tower"): `group_size` speech tokens per backbone step (SEMANTICS.md 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .config import ChatConfig
from .decoder import Attend, CachedAttention, Decoder, decoder_layout
from .weights import Layout, linear, plain, under

UPSTREAM = "audio_invert_tower"
IGNORED = (f"{UPSTREAM}.lm_head.weight",)  # tied to the speech table where a checkpoint stores it at all

Pick = Callable[[Tensor, list[int]], int]  # logits [K], tokens of this group so far -> token


class SpeechHead(nn.Module):
    """The modules; the refinement loop over them is `RefinementLoop`."""

    def __init__(self, config: ChatConfig) -> None:
        super().__init__()
        wide, narrow = config.text.hidden_size, config.speech.hidden_size
        self.group_size = config.group_size
        self.upsample = nn.Linear(wide, config.group_size * wide)
        self.input = nn.Linear(wide, narrow, bias=False)
        self.decoder = Decoder(config.speech)
        self.output = nn.Linear(narrow, wide, bias=False)
        self.head = nn.Linear(wide, config.codebook_size, bias=False)  # tied to the speech table

    def split(self, u: Tensor) -> Tensor:  # [T, H] -> [T * group_size, H], sub-vectors in order
        return self.upsample(u).unflatten(-1, (self.group_size, -1)).flatten(0, 1)

    def forward(self, z: Tensor, attend: Attend) -> Tensor:  # [S, H] -> logits [K] of the last position
        y = self.decoder(self.input(z), attend)
        return self.head(self.output(y[-1:]))[0]


class RefinementLoop:
    """The state of one reply: the head's own KV cache and the token that conditions the next."""

    def __init__(self, head: SpeechHead, config: ChatConfig) -> None:
        self.head = head
        self.attend = CachedAttention(config.speech)
        self._previous = head.head.weight[config.speech_bos_id]
        self.last_logits: list[Tensor] = []  # of the newest group, each [K]

    def prefill(self, u: Tensor, pick: Pick) -> list[int]:
        """The first call, over the whole prompt: every sub-vector but the last group_size - 1 in one pass.

        Args:
            u: [T, H], hidden state plus text embedding of each prompt position.
            pick: chooses a token from logits.

        Returns:
            The group of the last position; the generation loop discards it, though the caches keep it.
        """
        sub = self.head.split(u)
        split = len(sub) - (self.head.group_size - 1)
        return self._group([sub[:split], *sub[split:].unsqueeze(1)], pick)

    def group(self, u: Tensor, pick: Pick) -> list[int]:
        """One backbone step: u [1, H] -> `group_size` tokens."""
        return self._group(list(self.head.split(u).unsqueeze(1)), pick)

    def _group(self, pieces: list[Tensor], pick: Pick) -> list[int]:
        tokens: list[int] = []
        self.last_logits = []
        for piece in pieces:
            logits = self.head(piece + self._previous, self.attend)
            self.last_logits.append(logits)
            tokens.append(pick(logits, tokens))
            self._previous = self.head.head.weight[tokens[-1]]
        return tokens


def speech_head_layout(config: ChatConfig, table: str) -> Layout:
    """Which upstream tensors make which parameter of `SpeechHead`; `table` is the name of the tied speech table."""
    wide, narrow, g = config.text.hidden_size, config.speech.hidden_size, config.group_size
    return {
        **under("upsample", linear(f"{UPSTREAM}.pre_matching", g * wide, wide)),
        **under("input", linear(f"{UPSTREAM}.input_matching", narrow, wide, bias=False)),
        **under("decoder", decoder_layout(config.speech, f"{UPSTREAM}.crq_transformer")),
        **under("output", linear(f"{UPSTREAM}.output_matching", wide, narrow, bias=False)),
        "head.weight": plain(table, config.codebook_size, wide),
    }
