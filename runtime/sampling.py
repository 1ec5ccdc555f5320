"""How tokens are chosen: settings, random state and the ids that the repetition penalty applies to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model.settings import GenerationSettings
from . import _native
from .backend import Array


def pick_options(settings: GenerationSettings) -> dict[str, Any]:
    """The settings as `_native.Sampler.pick` takes them."""
    if not settings.do_sample:
        return {"repetition_penalty": settings.repetition_penalty, "greedy": True}
    return {
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "repetition_penalty": settings.repetition_penalty,
    }


class SpeechSampling:
    """The choice of one answer's speech tokens; a native speech head takes its sampler and options as they are."""

    def __init__(self, settings: GenerationSettings) -> None:
        self.sampler = _native.Sampler(settings.seed + 1)  # the text has the seed itself
        self.options = pick_options(settings)
        self.settings = settings
        self.noise = np.random.default_rng(settings.seed + 1)  # for whoever draws on a GPU
        self.seen: list[int] = []  # what was remembered

    def pick(self, logits: Array, group: list[int]) -> int:
        """A token from logits [K]; the tokens of the group so far count as seen."""
        return self.sampler.pick(logits, also_seen=np.array(group, np.int64), **self.options)

    def remember(self, ids: list[int]) -> None:
        """Adds a stored group to what the repetition penalty applies to."""
        self.seen += ids
        self.sampler.remember(np.array(ids, np.int64))
