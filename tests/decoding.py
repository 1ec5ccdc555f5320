"""A bundle's decoders in the two ways that tests look at them: through a whole turn, and cut into pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from facrt.model.settings import GenerationSettings
from facrt.model.turn import Turn
from facrt.runtime.backend import Array, DecoderGraph
from facrt.runtime.engine import Engine
from facrt.runtime.generate import Step
from facrt.runtime.prompt import Message


def run_turn(engine: Engine, history: Sequence[Message], params: Mapping[str, Any]) -> tuple[Turn, list[Array], Array]:
    """Answers the history with empty caches.

    Returns:
        The turn; each step's hidden states [S, H], the prefill's first; text logits [steps, V].
    """
    heard = np.concatenate([engine.hearing.embed(m) for m in history if engine.prompter.num_slots(m)])
    hidden: list[Array] = []
    logits: list[Array] = []

    def observe(step: Step) -> None:
        hidden.append(step.hidden.copy())
        logits.append(step.text_logits.copy())

    engine.loop.forget()  # so that the prefill is seen whole
    settings = GenerationSettings(**params)
    turn, _ = engine.loop.run(engine.prompter.encode(list(history)), heard, settings, observe)
    return turn, hidden, np.stack(logits)


def in_pieces(backbone: DecoderGraph, x: Array, pieces: Sequence[int]) -> tuple[list[Array], Array, list[Array]]:
    """Rows x [S, H] at once, cut into pieces of those lengths, and the last ones again after truncation to 5.

    Returns:
        Hidden states [S, H] and logits [V] of the whole; hidden states [S, H] of the pieces; both of rows 5 and after.
    """
    backbone.truncate(0)
    whole = [array.copy() for array in backbone(x)]
    backbone.truncate(0)
    rows = [backbone(part)[0].copy() for part in np.split(x, np.cumsum(pieces)[:-1])]
    assert backbone.length == len(x)
    backbone.truncate(5)
    assert backbone.length == 5
    return whole, np.concatenate(rows), list(backbone(x[5:]))
