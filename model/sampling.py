"""Choosing a token from logits as transformers' processors do: penalty, temperature, top-k, top-p (SEMANTICS.md 5)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .settings import GenerationSettings


def process(logits: Tensor, seen: Iterable[int], settings: GenerationSettings) -> Tensor:
    """Logits [V] after every processor of `settings`; what is ruled out is -inf."""
    scores = penalize(logits, seen, settings.repetition_penalty)
    if not settings.do_sample:
        return scores
    scores = scores / settings.temperature
    if settings.top_k:
        smallest = scores.topk(min(settings.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < smallest, float("-inf"))
    if settings.top_p < 1:
        ordered, order = scores.sort()
        tail = ordered.softmax(-1).cumsum(-1) <= 1 - settings.top_p
        tail[-1] = False
        scores = scores.masked_fill(tail.scatter(0, order, tail), float("-inf"))
    return scores


def penalize(logits: Tensor, seen: Iterable[int], penalty: float) -> Tensor:
    """The repetition penalty on the ids already seen, each once."""
    ids = torch.tensor(sorted(set(seen)), dtype=torch.long)
    if penalty == 1 or not len(ids):
        return logits
    scores, seen_scores = logits.clone(), logits[ids]
    scores[ids] = torch.where(seen_scores < 0, seen_scores * penalty, seen_scores / penalty)
    return scores


def pick(logits: Tensor, seen: Iterable[int], settings: GenerationSettings, generator: torch.Generator) -> int:
    """A token id from logits [V]: argmax, or a draw with `do_sample`."""
    scores = process(logits, seen, settings)
    if not settings.do_sample:
        return int(scores.argmax())
    return int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
