"""The kiosk-and-robot assistant: a seeded stream of conversations with one right answer each, and what is held out.

Three things are held out: combinations of slots, phrasings, and (in `train/speak.py`) voices.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

from ..errors import RequestError
from . import intents_place, intents_robot, intents_talk, intents_time
from .intent import Call, Intent, Slots, phrasing_choices

INTENTS: tuple[Intent, ...] = (
    *intents_time.INTENTS, *intents_place.INTENTS, *intents_robot.INTENTS, *intents_talk.INTENTS,
)  # fmt: skip


class Split(str, Enum):
    """Which examples; all but `UNSEEN_VOICES` are spoken by the voices of training."""

    TRAIN = "train"
    VALIDATION = "validation"  # combinations held out for choosing, not for judging
    UNSEEN_SLOTS = "unseen-slots"
    UNSEEN_PHRASINGS = "unseen-phrasings"  # at least one turn is phrased as never in training
    UNSEEN_VOICES = "unseen-voices"  # the texts of training, spoken by other voices


def find_split(name: str) -> Split:
    """The split of that name.

    Raises:
        RequestError: there is none.
    """
    try:
        return Split(name)
    except ValueError:
        raise RequestError(f"split {name!r} is none of {', '.join(split.value for split in Split)}") from None


@cache
def fingerprint() -> str:
    """Changes whenever the generator would say something else: slots, words, phrasings, what is held out."""
    every = hashlib.sha256()
    for split in Split:
        for example in itertools.islice(examples(split, 0), 2_000):
            every.update(repr(example).encode())
    for chosen in INTENTS:
        every.update(repr([(p.name, p.phrasings, p.unseen) for p in chosen.patterns]).encode())
    return every.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its right answer."""

    user_text: str
    answer_text: str  # what is spoken: words only
    tool_call: str | None = None  # <tool_call>{...}</tool_call>, before the words


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation of one or two turns."""

    intent: str
    turns: tuple[Turn, ...]


def examples(split: Split, seed: int) -> Iterator[Example]:
    """An endless stream: intents by the bits of their number of combinations; combinations and phrasings evenly."""
    return (example_at(split, seed, index) for index in itertools.count())


def example_at(split: Split, seed: int, index: int) -> Example:
    """The example number `index` of `examples(split, seed)`."""
    return _example(*_drawn(split, random.Random(f"{split.value}/{seed}/{index}")))


def worded_example(draw: random.Random, wording: Callable[[str, random.Random], str]) -> Example:
    """An example of training, drawn as `examples` draws, whose templates are put in other words."""
    chosen, slots, templates = _drawn(Split.TRAIN, draw)
    return _example(chosen, slots, tuple(wording(template, draw) for template in templates))


def _drawn(split: Split, draw: random.Random) -> tuple[Intent, Slots, tuple[str, ...]]:
    (chosen, combinations), *_ = draw.choices(_drawable(split), cum_weights=_cumulative_weights(split))
    slots = draw.choice(combinations)
    return chosen, slots, draw.choice(_choices(chosen.name, split is Split.UNSEEN_PHRASINGS))


def example_of_slots(chosen: Intent, slots: Slots, draw: random.Random) -> Example:
    """A combination of an intent in phrasings of training."""
    return _example(chosen, slots, draw.choice(_choices(chosen.name, unseen=False)))


def every_example(split: Split) -> Iterator[Example]:
    """All that `examples` can give, each once."""
    for chosen, slots in _drawable(split):
        for combination in slots:
            for choice in _choices(chosen.name, split is Split.UNSEEN_PHRASINGS):
                yield _example(chosen, combination, choice)


@cache
def _drawable(split: Split) -> tuple[tuple[Intent, tuple[Slots, ...]], ...]:
    bucket = {Split.VALIDATION: "validation", Split.UNSEEN_SLOTS: "unseen"}.get(split, "train")
    return tuple((chosen, chosen.buckets[bucket]) for chosen in INTENTS if chosen.buckets[bucket])


@cache
def _cumulative_weights(split: Split) -> tuple[int, ...]:
    """Whole numbers, so that no rounding decides what is drawn: the bits of the number of combinations."""
    return tuple(itertools.accumulate(len(slots).bit_length() for _, slots in _drawable(split)))


@cache
def _choices(name: str, unseen: bool) -> tuple[tuple[str, ...], ...]:
    chosen = next(chosen for chosen in INTENTS if chosen.name == name)
    return tuple(phrasing_choices(chosen, unseen))


def _example(chosen: Intent, slots: Slots, templates: tuple[str, ...]) -> Example:
    turns = []
    for pattern, template in zip(chosen.patterns, templates, strict=True):
        answer = pattern.respond(slots)
        call = answer.markup() if isinstance(answer, Call) else None
        words = answer.words if isinstance(answer, Call) else answer
        turns.append(Turn(chosen.question(template, slots), words, call))
    return Example(chosen.name, tuple(turns))
