"""Questions put loosely: words left out, swapped or thrown in, so that a model attends to what a question is about.

Spoken to, people drop words, begin twice and add what means nothing. A model that has only read whole templates knows
each by all of its words; one that has read them loosely also understands templates that it has never seen.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

from .intents import Example, worded_example

LEFT_OUT = 0.3  # of the words of a template that hold no slot, at most
THROWN_IN = (0, 0, 1, 1, 2)  # words
SWAPPED_SHARE = 0.15  # of the questions, two neighbouring words
WORDS = """
about above actually ago ahead all almost alone along already also always any anyone anything anyway around as ask
away bad basically because been being believe below best better big both bother bought brought busy but buy by came
can care carefully case certain change clear clearly come company correct could couple course cut dad deal dear decide
deliver did different difficult do does done doubt during each early easy eat either else end enough even ever every
everyone everything exactly excuse expect explain eye fact fair far fast feel few figure fill final finally find fine
finish follow for forget form found friend from front fun further gave general get gets getting girl give given go
goes going gone good got great group guess had hand happen happened hard has have having he head hear heard help her
here hi him his hold honestly hope house how however huge hurry idea if important in indeed inside instead into it its
job just knew know known large late lately later lead learn least leave less let letter lift like line list listen
little live long look looking lot loud love low mad made main make man manage many maybe me mean meant meet mention
might mind moment more most mouth move much must my myself name near nearly need never new nice night no nobody none
nor normal not note nothing notice now of offer often oh okay old only onto or other our out outside over owe own
pardon part particular pass past people perhaps person pick place plan please point possible practice prefer present
pretty probably problem put question quick quickly quite rather reach read ready real really reason remember room run
said same save saw say see seem seen send set several shall she should show simple simply since sir sit small so some
somebody somehow someone something sometimes somewhere soon sorry sort speak special spend stand state stay still
story straight strange such suddenly suppose sure take talk tell than thank that the their them then there these they
thing think this those though thought through time tired to together told tonight too took top toward tried trouble
try turn type under understand until upon us use used useful usually very visit wait walk want wanted was watch way we
week well went were what whatever when where whether which while whole whose why will wish with within without woman
wonder word work world worry would wrong yeah year yes yet you young your
"""
COMMON = tuple(WORDS.split())  # none that an answer hangs on, and no subject of a fact


def loose_example(seed: int | str) -> Example:
    """A conversation of training in which the questions are put loosely."""
    return worded_example(random.Random(f"loose/{seed}"), _loosened)


@cache
def loose_fingerprint() -> str:
    """Changes whenever the same seeds would be put otherwise."""
    return hashlib.sha256(repr([loose_example(seed) for seed in range(1_000)]).encode()).hexdigest()[:16]


def _loosened(template: str, draw: random.Random) -> str:
    """The template with words left out, swapped and thrown in; its slots stay in their order."""
    words = template.split()
    share = draw.uniform(0, LEFT_OUT)
    kept = [word for word in words if "{" in word or draw.random() >= share] or words
    if len(kept) > 1 and draw.random() < SWAPPED_SHARE:
        place = draw.randrange(len(kept) - 1)
        if not ("{" in kept[place] and "{" in kept[place + 1]):
            kept[place : place + 2] = kept[place + 1], kept[place]
    for _ in range(draw.choice(THROWN_IN)):
        kept.insert(draw.randrange(len(kept) + 1), draw.choice(COMMON))
    return " ".join([*(word.rstrip(",.?!:") for word in kept[:-1]), kept[-1]])
