"""The four attention forms: the golden run through graphs of each, with both cache layouts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from decoding import in_pieces, run_turn
from facrt.export.pipeline import OpenModel, open_model, write_graph
from facrt.export.targets import TARGETS, Target
from facrt.model.components import Cache, components
from facrt.model.settings import GenerationSettings
from facrt.runtime.backend_ort import PrefixDecoder, StaticDecoder
from facrt.runtime.bundle import hash_files, open_bundle
from facrt.runtime.engine import Engine, load
from facrt.runtime.prompt import Message
from facrt.runtime.sampling import SpeechSampling
from goldens import LM, expected, lm_params, waveforms
from tolerances import TOLERANCES

CPU = TARGETS["cpu"]
FORMS = {
    "Decomposed": replace(CPU, opset=18, attention="Decomposed", cache="prefix"),
    "Sdpa": replace(CPU, opset=23, attention="Sdpa", cache="prefix"),
    "Scatter": replace(CPU, opset=24, attention="Scatter", cache="static"),
    "GroupQuery": replace(CPU, opset=21, attention="GroupQuery", cache="static"),
}
TARGET_FORMS = {name: TARGETS[name] for name in ("rtx", "orin-jp6")}  # float16 arithmetic and caches
FORMS |= TARGET_FORMS
OPERATORS = {
    "Decomposed": {"Softmax"},
    "Sdpa": {"Attention"},
    "Scatter": {"Attention", "TensorScatter"},
    "GroupQuery": {"GroupQueryAttention"},
}
DECODERS = ("backbone", "speech_head")


@pytest.fixture(scope="module")
def model() -> OpenModel:
    return open_model(LM / "model")


@pytest.fixture(scope="module", params=list(FORMS))
def engine(
    request: pytest.FixtureRequest, model: OpenModel, golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """The golden bundle with the decoders' graphs of one form."""
    name, target = request.param, FORMS[request.param]
    folder = Path(shutil.copytree(golden_bundle, tmp_path_factory.mktemp("form") / "bundle"))
    manifest = open_bundle(folder, check_hashes=False).manifest
    if name != "GroupQuery":  # which the golden bundle has
        precision = "fp16" if name in TARGET_FORMS else "fp32"
        kept = Cache(target.cache, target.cache_dtype)
        write_decoders(model, target, kept, precision, folder)
        changes = {"attention": name, "cache": target.cache, "cache_dtype": target.cache_dtype}
        replace(manifest, **changes, files=hash_files(folder, manifest.files)).write(folder)
    return load(folder, max_positions=256, backbone="onnx", speech_head="onnx")


def write_decoders(model: OpenModel, target: Target, kept: Cache, precision: str, folder: Path) -> None:
    table = components(model.config, kept)
    for name in DECODERS:
        write_graph(model, table[name], precision, target, folder / f"{name}.onnx")


def tolerance(engine: Engine, stage: str) -> float:
    return TOLERANCES[stage, "fp16" if engine.bundle.manifest.attention in TARGET_FORMS else "fp32"]


def test_every_form_is_tested(engine: Engine) -> None:
    name = engine.bundle.manifest.attention
    form = FORMS[name].attention
    kind = StaticDecoder if FORMS[name].cache == "static" else PrefixDecoder
    assert type(engine.backbone) is type(engine.speech_head.decoder) is kind
    for decoder in DECODERS:
        graph = onnx_ir.load(engine.bundle.graph_path(decoder))
        assert graph.opset_imports[""] == FORMS[name].opset
        found = {node.op_type for node in graph.graph.all_nodes()}
        assert found & set.union(*OPERATORS.values()) == OPERATORS[form]


@pytest.mark.parametrize(("case", "run"), [("u2p0", "r1"), ("mixed", "r1"), ("edge_extra", "r1")])
def test_golden_run(engine: Engine, mixed_speech_ids: list[int], case: str, run: str) -> None:
    wanted, params = expected(LM, f"_{case}"), lm_params(case, run)
    pcm = waveforms(case)[0].astype(np.float32) / 32768
    history = [*engine.conversation().messages, Message("user", None, pcm)]
    if case == "mixed":
        history += [Message("assistant", None, None, tuple(mixed_speech_ids)), Message("user", "Go on.")]
    turn, states, logits = run_turn(engine, history, params)
    assert turn.text_ids == wanted[f"{run}__text_ids"].tolist()
    assert turn.speech_ids == wanted[f"{run}__speech_ids"].tolist()
    hidden, rows = wanted["prefill_hidden"][0], wanted[f"{run}__text_logits"]
    np.testing.assert_allclose(states[0], hidden, rtol=0, atol=tolerance(engine, "hidden"))
    np.testing.assert_allclose(logits[: len(rows)], rows, rtol=0, atol=tolerance(engine, "text_logits"))


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 5], [1, 7, 1], [8, 1]])
def test_pieces_equal_the_whole(engine: Engine, pieces: list[int]) -> None:
    """A step equals the prefill's last row, whatever the cut; a truncated cache starts again from there."""
    x = np.random.default_rng(0).standard_normal((9, engine.config.text.hidden_size)).astype(np.float32)
    whole, rows, (hidden, logits) = in_pieces(engine.backbone, x, pieces)
    np.testing.assert_allclose(rows, whole[0], rtol=0, atol=tolerance(engine, "hidden"))
    np.testing.assert_allclose(hidden, whole[0][5:], rtol=0, atol=tolerance(engine, "hidden"))
    np.testing.assert_allclose(logits, whole[1], rtol=0, atol=tolerance(engine, "text_logits"))


def test_the_speech_head_starts_again_from_any_position(engine: Engine) -> None:
    u = np.random.default_rng(1).standard_normal((7, engine.config.text.hidden_size)).astype(np.float32)
    head, greedy = engine.speech_head, SpeechSampling(GenerationSettings())
    head.reset()
    wanted = [head.prefill(u[:4], greedy), *(head.group(row, greedy) for row in u[4:])]
    head.truncate(5)
    assert [head.group(row, greedy) for row in u[5:]] == wanted[2:]
    head.truncate(4)
    assert [head.group(row, greedy) for row in u[4:]] == wanted[1:]
    head.reset()
    assert head.prefill(u[:4], greedy) == wanted[0]


def test_the_cpu_row_is_one_of_them(golden_bundle: Path) -> None:
    raw = json.loads((golden_bundle / "manifest.json").read_text())
    row = FORMS[raw["attention"]]
    assert (CPU.attention, CPU.cache) == (row.attention, row.cache)
