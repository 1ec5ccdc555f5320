"""Where and in which precision a stage is trained: device, autocast, recomputed activations, micro-batches."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import RequestError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Compute:
    """A recipe's `[compute]`; weights, gradients and the optimizer's state are float32 whatever `dtype` says."""

    device: str = "auto"  # auto: CUDA where there is one
    dtype: str = "fp32"  # of matrix products and convolutions under autocast
    gradient_checkpointing: bool = False  # backbone and speech head compute their layers again on the way back
    accumulate: int = 1  # batches whose gradients are averaged before each update
    workers: int = 0  # processes that prepare the chat stages' and the encoder's batches; 0: the training one does

    def faults(self) -> list[str]:
        """What is wrong with the values, each with what is allowed."""
        found = []
        if self.device not in DEVICES:
            found.append(f"compute.device is {self.device!r}; {', '.join(DEVICES)} are allowed")
        if self.dtype not in DTYPES:
            found.append(f"compute.dtype is {self.dtype!r}; {', '.join(DTYPES)} are allowed")
        if not isinstance(self.gradient_checkpointing, bool):
            found.append(f"compute.gradient_checkpointing is {self.gradient_checkpointing!r}; true or false is needed")
        if type(self.accumulate) is not int or self.accumulate < 1:
            found.append(f"compute.accumulate is {self.accumulate!r}; 1 or more is needed")
        if type(self.workers) is not int or self.workers < 0:
            found.append(f"compute.workers is {self.workers!r}; 0 or more is needed")
        return found

    def torch_device(self) -> torch.device:
        """The device of this process; under torchrun each process has the GPU of its local rank.

        Raises:
            RequestError: CUDA is asked for, and there is none, or fewer GPUs than processes.
        """
        if self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise RequestError("compute.device is 'cuda', but PyTorch sees no GPU here; set it to 'auto' or 'cpu'")
        index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if index >= count:
            raise RequestError(f"process {index} has no GPU, there are {count}; start --nproc-per-node {count} at most")
        torch.cuda.set_device(index)
        torch.backends.cudnn.allow_tf32 = False  # float32 convolutions (the Fourier transforms among them) stay float32
        return torch.device("cuda", index)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """What the forward pass runs under."""
        if self.dtype == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, DTYPES[self.dtype])


ON_CPU = Compute(device="cpu")


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are."""
    return next(module.parameters()).device


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Losses and Fourier transforms run under this: no autocast. Their inputs are to be made float32."""
    if device.type not in ("cpu", "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
