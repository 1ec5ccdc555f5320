"""Text -> speech: questions by many voices in many rooms, answers by one voice on the vocoder's frame grid."""

from __future__ import annotations

import functools
import random
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, FacrtError, RequestError
from ..model.geometry import SAMPLE_RATE_HZ
from .intents import Split
from .timing import SILENCE, Sound, time_sounds, time_sounds_alone

Array = NDArray[np.float32]
Samples = NDArray[np.float64]

ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f5")
UNSEEN_VARIANTS = ("m5", "m8", "f4")

ANSWER_RATE_HZ = 24_000
ANSWER_VOICE, ANSWER_SPEED_WPM = "en-us", 160
ANSWER_PITCH_HZ = 100.0  # two pulses per vocoder frame of 480 samples: every frame begins at the same phase
ANSWER_GRID_SAMPLES = 960  # one speech token, two mel frames
TOKEN_S = ANSWER_GRID_SAMPLES / ANSWER_RATE_HZ
ANSWER_GAIN = 0.8  # WORLD's peaks come up to 1.1 times those of espeak-ng
DITHER = 1e-4
WORLD_STEP_MS = 5.0
INSTALL = "install it: apt install espeak-ng, dnf install espeak-ng, or brew install espeak-ng"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a question is spoken and heard."""

    voice: str  # of espeak-ng
    speed_wpm: int
    pitch: int  # 0..99, of espeak-ng
    level_dbfs: float  # root mean square of the speech
    signal_to_noise_db: float
    noise_slope: float  # exponent of 1/f: 0 white, 1 pink, 2 brown
    reverberation_s: float  # until -60 dB; 0: none
    silence_s: tuple[float, float]  # before, after
    seed: int  # of noise and reverberation


def voices(split: Split) -> tuple[str, ...]:
    """The espeak-ng voices of a split's questions."""
    variants = UNSEEN_VARIANTS if split is Split.UNSEEN_VOICES else VARIANTS
    return tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in variants)


def draw_condition(split: Split, key: str) -> Condition:
    """A condition at random, the same for the same key; one in three questions is heard without reverberation."""
    draw = random.Random(f"condition/{key}")
    return Condition(
        voice=draw.choice(voices(split)),
        speed_wpm=draw.randint(130, 200),
        pitch=draw.randint(25, 75),
        level_dbfs=draw.uniform(-35, -15),
        signal_to_noise_db=draw.uniform(10, 40),
        noise_slope=draw.uniform(0, 2),
        reverberation_s=draw.choice((0.0, draw.uniform(0.1, 0.3), draw.uniform(0.3, 0.6))),
        silence_s=(draw.uniform(0.05, 0.4), draw.uniform(0.1, 0.5)),
        seed=draw.getrandbits(32),
    )


def speak_question(text: str, condition: Condition) -> Array:
    """A question as a microphone hears it: 16 kHz mono float32 [N] in [-1, 1].

    Raises:
        FacrtError: espeak-ng is missing or fails.
        RequestError: scipy is not installed.
    """
    speech, rate = _espeak(text, condition.voice, condition.speed_wpm, condition.pitch)
    speech = resample(speech, rate, SAMPLE_RATE_HZ)
    before, after = (round(seconds * SAMPLE_RATE_HZ) for seconds in condition.silence_s)
    padded = np.pad(speech, (before, after))
    generator = np.random.default_rng(condition.seed)
    heard = _reverberate(padded, condition.reverberation_s, generator)
    heard *= 10 ** (condition.level_dbfs / 20) / _rms(heard[before : before + len(speech)])
    noise = _noise(len(heard), condition.noise_slope, generator)
    heard += noise * 10 ** ((condition.level_dbfs - condition.signal_to_noise_db) / 20)
    return np.clip(heard, -1, 1).astype(np.float32)


def sounds_of_question(text: str, condition: Condition) -> list[Sound]:
    """Which sound begins when in `speak_question(text, condition)`; silence stands before and after.

    Raises:
        FacrtError: espeak-ng or its library is missing or fails.
    """
    before = condition.silence_s[0]
    said = time_sounds(text, condition.voice, condition.speed_wpm, condition.pitch)
    return [Sound(0.0, SILENCE), *(sound._replace(start_s=before + sound.start_s) for sound in said)]


def sounds_of_answer(text: str) -> list[Sound]:
    """Which sound begins when as espeak-ng says an answer, before its words last whole speech tokens.

    Raises:
        FacrtError: espeak-ng or its library is missing or fails.
    """
    return time_sounds_alone(text, ANSWER_VOICE, ANSWER_SPEED_WPM, 50)


