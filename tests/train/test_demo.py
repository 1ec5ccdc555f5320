"""The demo's questions: of the generator, small, and the same each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install 'facrt[train]')")

import soundfile
from facrt.train import demo
from facrt.train.intents import Split, every_example

SHIPPED = Path(__file__).parents[2] / "docs" / "questions"


def test_questions_are_the_generator_s() -> None:
    asked = {turn.user_text for example in every_example(Split.TRAIN) for turn in example.turns}
    assert set(demo.QUESTIONS) <= asked


def test_shipped_questions_are_small_and_of_the_model_s_rate() -> None:
    files = sorted(SHIPPED.glob("*.wav"))
    assert [path.stem for path in files] == [
        "turn-on-the-kitchen-lamp", "what-is-seven-plus-eight", "when-does-the-library-open-on-monday",
    ]  # fmt: skip
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert path.stat().st_size < 110_000


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_questions_are_spoken_the_same_each_time(tmp_path: Path) -> None:
    first, second = (demo.write_questions(tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {path.name for path in first} == {path.name for path in SHIPPED.glob("*.wav")}
