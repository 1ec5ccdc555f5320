"""nano, the trained model that ships: its size and what its card promises, through an exported bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from facrt.export.pipeline import ExportRequest, export
from facrt.export.source import NANO
from facrt.runtime.engine import Engine, load
from facrt.train.judge import split_answer
from safetensors import safe_open

MAX_BYTES = 45e6
LAMP = {"name": "lamp", "arguments": {"room": "kitchen", "on": True}}
TIMER = {"name": "timer", "arguments": {"minutes": 10}}
CARD = {
    "Turn on the kitchen lamp.": ("The kitchen lamp is now on.", LAMP),
    "Set a timer for ten minutes.": ("The timer runs for ten minutes.", TIMER),
}
QUESTIONS = Path(__file__).parents[1] / "docs" / "questions"
SPOKEN = {  # `make demo`
    "when-does-the-library-open-on-monday": ("It opens at nine in the morning.", None),
    "what-is-seven-plus-eight": ("Seven plus eight is fifteen.", None),
    "turn-on-the-kitchen-lamp": CARD["Turn on the kitchen lamp."],
}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def engine(request: pytest.FixtureRequest, nano_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    if request.param == "fp32":
        return load(nano_bundle)
    out = tmp_path_factory.mktemp("nano") / request.param
    export(ExportRequest("nano", out, precision=request.param, verify=False))
    return load(out)


def test_size_and_types() -> None:
    files = [path for path in NANO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 5
    for path in weights:
        with safe_open(path, framework="np") as handle:
            types = {handle.get_slice(name).get_dtype() for name in handle.keys()}  # noqa: SIM118
        assert types == {"F16"} or path.name == "speakers.safetensors"


@pytest.mark.parametrize("question", CARD)
def test_a_typed_question_is_answered_in_words_and_aloud(engine: Engine, question: str) -> None:
    words, call = CARD[question]
    reply = engine.conversation().respond(text=question, greedy=True, max_steps=80)
    assert split_answer(reply.text) == (json.dumps(call, sort_keys=True), words)
    assert reply.audio is not None
    assert 1.0 < len(reply.audio) / reply.sample_rate < 4.0
    assert float(np.sqrt((reply.audio**2).mean())) > 0.02


@pytest.mark.parametrize("name", SPOKEN)
def test_a_spoken_question_is_heard(engine: Engine, name: str) -> None:
    words, call = SPOKEN[name]
    reply = engine.conversation().respond(QUESTIONS / f"{name}.wav", greedy=True, max_steps=80)
    assert split_answer(reply.text) == (call and json.dumps(call, sort_keys=True), words)
    assert reply.audio is not None
    assert 1.0 < len(reply.audio) / reply.sample_rate < 4.0


def test_text_only(engine: Engine) -> None:
    reply = engine.conversation(speech=False).respond(text="Turn on the kitchen lamp.", greedy=True, max_steps=80)
    assert reply.text.endswith("The kitchen lamp is now on.")
    assert reply.audio is None


def test_the_card_is_filled_in() -> None:
    card = (Path(NANO) / "README.md").read_text(encoding="utf-8")
    assert "QUALITY" not in card
    assert "Licence: Apache-2.0" in card
