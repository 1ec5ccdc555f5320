"""INT8 caches of the graphs: calibrated, close to float ones, cut anywhere, a quarter of the memory; and compiled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from decoding import in_pieces, run_turn
from facrt.export import calibration
from facrt.export.calibration import CACHES, calibrate
from facrt.export.parity import question
from facrt.export.pipeline import OpenModel, open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model.components import Cache, components
from facrt.model.settings import GenerationSettings
from facrt.quant.folds import Fold
from facrt.quant.schemes import Scheme
from facrt.quant.search import Statistics
from facrt.runtime.bundle import hash_files, open_bundle
from facrt.runtime.engine import Engine, load
from facrt.runtime.prompt import Message
from facrt.runtime.sampling import SpeechSampling
from goldens import LM, expected, lm_params, waveforms
from small import compiled

QUESTIONS = [question(1.0), waveforms("u2p0")[0].astype(np.float32) / 32768]
FLOATS = {"backbone": "fp32", "speech_head": "fp32"}
TARGET_ROWS = {name: TARGETS[name].with_cache("int8") for name in ("cpu", "orin-jp6")}
LIMIT = 0.05  # relative error of logits; random weights


def calibrated(recipe: dict[str, str]) -> OpenModel:
    return calibrate(open_model(LM / "model"), recipe, QUESTIONS, lambda *_: None, has_int8_cache=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return calibrated(FLOATS)


@pytest.fixture(scope="module", params=list(TARGET_ROWS))
def engine(
    request: pytest.FixtureRequest, model: OpenModel, golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """The golden bundle with the decoders' graphs over INT8 caches, on ONNX Runtime."""
    target = TARGET_ROWS[request.param]
    folder = Path(shutil.copytree(golden_bundle, tmp_path_factory.mktemp("int8") / "bundle"))
    manifest = open_bundle(folder, check_hashes=False).manifest
    table = components(model.config, Cache(target.cache, target.cache_dtype))
    for name in CACHES:
        scheme = "fp32" if request.param == "cpu" else "fp16"
        write_graph(model, table[name], scheme, target, folder / f"{name}.onnx")
    changes = {"attention": target.attention, "cache": target.cache, "cache_dtype": target.cache_dtype}
    replace(manifest, **changes, files=hash_files(folder, manifest.files)).write(folder)
    return load(folder, max_positions=128, backbone="onnx", speech_head="onnx")


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_the_caches_are_int8(engine: Engine) -> None:
    for name in CACHES:
        graph = onnx.load(engine.bundle.graph_path(name)).graph
        kept = [value.type.tensor_type.elem_type for value in graph.input if value.name.startswith("past_")]
        assert kept
        assert set(kept) == {onnx.TensorProto.INT8}


def test_a_golden_prompt_is_close(engine: Engine) -> None:
    wanted, params = expected(LM, "_u2p0"), lm_params("u2p0", "r1")
    pcm = waveforms("u2p0")[0].astype(np.float32) / 32768
    history = [*engine.conversation().messages, Message("user", None, pcm)]
    _, states, logits = run_turn(engine, history, params)
    for found, exact in ((states[0], wanted["prefill_hidden"][0]), (logits[0], wanted["r1__text_logits"][0])):
        assert 1e-5 < relative(found, exact) < LIMIT


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [8, 1]])
def test_pieces_are_close_to_the_whole(engine: Engine, pieces: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((9, engine.config.text.hidden_size)).astype(np.float32)
    whole, rows, (hidden, logits) = in_pieces(engine.backbone, x, pieces)
    assert relative(rows, whole[0]) < 1e-3
    assert relative(hidden, whole[0][5:]) < 1e-3
    assert relative(logits, whole[1]) < 1e-3


def test_the_speech_head_starts_again_from_any_position(engine: Engine) -> None:
    u = np.random.default_rng(1).standard_normal((7, engine.config.text.hidden_size)).astype(np.float32)
    head, greedy = engine.speech_head, SpeechSampling(GenerationSettings())
    head.reset()
    wanted = [head.prefill(u[:4], greedy), *(head.group(row, greedy) for row in u[4:])]
    head.truncate(5)
    assert [head.group(row, greedy) for row in u[5:]] == wanted[2:]


def test_the_command_line(facrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "ANSWER_STEPS", 3)
    done = facrt("export", LM / "model", "--out", tmp_path / "b", "--kv-cache", "int8", "--json")
    report = json.loads(done.stdout)
    assert report["parity"]["ok"]
    limits = {row["stage"]: row["limit"] for row in report["parity"]["rows"]}
    assert (limits["hidden"], limits["audio_encoder"]) == (0.1, 1e-4)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert (manifest["cache_dtype"], manifest["recipe"]["backbone"]) == ("int8", "fp32")


def test_values_that_awq_divides_have_smaller_steps(model: OpenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = {"decoder.layers.0.out.weight": torch.linspace(0.5, 2.0, model.cache_steps["backbone"][1].numel())}

    def search(fold: Fold, weight: torch.Tensor, found: Statistics, scheme: Scheme) -> torch.Tensor:
        return scales.get(fold.linear, torch.ones_like(fold.shared(found.mean)))

    monkeypatch.setattr(calibration, "search_awq", search)
    rewritten = calibrated({"backbone": "awq_32", "speech_head": "fp32"})
    found, plain = rewritten.cache_steps["backbone"], list(model.cache_steps["backbone"])
    plain[1] = plain[1] / scales["decoder.layers.0.out.weight"]
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("scheme", ["fp16", "int8"])
def test_it_compiles(small_model: OpenModel, tmp_path: Path, scheme: str) -> None:
    """With TensorRT-RTX; the target's own compiler is on the device alone."""
    config = small_model.config.chat.text
    steps = [torch.full((config.num_kv_heads * config.head_dim,), 0.03)] * (2 * config.num_layers)
    calibrated_small = replace(small_model, cache_steps={"backbone": steps})
    done = compiled(calibrated_small, "backbone", scheme, [86, 120], tmp_path, TARGET_ROWS["orin-jp6"])
    assert done.plan_bytes > 0
