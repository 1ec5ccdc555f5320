"""Sentences that nobody has said, out of pieces of recorded answers: what makes a speech head read words off its text.

Of a few thousand answers a head learns which sentence comes, not how a word is said. The answers' one voice has a
constant pitch and says every word in whole speech tokens (`speak.speak_answer`), so that pieces of answers join
without a seam, and the speech tokenizer hears them as one sentence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .answers import Answer
from .dataset import Conversation, SpokenMessage
from .speak import breaks, whole_tokens
from .timing import Sound
from .words import sentence

LONGEST_PIECE = 3  # words
PIECES = range(2, 7)
HEARD_FRAMES = 4  # of the tokenizer's log-mel in a speech token
LAST_SIGNS = ".?!"
ASKED = ("Say: {}", "Read this aloud: {}", "Please read: {}", "Repeat after me: {}", "Say this: {}", "Speak: {}")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an answer with the sign that follows it; in speech tokens."""

    text: str
    begin: int
    end: int
    over: int  # where the pause after it is over, or `end`


def words_of_answer(text: str, sounds: Sequence[Sound], num_tokens: int) -> list[Word]:
    """Where `speak.speak_answer` says which word.

    Args:
        text: what is said.
        sounds: `speak.sounds_of_answer(text)`, as its label file has them.
        num_tokens: how many speech tokens the answer has.
    """
    found = breaks(sounds)
    said_s = np.unique([0.0, *(sound.start_s for sound in found)])
    places = [0, *np.cumsum(whole_tokens(said_s)).astype(int).tolist()]
    place_of = dict(zip(said_s.tolist(), places, strict=True))
    begins = [(s.word, place_of[s.start_s]) for s in found if s.word is not None and place_of[s.start_s] < num_tokens]
    pauses = [place_of[sound.start_s] for sound in found if sound.word is None]
    words: list[Word] = []
    for (word, begin), (after, over) in zip(begins, [*begins[1:], (len(text), num_tokens)], strict=True):
        end = min((pause for pause in pauses if begin < pause < over), default=over)
        words.append(Word(text[word:after].strip(), begin if words else 0, end, over))
    return words


@dataclass(frozen=True, slots=True)
class Splice:
    """A sentence of pieces."""

    text: str
    pieces: tuple[tuple[int, int, int], ...]  # which answer, and the speech tokens [begin, end) of it

    def heard(self, answers: Sequence[Answer]) -> Tensor:
        """The speech tokenizer's log-mel, as `Answer.heard`: [128, 4 n] float16."""
        parts = [answers[i].heard[:, HEARD_FRAMES * begin : HEARD_FRAMES * end] for i, begin, end in self.pieces]
        return torch.cat(parts, dim=1)


def splice(words: Sequence[Sequence[Word]], proper: frozenset[str], seed: int) -> Splice:
    """A sentence of pieces of answers, the same for the same seed.

    Args:
        words: of each answer, in order.
        proper: words that are written with a capital letter inside a sentence too.
        seed: of the choice.
    """
    draw = random.Random(f"splice/{seed}")
    texts: list[str] = []
    pieces: list[tuple[int, int, int]] = []
    for _ in range(draw.choice(PIECES)):
        place = draw.randrange(len(words))
        said = words[place]
        begin = draw.randrange(len(said))
        piece = said[begin : begin + draw.randint(1, LONGEST_PIECE)]
        texts += [_inside(word.text, begin + i == 0, proper) for i, word in enumerate(piece)]
        is_last = begin + len(piece) == len(said)
        pieces.append((place, piece[0].begin, piece[-1].end if is_last else piece[-1].over))
    pieces.append((place, said[-1].end, said[-1].over))  # an answer ends with a pause
    return Splice(f"{sentence(' '.join(texts)).rstrip(',')}.", tuple(pieces))


def dictated(text: str) -> Conversation:
    """A conversation in which a text is to be read aloud."""
    asked = random.Random(f"dictated/{text}").choice(ASKED).format(text)
    return Conversation("", (SpokenMessage("user", asked), SpokenMessage("assistant", text)))


def proper_words(words: Sequence[Sequence[Word]]) -> frozenset[str]:
    """Those that have a capital letter where no sentence begins."""
    return frozenset(
        _bare(word.text)
        for said in words
        for before, word in itertools.pairwise(said)
        if word.text[:1].isupper() and not before.text.endswith(tuple(LAST_SIGNS))
    )


def _inside(text: str, is_first: bool, proper: frozenset[str]) -> str:
    """A word as it is written inside a sentence."""
    text = text.rstrip(LAST_SIGNS)
    return text[:1].lower() + text[1:] if is_first and _bare(text) not in proper else text


def _bare(text: str) -> str:
    return text.rstrip(f"{LAST_SIGNS},")
