"""Batches of whole utterances without padding: every item of a batch has the same length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as float32 with a new first dimension; autocast to bfloat16 stacks no float16."""
    return torch.stack([row.float() for row in rows])


class EqualLengthBatches:
    """Indices grouped by length; lengths are drawn by how many items have them."""

    def __init__(self, lengths: Sequence[int], shortest: int = 1) -> None:
        groups: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            if length >= shortest:
                groups[length].append(index)
        self._groups = [groups[length] for length in sorted(groups)]
        self._weights = torch.tensor([len(group) for group in self._groups], dtype=torch.float64)

    def draw(self, size: int, draw: torch.Generator) -> list[int]:
        """`size` indices of one length, with repetition where a length is rare."""
        group = self._groups[int(torch.multinomial(self._weights, 1, generator=draw))]
        picks = torch.randint(len(group), (size,), generator=draw)
        return [group[i] for i in picks.tolist()]
