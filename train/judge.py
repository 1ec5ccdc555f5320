"""Whether an answer is right: its words and its tool call, each exactly; and shares of right ones with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from scipy.stats import binomtest

from .dataset import SpokenMessage
from .intent import MARK

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer beside the right one."""

    words: bool  # exactly the right words, in case and punctuation too
    call: bool | None  # exactly the right tool call; None: none was due
    undue_call: bool  # a tool call where none was due

    @property
    def right(self) -> bool:
        """Words and deed."""
        return self.words and self.call is not False and not self.undue_call


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many; `low` and `high` bound the true share with 95 % confidence (Wilson's interval)."""

    right: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """0 to 1; 0 of 0 is 0."""
        return self.right / max(self.total, 1)

    def __str__(self) -> str:
        if not self.total:
            return "none"
        return f"{self.right}/{self.total} = {self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def written(message: SpokenMessage) -> str:
    """An assistant's message as the model writes it: its tool call, if any, directly before its words."""
    call = "" if message.tool_call is None else json.dumps(dict(message.tool_call)).join(MARK)
    return call + (message.text or "")


def judge(answer: str, right: SpokenMessage) -> Verdict:
    """Compares a model's text with the right message."""
    call, words = split_answer(answer)
    due = None if right.tool_call is None else _canonical(dict(right.tool_call))
    return Verdict(
        words=words == " ".join((right.text or "").split()),
        call=None if due is None else call == due,
        undue_call=due is None and MARK[0] in answer,
    )


def split_answer(answer: str) -> tuple[str | None, str]:
    """The tool call before the words, as canonical JSON, and the words.

    Canonical: keys sorted, so that equal JSON values are equal texts. None where there is no call, or one that is no
    JSON. What never ends is a call without words.
    """
    answer = " ".join(answer.split())
    if not answer.startswith(MARK[0]):
        return None, answer
    call, _, words = answer.removeprefix(MARK[0]).partition(MARK[1])
    try:
        return _canonical(json.loads(call)), words.strip()
    except (ValueError, RecursionError):
        return None, words.strip()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def share(outcomes: Iterable[bool]) -> Share:
    """Counts outcomes, taken as independent of each other."""
    counted = list(outcomes)
    if not counted:
        return Share(0, 0, 0.0, 1.0)
    interval = binomtest(sum(counted), len(counted)).proportion_ci(CONFIDENCE, "wilson")
    return Share(sum(counted), len(counted), float(interval.low), float(interval.high))
