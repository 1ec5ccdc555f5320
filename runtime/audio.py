"""Audio files in and out: any WAV, FLAC or Ogg in, 16-bit WAV out."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from ..errors import AudioError
from ..model.geometry import MAX_AUDIO_SECONDS, SAMPLE_RATE_HZ, num_slots
from .backend import Array

MIN_AUDIO_SECONDS = 0.04  # one speech slot


def read_audio(path: Path | str) -> Array:
    """Reads a file as the model hears it: mono (mean of the channels), 16 kHz, float32 [N].

    Raises:
        AudioError: missing or unreadable, or refused by `checked_pcm`.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path} is missing: a WAV, FLAC or Ogg file is needed")
    try:
        with soundfile.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            if seconds > MAX_AUDIO_SECONDS:
                raise _too_long(str(path), seconds)
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(f"{path} is no readable WAV, FLAC or Ogg file ({str(error).strip()})") from None
    return checked_pcm(samples.mean(axis=1), rate, str(path))


def checked_pcm(samples: ArrayLike, sample_rate: int, name: str) -> Array:
    """Mono samples [N] of any rate as 16 kHz float32.

    Raises:
        AudioError: not one-dimensional, empty, not finite, shorter than one speech slot, longer than 300 s.
    """
    pcm = as_float_pcm(samples, name)
    if not len(pcm):
        raise AudioError(f"{name} is empty; {MIN_AUDIO_SECONDS} s of audio or more are needed")
    if len(pcm) / sample_rate > MAX_AUDIO_SECONDS:
        raise _too_long(name, len(pcm) / sample_rate)
    if sample_rate != SAMPLE_RATE_HZ:
        pcm = soxr.resample(pcm, sample_rate, SAMPLE_RATE_HZ)
    if not num_slots(len(pcm)):
        raise AudioError(f"{name} lasts {len(pcm) / SAMPLE_RATE_HZ:.3f} s; {MIN_AUDIO_SECONDS} s or more are needed")
    return np.ascontiguousarray(pcm)


def as_float_pcm(samples: ArrayLike, name: str) -> Array:
    """Mono samples [N], int16 or of any real type, as float32.

    Raises:
        AudioError: not one-dimensional, or not finite.
    """
    given = np.asarray(samples)
    pcm: Array = given.astype(np.float32)
    if given.dtype == np.int16:
        pcm /= 32768
    if pcm.ndim != 1:
        raise AudioError(f"{name} has shape {pcm.shape}; mono samples [N] are needed")
    if not np.isfinite(pcm).all():
        raise AudioError(f"{name} holds samples that are not finite (NaN or infinity); write it again without them")
    return pcm


def _too_long(name: str, seconds: float) -> AudioError:
    return AudioError(f"{name} lasts {seconds:.1f} s; at most {MAX_AUDIO_SECONDS} s are heard: cut it into turns")


def refuse_unwritable(path: Path) -> None:
    """Asks before the work, not after it, whether a file can be written there.

    Raises:
        AudioError: the path is a folder, or lies in a file or in a folder that may not be written to.
    """
    parent = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        found = "it is a folder" if path.is_dir() else f"{parent} is no folder that may be written to"
        raise AudioError(f"{path} cannot be written ({found}); choose another --out")


def write_wav(path: Path | str, pcm: Array, sample_rate: int) -> None:
    """Writes mono float32 [N] in [-1, 1] as 16-bit WAV, by rename: an interrupted call leaves no half file.

    Raises:
        AudioError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(partial, pcm, sample_rate, subtype="PCM_16", format="WAV")
        partial.replace(path)
    except (soundfile.SoundFileError, OSError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise AudioError(f"{path} cannot be written ({str(error).strip()})") from None