def speak_answer(text: str, sounds: Sequence[Sound] | None = None) -> Array:
    """An answer in the one fixed voice: 24 kHz mono float32 [960 * tokens], at a constant 100 Hz on the 20 ms grid.

    Each word lasts a whole number of speech tokens, so that it is the same tokens wherever it stands.

    Args:
        text: what is said.
        sounds: `sounds_of_answer(text)`, where it is there already.

    Raises:
        FacrtError: espeak-ng is missing or fails.
        RequestError: pyworld or scipy is not installed.
    """
    world = _needs_train_extra("pyworld")
    spoken, rate = _espeak(text, ANSWER_VOICE, ANSWER_SPEED_WPM, 50)
    spoken = resample(spoken, rate, ANSWER_RATE_HZ)
    pitch, times = world.dio(spoken, ANSWER_RATE_HZ, frame_period=WORLD_STEP_MS)
    pitch = world.stonemask(spoken, pitch, times, ANSWER_RATE_HZ)
    envelope = world.cheaptrick(spoken, pitch, times, ANSWER_RATE_HZ)
    aperiodicity = world.d4c(spoken, pitch, times, ANSWER_RATE_HZ)
    frames = _frames_of_whole_tokens(sounds_of_answer(text) if sounds is None else sounds, len(spoken))
    envelope, aperiodicity = np.exp(_rows_at(np.log(envelope), frames)), _rows_at(aperiodicity, frames)
    constant = np.full(len(frames), ANSWER_PITCH_HZ)
    voice = world.synthesize(constant, envelope, aperiodicity, ANSWER_RATE_HZ, WORLD_STEP_MS)
    voice = voice[: round((len(frames) - 1) * WORLD_STEP_MS * ANSWER_RATE_HZ / 1000)]
    dither = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(len(voice)) * DITHER
    return np.clip(voice * ANSWER_GAIN + dither, -1, 1).astype(np.float32)


def whole_tokens(said_s: Samples) -> Samples:
    """How many speech tokens each span between times [n + 1] lasts in an answer: [n], one or more."""
    return np.maximum(1, np.round(np.diff(said_s) / TOKEN_S))


def breaks(sounds: Sequence[Sound]) -> list[Sound]:
    """Those sounds with which a word or a pause begins."""
    return [sound for sound in sounds if sound.word is not None or sound.name == SILENCE]


def _frames_of_whole_tokens(sounds: Sequence[Sound], length: int) -> Samples:
    """Which of WORLD's frames to say when [frames]: espeak-ng's, but that words and pauses are whole speech tokens."""
    end_s = length / ANSWER_RATE_HZ
    begin_s = [sound.start_s for sound in breaks(sounds)]
    said_s = np.unique([0.0, *(start_s for start_s in begin_s if start_s < end_s), end_s])
    wanted_s = np.concatenate([[0.0], np.cumsum(whole_tokens(said_s)) * TOKEN_S])
    steps_s = np.arange(round(wanted_s[-1] * 1000 / WORLD_STEP_MS) + 1) * WORLD_STEP_MS / 1000
    return np.interp(steps_s, wanted_s, said_s) * 1000 / WORLD_STEP_MS


def _rows_at(rows: Samples, places: Samples) -> Samples:
    """Rows [T, n] at places [N] between them, in rows; linear: [N, n]."""
    between = _needs_train_extra("scipy.interpolate").make_interp_spline(np.arange(len(rows)), rows, k=1)
    return np.ascontiguousarray(between(np.minimum(places, len(rows) - 1)))


@functools.cache
def espeak_version() -> str:
    """What `espeak-ng --version` says; other versions speak other samples.

    Raises:
        FacrtError: espeak-ng is missing or fails.
    """
    words = _run_espeak(["--version"], "").decode(errors="replace").split("Data at:")[0]
    return words.strip().removeprefix("eSpeak NG text-to-speech:").strip()


def _espeak(text: str, voice: str, speed_wpm: int, pitch: int) -> tuple[Samples, int]:
    arguments = ["-v", voice, "-s", str(speed_wpm), "-p", str(pitch), "-b", "1", "--stdin", "--stdout"]
    wav = _run_espeak(arguments, " ".join(text.split()))
    if len(wav) <= 44 or wav[36:40] != b"data":
        raise AudioError(f"espeak-ng has no speech for {text!r} with voice {voice}; check `espeak-ng --voices=en`")
    rate = int.from_bytes(wav[24:28], "little")  # the header's length is that of a stream: unknown
    return np.frombuffer(wav, "<i2", offset=44).astype(np.float64) / 32768, rate


def _run_espeak(arguments: list[str], text: str) -> bytes:
    try:
        done = subprocess.run(["espeak-ng", *arguments], input=text.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise FacrtError(f"espeak-ng is not installed, and it speaks the training data; {INSTALL}") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise FacrtError(f"espeak-ng failed ({reason}); check that it runs: espeak-ng --version")
    return done.stdout


def _needs_train_extra(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; making speech needs: pip install 'facrt[train]'") from None


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Samples [N] at another rate, by a polyphase filter."""
    signal = _needs_train_extra("scipy.signal")
    common = np.gcd(rate, wanted)
    return signal.resample_poly(samples, wanted // common, rate // common)


def _reverberate(samples: Samples, seconds: float, generator: np.random.Generator) -> Samples:
    """The direct sound and an exponentially decaying tail 6 dB below it in energy, cut to the same length."""
    if not seconds:
        return samples
    signal = _needs_train_extra("scipy.signal")
    length = round(seconds * SAMPLE_RATE_HZ)
    tail = generator.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail[: round(0.003 * SAMPLE_RATE_HZ)] = 0
    tail *= 0.5 / np.sqrt((tail**2).sum())
    tail[0] = 1
    return signal.fftconvolve(samples, tail)[: len(samples)]


def _noise(length: int, slope: float, generator: np.random.Generator) -> Samples:
    """Noise of unit power with spectral density 1/f**slope above 20 Hz."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(spectrum * np.maximum(hertz, 20) ** (-slope / 2), length)
    return noise / _rms(noise)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2)) + 1e-12)
