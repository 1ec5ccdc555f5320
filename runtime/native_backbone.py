"""The backbone in C++: weights memory-mapped, its KV cache beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BundleError, RequestError
from ..model.config import ChatConfig
from . import _native
from .backend import Array

CACHES = {"float32": "fp32", "float16": "fp16", "int8": "int8"}  # the manifest's cache_dtype -> the C++ side's name


class NativeBackbone:
    """`DecoderGraph` over a bundle's weight file."""

    def __init__(self, path: Path, config: ChatConfig, capacity: int, num_threads: int, cache_dtype: str) -> None:
        # capacity: positions; cache_dtype: a key of CACHES
        try:
            cache = CACHES[cache_dtype]
            self.loop = _native.Backbone(path, num_threads=num_threads, max_positions=capacity, cache=cache)
        except RuntimeError as error:
            raise BundleError(str(error)) from None
        found = (self.loop.hidden_size, self.loop.num_layers, self.loop.vocab_size)
        wanted = (config.text.hidden_size, config.text.num_layers, config.text.vocab_size)
        if found != wanted:
            raise BundleError(f"{path} is of another model: {found}, {wanted} is needed; export the bundle again")
        self.capacity = capacity
        self._step_outputs = self._new_outputs(1)

    @property
    def length(self) -> int:
        return self.loop.num_positions

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Hidden states [S, hidden] and the last one's text logits [vocab_size] of new positions x [S, hidden]."""
        if self.length + len(x) > self.capacity:
            raise RequestError(
                f"backbone: {self.length + len(x)} positions do not fit the cache of {self.capacity}; "
                "load the bundle with a larger max_positions"
            )
        outputs = self._step_outputs if len(x) == 1 else self._new_outputs(len(x))
        self.loop.forward_into(np.ascontiguousarray(x, np.float32), *outputs)
        return outputs

    def truncate(self, length: int) -> None:
        self.loop.truncate(length)

    def _new_outputs(self, num_new: int) -> tuple[Array, Array]:
        hidden = np.empty((num_new, self.loop.hidden_size), np.float32)
        return hidden, np.empty(self.loop.vocab_size, np.float32)
