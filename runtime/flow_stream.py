"""Speech tokens -> mel, block by block, with the attention caches of each Euler step (SEMANTICS.md 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model.config import FlowConfig
from ..model.geometry import FLOW_LOOK_BACK_TOKENS
from .backend import Array, Graph


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Where blocks of tokens end: frames of a block see it whole, and nothing after it.

    The waveform depends on the plan alone, not on when tokens arrive. The default speaks after two groups of five
    tokens, and from the first second on has the chunks that the flow was trained with.
    """

    first_ends: tuple[int, ...] = (7, 17)  # tokens; a block waits for `pre_lookahead` tokens more
    chunk_tokens: int = 25  # blocks after the first ones end at its multiples
    left_frames: int = 200  # mel frames before its block that a frame sees; bounds cost and memory

    def __post_init__(self) -> None:
        ends = (0, *self.first_ends)
        if self.chunk_tokens < 1 or self.left_frames < 0 or any(a >= b for a, b in pairwise(ends)):
            raise RequestError(f"{self} does not cut tokens into blocks; ends must increase, chunk_tokens be 1 or more")

    def end_after(self, token: int) -> int:
        """The end of the block that begins with this token."""
        chunk_end = (token // self.chunk_tokens + 1) * self.chunk_tokens
        return next((end for end in self.first_ends if end > token), chunk_end)


WHOLE = BlockPlan((), 1 << 62, 0)  # one block: full attention


class FlowStream:
    """One utterance. The cost of a block depends on its length alone."""

    def __init__(
        self,
        front: Graph,
        estimator: Graph,
        config: FlowConfig,
        noise: Array,
        speaker: Array,
        plan: BlockPlan,
    ) -> None:
        # noise: [1, num_mels, N], the fixed start, used again from its beginning after N frames
        if speaker.shape != (config.speaker_dim,):
            raise RequestError(
                f"the speaker embedding has shape {list(speaker.shape)}, [{config.speaker_dim}] is needed"
            )
        self._front, self._estimator, self._config, self._plan = front, estimator, config, plan
        self._noise = noise
        self._speaker = np.ascontiguousarray(speaker[None], np.float32)
        self._tokens: list[int] = []  # from `_first` on
        self._first = 0
        self._position = 0  # tokens that have become mel
        self._caches = [_StepCache(config, plan.left_frames) for _ in range(config.num_steps)]

    def push(self, tokens: Iterable[int]) -> Array:
        """Takes tokens of 0 .. vocab_size - 1; returns the mel [1, num_mels, F] of the blocks they complete."""
        self._tokens += tokens
        mels = [np.zeros((1, self._config.num_mels, 0), np.float32)]
        while (end := self._plan.end_after(self._position)) + self._config.pre_lookahead <= self._end:
            mels.append(self._block(end, False))
        return np.concatenate(mels, axis=2)

    def finish(self) -> Array:
        """The mel of the tokens that are left; the stream is done."""
        mels = [np.zeros((1, self._config.num_mels, 0), np.float32)]
        while self._position < self._end:
            end = min(self._plan.end_after(self._position), self._end)
            mels.append(self._block(end, end == self._end))
        return np.concatenate(mels, axis=2)

    @property
    def _end(self) -> int:
        return self._first + len(self._tokens)

    def _block(self, end: int, last: bool) -> Array:
        c = self._config
        begin = max(0, self._position - FLOW_LOOK_BACK_TOKENS)
        window = np.array(self._tokens[begin - self._first : end + c.pre_lookahead - self._first], np.int64)
        mu, spk = self._front(window[None], self._speaker)
        kept = slice((self._position - begin) * c.token_mel_ratio, (end - begin) * c.token_mel_ratio)
        start = self._position * c.token_mel_ratio
        mel = self._solve(mu[:, :, kept], spk, start, last)
        self._position = end
        drop = max(0, end - FLOW_LOOK_BACK_TOKENS - self._first)
        del self._tokens[:drop]
        self._first += drop
        return mel

    def _solve(self, mu: Array, spk: Array, start: int, last: bool) -> Array:
        """Euler steps over a block, guided by the difference between a conditioned and an unconditioned row."""
        c = self._config
        num_frames = mu.shape[2]
        mu, spk = (np.concatenate([v, np.zeros_like(v)]) for v in (mu, spk))  # row 0 guided, row 1 not
        cond, position = np.zeros_like(mu), np.array([start], np.int64)
        x = self._noise[:, :, np.arange(start, start + num_frames) % self._noise.shape[2]]
        times = 1 - np.cos(np.linspace(0, 1, c.num_steps + 1, dtype=np.float32) * np.float32(0.5 * np.pi))
        rate = np.float32(c.guidance_rate)
        t = times[0]
        for k, cache in enumerate(self._caches):
            dt = times[k + 1] - t
            given = (np.concatenate([x, x]), mu, np.full(2, t, np.float32), spk, cond, position)
            v, *states = self._estimator(*given, *cache.states())
            if not last:
                cache.advance(states)
            x = x + dt * ((1 + rate) * v[:1] - rate * v[1:])
            t = t + dt
        return x


class _StepCache:
    """What one Euler step remembers: the convolutions' tails, and the keys and values of the last `left_frames`."""

    def __init__(self, config: FlowConfig, left_frames: int) -> None:
        tail = np.zeros((2, config.dim, config.position_kernel - 1), np.float32)
        self._tails: list[NDArray] = [tail, tail]
        self._left_frames = left_frames
        self._rows = [
            np.zeros((2 * left_frames, 2 * config.num_heads, config.head_dim), np.float32)
            for _ in range(2 * config.depth)
        ]
        self._span = slice(0, 0)  # where the frames lie in the rows

    def states(self) -> list[NDArray]:
        return [*self._tails, *(rows[self._span] for rows in self._rows)]

    def advance(self, states: list[NDArray]) -> None:
        self._tails = states[:2]
        num_new = min(len(states[2]), self._left_frames)
        begin, end = self._span.start, self._span.stop
        begin = max(begin, end + num_new - self._left_frames)
        if end + num_new > 2 * self._left_frames:  # to the front; once per `left_frames` frames
            for rows in self._rows:
                rows[: end - begin] = rows[begin:end]
            begin, end = 0, end - begin
        for rows, new in zip(self._rows, states[2:], strict=True):
            rows[end : end + num_new] = new[len(new) - num_new :]
        self._span = slice(begin, end + num_new)
