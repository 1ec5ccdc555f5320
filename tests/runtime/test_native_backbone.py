"""The backbone in C++: the reference's hidden states and logits, in every precision, and its refusals."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoding import in_pieces
from facrt.errors import BundleError, RequestError
from facrt.export.native_backbone import write_native_backbone
from facrt.model.checkpoint import load_chat
from facrt.model.decoder import CachedAttention
from facrt.model.generate import ChatModel
from facrt.quant.packing import PACKINGS
from facrt.runtime.backend import Array
from facrt.runtime.engine import load
from facrt.runtime.native_backbone import NativeBackbone
from facrt.runtime.native_speech_head import NativeSpeechHead
from goldens import LM
from tolerances import TOLERANCES

CAPACITY = 64


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return load_chat(LM / "model")


@pytest.fixture(scope="module")
def x(chat: ChatModel) -> Array:
    return np.random.default_rng(1).standard_normal((40, chat.config.text.hidden_size)).astype(np.float32)


def relative(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("precision", PACKINGS)
def test_every_precision_equals_the_reference_with_its_weights(
    precision: str, chat: ChatModel, x: Array, tmp_path: Path
) -> None:
    write_native_backbone(chat.backbone, {}, precision, tmp_path / "backbone")
    native = NativeBackbone(tmp_path / "backbone", chat.config, CAPACITY, 2, "float32")
    assert native.loop.format == precision
    reference = copy.deepcopy(chat.backbone)
    for parameter in reference.parameters():
        if parameter.dim() == 2:
            parameter.data = PACKINGS[precision].round(parameter.data)
    attend = CachedAttention(chat.config.text)
    # integer precisions round activations to 1 / 127 of the largest of 32: about 0.4 % of a value's size
    limit = 3e-2 if precision.startswith("int") else 1e-5
    for rows in (x[:30], x[30:31], x[31:32]):
        with torch.inference_mode():
            wanted = [tensor.numpy() for tensor in reference(torch.from_numpy(rows), attend)]
        hidden, logits = native(rows)
        assert relative(hidden, wanted[0]) < limit
        assert relative(logits, wanted[1]) < limit


@pytest.mark.parametrize("form", ["native", "onnx"])
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [8, 1]])
def test_pieces_equal_the_whole(golden_bundle: Path, x: Array, form: str, pieces: list[int]) -> None:
    backbone = load(golden_bundle, max_positions=CAPACITY, backbone=form, check_hashes=False).backbone
    whole, rows, (hidden, logits) = in_pieces(backbone, x[:9], pieces)
    atol = 0 if form == "native" else TOLERANCES["hidden", "fp32"]
    np.testing.assert_allclose(rows, whole[0], rtol=0, atol=atol)
    np.testing.assert_allclose(hidden, whole[0][5:], rtol=0, atol=atol)
    np.testing.assert_allclose(logits, whole[1], rtol=0, atol=atol)


@pytest.mark.parametrize("form", ["native", "onnx"])
def test_a_full_cache(golden_bundle: Path, x: Array, form: str) -> None:
    backbone = load(golden_bundle, max_positions=4, backbone=form, check_hashes=False).backbone
    message = "backbone: 5 positions do not fit the cache of 4; load the bundle with a larger max_positions"
    with pytest.raises(RequestError, match=message):
        backbone(x[:5])
    backbone(x[:4])
    assert backbone.length == 4
    with pytest.raises(RequestError, match=message):
        backbone(x[4:5])


@pytest.mark.parametrize(("cache", "limit"), [("float16", 2e-3), ("int8", 3e-2)])
def test_a_smaller_cache_is_close(golden_bundle: Path, chat: ChatModel, x: Array, cache: str, limit: float) -> None:
    path = golden_bundle / "backbone.bin"
    whole, smaller = (NativeBackbone(path, chat.config, CAPACITY, 1, dtype) for dtype in ("float32", cache))
    assert smaller.loop.cache_bytes_per_position < whole.loop.cache_bytes_per_position
    assert 0 < relative(smaller(x)[0], whole(x)[0]) < limit


@pytest.mark.parametrize(("component", "kind"), [("backbone", NativeBackbone), ("speech_head", NativeSpeechHead)])
def test_the_choice_of_form(golden_bundle: Path, bundle_copy: Path, component: str, kind: type) -> None:
    def opened(bundle: Path, **choice: Any) -> Any:
        return getattr(load(bundle, max_positions=4, **choice), component)

    name = component.replace("_", " ")
    assert isinstance(opened(golden_bundle), kind)
    assert not isinstance(opened(golden_bundle, **{component: "onnx"}), kind)
    with pytest.raises(RequestError, match=f"{name} 'abacus' is unknown; allowed: native, onnx"):
        opened(golden_bundle, **{component: "abacus"})
    path = bundle_copy / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["native"][component]
    path.write_text(json.dumps(manifest))
    assert not isinstance(opened(bundle_copy), kind)
    with pytest.raises(RequestError, match=f"holds no native {name}; use onnx, or export it again"):
        opened(bundle_copy, **{component: "native"})


def test_a_wrong_file(golden_bundle: Path, chat: ChatModel, tmp_path: Path) -> None:
    whole = (golden_bundle / "backbone.bin").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=r"no usable backbone file \(.* bytes long.*\); export the bundle again"):
        NativeBackbone(tmp_path / "cut", chat.config, CAPACITY, 1, "float32")
    other = replace(chat.config, text=replace(chat.config.text, num_layers=7))
    with pytest.raises(BundleError, match="is of another model"):
        NativeBackbone(golden_bundle / "backbone.bin", other, CAPACITY, 1, "float32")


def test_the_command_line_chooses_the_form(facrt: Any, golden_bundle: Path, tmp_path: Path) -> None:
    question = ["run", golden_bundle, "--text", "What?", "--greedy", "--max-steps", "4"]
    answers = [
        facrt.json(*question, *choice, cwd=tmp_path)["turns"][0]["text_ids"]
        for choice in ([], ["--backbone", "native"], ["--backbone", "onnx"])
    ]
    assert answers[0] == answers[1] == answers[2] != []
    assert "backbone 'abacus' is unknown" in facrt.refusal(*question, "--backbone", "abacus", cwd=tmp_path)
