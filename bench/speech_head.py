"""The speech head's refinement loop: native precisions beside ONNX Runtime, PyTorch and a plain read of its bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, check, finish, interleaved_ms, median, timed_ms
from facrt.export.native_head import write_native_head
from facrt.export.passes import fill
from facrt.export.targets import TARGETS
from facrt.export.trace import DecoderGraph, trace
from facrt.model.components import ModelConfig, components
from facrt.model.config import AudioEncoderConfig, ChatConfig, DecoderConfig
from facrt.model.settings import GenerationSettings
from facrt.model.speech_head import RefinementLoop, SpeechHead
from facrt.model.weights import LAZY_ELEMENTS
from facrt.quant.packing import PACKINGS
from facrt.runtime import _native
from facrt.runtime.backend_ort import OrtGraph, StaticDecoder
from facrt.runtime.sampling import SpeechSampling
from facrt.runtime.speech_head import OnnxSpeechHead

WIDE, CODEBOOK, GROUP = 4096, 6565, 5
PREFILL = 100  # backbone positions
SAMPLING = GenerationSettings(repetition_penalty=1.2)


def real_config(num_layers: int) -> ChatConfig:
    """The real speech head's sizes; what does not matter here is small."""
    text = DecoderConfig(WIDE, 64, 1, 2, 2, 8, vocab_size=16)
    speech = DecoderConfig(1024, 3072, num_layers, num_heads=16, num_kv_heads=8, head_dim=128)
    audio = AudioEncoderConfig(8, 1, 1, 8)
    return ChatConfig(text, speech, audio, GROUP, CODEBOOK, 6561, 6562, 6563, 0, 1, 2, 3, (4,))


class RandomHead:
    """A head of random weights that are made when they are read, the same for equal shapes."""

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
                torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * shape[1] ** -0.5
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
    """Rows, columns and how often a sub-step reads each matrix."""
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


def bytes_per_sub_step(config: ChatConfig, precision: str, length: int) -> float:
    """Weights of a sub-step, and `length` cached positions in float32."""
    s = config.speech
    weights = sum(PACKINGS[precision].matrix_bytes(r, c) * share for r, c, share in matrix_shapes(config))
    return weights + 2 * 4 * length * s.num_layers * s.num_kv_heads * s.head_dim


class Native:
    """One precision's file and loop, filled to any length."""

    def __init__(self, head: RandomHead, config: ChatConfig, precision: str, folder: Path, threads: int) -> None:
        path = folder / f"{precision}.bin"
        self.size_bytes = write_native_head(head.module, config, head.readers, precision, path)
        self.loop = _native.SpeechHeadLoop(path, num_threads=threads, max_positions=512)
        path.unlink()  # the mapping keeps it
        self.loop.read_weights()

    def group(self, position: int, u: np.ndarray) -> None:
        sampling = SpeechSampling(SAMPLING)
        self.loop.truncate(position)
        self.loop.group(u, sampling.sampler, **sampling.options)

    def fill(self, u: np.ndarray) -> None:
        sampling = SpeechSampling(SAMPLING)
        self.loop.reset()
        self.loop.prefill(u, sampling.sampler, **sampling.options)


class FileBackend:
    """What `OnnxSpeechHead` asks of a backend, over graphs in a folder."""

    def __init__(self, head: RandomHead, config: ChatConfig, folder: Path, threads: int) -> None:
        import onnx_ir
        import onnxruntime as ort

        table = components(ModelConfig(config), TARGETS["cpu"].cache)
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._loaded: dict[str, Any] = {}
        for name, module in (("speech_upsampling", head.module.upsample), ("speech_head", head.module)):
            component = table[name]
            traced = DecoderGraph(module, TARGETS["cpu"]) if component.states else module
            readers = {n: head.readers[id(p)] for n, p in traced.named_parameters() if id(p) in head.readers}
            lengths = {"groups": 3, "positions": 3, "frames": 24, "rows": 1}
            graph = trace(traced, component, TARGETS["cpu"], lengths, set(readers))
            fill(graph, readers)
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
    def __init__(self, head: RandomHead, config: ChatConfig, folder: Path, threads: int) -> None:
        backend: Any = FileBackend(head, config, folder, threads)
        self.head = OnnxSpeechHead(backend, RandomTable(), config, 512)  # type: ignore[arg-type]

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
        self._loop.attend.truncate(0)
        with torch.inference_mode():
            self._loop.prefill(torch.from_numpy(u).to(self._dtype), lambda logits, _: int(logits.argmax()))


