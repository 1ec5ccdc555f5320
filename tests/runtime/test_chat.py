"""`facrt chat` with files, and the sound card with a stand-in for sounddevice."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from facrt.errors import RequestError
from facrt.runtime.events import AudioChunk
from facrt.runtime.sound_card import Loudspeaker, Microphone, devices
from goldens import waveforms


@pytest.fixture
def question(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "q.wav", waveforms("u31")[0][: 3 * 16_000], 16_000, subtype="PCM_16")
    return tmp_path / "q.wav"


def test_files_stand_in_for_the_sound_card(facrt: Any, golden_bundle: Path, question: Path, tmp_path: Path) -> None:
    arguments = ["chat", golden_bundle, "--input", question, "--input", question, "--out", tmp_path / "a.wav"]
    arguments += ["--detector", "energy", "--greedy", "--max-steps", 20]
    turns = facrt.json(*arguments)["turns"]
    assert turns
    for turn in turns:
        assert turn["reason"] == "done"
        assert turn["text_ids"]
        assert {"heard", "prefill", "done"} <= set(turn["timings_ms"])
    assert len(soundfile.read(tmp_path / "a.wav")[0]) > 0


def test_what_cannot_be_talked_with(facrt: Any, golden_bundle: Path, question: Path, tmp_path: Path) -> None:
    assert "no bundle is named" in facrt.refusal("chat")
    assert "missing" in facrt.refusal("chat", golden_bundle, "--input", tmp_path / "no.wav")
    assert "it is a folder" in facrt.refusal("chat", golden_bundle, "--input", question, "--out", tmp_path)
    assert "'ear' is unknown" in facrt.refusal("chat", golden_bundle, "--input", question, "--detector", "ear")


class FakeStream:
    latency = 0.0

    def __init__(self, **options: Any) -> None:
        if options["device"] == 99:
            raise ValueError("no such device")
        self.options, self.callback, self.started = options, options["callback"], False
        FakeStream.newest = self  # type: ignore[attr-defined]

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.started = False

    def close(self) -> None:
        return None


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[FakeStream]:
    module: Any = types.ModuleType("sounddevice")
    module.InputStream = module.OutputStream = FakeStream
    module.PortAudioError = OSError
    module.query_devices = lambda: "0 ear, 1 mouth"
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return FakeStream


def chunk(samples: int, turn: int = 1) -> AudioChunk:
    return AudioChunk(np.ones(samples, np.float32), 24_000, 0.0, turn)


def test_the_loudspeaker_counts_what_it_played(card: Any) -> None:
    speaker = Loudspeaker(24_000)
    out = np.zeros((480, 1), np.float32)
    speaker.play(chunk(700))
    card.newest.callback(out, 480)
    assert (out == 1).all()
    assert speaker.played_ms() == 20
    card.newest.callback(out, 480)
    assert out[:220, 0].all()
    assert not out[220:, 0].any()
    assert speaker.played_ms() == pytest.approx(700 / 24)
    speaker.play(chunk(10_000, turn=2))
    assert speaker.played_ms() == 0
    speaker.drop()
    speaker.play(chunk(10_000, turn=2))  # late: of an answer that was silenced
    card.newest.callback(out, 480)
    assert not out.any()
    speaker.close()
    assert not card.newest.started


def test_a_full_loudspeaker_makes_the_answer_wait(card: Any) -> None:
    speaker = Loudspeaker(24_000)
    speaker.play(chunk(30_000))
    thread = threading.Thread(target=speaker.play, args=(chunk(100),))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    card.newest.callback(np.zeros((8_000, 1), np.float32), 8_000)
    thread.join(10)
    assert not thread.is_alive()
    speaker.drop()


def test_the_microphone(card: Any) -> None:
    microphone = Microphone(3)
    assert card.newest.options["device"] == 3
    for value in (0.5, 0.25):
        card.newest.callback(np.full((320, 1), value, np.float32), 320)
    microphone.close()
    blocks = list(microphone)
    assert [block[0] for block in blocks] == [0.5, 0.25]
    assert microphone.level_db == pytest.approx(-12.04, abs=0.01)


def test_sound_cards_that_are_none(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices() == "0 ear, 1 mouth"
    with pytest.raises(RequestError, match=r"does not open \(no such device\); choose a device"):
        Microphone(99)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(RequestError, match="pip install 'facrt"):
        devices()
