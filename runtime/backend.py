"""What the runtime asks of an inference library; one implementation per library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .sampling import SpeechSampling

Array = NDArray[np.float32]


class Graph(Protocol):
    """A component whose state, if it has one, its caller keeps."""

    def __call__(self, *inputs: NDArray) -> tuple[NDArray, ...]:
        """Inputs, then states, in the order of the component's row in the table; the same of what comes out."""
        ...


class DecoderGraph(Protocol):
    """A component with a KV cache of fixed capacity."""

    capacity: int

    @property
    def length(self) -> int:
        """Positions in the cache."""
        ...

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Runs new positions [S, hidden].

        Returns:
            The component's outputs; for S = 1 they are views that the next call overwrites.
        """
        ...

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on; 0 forgets all."""
        ...


class SpeechHead(Protocol):
    """The refinement loop: `group_size` speech tokens per backbone step (SEMANTICS.md 4)."""

    def extend(self, u: Array) -> None:
        """The beginning of a prompt, u [T, H], that `extend` or `prefill` continues; nothing is chosen."""
        ...

    def prefill(self, u: Array, sampling: SpeechSampling) -> list[int]:
        """The prompt's positions, u [T, H]; returns the group that the loop discards."""
        ...

    def group(self, u: Array, sampling: SpeechSampling) -> list[int]:
        """One backbone step, u [H]; returns `group_size` tokens."""
        ...

    def group_logits(self) -> list[Array]:
        """Copies of the newest group's logits, group_size x [K]."""
        ...

    def reset(self) -> None: ...

    def truncate(self, position: int) -> None:
        """Forgets every backbone position from `position` on."""
        ...


class Backend(Protocol):
    """Loads components of a bundle."""

    def graph(self, component: str) -> Graph: ...

    def decoder(self, component: str, capacity: int) -> DecoderGraph: ...
