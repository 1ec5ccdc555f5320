"""The three spoken questions of the demo: opening hours, a sum, and a lamp."""

from __future__ import annotations

from pathlib import Path

from ..model.geometry import SAMPLE_RATE_HZ
from ..runtime.audio import write_wav
from .speak import Condition, speak_question

QUESTIONS = ("When does the library open on Monday?", "What is seven plus eight?", "Turn on the kitchen lamp.")
CONDITION = Condition(
    voice="en-us+m3", speed_wpm=150, pitch=50, level_dbfs=-23, signal_to_noise_db=30, noise_slope=1, reverberation_s=0,
    silence_s=(0.2, 0.3), seed=1,
)  # fmt: skip


def write_questions(folder: Path) -> list[Path]:
    """Speaks the questions into 16 kHz WAV files whose names say what they ask: `what-is-seven-plus-eight.wav`.

    Raises:
        FacrtError: espeak-ng is missing, or a file cannot be written.
        RequestError: scipy is not installed.
    """
    paths = [folder / f"{question.strip('.?').lower().replace(' ', '-')}.wav" for question in QUESTIONS]
    for path, question in zip(paths, QUESTIONS, strict=True):
        write_wav(path, speak_question(question, CONDITION), SAMPLE_RATE_HZ)
    return paths
