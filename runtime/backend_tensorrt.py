"""TensorRT and TensorRT-RTX: plans as engines, buffers and bindings made once, caches in the GPU's memory.

Never run on a GPU so far: docs/TENSORRT.md says what is tested and how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, RequestError
from ..model.components import PREFILL_ROWS, STEP_ROWS, Component, TensorSpec
from . import cuda
from .backend import Array, DecoderGraph, Graph
from .backend_ort import OrtBackend
from .bundle import Bundle
from .trt_library import deserialize, dtype_names, open_library, refuse_foreign

SOUND = ("flow_front", "flow_estimator", "vocoder")  # run beside the next step, on a stream of their own
STEP, PREFILL = 0, 1  # a decoder's profiles, in the table's order
ALIGNMENT = 256


class TensorRtBackend:
    """Engines of one bundle on the current GPU; what has no plan runs in ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle, num_threads: int) -> None:
        self._bundle = bundle
        self._num_threads = num_threads
        self._trt, _ = open_plans(bundle)
        self.stream, self._sound = cuda.Stream(), cuda.Stream()

    def graph(self, component: str) -> Graph:
        if component not in self._bundle.manifest.plans:
            return OrtBackend(self._bundle, self._num_threads).graph(component)
        stream = self._sound if component in SOUND else self.stream
        return TensorRtGraph(self._trt, self.engine(component), self._bundle.components[component], stream)

    def decoder(self, component: str, capacity: int) -> DecoderGraph:
        engine, row = self.engine(component), self._bundle.components[component]
        kind = StaticDecoder if self._bundle.manifest.cache == "static" else PrefixDecoder
        return kind(self._trt, engine, row, capacity, self.stream)

    def engine(self, component: str) -> Any:
        """The component's engine, its tensors compared with the table."""
        path = self._bundle.plan_path(component)
        engine = deserialize(self._trt, path)
        faults = differences(self._trt, engine, self._bundle.components[component])
        if faults:
            raise BundleError(f"{path} is not of this bundle ({'; '.join(faults)}); run facrt build {path.parent}")
        return engine


def open_plans(bundle: Bundle) -> tuple[Any, cuda.Device]:
    """The library that a bundle's plans need, and the GPU; everything about them that can be judged is judged.

    Raises:
        BundleError: a plan was made by another version, or for other GPUs.
        RequestError: there are no plans, the library is absent, or there is no GPU.
    """
    manifest, folder = bundle.manifest, bundle.folder
    instead = "its graphs run on the CPU with --backend onnx"
    if not manifest.plans:
        raise RequestError(
            f"{folder} is for {manifest.target} and holds no plans: run facrt build {folder} on the device; {instead}"
        )
    trt = open_library(next(iter(manifest.plans.values())).library)
    for name, plan in manifest.plans.items():
        refuse_foreign(bundle.plan_path(name), plan, trt.__version__, None)
    try:
        device = cuda.device()
    except cuda.CudaError as error:
        raise RequestError(f"{error}; {instead}") from None
    for name, plan in manifest.plans.items():
        refuse_foreign(bundle.plan_path(name), plan, trt.__version__, device.capability)
    return trt, device


def differences(trt: Any, engine: Any, component: Component) -> list[str]:
    """Where an engine's bindings or profiles are not the table's."""
    kinds = dtype_names(trt)
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    wanted = {spec.name: spec for spec in (*component.all_inputs, *component.all_outputs)}
    faults = [f"{name} is no tensor of {component.name}" for name in names if name not in wanted]
    faults += [f"{name} is missing" for name in wanted if name not in names]
    for name in set(names) & set(wanted):
        dtype = kinds.get(engine.get_tensor_dtype(name), "?")
        if dtype != wanted[name].dtype:
            faults.append(f"{name} is {dtype}")
    if faults:
        return faults
    for spec in component.all_inputs:
        for index, profile in enumerate(component.profiles):
            found = [tuple(shape) for shape in engine.get_tensor_profile_shape(spec.name, index)]
            if found != [_shape(spec, profile, k) for k in range(3)]:
                faults.append(f"profile {index} of {spec.name} is {found}")
    return faults


