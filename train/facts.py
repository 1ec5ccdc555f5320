"""Facts and sums in text only, which the spoken data never mentions: what the base model must not forget."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from .intents import Split, Turn
from .words import article, cardinal, sentence

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "Portugal": "Lisbon",
    "Poland": "Warsaw", "Austria": "Vienna", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Hungary": "Budapest", "Belgium": "Brussels",
    "Bulgaria": "Sofia", "Croatia": "Zagreb", "Serbia": "Belgrade", "Slovenia": "Ljubljana", "Slovakia": "Bratislava",
    "Estonia": "Tallinn", "Latvia": "Riga", "Lithuania": "Vilnius", "Romania": "Bucharest", "Albania": "Tirana",
    "Iceland": "Reykjavik", "Ukraine": "Kyiv", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Morocco": "Rabat", "Ghana": "Accra", "Nigeria": "Abuja", "Ethiopia": "Addis Ababa", "Tunisia": "Tunis",
    "Algeria": "Algiers", "Senegal": "Dakar", "Uganda": "Kampala", "Rwanda": "Kigali", "Zambia": "Lusaka",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Nepal": "Kathmandu", "Iran": "Tehran", "Iraq": "Baghdad", "Qatar": "Doha", "Jordan": "Amman", "Lebanon": "Beirut",
    "Mongolia": "Ulaanbaatar", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Ecuador": "Quito", "Colombia": "Bogota",
    "Venezuela": "Caracas", "Uruguay": "Montevideo", "Paraguay": "Asuncion", "Jamaica": "Kingston",
    "Australia": "Canberra", "New Zealand": "Wellington", "Fiji": "Suva",
}  # fmt: skip
YOUNG = {
    "cow": "calf", "horse": "foal", "sheep": "lamb", "goat": "kid", "pig": "piglet", "duck": "duckling", "hen": "chick",
    "bear": "cub", "deer": "fawn", "goose": "gosling", "frog": "tadpole", "kangaroo": "joey", "swan": "cygnet",
    "owl": "owlet", "eagle": "eaglet", "hare": "leveret", "eel": "elver",
}  # fmt: skip
PAST = {
    "begin": "began", "bite": "bit", "blow": "blew", "catch": "caught", "choose": "chose", "draw": "drew",
    "fall": "fell", "fly": "flew", "freeze": "froze", "grow": "grew", "hide": "hid", "keep": "kept", "lose": "lost",
    "rise": "rose", "sell": "sold", "shake": "shook", "shoot": "shot", "sing": "sang", "sink": "sank", "sleep": "slept",
    "steal": "stole", "swim": "swam", "teach": "taught", "throw": "threw", "wear": "wore", "win": "won",
    "write": "wrote", "bend": "bent", "build": "built", "dig": "dug", "forgive": "forgave",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "tall": "short", "rich": "poor", "wet": "dry", "sweet": "sour", "strong": "weak", "clean": "dirty",
    "deep": "shallow", "wide": "narrow", "thick": "thin", "happy": "sad", "brave": "afraid", "sharp": "blunt",
    "smooth": "rough", "true": "false", "empty": "full", "guilty": "innocent", "ancient": "modern", "cruel": "kind",
    "humble": "proud", "rare": "common", "asleep": "awake", "east": "west", "north": "south", "summer": "winter",
    "victory": "defeat", "arrive": "depart", "accept": "refuse", "attack": "defend", "borrow": "lend", "push": "pull",
    "create": "destroy",
}  # fmt: skip
LEGS_AND_SIDES = {
    "a spider": "eight legs", "an ant": "six legs", "a snail": "one foot", "an octopus": "eight arms",
    "a triangle": "three sides", "a square": "four sides", "a pentagon": "five sides", "a hexagon": "six sides",
    "an octagon": "eight sides", "a cube": "six faces", "a guitar": "six strings", "a violin": "four strings",
    "a cello": "four strings", "a chessboard": "sixty four squares", "a butterfly": "four wings", "a bee": "four wings",
}  # fmt: skip
FACTORS = range(2, 13)
CAPITAL_ASKED = ("What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.")
CAPITAL_UNSEEN = ("{} has which capital?",)
YOUNG_ASKED = ("What is a young {} called?", "What do you call a baby {}?", "Name the young of the {}.")
YOUNG_UNSEEN = ("How is a very young {} called?",)
PAST_ASKED = ("What is the past tense of {}?", "Give me the past tense of {}.", "How do you say {} in the past tense?")
PAST_UNSEEN = ("In the past tense, what is {}?",)
OPPOSITE_ASKED = ("What is the opposite of {}?", "Name the opposite of {}.", "Which word is the opposite of {}?")
OPPOSITE_UNSEEN = ("The opposite of {} is what?",)
PARTS_ASKED = ("What does {} have?", "How is {} made up?", "What belongs to {}?")
PARTS_UNSEEN = ("Tell me what {} has.",)
PRODUCT_ASKED = ("What is {}?", "How much is {}?", "Tell me {}.")
PRODUCT_UNSEEN = ("Can you work out {}?",)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know: ways to ask for it, and its one answer."""

    kind: str
    subject: str
    phrasings: tuple[str, ...]
    unseen: tuple[str, ...]  # never in training
    answer: str

    def turns(self, split: Split) -> tuple[Turn, ...]:
        """The fact as asked in training, or in the phrasings held out from it."""
        templates = self.unseen if split is Split.UNSEEN_PHRASINGS else self.phrasings
        return tuple(Turn(sentence(template.format(self.subject)), self.answer) for template in templates)


def facts() -> tuple[Fact, ...]:
    """All facts and products, in a fixed order."""
    return tuple(itertools.chain(
        (Fact("capital", country, CAPITAL_ASKED, CAPITAL_UNSEEN, f"The capital of {country} is {city}.")
         for country, city in CAPITALS.items()),
        (Fact("young", animal, YOUNG_ASKED, YOUNG_UNSEEN, f"It is called {article(young)}.")
         for animal, young in YOUNG.items()),
        (Fact("past", verb, PAST_ASKED, PAST_UNSEEN, f"The past tense of {verb} is {past}.")
         for verb, past in PAST.items()),
        (Fact("opposite", one, OPPOSITE_ASKED, OPPOSITE_UNSEEN, f"The opposite of {one} is {other}.")
         for pair in OPPOSITES.items() for one, other in (pair, pair[::-1])),
        (Fact("parts", thing, PARTS_ASKED, PARTS_UNSEEN, f"{sentence(thing)} has {parts}.")
         for thing, parts in LEGS_AND_SIDES.items()),
        (_product(a, b) for a in FACTORS for b in FACTORS),
    ))  # fmt: skip


def fact_turns(split: Split, seed: int) -> Iterator[Turn]:
    """An endless stream of facts, evenly drawn; the phrasings are those of training unless they are asked for."""
    known = facts()
    for index in itertools.count():
        draw = random.Random(f"facts/{split.value}/{seed}/{index}")
        yield draw.choice(draw.choice(known).turns(split))


def _product(a: int, b: int) -> Fact:
    words = f"{cardinal(a)} times {cardinal(b)}"
    return Fact("product", words, PRODUCT_ASKED, PRODUCT_UNSEEN, f"{sentence(words)} is {cardinal(a * b)}.")
