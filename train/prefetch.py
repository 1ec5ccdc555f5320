"""Batches that other processes prepare while the device computes: the same ones in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

AHEAD = 2  # steps that each process prepares ahead


@dataclass(frozen=True)
class Prepared(Dataset[list[Any]]):
    """The batches of a step, by its number."""

    prepare: Callable[[int, torch.Generator], Any]
    seed: int
    rank: int
    count: int  # batches of a step

    def __getitem__(self, step: int) -> list[Any]:
        draw = torch.Generator().manual_seed(step_seed(self.seed, step, self.rank))
        return [self.prepare(step, draw) for _ in range(self.count)]


def in_processes(prepared: Prepared, steps: Sequence[int], workers: int) -> Iterator[list[Any]]:
    """The steps' batches in order.

    The processes are forked, so that they share what the stage has read; they never touch the device.
    """
    yield from DataLoader(
        prepared, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=AHEAD,
        multiprocessing_context="fork", collate_fn=_unchanged,
    )  # fmt: skip


def step_seed(seed: int, step: int, rank: int) -> int:
    """Where a process's chance begins in a step; the next number is taken too."""
    beyond, place = divmod(rank, 32)
    return (seed * 1_000_003 + step) * 64 + 2 * place + (beyond << 50)


def _unchanged(batches: list[Any]) -> list[Any]:
    return batches
