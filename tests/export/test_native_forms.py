"""A bundle whose backbone has its native form alone, and one whose backbone is a graph alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facrt.errors import BundleError, RequestError
from facrt.export import calibration
from facrt.export.pipeline import ExportRequest, export, verify
from facrt.runtime.bundle import open_bundle
from facrt.runtime.engine import load
from facrt.runtime.native_backbone import NativeBackbone
from goldens import LM


@pytest.fixture(scope="module")
def native_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "bundle"
    export(ExportRequest(str(LM / "model"), out, precision="int8", backbone="native"))
    return out


def test_the_graph_is_not_there(native_only: Path) -> None:
    manifest = open_bundle(native_only).manifest
    assert "backbone" in manifest.recipe
    assert "backbone" not in manifest.graphs
    assert not list(native_only.glob("backbone.onnx*"))
    assert manifest.native["backbone"] == "backbone.bin"
    assert isinstance(load(native_only, max_positions=8).backbone, NativeBackbone)
    with pytest.raises(BundleError, match="holds no graph of the backbone; export it with --backbone both"):
        load(native_only, max_positions=8, backbone="onnx")


def test_it_is_compared_with_the_reference(native_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = open_bundle(native_only).manifest.parity
    assert report["ok"]
    stages = {row["stage"]: row for row in report["rows"]}
    assert 0 < stages["text_logits"]["relative_error"] < stages["text_logits"]["limit"] == 0.1
    assert "native_text_logits" not in stages
    monkeypatch.setattr(calibration, "ANSWER_STEPS", 3)
    cost = verify(native_only, str(LM / "model"))["quantization"]
    # tiny matrices are padded to whole tiles
    assert 1 < cost["components"]["backbone"]["bytes_per_weight"] < 1.6
    assert {row["component"] for row in cost["layers"]} == {"audio_encoder", "speech_head"}
    assert cost["text_agreement"] > 0.5


def test_the_command_line(facrt: Any, native_only: Path, tmp_path: Path) -> None:
    out = facrt.json("run", native_only, "--text", "What?", "--greedy", "--max-steps", "4", cwd=tmp_path)
    assert out["turns"][0]["text_ids"]
    assert "backbone" in facrt("inspect", native_only).stdout
    assert "--backbone 'abacus' is unknown; allowed: native, onnx, both" in facrt.refusal(
        "export", LM / "model", "--out", tmp_path / "b", "--backbone", "abacus"
    )
    assert not (tmp_path / "b").exists()


def test_the_native_form_can_be_left_out(tmp_path: Path) -> None:
    export(ExportRequest(str(LM / "model"), tmp_path / "b", backbone="onnx", verify=False))
    assert set(open_bundle(tmp_path / "b").manifest.native) == {"speech_head"}
    assert not isinstance(load(tmp_path / "b", max_positions=8).backbone, NativeBackbone)


def test_other_targets_have_no_native_backbone(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="target orin has no native backbone: leave --backbone out"):
        export(ExportRequest(str(LM / "model"), tmp_path / "b", target="orin", backbone="native"))
