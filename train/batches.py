"""Batches of whole utterances without padding: every item of a batch has the same length. And batches' devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def moved(batch: T, device: torch.device) -> T:
    """A dataclass of tensors, or of tuples and dataclasses of them, on a device; all else in it stays as it is."""
    made: T = _moved(batch, device)
    return made


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value


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
