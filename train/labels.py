"""Label files beside WAVs, in HTK's form: a line per sound, `start end name`, times in units of 100 ns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FacrtError, RequestError
from ..model.geometry import SLOTS_PER_SECOND

UNITS_PER_SECOND = 10_000_000
SILENCE = "sil"
Sounds = Sequence[tuple[float, str]]  # seconds at which each begins, in order, and its name


def label_path(audio: Path) -> Path:
    """Where the labels of a WAV are: beside it."""
    return audio.with_suffix(".lab")


def write_labels(path: Path, sounds: Sounds, seconds: float) -> None:
    """Writes the sounds of an audio of that length, by rename.

    Raises:
        FacrtError: the file cannot be written.
    """
    ends = [*(start for start, _ in sounds[1:]), seconds]
    lines = [
        f"{round(start * UNITS_PER_SECOND)} {round(end * UNITS_PER_SECOND)} {name}\n"
        for (start, name), end in zip(sounds, ends, strict=True)
    ]
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise FacrtError(f"{path} cannot be written ({error.strerror}); make room there") from None


def read_labels(path: Path) -> Sounds:
    """The sounds in a label file.

    Raises:
        RequestError: a line is none of `start end name` in order; the message names it.
    """
    sounds: list[tuple[float, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            start, _, name = line.split()
            sounds.append((int(start) / UNITS_PER_SECOND, name))
        except ValueError:
            raise RequestError(f"{path}, line {number}: {line!r} is no `start end name` with times in 100 ns") from None
        if sounds[-1][0] < sounds[max(0, len(sounds) - 2)][0]:
            raise RequestError(f"{path}, line {number}: begins before the line above it")
    return sounds


def classes_of_rows(sounds: Sounds, names: Sequence[str], num_rows: int) -> Tensor:
    """The class of what sounds in the middle of each row at 25 Hz: [num_rows] int64, places in `names`."""
    middles = (torch.arange(num_rows) + 0.5) / SLOTS_PER_SECOND
    starts = torch.tensor([start for start, _ in sounds])
    classes = torch.tensor([names.index(name) for _, name in sounds])
    return classes[(torch.searchsorted(starts, middles, right=True) - 1).clamp(min=0)]
