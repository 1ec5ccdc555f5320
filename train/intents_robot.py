"""Intents that call tools: driving, lamps, doors, volume, timers, errands."""

from __future__ import annotations

from .intent import Call, Intent, follow_up, intent
from .place import COLORS, HOME_ROOMS, PLACE_NAMES
from .words import cardinal, clock, counted, ordinal

OPENINGS = ("door", "window", "blinds", "gate", "curtain")
PEOPLE = ("cleaner", "technician", "nurse", "manager", "guard", "porter")
ERRANDS = ("drink water", "call home", "take a break", "feed the cat", "check the oven", "water the plants", "stretch",
           "close the window")  # fmt: skip
LOADS = ("towel", "newspaper", "blanket", "parcel", "lunch box", "laptop", "suitcase", "tool box", "pillow", "lamp")
GENRES = ("jazz", "rock", "classical", "dance", "folk", "piano", "relaxing", "party")
PERSONS = ("my mother", "my father", "my brother", "my sister", "my boss", "my doctor")


def _drive(direction: str, meters: int) -> Call:
    return Call("drive", {"direction": direction, "meters": meters}, f"Driving {direction} {counted(meters, 'meter')}.")


def _turn(side: str, degrees: int) -> Call:
    return Call("turn", {"side": side, "degrees": degrees}, f"Turning {side} by {cardinal(degrees)} degrees.")


def _lamp(room: str, state: str) -> Call:
    return Call("lamp", {"room": room, "on": state == "on"}, f"The {room} lamp is now {state}.")


def _lamp_color(room: str, color: str) -> Call:
    return Call("lamp_color", {"room": room, "color": color}, f"The {room} lamp is now {color}.")


def _dim(room: str, percent: int) -> Call:
    return Call("dim", {"room": room, "percent": percent}, f"The {room} lamp is at {cardinal(percent)} percent.")


def _volume(level: int) -> Call:
    return Call("volume", {"level": level}, f"The volume is {cardinal(level)}.")


def _volume_step(way: str, steps: int) -> Call:
    return Call("volume_step", {"by": steps if way == "up" else -steps}, f"The volume goes {way} by {cardinal(steps)}.")


def _timer(amount: int, unit: str) -> Call:
    return Call("timer", {unit + "s": amount}, f"The timer runs for {counted(amount, unit)}.")


def _alarm(hour: int, minute: int) -> Call:
    return Call("alarm", {"hour": hour, "minute": minute}, f"The alarm is set for {clock(hour, minute)}.")


def _heat(room: str, degrees: int) -> Call:
    return Call("heat", {"room": room, "degrees": degrees}, f"The {room} is set to {cardinal(degrees)} degrees.")


def _move(action: str, thing: str, room: str) -> Call:
    past = "opened" if action == "open" else "closed"
    return Call(action, {"thing": thing, "room": room}, f"I {past} the {room} {thing}.")


def _send(person: str, place: str) -> Call:
    return Call("send", {"person": person, "place": place}, f"The {person} is coming to the {place}.")


def _remind(deed: str, minutes: int) -> Call:
    words = f"I will remind you to {deed} in {counted(minutes, 'minute')}."
    return Call("remind", {"what": deed, "minutes": minutes}, words)


def _bring(load: str, room: str) -> Call:
    return Call("bring", {"what": load, "room": room}, f"I am bringing the {load} to the {room}.")


