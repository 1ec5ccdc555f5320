"""Intents about the building: rooms, floors, directions, opening hours, prices."""

from __future__ import annotations

from .intent import Call, Intent, follow_up, intent
from .place import BY_NAME, PLACE_NAMES, PRICES, TICKETS, floor_name
from .words import DAYS, article, cardinal, counted, hour_of_day, room_number, sentence

ROOMS = tuple(floor * 100 + number for floor in range(1, 8) for number in range(1, 31))
FACILITIES = {
    "elevator": "next to the reception", "restroom": "at the end of the hall", "fire exit": "behind the stairs",
    "cash machine": "beside the entrance", "first aid kit": "at the reception", "coat check": "across from the stairs",
    "drinking fountain": "next to the elevator", "phone charger": "beside the sofa", "parking ticket machine":
    "at the garage door", "bus stop": "in front of the main door",
}  # fmt: skip
RULES = {
    "bring my dog": "Yes, small dogs are welcome.", "take photos": "Yes, but without flash, please.",
    "smoke": "No, smoking is not allowed here.", "pay by card": "Yes, all cards are welcome.",
    "bring my own food": "No, please eat in the cafeteria.", "leave my luggage": "Yes, the reception keeps it for you.",
    "use the wireless network": "Yes, it is free for all guests.",
    "ride a bicycle inside": "No, please leave it outside.",
}  # fmt: skip
BUSES = {1: "the harbor", 2: "the airport", 3: "the train station", 4: "the old town", 5: "the stadium", 6: "the zoo",
         7: "the university", 8: "the hospital", 9: "the beach", 10: "the castle"}  # fmt: skip


def _room_floor(room: int) -> str:
    return f"Room {room_number(room)} is on {floor_name(room // 100)}."


def _room_side(room: int) -> str:
    return f"Room {room_number(room)} is on the {'left' if room % 2 else 'right'} side."


def _place_floor(place: str) -> str:
    return f"The {place} is on {floor_name(BY_NAME[place].floor)}."


def _place_where(place: str) -> str:
    return f"The {place} is {BY_NAME[place].where}."


def _elevator(start: str, goal: str) -> str:
    floors = BY_NAME[goal].floor - BY_NAME[start].floor
    if floors == 0:
        return f"The {goal} is on the same floor."
    return f"Go {counted(abs(floors), 'floor')} {'up' if floors > 0 else 'down'}."


def _floors(a: int, b: int) -> str:
    return f"That is {counted(abs(a - b), 'floor')} {'up' if b > a else 'down'}."


def _opens(place: str, day: str) -> str:
    hours = BY_NAME[place].hours(day)
    return f"It opens at {hour_of_day(hours[0])}." if hours else f"The {place} is closed on {day}."


def _closes(place: str, day: str) -> str:
    hours = BY_NAME[place].hours(day)
    return f"It closes at {hour_of_day(hours[1])}." if hours else f"The {place} is closed on {day}."


def _is_open(place: str, day: str, hour: int) -> str:
    hours = BY_NAME[place].hours(day)
    if hours and hours[0] <= hour < hours[1]:
        return f"Yes, the {place} is open then."
    return f"No, the {place} is closed then."


def euros(amount: int) -> str:
    """ "one euro", "twelve euros"."""
    return counted(amount, "euro")


def _cost(item: str, count: int, price: int) -> str:
    return f"{sentence(counted(count, item))} {'costs' if count == 1 else 'cost'} {euros(price * count)}."


def _price_of(item: str, count: int) -> str:
    return _cost(item, count, PRICES[item])


def _change(item: str, note: int) -> str:
    return f"You get {euros(note - PRICES[item])} back."


def _two_items(a: str, b: str) -> str:
    return f"Together that is {euros(PRICES[a] + PRICES[b])}."


def _tickets(kind: str, count: int) -> str:
    return _cost(f"{kind} ticket", count, TICKETS[kind])


def _guide_room(room: int) -> Call:
    return Call("guide", {"room": room}, f"Please follow me to room {room_number(room)}.")


