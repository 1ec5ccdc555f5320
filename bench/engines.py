"""TensorRT-RTX plans without a GPU: the real speech head in every scheme."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import arguments, check, finish
from facrt.export.build import FP8_SM, estimated_bytes
from facrt.export.compile import Job, compile_apart, graph_bytes, profiles_of
from facrt.export.pipeline import OpenModel, open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model.checkpoint import chat_layout
from facrt.model.components import Component, components
from facrt.model.config_files import read_chat_config
from facrt.model.random_checkpoint import SPECIALS, SameStep, byte_tokenizer, random_tensors
from make_checkpoint import config
from safetensors.torch import save_file

RTX = TARGETS["rtx"]
LARGEST = {"fp16": 1.15, "int8": 1.15, "w8a8": 1.15, "fp8": 1.15, "int4_128": 1.2}  # plan over graph
POSITIONS = 512


def compile_one(model: OpenModel, component: Component, scheme: str, folder: Path) -> dict[str, Any]:
    """Writes one graph and compiles it for all GPUs of the target; figures of both files and of the compiler."""
    graph = folder / f"{component.name}.{scheme}.onnx"
    write_graph(model, component, scheme, RTX, graph)
    assert RTX.build is not None
    capabilities = [sm for sm in RTX.build.capabilities if scheme != "fp8" or sm >= FP8_SM]
    job = Job("tensorrt_rtx", str(graph), f"{graph}.plan", profiles_of(component), capabilities)
    size = graph_bytes(graph)
    done = compile_apart(job, component)
    for path in folder.glob(f"{graph.name}*"):
        path.unlink()
    return {
        "component": component.name, "scheme": scheme, "seconds": done.seconds, "graph_mb": size / 1e6,
        "plan_mb": done.plan_bytes / 1e6, "peak_gib": done.peak_bytes / 2**30, "version": done.version,
        "capabilities": capabilities, "estimated_gib": estimated_bytes({component.name: size})[1] / 2**30,
    }  # fmt: skip


def real_head(folder: Path, layers: int) -> OpenModel:
    """A checkpoint whose speech head has the real shape, and little else."""
    raw = config(1, layers, 1)
    raw["text_config"] |= {"vocab_size": 270, "intermediate_size": 256}
    raw["audio_config"] |= {"encoder_ffn_dim": 128, "d_model": 128, "encoder_attention_heads": 2}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    ids = {token: 256 + i for i, token in enumerate(SPECIALS)}
    byte_tokenizer(ids).save(str(folder / "tokenizer.json"))
    tensors = random_tensors(chat_layout(read_chat_config(folder)), torch.Generator().manual_seed(0))
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return replace(open_model(folder), input_scales=SameStep())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--schemes", nargs="+", default=list(LARGEST), choices=list(LARGEST))
    parser.add_argument("--layers", type=int, default=28, help="of the speech head")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as raw:
        folder = Path(raw)
        model = real_head(folder / "checkpoint", options.layers)
        head = components(model.config, RTX.keep(POSITIONS))["speech_head"]
        rows = [compile_one(model, head, scheme, folder) for scheme in options.schemes]
    checks = []
    for row in rows:
        name, scheme = f"speech head, {row['scheme']}", row["scheme"]
        checks += [
            check(f"{name}: compiling", row["seconds"], "s"),
            check(f"{name}: plan over graph", row["plan_mb"] / row["graph_mb"], "x", LARGEST[scheme]),
            check(f"{name}: plan", row["plan_mb"], "MB"),
            check(f"{name}: peak memory of the compiler", row["peak_gib"], "GiB", row["estimated_gib"]),
        ]
    finish({"layers": options.layers, "rows": rows, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
