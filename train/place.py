"""The invented building that the assistant serves: rooms, floors, opening hours, prices."""

from __future__ import annotations

from dataclasses import dataclass

from .words import DAYS, ordinal


@dataclass(frozen=True, slots=True)
class Place:
    """A public place; `floor` 0 is the ground floor, hours are of a 24-hour clock."""

    name: str
    floor: int
    where: str
    opens: int
    closes: int
    weekend: tuple[int, int] | None  # opening and closing hours on Saturday and Sunday; None: closed

    def hours(self, day: str) -> tuple[int, int] | None:
        """Opening and closing hour on a weekday; None where it stays closed."""
        return self.weekend if day in DAYS[5:] else (self.opens, self.closes)


PLACES = (
    Place("reception", 0, "straight ahead", 7, 20, (9, 17)),
    Place("cafeteria", 0, "on your left", 8, 18, (10, 16)),
    Place("bakery", 0, "next to the exit", 7, 15, (8, 13)),
    Place("gift shop", 0, "on your right", 9, 19, (10, 18)),
    Place("ticket office", 0, "behind the stairs", 8, 17, (9, 15)),
    Place("library", 1, "left of the elevator", 9, 21, (11, 17)),
    Place("museum", 1, "right of the elevator", 10, 18, (10, 20)),
    Place("reading room", 1, "at the end of the hall", 9, 17, None),
    Place("pharmacy", 2, "next to the elevator", 8, 19, (9, 14)),
    Place("bank", 2, "across from the stairs", 9, 16, None),
    Place("post office", 2, "left of the stairs", 8, 16, (9, 12)),
    Place("gym", 3, "at the end of the hall", 7, 22, (8, 20)),
    Place("swimming pool", 3, "right of the stairs", 7, 21, (9, 19)),
    Place("kindergarten", 4, "left of the elevator", 7, 17, None),
    Place("music school", 4, "across from the elevator", 12, 20, (10, 14)),
    Place("conference hall", 5, "right of the elevator", 8, 20, (9, 18)),
    Place("restaurant", 6, "next to the stairs", 11, 22, (12, 22)),
    Place("roof garden", 7, "at the top of the stairs", 10, 19, (9, 21)),
)
BY_NAME = {place.name: place for place in PLACES}
PLACE_NAMES = tuple(BY_NAME)

PRICES = {"coffee": 3, "tea": 2, "sandwich": 5, "salad": 7, "cookie": 1, "lemonade": 4, "pizza": 9, "soup": 6,
          "postcard": 2, "umbrella": 12, "notebook": 4, "muffin": 3, "burger": 8}  # euros  # fmt: skip
TICKETS = {"child": 4, "student": 6, "senior": 7, "adult": 11}  # euros

HOME_ROOMS = ("kitchen", "bedroom", "living room", "bathroom", "office", "hallway", "garage", "basement", "lobby",
              "workshop", "dining room", "nursery")  # fmt: skip
COLORS = ("red", "green", "blue", "yellow", "white", "orange", "purple", "pink")
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo", "Maria",
         "Noah", "Olga", "Peter", "Ruby", "Simon", "Tina", "Victor", "Wendy", "Oscar", "Lucy", "Martin", "Nora",
         "Paul", "Rosa", "Sam", "Tom", "Julia")  # fmt: skip


def floor_name(floor: int) -> str:
    """ "the ground floor", "the third floor"."""
    return f"the {ordinal(floor) if floor else 'ground'} floor"
