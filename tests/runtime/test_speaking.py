"""Streamed synthesis: equal to the masked whole for any plan of blocks and any arrival of tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from facrt.errors import RequestError
from facrt.model.checkpoint import load_flow, load_vocoder
from facrt.model.flow import Flow, visible_in_blocks
from facrt.model.geometry import vocoder_reach_frames
from facrt.model.vocoder import Vocoder
from facrt.runtime.detokenizer import SpeechStream
from facrt.runtime.engine import Engine
from facrt.runtime.flow_stream import BlockPlan
from goldens import DETOKENIZER, expected, inputs, meta
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCES

MEL, WAVEFORM, VOCODER = (TOLERANCES[name, "fp32"] for name in ("flow_mel", "waveform", "vocoder"))
TOKENS = np.random.default_rng(5).integers(0, 729, 90).tolist()


@pytest.fixture(scope="module")
def reference() -> tuple[Flow, Vocoder]:
    return load_flow(DETOKENIZER / "model"), load_vocoder(DETOKENIZER / "model")


def block_ends(plan: BlockPlan, num_tokens: int) -> list[int]:
    ends = [0]
    while ends[-1] < num_tokens:
        ends.append(min(plan.end_after(ends[-1]), num_tokens))
    return [2 * end for end in ends[1:]]


def masked_mel(reference: tuple[Flow, Vocoder], tokens: list[int], speaker: np.ndarray, plan: BlockPlan) -> np.ndarray:
    """The PyTorch reference's mel, all blocks in one call."""
    visible = visible_in_blocks(block_ends(plan, len(tokens)), plan.left_frames)
    return reference[0](torch.tensor([tokens]), torch.from_numpy(speaker)[None], visible=visible).numpy()


def pieces(whole: list[int], cuts: list[int]) -> list[list[int]]:
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


def streamed(stream: SpeechStream, arrivals: list[list[int]]) -> np.ndarray:
    return np.concatenate([*(stream.push(part) for part in arrivals), stream.finish()])


plans = st.builds(
    BlockPlan,
    st.lists(st.integers(1, 40), max_size=5, unique=True).map(lambda ends: tuple(sorted(ends))),
    st.integers(1, 40),
    st.sampled_from([0, 7, 30, 200]),
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(plan=plans, num_tokens=st.integers(1, 90), cuts=st.lists(st.integers(0, 90), max_size=12))
def test_any_plan_and_any_arrival_equal_the_masked_whole(
    golden_engine: Engine,
    reference: tuple[Flow, Vocoder],
    speaker: np.ndarray,
    plan: BlockPlan,
    num_tokens: int,
    cuts: list[int],
) -> None:
    """The waveform against the whole vocoder on the same mel: pitch amplifies the mel's rounding, streamed or not."""
    assert golden_engine.detokenizer is not None
    tokens = TOKENS[:num_tokens]
    stream, mels = golden_engine.detokenizer.stream(speaker, plan), []
    for name in ("push", "finish"):
        setattr(stream._flow, name, kept(mels, getattr(stream._flow, name)))
    wav = streamed(stream, pieces(tokens, cuts))
    mel = np.concatenate(mels, axis=2)
    np.testing.assert_allclose(mel, masked_mel(reference, tokens, speaker, plan), rtol=0, atol=MEL)
    wanted = reference[1](mel)[0].numpy()
    assert wav.shape == wanted.shape == (num_tokens * 960,)
    np.testing.assert_allclose(wav, wanted, rtol=0, atol=VOCODER)


def kept(results: list[np.ndarray], call: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A call that keeps what it returns."""

    def keeping(*arguments: Any) -> np.ndarray:
        results.append(call(*arguments))
        return results[-1]

    return keeping


def test_from_tokens_to_waveform(golden_engine: Engine, reference: tuple[Flow, Vocoder], speaker: np.ndarray) -> None:
    assert golden_engine.detokenizer is not None
    tokens, plan = TOKENS[:31], BlockPlan()
    wav = streamed(golden_engine.detokenizer.stream(speaker, plan), [[token] for token in tokens])
    wanted = reference[1](masked_mel(reference, tokens, speaker, plan))[0].numpy()
    np.testing.assert_allclose(wav, wanted, rtol=0, atol=WAVEFORM)


def test_arrival_changes_no_sample(golden_engine: Engine, speaker: np.ndarray) -> None:
    assert golden_engine.detokenizer is not None
    open_stream = golden_engine.detokenizer.stream
    one_by_one = streamed(open_stream(speaker), [[token] for token in TOKENS])
    for size in (2, 5, 18, 90):
        arrivals = [TOKENS[i : i + size] for i in range(0, len(TOKENS), size)]
        np.testing.assert_allclose(streamed(open_stream(speaker), arrivals), one_by_one, rtol=0, atol=1e-5)


def test_upstreams_masked_stream(golden_engine: Engine) -> None:
    """The recorded calls of `stream_all_masked`: hops of 10 tokens, upstream's chunk mask throughout."""
    assert golden_engine.detokenizer is not None
    chunk = golden_engine.bundle.manifest.model.flow.chunk_frames // 2  # type: ignore[union-attr]
    given, recorded = inputs(DETOKENIZER, "_flow"), expected(DETOKENIZER, "_token2wav")
    calls = meta(DETOKENIZER)["runs"]["t2w_stream_all_masked"]["calls"]
    stream = golden_engine.detokenizer.stream(given["embedding"][0], BlockPlan((), chunk, 1000))
    noise = inputs(DETOKENIZER, "_hift")["sine_noise"]
    stream._vocoder._noise = lambda frame, count: noise[:, frame * 480 : (frame + count) * 480]  # type: ignore[method-assign]
    wav = streamed(stream, pieces(given["token"][0].tolist(), [call["n_tokens"] for call in calls]))
    wanted = np.concatenate([recorded[f"stream_all_masked__wav{i}"] for i in range(len(calls))], axis=1)[0]
    np.testing.assert_allclose(wav, wanted, rtol=0, atol=WAVEFORM)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 120), max_size=15))
