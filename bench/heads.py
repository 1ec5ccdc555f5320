"""Random speech heads of the real size in every form that runs: native, ONNX Runtime, the PyTorch reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import torch
from facrt.export.native_head import write_native_head
from facrt.export.passes import fill
from facrt.export.quantized import Matrix, Reader, packed_product, quantize
from facrt.export.targets import TARGETS
from facrt.export.trace import DecoderGraph, trace
from facrt.model.components import Cache, Component, ModelConfig, components
from facrt.model.config import AudioEncoderConfig, ChatConfig, DecoderConfig
from facrt.model.settings import GenerationSettings
from facrt.model.speech_head import RefinementLoop, SpeechHead
from facrt.model.weights import LAZY_ELEMENTS
from facrt.quant.packing import PACKINGS
from facrt.quant.schemes import SCHEMES
from facrt.runtime import _native
from facrt.runtime.backend_ort import OrtGraph, StaticDecoder
from facrt.runtime.sampling import SpeechSampling
from facrt.runtime.speech_head import OnnxSpeechHead

WIDE, CODEBOOK, GROUP = 4096, 6565, 5
MAX_POSITIONS = 512
SAMPLING = GenerationSettings(repetition_penalty=1.2)


def real_config(num_layers: int) -> ChatConfig:
    """The real speech head's sizes; what does not matter here is small."""
    text = DecoderConfig(WIDE, 64, 1, 2, 2, 8, vocab_size=16)
    speech = DecoderConfig(1024, 3072, num_layers, num_heads=16, num_kv_heads=8, head_dim=128)
    audio = AudioEncoderConfig(8, 1, 1, 8)
    return ChatConfig(text, speech, audio, GROUP, CODEBOOK, 6561, 6562, 6563, 0, 1, 2, 3, (4,))


class RandomHead:
    """A head of random weights, bf16 numbers as the released ones are, made when read, the same for equal shapes."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        with torch.device("meta"):
            self.module = SpeechHead(config)
        self._made: dict[torch.Size, torch.Tensor] = {}
        shapes = {name: p.shape for name, p in self.module.named_parameters()}
        large = {name for name, shape in shapes.items() if shape.numel() > LAZY_ELEMENTS}
        state = {n: torch.zeros(1).expand(s) if n in large else self._read(s).clone() for n, s in shapes.items()}
        self.module.load_state_dict(state, assign=True)
        self.module.eval().requires_grad_(False)
        parameters = dict(self.module.named_parameters())
        self.readers = {id(parameters[n]): (lambda n=n: self._read(shapes[n])) for n in large}

    def _read(self, shape: torch.Size) -> torch.Tensor:
        if shape not in self._made:
            generator = torch.Generator().manual_seed(len(self._made))
            self._made[shape] = (
                torch.ones(shape)
                if len(shape) == 1
                else (torch.randn(shape, generator=generator) * shape[1] ** -0.5).bfloat16().float()
            )
        return self._made[shape]

    def loaded(self, dtype: torch.dtype) -> SpeechHead:
        """A copy with its weights in memory."""
        state = {n: self._read(p.shape).to(dtype, copy=True) for n, p in self.module.named_parameters()}
        with torch.device("meta"):
            head = SpeechHead(self._config)
        head.load_state_dict(state, assign=True)
        return head.eval().requires_grad_(False)


def matrix_shapes(config: ChatConfig) -> list[tuple[int, int, float]]:
    """Rows, columns and how often a sub-step reads each matrix: upsampling, input, output, head, those of a layer."""
    s, wide = config.speech, config.text.hidden_size
    heads = s.num_heads * s.head_dim
    layer = [
        (heads + 2 * s.num_kv_heads * s.head_dim, s.hidden_size), (s.hidden_size, heads),
        (s.intermediate_size, s.hidden_size), (s.intermediate_size, s.hidden_size),
        (s.hidden_size, s.intermediate_size),
    ]  # fmt: skip
    once = [(s.hidden_size, wide), (wide, s.hidden_size), (config.codebook_size, wide)]
    return [
        (config.group_size * wide, wide, 1 / config.group_size),
        *((rows, cols, 1.0) for rows, cols in once),
        *((rows, cols, float(s.num_layers)) for rows, cols in layer),
    ]


def weight_bytes_per_sub_step(config: ChatConfig, precision: str) -> float:
    return sum(PACKINGS[precision].matrix_bytes(r, c) * share for r, c, share in matrix_shapes(config))


def prefill_multiply_adds(config: ChatConfig, num_positions: int) -> float:
    """Of the matrices that run for every position; attention is not counted."""
    upsample, into, _output, _head, *layers = matrix_shapes(config)
    per_row = sum(rows * cols * share for rows, cols, share in (upsample, into, *layers))
    return per_row * config.group_size * num_positions


class Native:
    """One precision's file and loop, filled to any length."""

    def __init__(self, head: RandomHead, config: ChatConfig, precision: str, folder: Path, threads: int) -> None:
        self.path = folder / f"{precision}.bin"
        self.size_bytes = write_native_head(head.module, config, head.readers, precision, self.path)
        self.loop = self.open(threads)
        self.loop.read_weights()

    def open(self, threads: int, cache: str = "fp32") -> _native.SpeechHeadLoop:
        return _native.SpeechHeadLoop(self.path, num_threads=threads, max_positions=MAX_POSITIONS, cache=cache)

    def group(self, position: int, u: np.ndarray) -> None:
        run_group(self.loop, position, u)

    def fill(self, u: np.ndarray) -> None:
        run_prefill(self.loop, u)


