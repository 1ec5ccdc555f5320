"""The refinement loop in C++: one call per group, weights memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BundleError, RequestError
from ..model.config import ChatConfig
from . import _native
from .backend import Array
from .sampling import SpeechSampling


class NativeSpeechHead:
    """`SpeechHead` over a bundle's weight file."""

    def __init__(self, path: Path, config: ChatConfig, capacity: int, num_threads: int, cache: str = "fp32") -> None:
        # capacity: backbone positions; cache: fp32, fp16 or int8
        try:
            self.loop = _native.SpeechHeadLoop(path, num_threads=num_threads, max_positions=capacity, cache=cache)
        except RuntimeError as error:
            raise BundleError(str(error)) from None
        found = (self.loop.hidden_size, self.loop.group_size, self.loop.codebook_size)
        wanted = (config.text.hidden_size, config.group_size, config.codebook_size)
        if found != wanted:
            raise BundleError(f"{path} is of another model: {found}, {wanted} is needed; export the bundle again")
        self._group_size = config.group_size

    def prefill(self, u: Array, sampling: SpeechSampling) -> list[int]:
        self._refuse_overflow(len(u))
        return self.loop.prefill(np.ascontiguousarray(u, np.float32), sampling.sampler, **sampling.options)

    def extend(self, u: Array) -> None:
        self._refuse_overflow(len(u))
        self.loop.extend(np.ascontiguousarray(u, np.float32))

    def group(self, u: Array, sampling: SpeechSampling) -> list[int]:
        self._refuse_overflow(1)
        return self.loop.group(np.ascontiguousarray(u, np.float32), sampling.sampler, **sampling.options)

    def group_logits(self) -> list[Array]:
        return [self.loop.logits(i) for i in range(self._group_size)]

    def reset(self) -> None:
        self.loop.reset()

    def truncate(self, position: int) -> None:
        self.loop.truncate(position)

    def _refuse_overflow(self, num_new: int) -> None:
        needed = self.loop.num_positions + num_new
        if needed > self.loop.max_positions:
            raise RequestError(
                f"speech_head: {needed} positions do not fit the cache of {self.loop.max_positions}; "
                "load the bundle with a larger max_positions"
            )
