"""The answers' features, computed once: what tokenizer, flow and vocoder are trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from ..errors import DatasetError
from ..model.mel import SPEECH_HOP_SAMPLES, reflect_log_mel, speech_log_mel
from .speak import ANSWER_GRID_SAMPLES, ANSWER_PITCH_HZ, ANSWER_RATE_HZ, resample

FRAMES_PER_TOKEN = 2
PITCH_LAG_SAMPLES = round(ANSWER_RATE_HZ / ANSWER_PITCH_HZ)
SAVE_SECONDS = 30.0
VOICED_CORRELATION, VOICED_RMS = 0.5, 0.01
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of `n` speech tokens."""

    text: str
    pcm: Tensor  # [960 n] int16, 24 kHz
    mel: Tensor  # [80, 2 n] float16, 50 frames/s
    heard: Tensor  # [128, 4 n] float16, the speech tokenizer's log-mel, 100 frames/s
    voiced: Tensor  # [2 n] bool

    @property
    def num_tokens(self) -> int:
        return self.mel.shape[1] // FRAMES_PER_TOKEN


def prepare_answers(
    spoken: Iterable[tuple[str, Path]], cache: Path, progress: Progress = lambda *_: None
) -> list[Answer]:
    """Features of (text, WAV) pairs, kept in one file that is written every 30 s and gone on with where it was left.

    Raises:
        DatasetError: a WAV is not 24 kHz on the grid of 960 samples.
    """
    pairs = sorted(dict(spoken).items())
    raw = torch.load(cache, weights_only=True) if cache.exists() else []
    if [row[0] for row in raw] != [text for text, _ in pairs[: len(raw)]]:
        raw = []
    answers, saved = [Answer(*row) for row in raw], time.monotonic()
    for text, path in pairs[len(raw) :]:
        answers.append(_features(text, path))
        if time.monotonic() - saved > SAVE_SECONDS or len(answers) == len(pairs):
            _save(answers, cache)
            saved = time.monotonic()
        progress(len(answers), len(pairs))
    return answers


def _save(answers: list[Answer], cache: Path) -> None:
    partial = cache.with_name(f".{cache.name}.partial")
    torch.save([(a.text, a.pcm, a.mel, a.heard, a.voiced) for a in answers], partial)
    partial.replace(cache)


def _features(text: str, path: Path) -> Answer:
    pcm, rate = soundfile.read(path, dtype="int16")
    if rate != ANSWER_RATE_HZ or len(pcm) % ANSWER_GRID_SAMPLES or pcm.ndim != 1:
        raise DatasetError(f"{path} is not mono {ANSWER_RATE_HZ} Hz of a multiple of {ANSWER_GRID_SAMPLES} samples")
    wave = torch.from_numpy(pcm).float() / 32768
    at_16k = torch.from_numpy(resample(wave.numpy().astype(np.float64), rate, 16_000)).float()
    return Answer(
        text, torch.from_numpy(pcm.copy()), speech_log_mel(wave).half(), reflect_log_mel(at_16k).half(), _voiced(wave)
    )


def _voiced(wave: Tensor) -> Tensor:
    """Frames that repeat themselves after one period of the constant pitch."""
    frames = wave.unfold(0, 2 * SPEECH_HOP_SAMPLES, SPEECH_HOP_SAMPLES)
    frames = torch.cat([frames, torch.zeros(1, frames.shape[1])])  # the last frame has no second half
    first, later = frames[:, :-PITCH_LAG_SAMPLES], frames[:, PITCH_LAG_SAMPLES:]
    energy = (first.square().sum(1) * later.square().sum(1)).sqrt()
    loud = first.square().mean(1).sqrt() > VOICED_RMS
    return (((first * later).sum(1) / (energy + 1e-9)) > VOICED_CORRELATION) & loud
