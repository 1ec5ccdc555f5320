"""Quantized bundles: integers where the recipe says, errors within bounds, the report of `facrt verify`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import soundfile
from facrt.export.calibration import calibrate
from facrt.export.cost import packed_bytes_per_weight, spectral_distance_db
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, export, open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model.components import Cache, components
from facrt.quant.recipe import HIGH_PRECISION
from facrt.runtime.bundle import Manifest, open_bundle
from facrt.runtime.engine import load
from goldens import DETOKENIZER, LM

LOGITS_LIMIT = 0.05  # relative L2, INT8 weight-only


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    request = ExportRequest(str(LM / "model"), out, precision="int8", detokenizer=DETOKENIZER / "model")
    return out, export(request)


def graph(bundle: Path, component: str) -> onnx.GraphProto:
    return onnx.load(bundle / f"{component}.onnx").graph


def test_int8_is_within_its_bounds(int8: tuple[Path, Manifest]) -> None:
    rows = {row["stage"]: row for row in int8[1].parity["rows"]}
    for stage in ("text_logits", "native_text_logits", "speech_logits", "native_speech_logits"):
        assert 0 < rows[stage]["relative_error"] < LOGITS_LIMIT, stage
    assert 0 < rows["flow_estimator"]["relative_error"] < LOGITS_LIMIT


def test_integers_are_where_the_recipe_says(int8: tuple[Path, Manifest]) -> None:
    folder, manifest = int8
    for component, scheme in manifest.recipe.items():
        products = [n for n in graph(folder, component).node if n.op_type == "MatMulNBits"]
        assert bool(products) == (scheme == "int8"), component
        if products:
            assert packed_bytes_per_weight(folder / f"{component}.onnx") < 1.3  # tiny matrices are padded
    names = {t.name for t in graph(folder, "backbone").initializer if t.data_type == onnx.TensorProto.UINT8}
    assert {f"module.decoder.layers.0.{m}.weight.packed" for m in ("qkv", "out", "mlp.gate_up", "mlp.down")} < names
    assert "module.head.weight.packed" in names
    engine = load(folder, max_positions=32)
    assert engine.backbone.loop.format == engine.speech_head.loop.format == "int8"
    assert {t.dtype for t in manifest.tables.values()} == {"float16", "float32"}


def test_what_must_stay_precise_does(int8: tuple[Path, Manifest]) -> None:
    folder, _ = int8
    integers = {t.name for t in graph(folder, "flow_estimator").initializer if t.data_type == onnx.TensorProto.UINT8}
    assert any(".qkv." in name for name in integers)
    assert not [name for name in integers if name.startswith(("input", "output", "time")) or "modulation" in name]
    source = graph(folder, "vocoder_source").initializer
    assert not [t for t in source if t.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)]


def test_the_report(int8: tuple[Path, Manifest], facrt: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "question.wav", question(1.0), 16_000)
    report = facrt.json(
        "verify", int8[0], "--source", LM / "model", "--detokenizer", DETOKENIZER / "model",
        "--questions", tmp_path / "question.wav", "--chart", tmp_path / "cost.png",
    )["quantization"]  # fmt: skip
    assert (tmp_path / "cost.png").read_bytes()[:4] == b"\x89PNG"
    assert set(report["components"]) == set(int8[1].recipe)
    assert report["components"]["backbone"]["compression"] > 1.2  # tiny: much of it is graph
    layers = {name: [r["sqnr_db"] for r in report["layers"] if r["component"] == name] for name in report["components"]}
    for name in ("audio_encoder", "backbone", "speech_head", "flow_estimator"):
        assert layers[name], name
        assert all(25 < sqnr < 80 for sqnr in layers[name]), (name, layers[name])
    for kind in ("text", "speech"):
        assert 0.5 < report[f"{kind}_agreement"] <= 1
        assert report[f"num_{kind}_tokens"] >= 8
    assert 0 < report["mel_relative"] < 0.1
    assert 0 < report["spectral_distance_db"] < 30  # random weights make no steady pitch


def test_a_quantized_bundle_answers(int8: tuple[Path, Manifest]) -> None:
    reply = load(int8[0], max_positions=256).respond(question(1.0), greedy=True, max_steps=4)
    assert reply.audio is not None
    assert np.isfinite(reply.audio).all()


SCHEMES = {"int4_128": 0.7, "int4_32": 0.7, "awq_32": 0.7, "w8a8": 0.4}  # relative error; random weights amplify it


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_runs_as_a_graph(
    scheme: str, golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = calibrate(open_model(LM / "model"), {"speech_head": scheme}, [question(1.0)], lambda *_: None)
    row = components(model.config, Cache("static"))["speech_head"]
    write_graph(model, row, scheme, TARGETS["cpu"], tmp_path / "head.onnx")
    wide = model.config.chat.text.hidden_size
    feeds = {"z": np.random.default_rng(0).standard_normal((6, wide)).astype(np.float32), "position": np.zeros(1, int)}
    for pair in row.states:
        feeds[pair.input.name] = np.zeros([6 if a == "capacity" else a for a in pair.input.axes], np.float32)
    found, wanted = (
        ort.InferenceSession(path).run(["logits"], feeds)[0]
        for path in (tmp_path / "head.onnx", golden_bundle / "speech_head.onnx")
    )
    assert 0 < np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < SCHEMES[scheme]


def test_static_activations_in_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = {"flow_estimator": "w8a8"}
    model = calibrate(open_model(LM / "model", DETOKENIZER / "model"), recipe, [question(1.0)], lambda *_: None)
    row = components(model.config, Cache("static"))["flow_estimator"]
    write_graph(model, row, "w8a8", TARGETS["cpu"], tmp_path / "flow.onnx")
    names = [value.name for value in onnx.load(tmp_path / "flow.onnx").graph.initializer]
    kept = set(HIGH_PRECISION["flow_estimator"])
    rounded = [name for name in model.input_scales if not set(name.split("/")[1].split(".")) & kept]
    assert rounded
    assert sum(name.endswith(".input_scale") for name in names) == len(rounded)


def test_no_chart_of_what_is_not_quantized(golden_bundle: Path, facrt: Any, tmp_path: Path) -> None:
    line = facrt.refusal("verify", golden_bundle, "--source", LM / "model", "--chart", tmp_path / "cost.png")
    assert "is not quantized: there is nothing to draw" in line


def test_a_damaged_quantized_bundle_is_refused(int8: tuple[Path, Manifest], facrt: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int8[0], tmp_path / "bundle"))
    path = copy / "backbone.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    assert "export the bundle again" in facrt.refusal("inspect", copy)
    assert open_bundle(int8[0]).manifest.recipe["backbone"] == "int8"


def test_the_spectral_distance() -> None:
    wave = question(1.0, 24_000)
    assert spectral_distance_db(wave, wave) == 0
    assert abs(spectral_distance_db(wave / 2, wave) - 6.02) < 0.1
