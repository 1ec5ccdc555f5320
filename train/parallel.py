"""Data parallel training under torchrun: each process draws its own batches, gradients are averaged."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor, nn

PATIENCE = timedelta(hours=24)  # the others wait while the first process prepares the data
BUCKET_ELEMENTS = 1 << 25  # of gradients exchanged at once: 128 MiB


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """The group that torchrun announces in the environment; alone, or inside another such block, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        yield
        return
    # an optimizer imports this module; where a group is there already, its defaults keep that group and its threads
    # beyond their end, and a thread that lets go of a tensor while the interpreter ends aborts the process
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process's number, 0 alone."""
    return distributed.get_rank() if _joined() else 0


def world_size() -> int:
    """The number of processes, 1 alone."""
    return distributed.get_world_size() if _joined() else 1


def wait() -> None:
    """Returns when every process has come here."""
    if world_size() > 1:
        distributed.all_reduce(torch.zeros(1))


@contextlib.contextmanager
def one_after_the_first() -> Iterator[None]:
    """The first process runs the block alone, then the others do: what it makes, they read."""
    if rank():
        wait()
        yield
        return
    yield
    wait()


def average(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes."""
    if world_size() == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / world_size()


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes; small ones travel together.

    A parameter that has a gradient in no process keeps none.
    """
    if world_size() == 1:
        return
    found = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    distributed.all_reduce(found)
    bucket: list[Tensor] = []
    for parameter, count in zip(parameters, found.tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if sum(gradient.numel() for gradient in bucket) >= BUCKET_ELEMENTS:
            _exchange(bucket)
            bucket = []
    if bucket:
        _exchange(bucket)


def _exchange(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
