"""Speech of the training data: the answers' frame grid and pitch, the questions' variety, and seeds."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from facrt.errors import FacrtError
from facrt.train import speak
from facrt.train.intents import Split
from facrt.train.timing import time_sounds_alone

TEXT = "The cafeteria is on the second floor, and room four thirteen is on the left."
CONDITION = speak.Condition("en-us+m1", 160, 50, -20.0, 40.0, 1.0, 0.0, (0.1, 0.2), 7)
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def autocorrelation_pitch(wave: np.ndarray, rate_hz: int, start: int, window: int = 1920) -> tuple[float, float]:
    """Pitch in Hz and its normalised autocorrelation, with parabolic interpolation, 50..400 Hz."""
    piece = wave[start : start + window].astype(np.float64)
    piece = piece - piece.mean()
    spectrum = np.fft.rfft(piece, 2 * window)
    raw = np.fft.irfft(np.abs(spectrum) ** 2)[: window // 2]
    score = raw / (raw[0] + 1e-9) * window / (window - np.arange(len(raw)))
    shortest, longest = rate_hz // 400, rate_hz // 50
    peaks = [k for k in range(shortest, min(longest, len(score) - 1)) if score[k - 1] < score[k] >= score[k + 1]]
    if not peaks:
        return 0.0, 0.0
    strongest = max(score[k] for k in peaks)
    lag = next(k for k in peaks if score[k] > 0.9 * strongest)
    left, middle, right = score[lag - 1 : lag + 2]
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return rate_hz / (lag + shift), float(middle)


def _loudness(wave: np.ndarray) -> np.ndarray:
    """Logarithmic power over a period of the constant pitch, which is not seen in it."""
    return np.log(np.convolve(wave.astype(np.float64) ** 2, np.ones(240) / 240, "same") + 1e-6)


@pytest.fixture(scope="module")
def answer() -> np.ndarray:
    pytest.importorskip("pyworld", reason="pyworld is not installed (pip install 'facrt[train]')")
    return speak.speak_answer(TEXT)


@pytest.fixture
def _scipy() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed (pip install 'facrt[train]')")


@needs_espeak
class TestAnswers:
    def test_lies_on_the_frame_grid(self, answer: np.ndarray) -> None:
        assert answer.dtype == np.float32
        assert len(answer) % 960 == 0
        assert 2 * 24_000 < len(answer) < 10 * 24_000
        assert 0.1 < np.abs(answer).max() < 1

    def test_pitch_is_constant(self, answer: np.ndarray) -> None:
        found = [autocorrelation_pitch(answer, 24_000, start) for start in range(0, len(answer) - 1920, 480)]
        voiced = np.array([pitch for pitch, score in found if score > 0.9])
        assert len(voiced) > 40
        assert np.abs(voiced - 100).max() < 1

    def test_frames_begin_at_the_same_phase(self, answer: np.ndarray) -> None:
        """Pulses every 240 samples from the first sample on: averaged over all periods, energy has one sharp place."""
        energy = (answer.astype(np.float64) ** 2)[: len(answer) // 240 * 240].reshape(-1, 240)
        loud = energy[energy.sum(1) > np.median(energy.sum(1))]
        places = np.exp(2j * np.pi * loud.argmax(1) / 240)
        assert np.abs(places.mean()) > 0.5

    @pytest.mark.parametrize("other", ["Seventeen", "The cafeteria", "Room five"])
    def test_words_are_whole_tokens(self, other: str) -> None:
        """The same words are as far from the end, which is on the grid, whatever stood before them."""
        pytest.importorskip("pyworld", reason="pyworld is not installed (pip install 'facrt[train]')")
        first, second = (_loudness(speak.speak_answer(f"{what} is on the second floor.")) for what in ("Four", other))
        heard = first[-24_000:-4800]
        shifts = range(-960, 961, 24)
        near = [np.corrcoef(heard, second[-24_000 - shift : -4800 - shift])[0, 1] for shift in shifts]
        assert abs(shifts[int(np.argmax(near))]) < 100  # 4 ms

    def test_unknown_voice_is_named_from_another_process(self) -> None:
        with pytest.raises(FacrtError, match="espeak-ng has no voice xx-none"):
            time_sounds_alone(TEXT, "xx-none", 160, 50)

    def test_silence_is_dithered(self, answer: np.ndarray) -> None:
        assert 0.5e-4 < answer[-240:].std() < 1e-3

    def test_same_text_same_samples(self, answer: np.ndarray) -> None:
        speak.sounds_of_question("What was said before moves the library's times.", CONDITION)
        np.testing.assert_array_equal(answer, speak.speak_answer(TEXT))


@needs_espeak
@pytest.mark.usefixtures("_scipy")
class TestQuestions:
    def test_same_condition_same_samples(self) -> None:
        noisy = replace(CONDITION, reverberation_s=0.3, signal_to_noise_db=15.0)
        first = speak.speak_question(TEXT, noisy)
        assert first.dtype == np.float32
        np.testing.assert_array_equal(first, speak.speak_question(TEXT, noisy))
        assert not np.array_equal(first, speak.speak_question(TEXT, replace(noisy, seed=8)))

    def test_sounds_lie_where_they_are_heard(self) -> None:
        condition = replace(CONDITION, silence_s=(0.5, 0.3))
        sounds = speak.sounds_of_question("Seven sea shells.", condition)
        starts = [sound.start_s for sound in sounds]
        assert starts == sorted(starts)
        assert sounds[0] == (0.0, "sil", None)
        assert [sound.name for sound in sounds if sound.name != "sil"][:5] == ["s", "E", "v", "@", "n"]
        assert [sound.word for sound in sounds if sound.word is not None] == [0, 6, 10]
        heard = speak.speak_question("Seven sea shells.", condition)
        loud = np.flatnonzero(np.abs(heard) > 0.1 * np.abs(heard).max()) / 16_000
        assert starts[1] == pytest.approx(loud[0], abs=0.06)
        assert starts[-1] == pytest.approx(loud[-1], abs=0.15)
        vowel = next(sound.start_s for sound in sounds if sound.name == "E")
        assert np.square(heard[int(16_000 * vowel) :][:1600]).mean() > 4 * np.square(heard[8000:8800]).mean()

    @pytest.mark.parametrize(("text", "words"), [("Go.", [0]), ("What is two plus two?", [0, 5, 8, 12, 17])])
    def test_an_end_is_no_word(self, text: str, words: list[int]) -> None:
        assert [sound.word for sound in speak.sounds_of_question(text, CONDITION) if sound.word is not None] == words

    def test_level_noise_and_silence_are_as_asked(self) -> None:
        condition = replace(CONDITION, signal_to_noise_db=20.0, noise_slope=0.0, silence_s=(0.5, 0.5))
        heard = speak.speak_question(TEXT, condition)
        speech, noise = heard[8000:-8000], heard[:8000]
        assert 20 * np.log10(np.sqrt(np.mean(speech**2))) == pytest.approx(-20, abs=0.2)
        assert 20 * np.log10(np.sqrt(np.mean(noise**2))) == pytest.approx(-40, abs=0.5)

    def test_reverberation_fills_the_silence_after(self) -> None:
        quiet = replace(CONDITION, signal_to_noise_db=80.0, silence_s=(0.1, 0.3))
        dry = speak.speak_question("Stop.", quiet)
        wet = speak.speak_question("Stop.", replace(quiet, reverberation_s=0.6))
        assert len(dry) == len(wet)
        assert np.abs(wet[-4000:-1600]).mean() > 3 * np.abs(dry[-4000:-1600]).mean()

    def test_voices_differ(self) -> None:
        trained, unseen = (
            {
                speak.speak_question("Room forty.", replace(CONDITION, voice=voice)).tobytes()
                for voice in speak.voices(split)
            }
            for split in (Split.TRAIN, Split.UNSEEN_VOICES)
        )
        assert len(trained) == len(speak.voices(Split.TRAIN))
        assert len(unseen) == len(speak.voices(Split.UNSEEN_VOICES))
        assert not trained & unseen

    def test_speed_and_pitch_matter(self) -> None:
        slow = speak.speak_question(TEXT, replace(CONDITION, speed_wpm=130))
        fast = speak.speak_question(TEXT, replace(CONDITION, speed_wpm=200))
        assert len(slow) > 1.2 * len(fast)
        high = speak.speak_question(TEXT, replace(CONDITION, pitch=75))
        assert not np.array_equal(high, speak.speak_question(TEXT, CONDITION))

    def test_text_without_sound_is_refused(self) -> None:
        with pytest.raises(FacrtError, match="no speech"):
            speak.speak_question("", CONDITION)


def test_conditions_are_seeded_and_varied() -> None:
    drawn = [speak.draw_condition(Split.TRAIN, f"key/{i}") for i in range(300)]
    assert drawn == [speak.draw_condition(Split.TRAIN, f"key/{i}") for i in range(300)]
    assert len({condition.voice for condition in drawn}) > 50
    assert {condition.reverberation_s == 0 for condition in drawn} == {True, False}
    unseen = [speak.draw_condition(Split.UNSEEN_VOICES, f"key/{i}").voice for i in range(50)]
    assert not set(unseen) & {condition.voice for condition in drawn}


def test_missing_espeak_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FacrtError, match=r"espeak-ng is not installed.*apt install espeak-ng") as caught:
        speak.speak_question(TEXT, CONDITION)
    assert "\n" not in str(caught.value)
