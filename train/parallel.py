"""Data parallel training under torchrun: each process draws its own batches, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as distributed
from torch import nn


def start() -> None:
    """Joins the group that torchrun announces in the environment; alone, does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leaves the group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, 0 alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes, 1 alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes, in one exchange."""
    if world_size() == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten().float() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    start = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        size = gradient.numel()
        parameter.grad = flat[start : start + size].view_as(gradient).to(gradient.dtype)
        start += size
