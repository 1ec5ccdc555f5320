"""The generator: enough of everything, one right answer each, and nothing held out leaks into training."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from functools import cache

import pytest
from facrt.errors import RequestError
from facrt.train import facts, intents, speak
from facrt.train.intents import Example, Split, every_example, example_at, examples, find_split
from facrt.train.words import cardinal, clock, ordinal, room_number

NUMBERS = {cardinal(n): n for n in range(1000)}
TEXT_SPLITS = (Split.TRAIN, Split.VALIDATION, Split.UNSEEN_SLOTS, Split.UNSEEN_PHRASINGS)
HOURS = {clock(hour): hour for hour in range(1, 13)}


@cache
def every(split: Split) -> tuple[Example, ...]:
    return tuple(every_example(split))


def questions(example: Example) -> tuple[str, ...]:
    return tuple(turn.user_text for turn in example.turns)


def number_in(pattern: str, text: str) -> list[int]:
    found = re.fullmatch(pattern, text)
    assert found, text
    return [NUMBERS[group.lower()] for group in found.groups()]


def test_there_is_enough() -> None:
    names = [intent.name for intent in intents.INTENTS]
    assert len(names) == len(set(names)) >= 40
    single = {example.turns for example in every(Split.TRAIN) if len(example.turns) == 1}
    assert len(single) >= 20_000
    assert any(len(example.turns) == 2 for example in every(Split.TRAIN))
    assert all(any(e.intent == name for e in every(Split.TRAIN)) for name in names)


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.UNSEEN_SLOTS, Split.UNSEEN_PHRASINGS])
def test_no_conversation_is_both_held_out_and_trained(split: Split) -> None:
    trained = {questions(example) for example in every(Split.TRAIN)}
    opened = {conversation[:1] for conversation in trained}
    held_out = {questions(example) for example in every(split)}
    assert held_out
    assert not held_out & trained
    assert not held_out & opened, "a question alone must not be the first turn of a trained conversation"


def test_held_out_combinations_are_disjoint_and_use_trained_values() -> None:
    for intent in intents.INTENTS:
        keys = {bucket: {tuple(row.values()) for row in rows} for bucket, rows in intent.buckets.items()}
        assert not keys["train"] & (keys["unseen"] | keys["validation"])
        assert not keys["unseen"] & keys["validation"]
    add = next(intent for intent in intents.INTENTS if intent.name == "add")
    for slot in ("a", "b"):
        assert {row[slot] for row in add.buckets["unseen"]} <= {row[slot] for row in add.buckets["train"]}


def test_unseen_phrasings_are_no_trained_templates() -> None:
    for intent in intents.INTENTS:
        for pattern in intent.patterns:
            assert len(set(pattern.phrasings)) == len(pattern.phrasings) >= 3
            assert pattern.unseen
            assert not set(pattern.unseen) & set(pattern.phrasings)


def test_each_order_of_slots_that_is_asked_for_is_trained() -> None:
    """Which of two numbers comes first in the answer cannot be known of an order that was never heard."""
    for intent in intents.INTENTS:
        for pattern in intent.patterns:
            trained, unseen = (
                {tuple(re.findall(r"{(\w+)}", t)) for t in p} for p in (pattern.phrasings, pattern.unseen)
            )
            assert unseen <= trained, f"{pattern.name}: {unseen - trained}"


def test_like_words_are_answered_alike() -> None:
    """What is added to what: the trained phrasings must not contradict the held-out ones."""
    add = next(pattern for intent in intents.INTENTS for pattern in intent.patterns if pattern.name == "add")
    to = [template for template in (*add.phrasings, *add.unseen) if " to " in template]
    assert len(to) >= 2
    assert all("add {b} to {a}" in template.lower() for template in to)


def test_voices_are_disjoint() -> None:
    trained, unseen = set(speak.voices(Split.TRAIN)), set(speak.voices(Split.UNSEEN_VOICES))
    assert trained
    assert unseen
    assert not trained & unseen
    assert all(speak.voices(split) == speak.voices(Split.TRAIN) for split in TEXT_SPLITS)


def test_each_question_has_one_answer() -> None:
    answers = defaultdict(set)
    for example in itertools.chain.from_iterable(map(every, TEXT_SPLITS)):
        history: tuple[str, ...] = ()
        for turn in example.turns:
            asked = (*history, turn.user_text)
            answers[asked].add((turn.answer_text, turn.tool_call))
            history = (*history, turn.user_text, turn.answer_text)
    assert [question for question, found in answers.items() if len(found) > 1] == []


def test_answers_are_short_and_pronounceable() -> None:
    for answer in {turn.answer_text for split in TEXT_SPLITS for e in every(split) for turn in e.turns}:
        assert len(answer.split()) <= 15, answer
        assert re.fullmatch(r"[A-Z][A-Za-z ,.'?]*[.?]", answer), answer


def test_tool_calls_are_json() -> None:
    calls = {turn.tool_call for e in every(Split.TRAIN) for turn in e.turns if turn.tool_call}
    assert len(calls) > 500
    for call in calls:
        found = re.fullmatch(r"<tool_call>(\{.*\})</tool_call>", call)
        assert found, call
        assert set(json.loads(found[1])) == {"name", "arguments"}


def test_sums_are_right() -> None:
    for split, example in ((s, e) for s in TEXT_SPLITS for e in every(s)):
        answer = example.turns[-1].answer_text
        if example.intent == "add":
            a, b, total = number_in(r"(.+) plus (.+) is (.+)\.", answer)
            assert a + b == total, (split, example)
        elif example.intent == "subtract":
            a, b, rest = number_in(r"(.+) minus (.+) is (.+)\.", answer)
            assert a - b == rest, (split, example)
        elif example.intent == "add_then_more":
            a, b, first = number_in(r"(.+) plus (.+) is (.+)\.", example.turns[0].answer_text)
            more = [NUMBERS[word] for word in re.findall(r"[a-z]+", example.turns[1].user_text) if word in NUMBERS]
            assert number_in(r"Then it is (.+)\.", answer) == [first + more[0]], example


def test_times_rooms_and_orders_are_right() -> None:
    for example in every(Split.TRAIN):
        question, answer = example.turns[0].user_text, example.turns[0].answer_text
        if example.intent == "time_later" and (
            found := re.fullmatch(r"It is (.+ o'clock)\. What time is it in (.+) hours?\?", question)
        ):
            later = (HOURS[found[1]] + NUMBERS[found[2]]) % 12 or 12
            assert answer == f"It will be {clock(later)}.", example
        elif example.intent == "room_floor" and (found := re.fullmatch(r"Where is room (\w+) .+\?", question)):
            assert answer.endswith(f" is on the {ordinal(NUMBERS[found[1]])} floor."), example
        elif example.intent == "drive":
            call = json.loads((example.turns[0].tool_call or "")[11:-12])
            assert cardinal(call["arguments"]["meters"]) in question
            assert call["arguments"]["direction"] in question.lower()


def test_stream_is_a_function_of_split_seed_and_index() -> None:
    for split in Split:
        first = list(itertools.islice(examples(split, 5), 50))
        assert first == [example_at(split, 5, index) for index in range(50)]
        assert first != list(itertools.islice(examples(split, 6), 50))
        assert set(first) <= set(every(split))


def test_stream_reaches_every_intent() -> None:
    assert {e.intent for e in itertools.islice(examples(Split.TRAIN, 0), 5000)} == {i.name for i in intents.INTENTS}


def test_stream_has_not_changed() -> None:
    turns = example_at(Split.TRAIN, 3, 0).turns
    assert [turn.user_text for turn in turns] == ["Nine plus twenty, please.", "And with one more?"]


def test_unknown_split_is_refused() -> None:
    with pytest.raises(RequestError, match="'test' is none of train, validation"):
        find_split("test")


def test_words() -> None:
    assert [cardinal(n) for n in (0, 13, 30, 99, 205)] == [
        "zero",
        "thirteen",
        "thirty",
        "ninety nine",
        "two hundred five",
    ]
    assert [ordinal(n) for n in (1, 12, 20, 22)] == ["first", "twelfth", "twentieth", "twenty second"]
    assert [clock(3), clock(3, 5), clock(12, 30)] == ["three o'clock", "three oh five", "twelve thirty"]
    assert [room_number(n) for n in (101, 412, 430)] == ["one oh one", "four twelve", "four thirty"]


def test_facts_are_never_spoken_about() -> None:
    known = facts.facts()
    assert len({(fact.kind, fact.subject) for fact in known}) == len(known) >= 300
    spoken = {turn for split in TEXT_SPLITS for e in every(split) for turn in e.turns}
    words = {word for turn in spoken for word in re.findall(r"[a-z']+", f"{turn.user_text} {turn.answer_text}".lower())}
    for fact in known:
        subject = set(fact.subject.lower().split()) - {"a", "an"} - set(" ".join(NUMBERS).split())
        assert subject
        assert not subject & words, fact


def test_facts_have_one_answer_and_unseen_phrasings() -> None:
    answers = defaultdict(set)
    for fact in facts.facts():
        trained, unseen = fact.turns(Split.TRAIN), fact.turns(Split.UNSEEN_PHRASINGS)
        assert not {turn.user_text for turn in trained} & {turn.user_text for turn in unseen}
        for turn in (*trained, *unseen):
            answers[turn.user_text].add(turn.answer_text)
    assert all(len(found) == 1 for found in answers.values())
    for fact in (fact for fact in facts.facts() if fact.kind == "product"):
        a, b, product = number_in(r"(.+) times (.+) is (.+)\.", fact.answer)
        assert a * b == product
    stream = list(itertools.islice(facts.fact_turns(Split.TRAIN, 1), 20))
    assert stream == list(itertools.islice(facts.fact_turns(Split.TRAIN, 1), 20))
