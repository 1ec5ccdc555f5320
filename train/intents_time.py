"""Intents about time, dates, numbers and sums."""

from __future__ import annotations

from .intent import Call, Intent, follow_up, intent
from .words import DAYS, MONTHS, cardinal, clock, counted, ordinal, sentence

DAYS_OF_MONTH = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))


def _later(hour: int, hours: int) -> str:
    return f"It will be {clock((hour + hours - 1) % 12 + 1)}."


def _earlier(hour: int, hours: int) -> str:
    return f"It was {clock((hour - hours - 1) % 12 + 1)}."


def _ends(hour: int, minutes: int) -> str:
    return f"It ends at {clock(hour, minutes)}."


def _weekday(day: str, days: int) -> str:
    return f"It will be {DAYS[(DAYS.index(day) + days) % 7]}."


def _month(month: str, months: int) -> str:
    return f"It will be {MONTHS[(MONTHS.index(month) + months) % 12]}."


def _tomorrow(month: str, date: int) -> str:
    return f"Tomorrow is {month} {ordinal(date + 1)}."


def _yesterday(month: str, date: int) -> str:
    return f"Yesterday was {month} {ordinal(date - 1)}."


def _compare(a: int, b: int) -> str:
    return f"{sentence(cardinal(max(a, b)))} is more than {cardinal(min(a, b))}."


def _neighbour(side: str, number: int) -> str:
    return f"{sentence(cardinal(number + (1 if side == 'after' else -1)))} comes {side} {cardinal(number)}."


def _added(a: int, b: int) -> str:
    return f"{sentence(cardinal(a))} plus {cardinal(b)} is {cardinal(a + b)}."


def _subtracted(a: int, b: int) -> str:
    return f"{sentence(cardinal(a))} minus {cardinal(b)} is {cardinal(a - b)}."


