"""What the base model practises: held-out combinations stay out, new words change an answer in themselves alone."""

from __future__ import annotations

import re

import pytest
from facrt.errors import RequestError
from facrt.train.facts import facts
from facrt.train.intents import Split, every_example
from facrt.train.practice import WIDER, aloud_example, renamed_example, wider_example


@pytest.mark.parametrize("name", ["add", "weekday_after", "room_floor", "tickets"])
def test_what_is_held_out_is_not_practised(name: str) -> None:
    held_out = {
        example.turns[0].answer_text + example.turns[0].user_text
        for split in (Split.UNSEEN_SLOTS, Split.VALIDATION)
        for example in every_example(split)
        if example.intent == name
    }
    practised = {(e := wider_example(name, seed)).turns[0].answer_text + e.turns[0].user_text for seed in range(3000)}
    assert held_out
    assert len(practised) > 250
    assert not held_out & practised


def test_every_widened_intent_is_there() -> None:
    for name in WIDER:
        assert wider_example(name, 1).intent == name
    with pytest.raises(RequestError, match=r"no intent 'sing' can be practised; there are .*add"):
        wider_example("sing", 1)


def test_new_words_are_copied() -> None:
    known = {turn.answer_text for example in every_example(Split.TRAIN) for turn in example.turns}
    made = [renamed_example(seed) for seed in range(400)]
    assert made == [renamed_example(seed) for seed in range(400)]
    new = [turn for example in made for turn in example.turns if turn.answer_text not in known]
    assert len(new) > 150
    lamps = [e.turns[0] for e in made if e.intent == "lamp_color"]
    assert lamps
    for turn in lamps:
        assert turn.tool_call is not None
        room = turn.tool_call.split('"room": "')[1].split('"')[0]
        assert room.lower() in turn.user_text.lower()
        assert f"The {room} lamp is now" in turn.answer_text


def test_what_is_read_aloud_mentions_no_fact() -> None:
    """Facts measure what the base model forgets: the spoken data never has their subjects."""
    spoken = {word for e in every_example(Split.TRAIN) for turn in e.turns for word in _words_of(turn.answer_text)}
    made = [aloud_example(5, index) for index in range(2000)]
    assert made == [aloud_example(5, index) for index in range(2000)]
    subjects = {fact.subject for fact in facts() if fact.kind in ("young", "opposite", "past")} - spoken
    assert len(subjects) > 50
    assert not subjects & {word for e in made for turn in e.turns for word in _words_of(turn.answer_text)}
    known = {turn.answer_text for e in every_example(Split.TRAIN) for turn in e.turns}
    assert len({turn.answer_text for e in made for turn in e.turns} - known) > 1000


def _words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())
