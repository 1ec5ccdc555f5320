"""The CUDA runtime, as far as facrt needs it: devices, memory, streams, graphs; through ctypes, without a compiler."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FacrtError

CAPTURE_RELAXED = 2
COPY_ANY = 4  # the direction follows from the addresses
MAJOR, MINOR, INTEGRATED = 75, 76, 18  # attributes of a device
HOW_TO_INSTALL = "it comes with JetPack, with the CUDA toolkit, or by: pip install nvidia-cuda-runtime"


class CudaError(FacrtError):
    """A call that the CUDA runtime refused."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU."""

    capability: int  # SM number: 87 for 8.7
    is_integrated: bool  # shares its memory with the CPU
    free_bytes: int
    total_bytes: int


@cache
def library() -> ctypes.CDLL:
    """libcudart, its symbols visible to TensorRT-RTX, which expects them there.

    Raises:
        CudaError: there is none.
    """
    for path in (*_installed(), ctypes.util.find_library("cudart")):
        if path is not None:
            try:
                return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
            except OSError:
                continue
    raise CudaError(f"the CUDA runtime (libcudart) is not installed: {HOW_TO_INSTALL}")


def _installed() -> Iterator[Path]:
    """The copies in Python packages, newest first."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = [path for path in Path(folder).glob("**/libcudart.so.*") if path.suffix[1:].isdigit()]
        yield from sorted(found, key=lambda path: int(path.suffix[1:]), reverse=True)


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the runtime.

    Raises:
        CudaError: it did not return 0.
    """
    code = getattr(library(), name)(*arguments)
    if code:
        describe = library().cudaGetErrorString
        describe.restype = ctypes.c_char_p
        raise CudaError(f"{name}: {describe(code).decode()} (CUDA error {code})")


def device() -> Device:
    """The current GPU.

    Raises:
        CudaError: no runtime, no driver, or no GPU.
    """
    count = ctypes.c_int()
    try:
        call("cudaGetDeviceCount", ctypes.byref(count))
    except CudaError as error:
        raise CudaError(f"no NVIDIA GPU can be used here: {error}") from None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    major, minor, integrated = (_attribute(number) for number in (MAJOR, MINOR, INTEGRATED))
    return Device(10 * major + minor, bool(integrated), free.value, total.value)


def _attribute(number: int) -> int:
    value = ctypes.c_int()
    call("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
    return value.value


class Memory:
    """A piece of the device's memory, or pinned memory of the host; zeros at first."""

    def __init__(self, num_bytes: int, pinned: bool = False) -> None:
        pointer = ctypes.c_void_p()
        self.num_bytes = num_bytes
        self._free = "cudaFreeHost" if pinned else "cudaFree"
        size = ctypes.c_size_t(max(1, num_bytes))
        if pinned:
            call("cudaHostAlloc", ctypes.byref(pointer), size, 0)
        else:
            call("cudaMalloc", ctypes.byref(pointer), size)
        assert pointer.value is not None
        self.address = pointer.value
        if pinned:
            ctypes.memset(self.address, 0, num_bytes)
        else:
            call("cudaMemset", ctypes.c_void_p(self.address), 0, ctypes.c_size_t(num_bytes))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            getattr(library(), self._free)(ctypes.c_void_p(self.address))


def as_array(address: int, dtype: str, shape: Sequence[int]) -> NDArray:
    """Host memory at that address as an array; its owner must outlive it."""
    size = int(np.prod(shape))
    raw = (ctypes.c_byte * max(1, size * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memoryview(raw), np.dtype(dtype), size).reshape(shape)


class Stream:
    """A queue of work on the device."""

    def __init__(self) -> None:
        pointer = ctypes.c_void_p()
        call("cudaStreamCreateWithFlags", ctypes.byref(pointer), 1)  # does not wait for the default stream
        self.handle = pointer

    def copy(self, to: int, source: int, num_bytes: int) -> None:
        call(
            "cudaMemcpyAsync", ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(num_bytes), COPY_ANY,
            self.handle,
        )  # fmt: skip

    def wait(self) -> None:
        call("cudaStreamSynchronize", self.handle)

    @contextmanager
    def capture(self) -> Iterator[CudaGraph]:
        """What is queued inside becomes a graph instead of running."""
        recorded = CudaGraph()
        call("cudaStreamBeginCapture", self.handle, CAPTURE_RELAXED)
        try:
            yield recorded
        finally:
            graph = ctypes.c_void_p()
            call("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        call("cudaGraphInstantiate", ctypes.byref(recorded.executable), graph, ctypes.c_ulonglong(0))
        call("cudaGraphDestroy", graph)


class CudaGraph:
    """Recorded work, launched as one."""

    def __init__(self) -> None:
        self.executable = ctypes.c_void_p()

    def launch(self, stream: Stream) -> None:
        call("cudaGraphLaunch", self.executable, stream.handle)
