"""What the base model practises beside the conversations: rules over wider numbers, and copying of unheard words.

A combination that training never shows is evidence against it: a model of a closed domain learns that the workshop
lamp is never green. Over wide numbers a rule is easier to learn than a table, and a word from anywhere can only be
copied. What a pattern holds out stays held out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from ..errors import RequestError
from .facts import facts
from .intent import Intent, Slots
from .intents import INTENTS, Example, Split, example_of_slots

WIDER = {
    "add": {"a": range(1, 50), "b": range(1, 50)},
    "add_then_more": {"a": range(1, 30), "b": range(1, 30), "c": range(1, 13)},
    "subtract": {"a": range(1, 60), "b": range(1, 60)},
    "compare": {"a": range(1, 100), "b": range(1, 100)},
    "neighbour": {"number": range(1, 200)},
    "even_or_odd": {"number": range(1, 300)},
    "time_later": {"hours": range(1, 31)},
    "time_earlier": {"hours": range(1, 31)},
    "meeting_end": {"minutes": range(1, 60)},
    "weekday_after": {"days": range(1, 15)},
    "month_after": {"months": range(1, 25)},
    "between_floors": {"a": range(1, 61), "b": range(1, 61)},
    "room_floor": {"room": range(101, 1000)},
    "room_side": {"room": range(101, 1000)},
    "room_then_guide": {"room": range(101, 1000)},
    "price": {"count": range(1, 21)},
    "price_then_count": {"count": range(1, 21), "number": range(1, 21)},
    "tickets": {"count": range(1, 21)},
    "timer_then_longer": {"more": range(1, 31)},
    "heat_then_warmer": {"degrees": range(5, 41)},
}
UNHEARD = "zebu"  # a word of no intent


@cache
def _widened(name: str) -> Intent:
    chosen = next((chosen for chosen in INTENTS if chosen.name == name), None)
    if chosen is None:
        raise RequestError(f"no intent {name!r} can be practised; there are {', '.join(i.name for i in INTENTS)}")
    return replace(chosen, slots={**chosen.slots, **WIDER.get(name, {})})


def wider_example(name: str, seed: int) -> Example:
    """An intent as training has it, but over wider numbers.

    Raises:
        RequestError: there is no such intent.
    """
    chosen = _widened(name)
    draw = random.Random(f"wider/{name}/{seed}")
    return example_of_slots(chosen, draw.choice(chosen.buckets["train"]), draw)


def renamed_example(seed: int) -> Example:
    """A conversation in which words that the answer repeats are words that it knows from elsewhere."""
    return _renamed(random.Random(f"renamed/{seed}"), _words())


def aloud_example(seed: int, index: int) -> Example:
    """A conversation as the base model practises them, but for words that only facts have: its answers can be spoken.

    So the speech head hears words in other sentences than the few thousand that the generator's assistant ever says.
    """
    draw = random.Random(f"aloud/{seed}/{index}")
    if draw.random() < 0.5:
        return _renamed(draw, _slot_words())
    return wider_example(draw.choice(tuple(WIDER)), draw.getrandbits(40))


def _renamed(draw: random.Random, words: tuple[str, ...]) -> Example:
    chosen, free = draw.choice(_renamable())
    slots = draw.choice(chosen.buckets[Split.TRAIN.value])
    new = {name: draw.choice(words) for name in free if draw.random() < 0.7}
    return example_of_slots(chosen, {**slots, **new}, draw)


@cache
def _renamable() -> tuple[tuple[Intent, tuple[str, ...]], ...]:
    """Intents and those of their slots whose words every answer can take as they are."""
    found = ((chosen, tuple(_free_slots(chosen))) for chosen in INTENTS)
    return tuple((chosen, free) for chosen, free in found if free)


def _free_slots(chosen: Intent) -> Iterable[str]:
    """Slots whose word is repeated and decides nothing: another word changes the answer in that word alone."""
    for name, values in chosen.slots.items():
        if not all(isinstance(value, str) for value in values):
            continue
        rows = [{**slots, name: value} for slots in chosen.combinations[:10] for value in values]
        if all(_answers(row, chosen, row[name]) == _answers({**row, name: UNHEARD}, chosen, "") != "" for row in rows):
            yield name


def _answers(slots: Slots, chosen: Intent, word: str) -> str:
    """What is answered, with the unheard word in place of another; "" where that does not stand in it."""
    try:
        said = repr([pattern.respond(slots) for pattern in chosen.patterns]).lower()
    except (KeyError, ValueError, IndexError):
        return ""
    said = said.replace(word.lower(), UNHEARD) if word else said
    return said if UNHEARD in said else ""


@cache
def _words() -> tuple[str, ...]:
    """Words of all intents and facts."""
    subjects = (fact.subject for fact in facts() if fact.kind in ("young", "opposite", "past"))
    return tuple(sorted({*_slot_words(), *subjects}))


@cache
def _slot_words() -> tuple[str, ...]:
    """Words of all intents."""
    values = (value for chosen in INTENTS for row in chosen.slots.values() for value in row if isinstance(value, str))
    return tuple(sorted(set(values)))
