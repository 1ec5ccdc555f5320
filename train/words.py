"""Numbers, times and dates as words, the way they are said."""

from __future__ import annotations

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
IRREGULAR_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
                      "nine": "ninth", "twelve": "twelfth"}  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip


def cardinal(number: int) -> str:
    """0..999 in words: "two hundred five", "forty two"."""
    assert 0 <= number < 1000, number
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return f"{ONES[hundreds]} hundred" + (f" {cardinal(rest)}" if rest else "")
    if rest < 20:
        return ONES[rest]
    tens, ones = divmod(rest, 10)
    return TENS[tens] + (f" {ONES[ones]}" if ones else "")


def ordinal(number: int) -> str:
    """1..99 in words: "first", "twentieth", "thirty second"."""
    head, _, last = cardinal(number).rpartition(" ")
    if last in IRREGULAR_ORDINALS:
        last = IRREGULAR_ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{head} {last}".strip()


def clock(hour: int, minute: int = 0) -> str:
    """A time of a twelve-hour clock: "three o'clock", "three oh five", "three thirty"."""
    if minute == 0:
        return f"{cardinal(hour)} o'clock"
    return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"


def room_number(number: int) -> str:
    """101..999 as rooms are called: "one oh one", "four twelve", "four twenty"."""
    floor, rest = divmod(number, 100)
    return f"{ONES[floor]} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def plural(noun: str, count: int) -> str:
    """The noun in the form that `count` asks for; several words take their ending at the last one."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith(("ch", "sh", "s", "x")) else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """ "one coffee", "three coffees"."""
    return f"{cardinal(count)} {plural(noun, count)}"


def article(noun: str) -> str:
    """ "a tea", "an umbrella"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def hour_of_day(hour: int) -> str:
    """7..22 with the part of the day: "nine in the morning", "six in the evening"."""
    part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    return f"{cardinal((hour - 1) % 12 + 1)} in the {part}"