DRIVE = intent(
    "drive", {"direction": ("forward", "backward"), "meters": range(1, 31)},
    ("Drive {direction} {meters}.", "Please drive {meters} {direction}.", "Move {meters} {direction}.",
     "Go {direction} for {meters}.", "Can you drive {direction} {meters}?"),
    ("I want you to move {direction} by {meters}.", "{meters} {direction}, please."),
    _drive, say={"meters": lambda n: counted(n, "meter")},
)  # fmt: skip
LAMP = intent(
    "lamp", {"room": HOME_ROOMS, "state": ("on", "off")},
    ("Turn {state} the {room} lamp.", "Please turn the {room} lamp {state}.", "Switch the lamp in the {room} {state}.",
     "Switch {state} the {room} lamp.", "Can you turn {state} the lamp in the {room}?"),
    ("The lamp in the {room} should be {state}.", "{room} lamp {state}, please."),
    _lamp,
)  # fmt: skip
VOLUME = intent(
    "volume", {"level": range(101)},
    ("Set the volume to {level}.", "Please set the volume to {level}.", "Volume {level}, please.",
     "Put the volume at {level}.", "Turn the volume to {level}."),
    ("I want the volume at {level}.", "Change the volume to {level}."),
    _volume, say={"level": cardinal}, inferable=True,
)  # fmt: skip
TIMER = intent(
    "timer", {"amount": range(1, 61), "unit": ("second", "minute", "hour")},
    ("Set a timer for {span}.", "Please set a timer for {span}.", "Start a timer of {span}.", "Timer for {span}.",
     "Count down {span}."),
    ("I need a timer for {span}.", "Let a timer run for {span}."),
    _timer, derive={"span": lambda amount, unit: counted(amount, unit)},
)  # fmt: skip
HEAT = intent(
    "heat", {"room": HOME_ROOMS, "degrees": range(15, 27)},
    ("Set the {room} to {degrees} degrees.", "Please heat the {room} to {degrees} degrees.",
     "Make it {degrees} degrees in the {room}.", "I want {degrees} degrees in the {room}."),
    ("The {room} should have {degrees} degrees.", "{degrees} degrees for the {room}, please."),
    _heat, say={"degrees": cardinal},
)  # fmt: skip
INTENTS: tuple[Intent, ...] = (
    DRIVE,
    intent(
        "turn", {"side": ("left", "right"), "degrees": range(10, 181, 10)},
        ("Turn {side} by {degrees} degrees.", "Please turn {degrees} degrees to the {side}.",
         "Rotate {degrees} degrees {side}.", "Can you turn {side} {degrees} degrees?"),
        ("I want you to rotate {side} by {degrees} degrees.", "{degrees} degrees {side}, please."),
        _turn, say={"degrees": cardinal},
    ),
    intent(
        "stop", {},
        ("Stop.", "Please stop.", "Stop moving.", "Stop right now.", "Stay where you are."),
        ("Do not move.", "Hold on, stop."),
        lambda: Call("stop", {}, "I have stopped."),
    ),
    intent(
        "go_home", {},
        ("Go back to your charger.", "Drive to your charger.", "Go and charge.", "Go home.", "Back to the charger."),
        ("Please return to your charger.", "Time to charge."),
        lambda: Call("charge", {}, "I am going to my charger."),
    ),
    intent(
        "guide", {"place": PLACE_NAMES},
        ("Take me to the {place}.", "Please bring me to the {place}.", "Can you take me to the {place}?",
         "Guide me to the {place}.", "Show me the way to the {place}."),
        ("Lead me to the {place}.", "I want to go to the {place} with you."),
        lambda place: Call("guide", {"place": place}, f"Please follow me to the {place}."),
    ),
    intent(
        "elevator", {"floor": range(1, 21)},
        ("Call the elevator to the {floor} floor.", "Please send the elevator to the {floor} floor.",
         "I need the elevator on the {floor} floor.", "Elevator to the {floor} floor, please."),
        ("Get the elevator for the {floor} floor.", "Bring the elevator up to the {floor} floor."),
        lambda floor: Call("elevator", {"floor": floor}, f"The elevator is coming to the {ordinal(floor)} floor."),
        say={"floor": ordinal},
    ),
    LAMP,
    intent(
        "lamp_color", {"room": HOME_ROOMS, "color": COLORS},
        ("Make the {room} lamp {color}.", "Set the {room} lamp to {color}.", "Please turn the {room} lamp {color}.",
         "Change the lamp in the {room} to {color}."),
        ("I want {color} light in the {room}.", "{color} for the {room} lamp, please."),
        _lamp_color,
    ),
    intent(
        "dim", {"room": HOME_ROOMS, "percent": range(5, 101, 5)},
        ("Dim the {room} lamp to {percent} percent.", "Set the {room} lamp to {percent} percent.",
         "Please dim the lamp in the {room} to {percent} percent.", "{percent} percent light in the {room}, please."),
        ("I want the {room} lamp at {percent} percent.", "The lamp in the {room} should have {percent} percent."),
        _dim, say={"percent": cardinal},
    ),
    HEAT,
    intent(
        "open_close", {"action": ("open", "close"), "thing": OPENINGS, "room": HOME_ROOMS},
        ("{action} the {room} {thing}.", "Please {action} the {thing} in the {room}.",
         "Can you {action} the {room} {thing}?", "{action} the {thing} in the {room}."),
        ("I want you to {action} the {room} {thing}.", "Could you {action} the {thing} of the {room}?"),
        _move,
    ),
    VOLUME,
    intent(
        "volume_step", {"way": ("up", "down"), "steps": range(1, 21)},
        ("Turn the volume {way} by {steps}.", "Volume {way} by {steps}.", "Please turn {way} the volume by {steps}.",
         "Put the volume {way} by {steps}."),
        ("{steps} {way} with the volume, please.", "Move the volume {way} by {steps}."),
        _volume_step, say={"steps": cardinal},
    ),
    intent(
        "mute", {},
        ("Be quiet.", "Mute the sound.", "Silence, please.", "Turn off the sound.", "Please be silent."),
        ("No sound, please.", "Please mute yourself."),
        lambda: Call("volume", {"level": 0}, "I am quiet now."),
    ),
    TIMER,
    intent(
        "alarm", {"hour": range(1, 13), "minute": range(0, 60, 5)},
        ("Set an alarm for {time}.", "Wake me up at {time}.", "Please wake me at {time}.", "Alarm at {time}, please.",
         "I need an alarm at {time}."),
        ("I want to get up at {time}.", "Let the alarm ring at {time}."),
        _alarm, derive={"time": lambda hour, minute: clock(hour, minute)},
    ),
    intent(
        "cancel", {"thing": ("timer", "alarm", "reminder", "music", "order", "call")},
        ("Cancel the {thing}.", "Please cancel the {thing}.", "Stop the {thing}.", "End the {thing}, please."),
        ("I do not need the {thing} any more.", "Forget the {thing}."),
        lambda thing: Call("cancel", {"what": thing}, f"The {thing} is cancelled."),
    ),
    intent(
        "remind", {"deed": ERRANDS, "minutes": range(5, 61, 5)},
        ("Remind me to {deed} in {minutes}.", "Please remind me in {minutes} to {deed}.",
         "In {minutes}, remind me to {deed}.", "Can you remind me to {deed} in {minutes}?"),
        ("In {minutes} I have to {deed}. Remind me.", "I need a reminder to {deed} in {minutes}."),
        _remind, say={"minutes": lambda n: counted(n, "minute")},
    ),
    intent(
        "music", {"genre": GENRES},
        ("Play some {genre} music.", "Please play {genre} music.", "I want to hear {genre} music.",
         "Can you play {genre} music?"),
        ("How about some {genre} music?", "Put on {genre} music."),
        lambda genre: Call("music", {"genre": genre}, f"Here is some {genre} music."),
    ),
    intent(
        "phone", {"person": PERSONS},
        ("Call {person}.", "Please call {person}.", "Can you call {person}?", "I want to call {person}."),
        ("Phone {person}, please.", "Get me {person} on the phone."),
        lambda person: Call("phone", {"who": person[3:]}, f"I am calling your {person[3:]}."),
    ),
    intent(
        "send", {"person": PEOPLE, "place": PLACE_NAMES},
        ("Send a {person} to the {place}.", "Please send a {person} to the {place}.",
         "We need a {person} in the {place}.", "Can a {person} come to the {place}?"),
        ("The {place} needs a {person}.", "Get a {person} for the {place}, please."),
        _send,
    ),
    intent(
        "bring", {"load": LOADS, "room": HOME_ROOMS},
        ("Bring the {load} to the {room}.", "Please bring the {load} to the {room}.",
         "Carry the {load} to the {room}.", "Can you take the {load} to the {room}?"),
        ("The {load} belongs in the {room}. Bring it there.", "Deliver the {load} to the {room}."),
        _bring,
    ),
    follow_up(
        "drive_then_back", DRIVE, {},
        ("And now back.", "Now the same way back.", "Please drive back again.", "Go back again."),
        ("And return, please.", "Back again the same distance."),
        lambda direction, meters: _drive("backward" if direction == "forward" else "forward", meters),
    ),
    follow_up(
        "lamp_then_other_state", LAMP, {},
        ("Turn it back.", "No, the other way.", "Switch it back, please.", "Undo that."),
        ("That was wrong, change it back.", "Please reverse that."),
        lambda room, state: _lamp(room, "off" if state == "on" else "on"),
    ),
    follow_up(
        "lamp_then_color", LAMP, {"color": COLORS},
        ("And make it {color}.", "Now {color}, please.", "Change it to {color}.", "And set it to {color}."),
        ("I want it {color}.", "{color} would be nice."),
        lambda room, color: _lamp_color(room, color), where=lambda room, state, color: state == "on",
    ),
    follow_up(
        "volume_then_louder", VOLUME, {"way": ("louder", "quieter")},
        ("A bit {way}.", "A little {way}, please.", "Make it a bit {way}.", "Please be a bit {way}."),
        ("Just a bit {way}.", "{way}, please."),
        lambda level, way: _volume(level + (5 if way == "louder" else -5)),
        where=lambda level, way: 5 <= level <= 95,
    ),
    follow_up(
        "timer_then_longer", TIMER, {"more": range(1, 11)},
        ("Make it {more} longer.", "And {more} more.", "Add {more} to it.", "Please add {more}."),
        ("It should run {more} longer.", "{more} extra, please."),
        lambda amount, unit, more: _timer(amount + more, unit), say={"more": cardinal},
        where=lambda amount, unit, more: amount <= 30,
    ),
    follow_up(
        "heat_then_warmer", HEAT, {"way": ("warmer", "colder")},
        ("One degree {way}, please.", "Make it one degree {way}.", "A little {way}.", "I want it a bit {way}."),
        ("It should be {way}.", "Go one degree {way}."),
        lambda room, degrees, way: _heat(room, degrees + (1 if way == "warmer" else -1)),
    ),
)  # fmt: skip
