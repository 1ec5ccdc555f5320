"""Which attention form is fastest on ONNX Runtime's CPU: a few layers at the real speech head's width."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime as ort
import torch
from common import arguments, check, finish, interleaved_ms
from facrt.export.targets import TARGETS, Target
from facrt.export.trace import DecoderGraph, trace
from facrt.model.components import Cache, Component, TensorSpec, cache_states, position_inputs
from facrt.model.config import DecoderConfig
from facrt.model.decoder import Attend, Decoder
from facrt.runtime.backend_ort import PrefixDecoder, StaticDecoder

CONFIG = DecoderConfig(1024, 3072, num_layers=4, num_heads=16, num_kv_heads=8, head_dim=128)
CAPACITY = 2304
CPU = TARGETS["cpu"]
FORMS = {
    "decomposed": replace(CPU, opset=18, attention="Decomposed", cache="prefix"),
    "sdpa": replace(CPU, opset=23, attention="Sdpa", cache="prefix"),
    "scatter": replace(CPU, opset=24, attention="Scatter", cache="static"),
    "group_query": CPU,
}
assert CPU.attention == "GroupQuery"


class Layers(torch.nn.Module):
    """A decoder whose only output is its hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder(CONFIG)

    def forward(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:
        return self.decoder(x, attend)


def build(target: Target, layers: Layers, folder: Path, threads: int) -> StaticDecoder | PrefixDecoder:
    x = TensorSpec("x", "float32", ("new", CONFIG.hidden_size))
    inputs = (x, *position_inputs(target.cache))
    component = Component("layers", "", 0, inputs, (replace(x, name="y"),), cache_states(CONFIG, Cache(target.cache)))
    path = folder / f"{target.attention}.onnx"
    onnx_ir.save(trace(DecoderGraph(layers, target), component, target, {}), path, external_data=f"{path.name}.data")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    kind = StaticDecoder if target.cache == "static" else PrefixDecoder
    return kind(ort.InferenceSession(path, options), component, CAPACITY)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    layers = Layers().eval().requires_grad_(False)
    x = np.random.default_rng(0).standard_normal((500, CONFIG.hidden_size)).astype(np.float32)
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        decoders = {name: build(target, layers, Path(folder), options.threads) for name, target in FORMS.items()}

        def run(name: str, start: int, rows: np.ndarray) -> None:
            decoders[name].length = start
            decoders[name](rows)

        for length in (50, 500, 2000):
            steps = {name: (lambda name=name: run(name, length, x[:1])) for name in FORMS}  # noqa: B023
            for name, ms in interleaved_ms(steps, options.rounds).items():
                checks.append(check(f"{name}: step at {length} positions", ms, "ms"))
        prefills = {name: (lambda name=name: run(name, 0, x)) for name in FORMS}
        for name, ms in interleaved_ms(prefills, 5).items():
            checks.append(check(f"{name}: prefill of {len(x)} positions", ms, "ms"))
    finish({"layers": CONFIG.num_layers, "threads": options.threads, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
