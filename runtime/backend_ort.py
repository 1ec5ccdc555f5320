"""ONNX Runtime, on the CPU or with CUDA: components as sessions, decoders with bindings that are made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..errors import BundleError, RequestError
from ..model.components import PREFILL_ROWS, Component, TensorSpec
from .backend import Array, DecoderGraph
from .bundle import Bundle

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtBackend:
    """Sessions of one bundle, sharing one count of threads."""

    def __init__(self, bundle: Bundle, num_threads: int, device: str = "cpu") -> None:
        # device: "cpu", or "cuda", where caches lie in the GPU's memory
        self._bundle = bundle
        self._num_threads = num_threads
        self.device = device
        self._provider = PROVIDERS[device]
        if self._provider not in ort.get_available_providers():
            raise RequestError(
                f"ONNX Runtime {ort.__version__} has no {self._provider} here: pip install onnxruntime-gpu"
            )

    def graph(self, component: str) -> OrtGraph:
        return OrtGraph(self._session(component), self._bundle.components[component])

    def decoder(self, component: str, capacity: int) -> DecoderGraph:
        session, row = self._session(component), self._bundle.components[component]
        if self._bundle.manifest.cache == "prefix":
            if self.device != "cpu":
                raise RequestError(f"backend {self.device} runs static caches alone; this bundle has growing ones")
            return PrefixDecoder(session, row, capacity)
        return StaticDecoder(session, row, capacity, self.device)

    def _session(self, component: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # a turn alternates between sessions: one that spins after its run takes the core from the next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if self._num_threads > 1 else "1")
        path = self._bundle.graph_path(component)
        try:
            session = ort.InferenceSession(path, options, providers=[self._provider])
        except Exception as error:  # onnxruntime raises many kinds
            raise BundleError(f"{path} does not load in ONNX Runtime {ort.__version__}: {error}") from None
        _check_signature(session, self._bundle.components[component], str(path))
        return session


def _check_signature(session: ort.InferenceSession, component: Component, where: str) -> None:
    inputs = [*component.inputs, *(pair.input for pair in component.states)]
    outputs = [*component.outputs, *(pair.output for pair in component.states)]
    for specs, found in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        fixed = {tensor.name: tensor.shape for tensor in found}
        for spec in specs:
            shape = fixed.get(spec.name)
            if shape is None or len(shape) != len(spec.axes):
                raise BundleError(f"{where} has no tensor {spec.name} {list(spec.axes)}; export the bundle again")
            for axis, size in zip(spec.axes, shape, strict=True):
                if isinstance(axis, int) and isinstance(size, int) and axis != size:
                    raise BundleError(f"{where}: {spec.name} is {shape}, {list(spec.axes)} is needed; export it again")


class OrtGraph:
    """A component whose state, if it has one, its caller keeps."""

    def __init__(self, session: ort.InferenceSession, component: Component) -> None:
        self._session = session
        self._inputs = [spec.name for spec in (*component.inputs, *(pair.input for pair in component.states))]
        self._outputs = [spec.name for spec in (*component.outputs, *(pair.output for pair in component.states))]

    def __call__(self, *inputs: NDArray) -> tuple[NDArray, ...]:
        feeds = dict(zip(self._inputs, inputs, strict=True))
        return tuple(self._session.run(self._outputs, feeds))


class _OrtDecoder:
    def __init__(self, session: ort.InferenceSession, component: Component, capacity: int) -> None:
        self.length = 0
        self.capacity = capacity
        self.num_bindings = 0  # sets of bindings made so far, for the benchmark
        self._session = session
        self._component = component
        self._width = int(component.inputs[0].axes[1])

    def __call__(self, x: Array) -> tuple[Array, ...]:
        if self.length + len(x) > self.capacity:
            raise RequestError(
                f"{self._component.name}: {self.length + len(x)} positions do not fit the cache of {self.capacity}; "
                "load the bundle with a larger max_positions"
            )
        if len(x) == 1:
            return self._step(x)
        chunks = [self._run(x[i : i + PREFILL_ROWS]) for i in range(0, len(x), PREFILL_ROWS)]
        joined = zip(self._component.outputs, zip(*chunks, strict=True), strict=True)
        return tuple(np.concatenate(parts) if "new" in spec.axes else parts[-1] for spec, parts in joined)

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def _step(self, x: Array) -> tuple[Array, ...]:
        raise NotImplementedError

    def _run(self, x: Array) -> tuple[Array, ...]:
        raise NotImplementedError

    def _new_outputs(self, num_new: int) -> tuple[Array, ...]:
        def shape(spec: TensorSpec) -> list[int]:
            return [num_new if axis == "new" else int(axis) for axis in spec.axes]

        return tuple(np.empty(shape(spec), np.float32) for spec in self._component.outputs)


class StaticDecoder(_OrtDecoder):
    """Caches of full capacity, updated in place; a step's bindings are made once."""

    def __init__(self, session: ort.InferenceSession, component: Component, capacity: int, device: str = "cpu") -> None:
        super().__init__(session, component, capacity)
        # zeros are mapped by the system at first touch: capacity costs nothing before it is used
        self._caches = [
            ort.OrtValue.ortvalue_from_numpy(
                np.zeros([capacity if a == "capacity" else int(a) for a in pair.input.axes], pair.input.dtype), device
            )
            for pair in component.states
        ]
        self._position = np.zeros(1, np.int64)
        self._step_input = np.zeros((1, self._width), np.float32)
        self._step_outputs = self._new_outputs(1)
        self._step_binding = self._bind(self._step_input, self._step_outputs)

    def _bind(self, x: Array, outputs: Sequence[Array]) -> ort.IOBinding:
        self.num_bindings += 1
        binding = self._session.io_binding()
        first, position = self._component.inputs
        _bind_input(binding, first.name, x)
        _bind_input(binding, position.name, self._position)
        for spec, array in zip(self._component.outputs, outputs, strict=True):
            _bind_output(binding, spec.name, array)
        for pair, cache in zip(self._component.states, self._caches, strict=True):
            binding.bind_ortvalue_input(pair.input.name, cache)
            binding.bind_ortvalue_output(pair.output.name, cache)
        return binding

    def _step(self, x: Array) -> tuple[Array, ...]:
        self._step_input[:] = x
        self._position[0] = self.length
        self._session.run_with_iobinding(self._step_binding)
        self.length += 1
        return self._step_outputs

    def _run(self, x: Array) -> tuple[Array, ...]:
        outputs = self._new_outputs(len(x))
        x = np.ascontiguousarray(x, np.float32)
        self._position[0] = self.length
        self._session.run_with_iobinding(self._bind(x, outputs))
        self.length += len(x)
        return outputs


