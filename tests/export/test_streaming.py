"""Weights that stay on disk while a graph is traced, as all large ones of a real checkpoint do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from facrt.export.pipeline import open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model import weights
from facrt.model.components import Cache, TensorSpec, components
from goldens import DETOKENIZER, LM, S3

LENGTHS = {"windows": 2, "rows": 100, "groups": 2, "positions": 3, "tokens": 6, "frames": 12}
LENGTHS |= {"capacity": 16, "new": 4, "past": 5}


def feed(spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
    shape = [axis if isinstance(axis, int) else LENGTHS[axis] for axis in spec.axes]
    if spec.name == "position":
        return np.zeros(shape, np.int64)
    if spec.dtype == "int64":
        return random.integers(1, 100, shape)
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "component", ["audio_encoder", "audio_grouping", "backbone", "flow_estimator", "speech_tokenizer"]
)
def test_streamed_weights_are_the_checkpoints(
    golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str, precision: str
) -> None:
    monkeypatch.setattr(weights, "LAZY_ELEMENTS", 2048)
    model = open_model(LM / "model", DETOKENIZER / "model", S3 / "model")
    row = components(model.config, Cache("static"))[component]
    assert any(id(p) in model.readers for p in model.graphs[component].parameters())
    write_graph(model, row, precision, TARGETS["cpu"], tmp_path / "streamed.onnx")
    random = np.random.default_rng(0)
    specs = [*row.inputs, *(pair.input for pair in row.states)]
    feeds = {spec.name: feed(spec, random) for spec in specs}
    outputs = [spec.name for spec in row.outputs]
    streamed = ort.InferenceSession(tmp_path / "streamed.onnx").run(outputs, feeds)
    whole = ort.InferenceSession(golden_bundle / f"{component}.onnx").run(outputs, feeds)
    for a, b in zip(streamed, whole, strict=True):
        error = np.linalg.norm((a - b).astype(np.float64)) / np.linalg.norm(b.astype(np.float64))
        assert error < {"fp32": 1e-6, "fp16": 1e-2}[precision]


def test_one_tensor_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LAZY_ELEMENTS", 2048)
    reads: list[str] = []
    read = weights.SafetensorsSource.read
    monkeypatch.setattr(weights.SafetensorsSource, "read", lambda self, name: reads.append(name) or read(self, name))
    model = open_model(LM / "model")
    opened = len(reads)
    row = components(model.config, Cache("static"))["speech_upsampling"]
    write_graph(model, row, "fp32", TARGETS["cpu"], tmp_path / "graph.onnx")
    assert set(reads[opened:]) == {"audio_invert_tower.pre_matching.weight"}
