"""The refinement loop over an exported one-step graph."""

from __future__ import annotations

import numpy as np

from ..model.config import ChatConfig
from . import _native
from .backend import Array, Backend
from .sampling import SpeechSampling


class OnnxSpeechHead:
    """`group_size` runs of the speech head's graph per backbone step, the sampled token fed back in between."""

    def __init__(self, backend: Backend, table: _native.EmbeddingTable, config: ChatConfig, capacity: int) -> None:
        # table: the speech embedding [K, H]; capacity: backbone positions
        self._upsampling = backend.graph("speech_upsampling")
        self.decoder = backend.decoder("speech_head", capacity * config.group_size)
        self._table = table
        self._config = config
        hidden = config.text.hidden_size
        self._previous = np.zeros((1, hidden), np.float32)  # embedding of the newest token
        self._z = np.zeros(hidden, np.float32)
        self._logits = np.zeros((config.group_size, config.codebook_size), np.float32)  # of the newest group
        self._last_tokens: list[int] = []  # per backbone position, what conditions the next group
        self.reset()

    def reset(self) -> None:
        self.truncate(0)

    def truncate(self, position: int) -> None:
        del self._last_tokens[position:]
        self.decoder.truncate(position * self._config.group_size)
        self._feed(self._last_tokens[-1] if self._last_tokens else self._config.speech_bos_id)

    def group_logits(self) -> list[Array]:
        return list(self._logits.copy())

    def prefill(self, u: Array, sampling: SpeechSampling) -> list[int]:
        sub_vectors = self._upsampling(np.ascontiguousarray(u))[0]  # [T, G * H]
        first = _native.split_prefill(sub_vectors, self._previous[0], self._config.group_size)
        self._last_tokens += [self._config.speech_bos_id] * (len(u) - 1)
        (logits,) = self.decoder(first)
        return self._finish(sub_vectors[-1], logits, sampling)

    def extend(self, u: Array) -> None:
        sub_vectors = self._upsampling(np.ascontiguousarray(u))[0]  # [T, G * H]
        self.decoder(sub_vectors.reshape(-1, self._previous.shape[1]) + self._previous)
        kept = self._last_tokens[-1] if self._last_tokens else self._config.speech_bos_id
        self._last_tokens += [kept] * len(u)

    def group(self, u: Array, sampling: SpeechSampling) -> list[int]:
        sub_vectors = self._upsampling(u[None])[0][0]  # [G * H]
        return self._finish(sub_vectors, self._sub_step(sub_vectors, 0), sampling)

    def _finish(self, sub_vectors: Array, logits: Array, sampling: SpeechSampling) -> list[int]:
        tokens = [self._pick(logits, [], sampling)]
        for i in range(1, self._config.group_size):
            self._feed(tokens[-1])
            tokens.append(self._pick(self._sub_step(sub_vectors, i), tokens, sampling))
        self._feed(tokens[-1])
        self._last_tokens.append(tokens[-1])
        return tokens

    def _pick(self, logits: Array, group: list[int], sampling: SpeechSampling) -> int:
        self._logits[len(group)] = logits
        return sampling.pick(logits, group)

    def _sub_step(self, sub_vectors: Array, i: int) -> Array:
        _native.split_step_into(sub_vectors, i, self._previous[0], self._z)
        return self.decoder(self._z[None])[0]

    def _feed(self, token: int) -> None:
        self._table.gather_into(np.array([token], np.int64), self._previous)