class PrefixDecoder(_OrtDecoder):
    """Caches [capacity, num_kv_heads, head_dim]: rows so far are bound as input, the place behind them as output.

    Nothing is copied, but the bound shape grows with every step, so each step binds anew.
    """

    def __init__(self, session: ort.InferenceSession, component: Component, capacity: int) -> None:
        super().__init__(session, component, capacity)
        self._caches = [
            np.zeros([capacity, *(int(a) for a in pair.input.axes[1:])], pair.input.dtype) for pair in component.states
        ]

    def _step(self, x: Array) -> tuple[Array, ...]:
        return self._run(x)

    def _run(self, x: Array) -> tuple[Array, ...]:
        self.num_bindings += 1
        binding = self._session.io_binding()
        x = np.ascontiguousarray(x, np.float32)
        _bind_input(binding, self._component.inputs[0].name, x)
        outputs = self._new_outputs(len(x))
        for spec, array in zip(self._component.outputs, outputs, strict=True):
            _bind_output(binding, spec.name, array)
        start, end = self.length, self.length + len(x)
        for pair, cache in zip(self._component.states, self._caches, strict=True):
            _bind_input(binding, pair.input.name, cache[:start])
            _bind_output(binding, pair.output.name, cache[start:end])
        self._session.run_with_iobinding(binding)
        self.length = end
        return outputs


def _bind_input(binding: ort.IOBinding, name: str, array: NDArray) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: ort.IOBinding, name: str, array: NDArray) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