def test_the_vocoder_alone(golden_engine: Engine, reference: tuple[Flow, Vocoder], cuts: list[int]) -> None:
    assert golden_engine.detokenizer is not None
    mel = np.random.default_rng(1).standard_normal((1, 80, 120)).astype(np.float32)
    stream = golden_engine.detokenizer._vocoder_stream()
    edges = [0, *sorted(cuts), 120]
    waves = [stream.push(mel[:, :, a:b]) for a, b in pairwise(edges)]
    wav = np.concatenate([*waves, stream.finish(mel[:, :, :0])])
    np.testing.assert_allclose(wav, reference[1](mel)[0].numpy(), rtol=0, atol=VOCODER)


def test_the_vocoders_reach_is_no_longer_than_it_must_be(reference: tuple[Flow, Vocoder]) -> None:
    """What lies `reach` frames back changes nothing; a little nearer it does, so the overlap is not wasted."""
    decoder, reach = reference[1].decoder.double(), vocoder_reach_frames(reference[1].config)
    frames = reach + 8
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(1, 80, frames, generator=generator).double()
    source = torch.randn(1, 1, frames * 480, generator=generator).double()
    with torch.inference_mode():
        whole = decoder(mel, source)[0]
        for num_before, exact in ((reach, True), (reach - 6, False)):
            cut = frames - 1 - num_before
            part = decoder(mel[:, :, cut:], source[:, :, cut * 480 :])[0]
            error = (part[-480:] - whole[-480:]).abs().max().item()
            assert (error < 1e-12) == exact, (num_before, error)
    reference[1].decoder.float()


def test_a_long_stream_holds_little_and_repeats_no_work(golden_engine: Engine, speaker: np.ndarray) -> None:
    assert golden_engine.detokenizer is not None
    stream = golden_engine.detokenizer.stream(speaker, BlockPlan((5,), 25, 50))
    lengths: list[tuple[int, ...]] = []
    sizes: set[tuple[int, int]] = set()
    estimate = golden_engine.detokenizer.estimator

    def watched(*arrays: Any) -> Any:
        lengths.append(arrays[0].shape)
        return estimate(*arrays)

    stream._flow._estimator = watched  # type: ignore[assignment]
    total = 0
    for _ in range(64):  # 64 s: beyond the period after which noise repeats
        wav = stream.push(TOKENS[:25])
        assert np.isfinite(wav).all()
        total += len(wav)
        sizes.add((stream._vocoder._mel.shape[2], len(stream._flow._tokens)))
    total += len(stream.finish())
    assert total == 64 * 25 * 960
    assert max(shape[2] for shape in lengths) == 50
    assert sum(shape[2] for shape in lengths) == 10 * 64 * 50
    assert len(sizes) <= 3
    assert max(size for size, _ in sizes) < 60


def test_first_audio_needs_two_groups(golden_engine: Engine, speaker: np.ndarray) -> None:
    assert golden_engine.detokenizer is not None
    stream = golden_engine.detokenizer.stream(speaker)
    assert len(stream.push(TOKENS[:5])) == 0
    assert len(stream.push(TOKENS[5:10])) == (14 - 5) * 480


def test_specials_and_silence(golden_engine: Engine, speaker: np.ndarray) -> None:
    assert golden_engine.detokenizer is not None
    clean = streamed(golden_engine.detokenizer.stream(speaker), [TOKENS[:12]])
    mixed = streamed(golden_engine.detokenizer.stream(speaker), [[6562, *TOKENS[:7], 6561], [*TOKENS[7:12], -1, 6563]])
    np.testing.assert_array_equal(mixed, clean)
    assert streamed(golden_engine.detokenizer.stream(speaker), [[6562] * 5]).shape == (0,)


@pytest.mark.parametrize("arguments", [((3, 3),), ((0,),), ((), 0), ((), 5, -1)])
def test_plans_that_are_none(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(RequestError, match="does not cut tokens into blocks"):
        BlockPlan(*arguments)
