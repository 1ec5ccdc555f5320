"""Pictures of training: what a log may hold, what is refused, and that each stage has its panel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'facrt[train]')")

from facrt.errors import FacrtError, RequestError
from facrt.train.plot import plot_alpha, plot_losses, read_losses

if TYPE_CHECKING:
    from conftest import Facrt


def row(stage: str, step: int, **values: float) -> str:
    return json.dumps({"stage": stage, "step": step, "seconds": step / 2, **values}) + "\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    (folder / "chat").mkdir(parents=True)
    losses = (row("vocoder", step, wave=math.exp(-step / 100), mel=2.0) for step in range(300))
    (folder / "audio.jsonl").write_text("".join(losses))
    (folder / "chat" / "log.jsonl").write_text(row("base", 1, text=3.0) + row("base", 2, text=2.0))
    return folder


def height(png: Path) -> int:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[20:24], "big")


def test_reads_stages_and_curves(logs: Path) -> None:
    stages = read_losses(logs)
    assert {stage: list(curves) for stage, curves in stages.items()} == {"vocoder": ["wave", "mel"], "base": ["text"]}
    assert stages["base"]["text"] == {1: (0.5, 3.0), 2: (1.0, 2.0)}


def test_steps_done_again_count_as_done_last(logs: Path) -> None:
    with (logs / "chat" / "log.jsonl").open("a") as file:
        file.write(row("base", 2, text=1.5))
    assert read_losses(logs)["base"]["text"] == {1: (0.5, 3.0), 2: (1.0, 1.5)}


def test_unfinished_last_line_is_left_out(logs: Path) -> None:
    with (logs / "chat" / "log.jsonl").open("a") as file:
        file.write('{"stage": "base", "st')
    assert len(read_losses(logs)["base"]["text"]) == 2


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"step": 1, "seconds": 1}', '{"stage": "a", "step": 1.5, "seconds": 1}', '{"stage": "a", "step": 1}',
     '{"stage": "a", "step": 1, "seconds": 1, "loss": "low"}', '{"stage": "a", "step": true, "seconds": 1}'],
)  # fmt: skip
def test_broken_lines_are_named(logs: Path, line: str) -> None:
    path = logs / "chat" / "log.jsonl"
    path.write_text(row("base", 1, text=3.0) + line + "\n")
    with pytest.raises(RequestError, match=r"log\.jsonl, line 2: .* is needed, found"):
        read_losses(logs)


def test_missing_and_empty_logs(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no losses"):
        read_losses(tmp_path)
    with pytest.raises(RequestError, match="is no readable log"):
        read_losses(tmp_path / "no.jsonl")


def test_draws_a_panel_per_stage(logs: Path, tmp_path: Path) -> None:
    two = tmp_path / "pictures" / "losses.png"
    assert plot_losses(logs, two) == ["vocoder", "base"]
    (logs / "more.jsonl").write_text(row("flow", 1, loss=float("nan")) + row("cocktail", 5, speech=0.0))
    four = tmp_path / "four.png"
    assert set(plot_losses(logs, four)) == {"vocoder", "base", "flow", "cocktail"}
    assert height(four) == 2 * height(two)
    assert not list(tmp_path.rglob("*.partial"))


def test_draws_the_two_skills_over_alpha(tmp_path: Path) -> None:
    points = [{"alpha": alpha, "text": 1 - alpha / 2 + seed / 100, "speech": alpha**0.5, "seed": seed}
              for alpha in (0.0, 0.5, 1.0) for seed in range(3)]  # fmt: skip
    plot_alpha(points, tmp_path / "alpha.png")
    assert height(tmp_path / "alpha.png") > 300
    with pytest.raises(RequestError, match="numbers alpha, text and speech"):
        plot_alpha([{"alpha": 0.5, "text": 1}], tmp_path / "alpha.png")
    with pytest.raises(RequestError, match="no point"):
        plot_alpha([], tmp_path / "alpha.png")


def test_command_draws_or_says_why_not(logs: Path, tmp_path: Path, facrt: Facrt) -> None:
    out = tmp_path / "losses.png"
    assert facrt.json("train", "plot", logs, "--out", out) == {"picture": str(out), "stages": ["vocoder", "base"]}
    assert height(out)
    assert "is no readable log" in facrt.refusal("train", "plot", tmp_path / "none", "--out", out.with_name("no.png"))
    assert not out.with_name("no.png").exists()


def test_unwritable_picture_is_one_line(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(FacrtError, match="cannot be written"):
        plot_losses(logs, logs / "audio.jsonl" / "losses.png")
