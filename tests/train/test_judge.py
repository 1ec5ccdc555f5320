"""Scoring of answers: words and tool calls exactly, and the intervals of shares."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install 'facrt[judge]')")

from facrt.train.dataset import SpokenMessage
from facrt.train.intents import Split, every_example
from facrt.train.judge import Verdict, judge, share, split_answer, written

WORDS = "The kitchen lamp is now on."
PLAIN = SpokenMessage("assistant", WORDS)
LAMP = SpokenMessage("assistant", WORDS, tool_call={"name": "lamp", "arguments": {"room": "kitchen", "on": True}})
CALL = '<tool_call>{"name": "lamp", "arguments": {"room": "kitchen", "on": true}}</tool_call>'

ANSWERS = {
    "as taught": (CALL + WORDS, True, True),
    "keys in another order": (
        '<tool_call>{"arguments":{"on":true,"room":"kitchen"},"name":"lamp"}</tool_call>\n' + WORDS, True, True,
    ),
    "other words": (CALL + "The kitchen lamp is now off.", False, True),
    "other case": (CALL + WORDS.lower(), False, True),
    "other argument": (CALL.replace("kitchen", "garage") + WORDS, True, False),
    "a number for a truth": (CALL.replace("true", "1") + WORDS, True, False),
    "one argument more": (CALL.replace("true", 'true, "color": "red"') + WORDS, True, False),
    "no call": (WORDS, True, False),
    "no JSON": (CALL.replace("}}", "}") + WORDS, True, False),
    "call after the words": (WORDS + CALL, False, False),
    "call that never ends": (CALL.removesuffix("</tool_call>"), False, True),
    "two calls": (CALL + CALL + WORDS, False, True),
    "nothing": ("", False, False),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_call_and_its_words_are_judged_apart(name: str) -> None:
    answer, words, call = ANSWERS[name]
    verdict = judge(answer, LAMP)
    assert verdict == Verdict(words, call, False)
    assert verdict.right == (words and call)


def test_a_call_where_none_was_due_is_counted() -> None:
    assert judge(WORDS, PLAIN) == Verdict(True, None, False)
    assert judge(f" {WORDS}\n", PLAIN).right
    undue = judge(CALL + WORDS, PLAIN)
    assert undue == Verdict(True, None, True)
    assert not undue.right


def test_every_right_answer_of_the_generator_is_judged_right() -> None:
    for number, example in enumerate(every_example(Split.VALIDATION)):
        if number % 20:
            continue
        for turn in example.turns:
            text = (turn.tool_call or "") + turn.answer_text
            call, words = split_answer(text)
            assert words == turn.answer_text
            assert (call is None) == (turn.tool_call is None)


def test_written_messages_are_judged_right() -> None:
    assert written(LAMP) == CALL + WORDS
    assert written(PLAIN) == WORDS
    assert judge(written(LAMP), LAMP).right


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),  # Wilson's interval by hand, z = 1.959964
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785), (100, 100, 0.9630, 1.0)],
)
def test_intervals(right: int, total: int, low: float, high: float) -> None:
    found = share([True] * right + [False] * (total - right))
    assert (found.right, found.total, found.value) == (right, total, right / total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_nothing_judged_is_no_success() -> None:
    found = share([])
    assert (found.value, found.low, found.high) == (0, 0, 1)
    assert str(found) == "none"
    assert str(share([True, False])).startswith("1/2 = 50.0% (")
