"""The sampler against a restatement of Hugging Face's processors: the ids kept, and how often each is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from facrt.runtime import _native
from scipy.stats import chisquare

NUM_PICKS = 20_000
NO_IDS = np.zeros(0, np.int64)


def penalised(logits: np.ndarray, penalty: float, seen: np.ndarray) -> np.ndarray:
    """RepetitionPenaltyLogitsProcessor."""
    scores = logits.copy()
    seen = seen[seen < len(logits)]
    picked = logits[seen]
    scores[seen] = np.where(picked < 0, picked * np.float32(penalty), picked / np.float32(penalty))
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    return weights / weights.sum()


def probabilities(
    logits: np.ndarray,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seen: np.ndarray = NO_IDS,
) -> np.ndarray:
    """[V] after RepetitionPenalty, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper and softmax."""
    scores = penalised(logits, repetition_penalty, seen) / np.float32(temperature)
    if top_k > 0:
        scores[scores < np.sort(scores)[-min(top_k, len(scores))]] = -np.inf
    if top_p < 1.0:
        order = np.argsort(scores, kind="stable")
        removed = softmax(scores[order]).cumsum() <= 1 - top_p
        removed[-1] = False
        scores[order[removed]] = -np.inf
    return softmax(scores)


def picks(logits: np.ndarray, seed: int, count: int, seen: np.ndarray = NO_IDS, **options: Any) -> np.ndarray:
    sampler = _native.Sampler(seed)
    sampler.remember(seen)
    return np.array([sampler.pick(logits, **options) for _ in range(count)])


OPTIONS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.8},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"repetition_penalty": 1.3},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.2, "top_k": 12, "top_p": 0.8},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_distribution(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(11)
    logits = rng.normal(size=40).astype(np.float32)
    logits[7] = -np.inf
    seen = rng.integers(0, 60, 30)
    wanted = probabilities(logits, seen=seen, **options)
    counts = np.bincount(picks(logits, 5, NUM_PICKS, seen, **options), minlength=len(logits))
    expected = wanted * NUM_PICKS
    likely = expected > 20  # each is drawn at least once, up to a chance of 1e-9
    assert not counts[wanted == 0].any()
    assert counts[likely].all()
    rest = ~likely & (wanted > 0)
    observed_bins = np.append(counts[likely], counts[rest].sum())
    expected_bins = np.append(expected[likely], expected[rest].sum())
    used = expected_bins > 0
    if used.sum() > 1:
        assert chisquare(observed_bins[used], expected_bins[used]).pvalue > 1e-3


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
@pytest.mark.parametrize(
    "options", [{"top_p": 0.1}, {"top_p": 0.8}, {"top_k": 50}, {"top_k": 50, "top_p": 0.8}], ids=str
)
def test_speech_head_size(options: dict[str, Any], scale: float) -> None:
    """V = 6565: the quantile of each draw within the kept distribution is uniform, and nothing else is drawn."""
    logits = (np.random.default_rng(3).normal(size=6565) * scale).astype(np.float32)
    wanted = probabilities(logits, **options)
    ids = picks(logits, 9, 4000, **options)
    assert (wanted[ids] > 0).all()
    before = np.append(0, wanted.cumsum())
    quantiles = before[ids] + np.random.default_rng(0).random(len(ids)) * wanted[ids]
    assert chisquare(np.histogram(quantiles, bins=40, range=(0, 1))[0]).pvalue > 1e-3


@pytest.mark.parametrize("top_p", [0.25, 0.5, 0.75, 0.9])
def test_equals_at_the_edge_of_top_p(top_p: float) -> None:
    logits = np.array([1, 1, 0, 1, 1, 0], np.float32)
    kept = np.flatnonzero(probabilities(logits, top_p=top_p))
    np.testing.assert_array_equal(np.unique(picks(logits, 1, 2000, top_p=top_p)), kept)


def test_equals_at_the_edge_of_top_k_all_stay() -> None:
    logits = np.array([0, 2, 1, 1, 1, -1], np.float32)
    np.testing.assert_array_equal(np.unique(picks(logits, 1, 2000, top_k=2)), [1, 2, 3, 4])


def test_same_seed_same_ids() -> None:
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    options = {"temperature": 0.9, "top_p": 0.9, "top_k": 100}
    first = picks(logits, 42, 100, **options)
    np.testing.assert_array_equal(first, picks(logits, 42, 100, **options))
    assert (first != picks(logits, 43, 100, **options)).any()
    sampler = _native.Sampler(1)
    sampler.pick(logits)
    sampler.reseed(42)
    np.testing.assert_array_equal(first, [sampler.pick(logits, **options) for _ in range(100)])


def test_greedy_draws_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    left, right = _native.Sampler(1), _native.Sampler(1)
    left.pick(logits, greedy=True)
    assert [left.pick(logits) for _ in range(20)] == [right.pick(logits) for _ in range(20)]


@pytest.mark.parametrize("penalty", [0.8, 1.0, 1.2])
def test_greedy_with_penalty(penalty: float) -> None:
    rng = np.random.default_rng(7)
    sampler = _native.Sampler(0)
    for _ in range(200):
        logits = rng.normal(size=64).astype(np.float32)
        seen, more = rng.integers(0, 80, 20), rng.integers(0, 80, 5)
        sampler.forget()
        sampler.remember(seen[:10])
        sampler.remember(seen[5:])
        picked = sampler.pick(logits, repetition_penalty=penalty, also_seen=more, greedy=True)
        assert picked == penalised(logits, penalty, np.append(seen, more)).argmax()
        picked = sampler.pick(logits, repetition_penalty=penalty, greedy=True)
        assert picked == penalised(logits, penalty, seen).argmax()


def test_greedy_takes_the_first_of_equals() -> None:
    sampler = _native.Sampler(0)
    assert sampler.pick(np.array([-1, 3, 3], np.float32), greedy=True) == 1
    assert sampler.pick(np.array([-0.0, 0.0], np.float32), greedy=True) == 0


@pytest.mark.parametrize("logits", [[0, np.nan], [-np.nan, 0], [np.inf, 0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_that_are_not_finite(logits: list[float], greedy: bool) -> None:
    with pytest.raises(ValueError, match="logits are not finite"):
        _native.Sampler(0).pick(np.array(logits, np.float32), greedy=greedy)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"repetition_penalty": 0.0},
    ],
    ids=str,
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} .* must be"):
        _native.Sampler(0).pick(np.zeros(3, np.float32), **options)


def test_arguments_are_checked() -> None:
    sampler = _native.Sampler(0)
    with pytest.raises(ValueError, match="logits has 0 values"):
        sampler.pick(np.zeros(0, np.float32))
    for bad in (-1, 2**24, 2**60):
        with pytest.raises(IndexError, match=rf"id {bad} is outside 0 \.\. 16777215"):
            sampler.remember(np.array([bad]))
        with pytest.raises(IndexError, match=f"id {bad}"):
            sampler.pick(np.zeros(3, np.float32), also_seen=np.array([bad]))
    for logits in (np.zeros(3), np.zeros((1, 3), np.float32), np.zeros(6, np.float32)[::2]):
        with pytest.raises(TypeError):
            sampler.pick(logits)
    with pytest.raises(TypeError):
        sampler.remember(np.zeros(3, np.int32))