def _shape(spec: TensorSpec, profile: Mapping[str, tuple[int, int, int]], which: int) -> tuple[int, ...]:
    return tuple(profile[axis][which] if isinstance(axis, str) else axis for axis in spec.axes)


class Buffer:
    """A tensor's place on the device and its pinned twin on the host; grows, never shrinks."""

    def __init__(self) -> None:
        self._device, self._host = cuda.Memory(0), cuda.Memory(0, pinned=True)

    @property
    def address(self) -> int:
        return self._device.address

    def reserve(self, num_bytes: int) -> int:
        if num_bytes > self._device.num_bytes:
            size = -(-num_bytes // ALIGNMENT) * ALIGNMENT
            self._device, self._host = cuda.Memory(size), cuda.Memory(size, pinned=True)
        return self._device.address

    def view(self, shape: Sequence[int], dtype: str) -> NDArray:
        """The pinned twin as an array; the next call overwrites it."""
        return cuda.as_array(self._host.address, dtype, shape)

    def upload(self, array: NDArray, stream: cuda.Stream) -> None:
        self.reserve(array.nbytes)
        self.view(array.shape, array.dtype.name)[...] = array
        stream.copy(self.address, self._host.address, array.nbytes)

    def download(self, shape: Sequence[int], dtype: str, stream: cuda.Stream) -> NDArray:
        """Queues the copy; the array is there after `stream.wait`."""
        stream.copy(self._host.address, self.address, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return self.view(shape, dtype)


def make_allocator(trt: Any, buffer: Buffer) -> Any:
    """An output allocator over a buffer: TensorRT says the shape when it knows it."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return buffer.reserve(size)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return buffer.reserve(size)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


class TensorRtGraph:
    """A component whose state, if it has one, its caller keeps: arrays in, arrays out."""

    def __init__(self, trt: Any, engine: Any, component: Component, stream: cuda.Stream) -> None:
        self._engine = engine  # must outlive its context
        self._context = engine.create_execution_context()
        self._component, self._stream = component, stream
        self._buffers = {spec.name: Buffer() for spec in (*component.all_inputs, *component.all_outputs)}
        self._allocators = {s.name: make_allocator(trt, self._buffers[s.name]) for s in component.all_outputs}
        for name, allocator in self._allocators.items():
            self._context.set_output_allocator(name, allocator)

    def __call__(self, *inputs: NDArray) -> tuple[NDArray, ...]:
        for spec, array in zip(self._component.all_inputs, inputs, strict=True):
            buffer = self._buffers[spec.name]
            buffer.upload(np.ascontiguousarray(array, spec.dtype), self._stream)
            self._context.set_input_shape(spec.name, array.shape)
            self._context.set_tensor_address(spec.name, buffer.address)
        run(self._context, self._component.name, self._stream)
        self._stream.wait()
        specs = self._component.all_outputs
        views = [self._buffers[s.name].download(self._allocators[s.name].shape, s.dtype, self._stream) for s in specs]
        self._stream.wait()
        return tuple(view.copy() for view in views)


def run(context: Any, name: str, stream: cuda.Stream) -> None:
    """Queues one execution."""
    if not context.execute_async_v3(stream.handle.value or 0):
        raise RuntimeError(f"TensorRT could not run {name}")


class _Decoder:
    """A decoder with its caches on the device; one context for steps, one for prefill."""

    def __init__(self, trt: Any, engine: Any, component: Component, capacity: int, stream: cuda.Stream) -> None:
        self._engine, self.component, self.stream = engine, component, stream
        self.length, self.capacity = 0, capacity
        self.contexts = [engine.create_execution_context() for _ in component.profiles]
        for index, context in enumerate(self.contexts):
            context.set_optimization_profile_async(index, stream.handle.value or 0)
        stream.wait()
        self.x, self.position = Buffer(), Buffer()
        self.outputs = {spec.name: Buffer() for spec in component.outputs}
        self.caches = [cuda.Memory(self._cache_bytes(pair.input)) for pair in component.states]

    def __call__(self, x: Array) -> tuple[Array, ...]:
        if self.length + len(x) > self.capacity:
            raise RequestError(
                f"{self.component.name}: {self.length + len(x)} positions do not fit the cache of {self.capacity}; "
                "load the bundle with a larger max_positions"
            )
        most = self.component.profiles[PREFILL]["new"][2]
        chunks = [self._run(x[i : i + most]) for i in range(0, len(x), most)]
        if len(chunks) == 1:
            return chunks[0]
        joined = zip(self.component.outputs, zip(*chunks, strict=True), strict=True)
        return tuple(np.concatenate(parts) if "new" in spec.axes else parts[-1] for spec, parts in joined)

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def _run(self, x: Array) -> tuple[Array, ...]:
        self.x.upload(np.ascontiguousarray(x, np.float32), self.stream)
        sizes = {s.name: [len(x) if a == "new" else int(a) for a in s.axes] for s in self.component.outputs}
        for name, shape in sizes.items():
            self.outputs[name].reserve(int(np.prod(shape)) * 4)
        self.launch(len(x), self.x.address, {name: buffer.address for name, buffer in self.outputs.items()})
        views = [self.outputs[name].download(shape, "float32", self.stream) for name, shape in sizes.items()]
        self.stream.wait()
        self.length += len(x)
        return tuple(views if len(x) == 1 else (view.copy() for view in views))

    def launch(self, rows: int, x: int, outputs: Mapping[str, int], position: int | None = None) -> None:
        """Queues `rows` new positions at `length`.

        Args:
            x, outputs: device addresses.
            position: device address of where the rows go, for whoever keeps it there; default: uploaded from `length`.
        """
        context = self.contexts[STEP if rows <= STEP_ROWS else PREFILL]
        self._bind(context, rows, position)
        first = self.component.inputs[0]
        context.set_input_shape(first.name, (rows, *first.axes[1:]))
        context.set_tensor_address(first.name, x)
        for name, address in outputs.items():
            context.set_tensor_address(name, address)
        run(context, self.component.name, self.stream)

    def _cache_bytes(self, spec: TensorSpec) -> int:
        raise NotImplementedError

    def _bind(self, context: Any, rows: int, position: int | None) -> None:
        raise NotImplementedError


class StaticDecoder(_Decoder):
    """Caches of one length for good, updated in place; they are bound once, so a CUDA graph can hold a step."""

    def __init__(self, trt: Any, engine: Any, component: Component, capacity: int, stream: cuda.Stream) -> None:
        super().__init__(trt, engine, component, capacity, stream)
        for context in self.contexts:
            for pair, cache in zip(component.states, self.caches, strict=True):
                context.set_tensor_address(pair.input.name, cache.address)
                context.set_tensor_address(pair.output.name, cache.address)

    def _cache_bytes(self, spec: TensorSpec) -> int:
        return int(np.prod([int(axis) for axis in spec.axes])) * np.dtype(spec.dtype).itemsize

    def _bind(self, context: Any, rows: int, position: int | None) -> None:
        if position is None:
            self.position.upload(np.array([self.length], np.int64), self.stream)
            position = self.position.address
        context.set_tensor_address(self.component.inputs[1].name, position)


class PrefixDecoder(_Decoder):
    """Caches [capacity, num_kv_heads, head_dim]: rows so far are bound as input, the place behind them as output."""

    def _cache_bytes(self, spec: TensorSpec) -> int:
        return self.capacity * self._row_bytes(spec)

    @staticmethod
    def _row_bytes(spec: TensorSpec) -> int:
        return int(np.prod([int(axis) for axis in spec.axes[1:]])) * np.dtype(spec.dtype).itemsize

    def _bind(self, context: Any, rows: int, position: int | None) -> None:
        for pair, cache in zip(self.component.states, self.caches, strict=True):
            context.set_input_shape(pair.input.name, (self.length, *pair.input.axes[1:]))
            context.set_tensor_address(pair.input.name, cache.address)
            behind = cache.address + self.length * self._row_bytes(pair.input)
            context.set_tensor_address(pair.output.name, behind)


assert STEP_ROWS < PREFILL_ROWS
