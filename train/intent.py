"""What an intent is: slots, phrasings, and the one right answer; and which of its combinations are held out."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from .phrasings import MORE
from .words import sentence

HELD_OUT_PERCENT = 8  # of the combinations of a pattern that can be inferred from the others
VALIDATION_PERCENT = 2

MARK = ("<tool_call>", "</tool_call>")

Slots = Mapping[str, Any]
Words = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Call:
    """An answer that does something: what is called, and the words that go with it."""

    name: str
    arguments: Mapping[str, Any]
    words: str

    def markup(self) -> str:
        """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""
        return json.dumps({"name": self.name, "arguments": dict(self.arguments)}).join(MARK)


@dataclass(frozen=True)
class Pattern:
    """One kind of user turn.

    `answer` takes the slots that it depends on by name and gives the right words, or a `Call`. The templates of
    `unseen` never occur in training. Only patterns whose answers follow from those of other combinations are
    `inferable`: a fact that was never told cannot be asked for.
    """

    name: str
    phrasings: tuple[str, ...]
    unseen: tuple[str, ...]
    answer: Callable[..., str | Call]
    inferable: bool = True

    @cached_property
    def depends_on(self) -> tuple[str, ...]:
        """The slots that decide the answer."""
        return _parameters(self.answer)

    def respond(self, slots: Slots) -> str | Call:
        """The right answer."""
        return self.answer(**{name: slots[name] for name in self.depends_on})

    def percentile(self, slots: Slots) -> int:
        """0..99, evenly spread, the same on every machine and for every intent that uses the pattern."""
        key = "|".join([self.name, *(repr(slots[name]) for name in self.depends_on)])
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100


@dataclass(frozen=True)
class Intent:
    """A conversation of one or more patterns over common slots.

    `say` words a slot's value for the templates (default: `str`); `derive` makes further words out of several slots,
    taken by name; `where` filters combinations.
    """

    name: str
    patterns: tuple[Pattern, ...]
    slots: Mapping[str, Sequence[Any]]
    say: Mapping[str, Words]
    derive: Mapping[str, Callable[..., str]]
    where: Callable[..., bool] | None = None

    @cached_property
    def combinations(self) -> tuple[Slots, ...]:
        """Every allowed assignment of the slots, in a fixed order."""
        rows = (dict(zip(self.slots, values, strict=True)) for values in itertools.product(*self.slots.values()))
        return tuple(row for row in rows if self.where is None or self.where(**row))

    def bucket(self, slots: Slots) -> str:
        """Where a combination belongs: "train", "validation" or "unseen"; what one turn withholds, all do."""
        percentiles = [pattern.percentile(slots) for pattern in self.patterns if pattern.inferable]
        if any(p < HELD_OUT_PERCENT for p in percentiles):
            return "unseen"
        return "validation" if any(p < HELD_OUT_PERCENT + VALIDATION_PERCENT for p in percentiles) else "train"

    @cached_property
    def buckets(self) -> dict[str, tuple[Slots, ...]]:
        """The combinations by bucket."""
        found: dict[str, list[Slots]] = {"train": [], "validation": [], "unseen": []}
        for slots in self.combinations:
            found[self.bucket(slots)].append(slots)
        return {bucket: tuple(rows) for bucket, rows in found.items()}

    def question(self, template: str, slots: Slots) -> str:
        """The template with its slots in words."""
        worded = {name: self.say.get(name, str)(value) for name, value in slots.items()}
        for name, derived in self.derive.items():
            worded[name] = derived(**{slot: slots[slot] for slot in _parameters(derived)})
        return sentence(template.format_map(worded))


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def intent(
    name: str,
    slots: Mapping[str, Sequence[Any]],
    phrasings: Sequence[str],
    unseen: Sequence[str],
    answer: Callable[..., str | Call],
    *,
    say: Mapping[str, Words] | None = None,
    derive: Mapping[str, Callable[..., str]] | None = None,
    inferable: bool | None = None,
    where: Callable[..., bool] | None = None,
) -> Intent:
    """An intent of one turn; by default inferable where the answer depends on two slots or more."""
    inferable = len(_parameters(answer)) > 1 if inferable is None else inferable
    pattern = Pattern(name, (*phrasings, *MORE.get(name, ())), tuple(unseen), answer, inferable)
    return Intent(name, (pattern,), slots, say or {}, derive or {}, where)


def follow_up(
    name: str,
    first: Intent,
    slots: Mapping[str, Sequence[Any]],
    phrasings: Sequence[str],
    unseen: Sequence[str],
    answer: Callable[..., str | Call],
    *,
    say: Mapping[str, Words] | None = None,
    inferable: bool | None = None,
    where: Callable[..., bool] | None = None,
) -> Intent:
    """An intent whose second turn needs the first one: `answer` may take the slots of both."""
    second = intent(name, slots, phrasings, unseen, answer, inferable=inferable).patterns
    if where is None:
        where = first.where and _only(first)
    say = {**first.say, **(say or {})}
    return Intent(name, first.patterns + second, {**first.slots, **slots}, say, first.derive, where)


def _only(first: Intent) -> Callable[..., bool]:
    assert first.where is not None
    allowed = first.where
    return lambda **row: allowed(**{name: row[name] for name in first.slots})


def phrasing_choices(conversation: Intent, unseen: bool) -> Iterator[tuple[str, ...]]:
    """Every choice of one template per turn: all seen ones, or those with at least one unseen one."""
    if not unseen:
        yield from itertools.product(*(pattern.phrasings for pattern in conversation.patterns))
        return
    for choice in itertools.product(*((*p.phrasings, *p.unseen) for p in conversation.patterns)):
        if any(template in p.unseen for template, p in zip(choice, conversation.patterns, strict=True)):
            yield choice
