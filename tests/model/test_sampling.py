"""The native sampler against the reference's processors: the same kept set, the same distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from facrt.model.sampling import pick, process
from facrt.model.settings import GenerationSettings
from facrt.runtime._native import Sampler
from scipy.stats import chisquare

VOCABULARY, DRAWS = 40, 20_000
SEEN = [3, 7, 7, 21, 39]
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "top-k": {"top_k": 7},
    "nucleus": {"top_p": 0.8},
    "penalty": {"repetition_penalty": 1.7},
    "published": {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2},
    "everything": {"temperature": 1.4, "top_k": 20, "top_p": 0.7, "repetition_penalty": 1.3},
}


def logits() -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(4)) * 2


@pytest.mark.parametrize("case", list(CASES))
def test_same_distribution(case: str) -> None:
    settings = GenerationSettings(do_sample=True, **CASES[case])
    wanted = process(logits(), SEEN, settings).double().softmax(-1).numpy()
    sampler = Sampler(11)
    sampler.remember(np.array(SEEN[:3], np.int64))
    rest = np.array(SEEN[3:], np.int64)
    scores = logits().numpy()
    native = [sampler.pick(scores, also_seen=rest, **CASES[case]) for _ in range(DRAWS)]
    generator = torch.Generator().manual_seed(12)
    reference = [pick(logits(), SEEN, settings, generator) for _ in range(DRAWS // 10)]
    for draws in (native, reference):
        counts = np.bincount(draws, minlength=VOCABULARY)
        assert not counts[wanted == 0].any()
        expected = wanted * len(draws)
        common = expected >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(expected[common], expected[~common].sum())
        kept = expected > 0
        assert chisquare(observed[kept], expected[kept] * observed.sum() / expected.sum()).pvalue > 1e-3


def test_greedy_with_a_penalty_agrees() -> None:
    settings = GenerationSettings(repetition_penalty=3.0)
    best = int(logits().argmax())
    wanted = pick(logits(), [best], settings, torch.Generator())
    sampler = Sampler(0)
    sampler.remember(np.array([best], np.int64))
    assert sampler.pick(logits().numpy(), repetition_penalty=3.0, greedy=True) == wanted != best
