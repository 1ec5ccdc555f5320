"""Questions put loosely keep what they ask for, and mention no fact."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from facrt.train import loose, speak
from facrt.train.facts import facts
from facrt.train.intents import INTENTS, Split, every_example, example_at
from facrt.train.loose import COMMON, loose_example
from facrt.train.make import LOOSE_EVERY, DataRequest, _generated


def test_the_same_seed_is_put_the_same() -> None:
    made = [loose_example(seed) for seed in range(300)]
    assert made == [loose_example(seed) for seed in range(300)]
    known = {turn.user_text for example in every_example(Split.TRAIN) for turn in example.turns}
    assert sum(turn.user_text not in known for example in made for turn in example.turns) > 200


def test_slots_stay_and_in_their_order() -> None:
    draw = random.Random(1)
    template = "Tell me, what is {a} minus {b} in words?"
    put = {loose._loosened(template, draw) for _ in range(500)}
    assert len(put) > 300
    assert all(re.findall(r"\{\w\}", text) == ["{a}", "{b}"] for text in put)
    new = {word.strip("?,.") for text in put for word in text.split()} - {w.strip("?,.") for w in template.split()}
    assert new <= set(COMMON)
    assert len(new) > 50


def test_answers_are_those_of_training() -> None:
    """What is held out stays held out: only the wording is new."""
    known = {(example.intent, tuple(t.answer_text for t in example.turns)) for example in every_example(Split.TRAIN)}
    for seed in range(300):
        example = loose_example(seed)
        assert (example.intent, tuple(t.answer_text for t in example.turns)) in known


def test_no_word_that_is_thrown_in_is_a_slot_s_or_a_fact_s() -> None:
    slots = {value for intent in INTENTS for values in intent.slots.values() for value in values}
    assert not slots & set(COMMON)
    subjects = {w for f in facts() if f.kind in ("young", "opposite", "past") for w in f.subject.lower().split()}
    assert not subjects & set(COMMON)
    assert len(COMMON) == len(set(COMMON)) > 400


def test_one_in_three_of_training_s_conversations_is_put_loosely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak, "espeak_version", lambda: "none")
    for split in (Split.TRAIN, Split.UNSEEN_SLOTS):
        made = [asked.example for asked in _generated(DataRequest(tmp_path, split, 30, 5))]
        usual = [example_at(split, 5, index) for index in range(30)]
        differ = [i for i, (a, b) in enumerate(zip(made, usual, strict=True)) if a != b]
        assert differ == (list(range(LOOSE_EVERY - 1, 30, LOOSE_EVERY)) if split is Split.TRAIN else [])