def run_group(loop: _native.SpeechHeadLoop, position: int, u: np.ndarray) -> list[int]:
    sampling = SpeechSampling(SAMPLING)
    loop.truncate(position)
    return loop.group(u, sampling.sampler, **sampling.options)


def run_prefill(loop: _native.SpeechHeadLoop, u: np.ndarray) -> list[int]:
    sampling = SpeechSampling(SAMPLING)
    loop.reset()
    return loop.prefill(u, sampling.sampler, **sampling.options)


class TracedHead:
    """The head's graphs before their matrices are there, for every precision of ONNX Runtime."""

    def __init__(self, head: RandomHead, config: ChatConfig) -> None:
        table = components(ModelConfig(config), Cache(TARGETS["cpu"].cache))
        lengths = {"groups": 3, "positions": 3, "frames": 24, "rows": 1}
        self.config = config
        self.parts: dict[str, tuple[onnx_ir.Model, dict[str, Reader], Component]] = {}
        for name, module in (("speech_upsampling", head.module.upsample), ("speech_head", head.module)):
            component = table[name]
            traced = DecoderGraph(module, TARGETS["cpu"]) if component.states else module
            readers = {n: head.readers[id(p)] for n, p in traced.named_parameters() if id(p) in head.readers}
            self.parts[name] = (trace(traced, component, TARGETS["cpu"], lengths, set(readers)), readers, component)


class FileBackend:
    """What `OnnxSpeechHead` asks of a backend, over graphs in a folder; matrices in `precision`."""

    def __init__(self, traced: TracedHead, precision: str, folder: Path, threads: int) -> None:
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._loaded: dict[str, Any] = {}
        for name, (traced_graph, readers, component) in traced.parts.items():
            graph = traced_graph.clone()
            if precision == "fp32":
                fill(graph, readers)
            else:
                quantize(graph, {n: Matrix(SCHEMES[precision], r) for n, r in readers.items()}, packed_product)
            path = folder / f"{name}.onnx"
            onnx_ir.save(graph, path, external_data=f"{path.name}.data")
            self._loaded[name] = (ort.InferenceSession(path, self._options), component)
            for file in (path, folder / f"{path.name}.data"):
                file.unlink()

    def graph(self, component: str) -> OrtGraph:
        return OrtGraph(*self._loaded[component])

    def decoder(self, component: str, capacity: int) -> StaticDecoder:
        return StaticDecoder(*self._loaded[component], capacity)


class RandomTable:
    """Stands for the embedding table: a row costs what it costs there."""

    def __init__(self) -> None:
        self._rows = np.random.default_rng(0).standard_normal((CODEBOOK, WIDE)).astype(np.float32)

    def gather_into(self, ids: np.ndarray, out: np.ndarray) -> None:
        np.take(self._rows, ids, axis=0, out=out)


class Onnx:
    def __init__(self, traced: TracedHead, precision: str, folder: Path, threads: int) -> None:
        backend: Any = FileBackend(traced, precision, folder, threads)
        table: Any = RandomTable()
        self.head = OnnxSpeechHead(backend, table, traced.config, MAX_POSITIONS)

    def group(self, position: int, u: np.ndarray) -> None:
        self.head.truncate(position)
        self.head.group(u, SpeechSampling(SAMPLING))

    def fill(self, u: np.ndarray) -> None:
        self.head.reset()
        self.head.prefill(u, SpeechSampling(SAMPLING))


class Reference:
    def __init__(self, head: RandomHead, config: ChatConfig, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._loop = RefinementLoop(head.loaded(dtype), config)

    def group(self, position: int, u: np.ndarray) -> None:
        self._loop.attend.truncate(position * GROUP)
        with torch.inference_mode():
            self._loop.group(torch.from_numpy(u)[None].to(self._dtype), lambda logits, _: int(logits.argmax()))

    def fill(self, u: np.ndarray) -> None:
        """Random keys and values: a prompt takes minutes where the processor has no bfloat16 products."""
        attend, config = self._loop.attend, self._loop.attend.config
        attend.length = GROUP * len(u)
        for layer in range(config.num_layers):
            rows = torch.randn(attend.length, config.num_kv_heads, config.head_dim, dtype=self._dtype)
            attend._keys[layer] = attend._values[layer] = rows
