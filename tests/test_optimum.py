"""`optimum-cli export facrt`, with Optimum itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from goldens import LM

PROGRAM = (sys.executable, "-m", "optimum.commands.optimum_cli", "export")


def optimum_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_it_is_listed_and_shows_the_options_of_facrt_export() -> None:
    assert "facrt" in optimum_cli("--help").stdout
    shown = optimum_cli("facrt", "--help")
    assert shown.returncode == 0
    assert "optimum-cli export facrt" in shown.stdout
    assert all(option in shown.stdout for option in ("--precision", "--calibration", "--detokenizer"))


def test_it_writes_the_bundle_that_facrt_export_writes(golden_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    result = optimum_cli("facrt", "--out", out, LM / "model", "--no-verify", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["bundle"] == str(out)
    found, wanted = (json.loads((folder / "manifest.json").read_text()) for folder in (out, golden_bundle))
    assert "backbone.onnx" in found["files"]
    assert found["files"].items() <= wanted["files"].items()  # the golden one has a detokenizer beside
    assert found["model"]["chat"] == wanted["model"]["chat"]


def test_a_mistake_ends_in_one_line() -> None:
    result = optimum_cli("facrt", "nowhere", "--out", "bundle")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("facrt: nowhere is no folder")