NUMBERS = {"a": cardinal, "b": cardinal}
ADD = intent(
    "add", {"a": range(1, 21), "b": range(1, 21)},
    ("What is {a} plus {b}?", "How much is {a} plus {b}?", "Please add {a} and {b}.", "What is the sum of {a} and {b}?",
     "Tell me {a} plus {b}."),
    ("Can you add {b} to {a}?", "What do {a} and {b} make?"),
    _added, say=NUMBERS,
)  # fmt: skip
INTENTS: tuple[Intent, ...] = (
    intent(
        "time_now", {},
        ("What time is it?", "What's the time?", "Can you tell me the time?", "Please tell me the time.",
         "How late is it?"),
        ("Do you know what time it is?", "Could you give me the time?"),
        lambda: Call("get_time", {}, "Let me look at the clock."),
    ),
    intent(
        "date_now", {},
        ("What is the date today?", "What day is it today?", "Which day is today?", "Please tell me the date.",
         "Can you tell me today's date?"),
        ("What's today's date?", "Do you know what day it is?"),
        lambda: Call("get_date", {}, "Let me look at the calendar."),
    ),
    intent(
        "time_later", {"hour": range(1, 13), "hours": range(1, 12)},
        ("It is {hour}. What time is it in {hours}?", "It's {hour} now. What time will it be in {hours}?",
         "What time is {hours} after {hour}?", "It's {hour}. Add {hours}, please.",
         "If it is {hour} now, what time is it {hours} later?"),
        ("In {hours}, what time will it be, if it is {hour}?", "Now it's {hour}. And {hours} later?"),
        _later, say={"hour": clock, "hours": lambda n: counted(n, "hour")},
    ),
    intent(
        "time_earlier", {"hour": range(1, 13), "hours": range(1, 12)},
        ("It is {hour}. What time was it {hours} ago?", "It's {hour} now. What time was it {hours} before?",
         "What time is {hours} before {hour}?", "If it is {hour} now, what time was it {hours} ago?"),
        ("{hours} ago, what time was it, if it is {hour}?", "Now it's {hour}. And {hours} earlier?"),
        _earlier, say={"hour": clock, "hours": lambda n: counted(n, "hour")},
    ),
    intent(
        "meeting_end", {"hour": range(1, 13), "minutes": range(5, 60, 5)},
        ("The meeting starts at {hour} and takes {minutes}. When does it end?",
         "My meeting is at {hour} for {minutes}. When is it over?",
         "A tour starts at {hour} and lasts {minutes}. When does it end?",
         "If the talk begins at {hour} and lasts {minutes}, when does it end?"),
        ("When does a meeting of {minutes} end that starts at {hour}?",
         "The show is at {hour} and takes {minutes}. When is it over?"),
        _ends, say={"hour": clock, "minutes": lambda n: counted(n, "minute")},
    ),
    intent(
        "weekday_after", {"day": DAYS, "days": range(1, 7)},
        ("Today is {day}. Which day is it in {days}?", "Which day comes {days} after {day}?",
         "It's {day}. What day will it be in {days}?", "If today is {day}, what day is it {days} later?"),
        ("What day is {days} after {day}?", "In {days}, which day is it, if today is {day}?"),
        _weekday, say={"days": lambda n: counted(n, "day")},
    ),
    intent(
        "month_after", {"month": MONTHS, "months": range(1, 7)},
        ("It is {month}. Which month is it in {months}?", "Which month comes {months} after {month}?",
         "It's {month} now. What month will it be in {months}?", "If it is {month}, what month is it {months} later?"),
        ("What month is {months} after {month}?", "In {months}, which month is it, if it's {month}?"),
        _month, say={"months": lambda n: counted(n, "month")},
    ),
    intent(
        "days_in_month", {"month": MONTHS},
        ("How many days does {month} have?", "How many days are in {month}?", "How long is {month}?",
         "Tell me the number of days in {month}."),
        ("{month} has how many days?", "Do you know how many days {month} has?"),
        lambda month: f"{month} has {counted(DAYS_OF_MONTH[month], 'day')}.",
    ),
    intent(
        "date_tomorrow", {"month": MONTHS, "date": range(1, 28)},
        ("Today is {month} {date}. What is the date tomorrow?", "It's {month} {date}. What date is tomorrow?",
         "If today is {month} {date}, what is tomorrow?", "What is the day after {month} {date}?"),
        ("Which date follows {month} {date}?", "Tomorrow is what date, if today is {month} {date}?"),
        _tomorrow, say={"date": ordinal},
    ),
    intent(
        "date_yesterday", {"month": MONTHS, "date": range(2, 29)},
        ("Today is {month} {date}. What was the date yesterday?", "It's {month} {date}. What date was yesterday?",
         "If today is {month} {date}, what was yesterday?", "What is the day before {month} {date}?"),
        ("Which date was before {month} {date}?", "Yesterday was what date, if today is {month} {date}?"),
        _yesterday, say={"date": ordinal},
    ),
    ADD,
    intent(
        "subtract", {"a": range(1, 21), "b": range(1, 21)},
        ("What is {a} minus {b}?", "How much is {a} minus {b}?", "Please take {b} from {a}.",
         "What is {a} less {b}?", "Tell me {a} minus {b}."),
        ("Can you subtract {b} from {a}?", "What is left of {a} after taking {b}?"),
        _subtracted, say=NUMBERS, where=lambda a, b: b <= a,
    ),
    intent(
        "compare", {"a": range(1, 31), "b": range(1, 31)},
        ("Which is more, {a} or {b}?", "Which number is bigger, {a} or {b}?", "What is more, {a} or {b}?",
         "Is {a} or {b} the bigger number?"),
        ("Of {a} and {b}, which is more?", "Tell me the bigger one of {a} and {b}."),
        _compare, say=NUMBERS, where=lambda a, b: a != b,
    ),
    intent(
        "neighbour", {"side": ("before", "after"), "number": range(1, 100)},
        ("Which number comes {side} {number}?", "What comes {side} {number}?", "What is the number {side} {number}?",
         "Tell me the number {side} {number}."),
        ("{side} {number}, which number comes?", "Say the number that comes {side} {number}."),
        _neighbour, say={"number": cardinal},
    ),
    intent(
        "even_or_odd", {"number": range(1, 100)},
        ("Is {number} even or odd?", "Is the number {number} even or odd?", "Tell me if {number} is even or odd.",
         "{number}, is that even or odd?"),
        ("Is {number} an odd number or an even one?", "Even or odd, {number}?"),
        lambda number: f"{sentence(cardinal(number))} is {'odd' if number % 2 else 'even'}.",
        say={"number": cardinal}, inferable=True,
    ),
    intent(
        "say_number", {"number": range(200)},
        ("Please say {number}.", "Say the number {number}.", "Repeat after me, {number}.", "Can you say {number}?"),
        ("Read out the number {number}.", "I want to hear you say {number}."),
        lambda number: f"{sentence(cardinal(number))}.", say={"number": cardinal}, inferable=True,
    ),
    follow_up(
        "add_then_more", ADD, {"c": range(1, 6)},
        ("And plus {c}?", "And {c} more?", "Now add {c}.", "Plus {c}, please."),
        ("And if I add {c}?", "What is that plus {c}?"),
        lambda a, b, c: f"Then it is {cardinal(a + b + c)}.", say={"c": cardinal},
    ),
)  # fmt: skip