ROOM_SAY = {"room": room_number}
ROOM_FLOOR = intent(
    "room_floor", {"room": ROOMS},
    ("Which floor is room {room} on?", "Where is room {room}?", "On which floor is room {room}?",
     "What floor is room {room}?", "I am looking for room {room}."),
    ("How do I find room {room}?", "Tell me the floor of room {room}."),
    _room_floor, say=ROOM_SAY, inferable=True,
)  # fmt: skip
PLACE_FLOOR = intent(
    "place_floor", {"place": PLACE_NAMES},
    ("Which floor is the {place} on?", "On which floor is the {place}?", "What floor is the {place}?",
     "Which floor has the {place}?"),
    ("The {place}, which floor is that?", "Tell me the floor of the {place}."),
    _place_floor,
)  # fmt: skip
OPENING = intent(
    "opening", {"place": PLACE_NAMES, "day": DAYS},
    ("When does the {place} open on {day}?", "When do you open the {place} on {day}?",
     "What time does the {place} open on {day}?", "From when is the {place} open on {day}?"),
    ("On {day}, when does the {place} open?", "How early is the {place} open on {day}?"),
    _opens,
)  # fmt: skip
PRICE = intent(
    "price", {"item": tuple(PRICES), "count": range(1, 7)},
    ("How much is {order}?", "What is the price of {order}?", "I would like {order}. How much is that?",
     "What do I pay for {order}?", "Tell me the price of {order}."),
    ("What does it cost, {order}?", "{order}, please. What do I owe you?"),
    _price_of, derive={"order": lambda item, count: counted(count, item)},
)  # fmt: skip
INTENTS: tuple[Intent, ...] = (
    ROOM_FLOOR,
    intent(
        "room_side", {"room": ROOMS},
        ("Is room {room} on the left or on the right?", "On which side is room {room}?",
         "Which side is room {room} on?", "Do I go left or right to room {room}?"),
        ("Left or right for room {room}?", "Room {room}, which side is that?"),
        _room_side, say=ROOM_SAY, inferable=True,
    ),
    PLACE_FLOOR,
    intent(
        "place_where", {"place": PLACE_NAMES},
        ("Where is the {place}?", "How do I find the {place}?", "Where can I find the {place}?",
         "I am looking for the {place}."),
        ("Can you show me where the {place} is?", "Where do I find the {place}?"),
        _place_where,
    ),
    intent(
        "between_places", {"start": PLACE_NAMES, "goal": PLACE_NAMES},
        ("How do I get from the {start} to the {goal}?", "I am at the {start}. How do I get to the {goal}?",
         "What is the way from the {start} to the {goal}?", "Which way from the {start} to the {goal}?"),
        ("Take me from the {start} to the {goal} in words.", "How do I reach the {goal} from the {start}?"),
        _elevator, where=lambda start, goal: start != goal,
    ),
    intent(
        "between_floors", {"a": range(1, 13), "b": range(1, 13)},
        ("How many floors is it from floor {a} to floor {b}?", "I am on floor {a}. How far is floor {b}?",
         "From floor {a} to floor {b}, how many floors?", "How far is it from floor {a} to floor {b}?"),
        ("I stand on floor {a} and want floor {b}. How far is it?", "To floor {b} from floor {a}, how far is that?"),
        _floors, say={"a": cardinal, "b": cardinal}, where=lambda a, b: a != b,
    ),
    intent(
        "facility", {"thing": tuple(FACILITIES)},
        ("Where is the nearest {thing}?", "Is there {one} here?", "I need {one}.", "Where do I find {one}?"),
        ("Can you point me to {one}?", "Which way to the nearest {thing}?"),
        lambda thing: f"The {thing} is {FACILITIES[thing]}.", derive={"one": lambda thing: article(thing)},
    ),
    intent(
        "rule", {"deed": tuple(RULES)},
        ("May I {deed}?", "Can I {deed}?", "Am I allowed to {deed}?", "Is it okay to {deed} here?"),
        ("Would it be fine to {deed}?", "I want to {deed}. Is that allowed?"),
        lambda deed: RULES[deed],
    ),
    intent(
        "bus", {"line": tuple(BUSES)},
        ("Where does bus {line} go?", "Where does bus number {line} go to?", "Bus {line} goes where?",
         "What is the last stop of bus {line}?"),
        ("Where will bus {line} take me?", "Which way does bus {line} go?"),
        lambda line: f"Bus {cardinal(line)} goes to {BUSES[line]}.", say={"line": cardinal},
    ),
    OPENING,
    intent(
        "closing", {"place": PLACE_NAMES, "day": DAYS},
        ("When does the {place} close on {day}?", "What time does the {place} close on {day}?",
         "Until when is the {place} open on {day}?", "Up to what time is the {place} open on {day}?"),
        ("On {day}, when does the {place} close?", "How late can I visit the {place} on {day}?"),
        _closes,
    ),
    intent(
        "is_open", {"place": PLACE_NAMES, "day": DAYS, "hour": range(7, 23)},
        ("Is the {place} open on {day} at {hour}?", "Is the {place} open {day} at {hour}?",
         "Can I visit the {place} on {day} at {hour}?"),
        ("At {hour} on {day}, is the {place} open?", "Will the {place} be open on {day} at {hour}?"),
        _is_open, say={"hour": hour_of_day},
    ),
    PRICE,
    intent(
        "change", {"item": tuple(PRICES), "note": (20, 50, 100)},
        ("I pay for {item} with {note}. How much do I get back?", "I buy {item} with {note}. What is my change?",
         "How much change do I get for {item} from {note}?", "{item}, and here are {note}. What do I get back?"),
        ("Here are {note} for {item}. What is my change?", "If I pay {note} for {item}, what do I get back?"),
        _change, say={"item": article, "note": euros},
    ),
    intent(
        "two_items", {"a": tuple(PRICES), "b": tuple(PRICES)},
        ("How much are {a} and {b} together?", "I would like {a} and {b}. How much is that?",
         "What do {a} and {b} cost?", "What is the price of {a} and {b}?"),
        ("I take {a} and {b}. What do I owe you?", "{a} with {b}, what does it cost?"),
        _two_items, say={"a": article, "b": article}, where=lambda a, b: a != b,
    ),
    intent(
        "tickets", {"kind": tuple(TICKETS), "count": range(1, 8)},
        ("How much is {order}?", "What do I pay for {order}?", "I need {order}. How much is that?",
         "What is the price of {order}?"),
        ("Can I have {order}? What do I pay?", "{order}, what does it cost?"),
        _tickets, derive={"order": lambda kind, count: counted(count, f"{kind} ticket")},
    ),
    follow_up(
        "place_then_way", PLACE_FLOOR, {},
        ("And how do I get there?", "And where is it there?", "Where exactly?", "And how do I find it?"),
        ("Where on that floor?", "And which way is it?"),
        lambda place: f"It is {BY_NAME[place].where}.",
    ),
    follow_up(
        "place_then_other", PLACE_FLOOR, {"other": PLACE_NAMES},
        ("And the {other}?", "And what about the {other}?", "And which floor is the {other}?", "Now the {other}."),
        ("How about the {other}?", "The {other}, too?"),
        lambda other: f"The {other} is on {floor_name(BY_NAME[other].floor)}.",
        where=lambda place, other: place != other,
    ),
    follow_up(
        "opening_then_closing", OPENING, {},
        ("And when does it close?", "And until when?", "And what time does it close?", "When does it close?"),
        ("How late is it open?", "And the end?"),
        _closes,
    ),
    follow_up(
        "opening_then_day", OPENING, {"other": DAYS},
        ("And on {other}?", "What about {other}?", "And {other}?", "And when on {other}?"),
        ("How about {other}?", "Is {other} the same?"),
        lambda place, other: _opens(place, other), where=lambda place, day, other: day != other,
    ),
    follow_up(
        "price_then_count", PRICE, {"number": range(1, 7)},
        ("And {number}?", "And how much for {number}?", "And what about {number}?", "What do I pay for {number}?"),
        ("How about {number}?", "If I take {number}?"),
        lambda item, number: _price_of(item, number), say={"number": cardinal},
        where=lambda item, count, number: count != number,
    ),
    follow_up(
        "room_then_guide", ROOM_FLOOR, {},
        ("Please take me there.", "Can you bring me there?", "Show me the way.", "Let's go there."),
        ("Come with me, please.", "Will you guide me there?"),
        _guide_room, inferable=True,
    ),
    follow_up(
        "room_then_again", ROOM_FLOOR, {},
        ("Please say that again.", "Once more, please.", "Can you repeat that?", "What did you say?"),
        ("Sorry, I did not hear you.", "Pardon?"),
        _room_floor, inferable=True,
    ),
)  # fmt: skip