def multiply_add_rate(threads: int) -> float:
    """int8 multiply-adds per second of all threads, in registers."""
    rounds = 2_000_000
    with ThreadPoolExecutor(threads) as pool:
        run: Callable[[], object] = lambda: list(pool.map(_native.int8_multiply_adds, [rounds] * threads))  # noqa: E731
        run()
        return threads * rounds * 1024 / (median([timed_ms(run) for _ in range(5)]) * 1e-3)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8", "int4_32", "int4_128"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[50, 500, 2000], help="positions in the cache")
    others = ["onnx", "torch_fp32", "torch_bf16"]
    parser.add_argument("--beside", nargs="*", default=["onnx", "torch_bf16"], choices=others)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = real_config(options.layers)
    head = RandomHead(config)
    u = np.random.default_rng(1).standard_normal((512, WIDE)).astype(np.float32)
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        native = {p: Native(head, config, p, Path(folder), options.threads) for p in options.precisions}
        forms: dict[str, Any] = {f"native {p}": n for p, n in native.items()}
        if "onnx" in options.beside:
            forms["onnx fp32"] = Onnx(head, config, Path(folder), options.threads)
        for name, dtype in (("torch_fp32", torch.float32), ("torch_bf16", torch.bfloat16)):
            if name in options.beside:
                forms[name.replace("_", " ")] = Reference(head, config, dtype)
        for length in options.lengths:
            position = length // GROUP
            calls: dict[str, Callable[[], object]] = {}
            for name, form in forms.items():
                form.fill(u[:position])
                calls[name] = lambda form=form: form.group(position, u[-1])  # noqa: B023
                if name.startswith("native"):
                    calls[f"sweep of {name}"] = form.loop.read_weights
            ms = interleaved_ms(calls, options.rounds)
            checks += step_checks(config, native, ms, length)
        checks += prefill_checks(config, forms, u[:PREFILL], options.threads)
    report = {"layers": options.layers, "threads": options.threads, "checks": checks}
    if native:
        report["isa"] = next(iter(native.values())).loop.isa
    finish(report, options.json)


def step_checks(
    config: ChatConfig, native: dict[str, Native], ms: dict[str, float], length: int
) -> list[dict[str, Any]]:
    checks = []
    step = {name: value / GROUP for name, value in ms.items() if not name.startswith("sweep")}
    for name, value in step.items():
        checks.append(check(f"KV {length}: {name}, sub-step", value, "ms"))
    for precision, form in native.items():
        wanted_bytes = bytes_per_sub_step(config, precision, length)
        sweep = ms[f"sweep of native {precision}"] * wanted_bytes / form.size_bytes
        limit = {50: 1.35, 500: 1.5}.get(length)
        ratio = step[f"native {precision}"] / sweep
        checks.append(check(f"KV {length}: native {precision} / read of its bytes", ratio, "ratio", limit))
        checks.append(check(f"KV {length}: read of native {precision}'s bytes", wanted_bytes / sweep / 1e6, "GB/s"))
    for other in ("onnx fp32", "torch fp32", "torch bf16"):
        checks += [
            check(f"KV {length}: {other} / native {p}", step[other] / step[f"native {p}"], "ratio")
            for p in native
            if other in step
        ]
    return checks


def prefill_checks(config: ChatConfig, forms: dict[str, Any], u: np.ndarray, threads: int) -> list[dict[str, Any]]:
    ms = interleaved_ms({name: (lambda form=form: form.fill(u)) for name, form in forms.items()}, 3)
    rate = multiply_add_rate(threads)
    rows = {(r, c): GROUP * len(u) * share for r, c, share in matrix_shapes(config)[:-8]}
    rows |= {(r, c): GROUP * len(u) * share for r, c, share in matrix_shapes(config)[-5:]}
    work = sum(r * c * n for (r, c), n in rows.items())
    checks = [check(f"prefill of {GROUP * len(u)} sub-positions: {name}", value, "ms") for name, value in ms.items()]
    for name, value in ms.items():
        if name in ("native int8", "native int4_32", "native int4_128"):
            checks.append(check(f"prefill, {name}: share of the int8 rate", work / value * 1e3 / rate, "ratio"))
        if name.startswith("native") and "onnx fp32" in ms:
            checks.append(check(f"prefill: onnx fp32 / {name}", ms["onnx fp32"] / value, "ratio"))
    checks.append(check("int8 multiply-adds in registers", rate * 1e-9, "10^9/s"))
    return checks


if __name__ == "__main__":
    main()
