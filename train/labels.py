"""Label files beside WAVs: which sound and which word begins when, a line for each, after HTK's form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FacrtError, RequestError
from ..model.geometry import SLOTS_PER_SECOND
from .timing import SILENCE, Sound

UNITS_PER_SECOND = 10_000_000  # HTK's: 100 ns


def label_path(audio: Path) -> Path:
    """Where the labels of a WAV are: beside it."""
    return audio.with_suffix(".lab")


def write_labels(path: Path, sounds: Sequence[Sound], seconds: float) -> None:
    """Writes the sounds of an audio of that length, by rename: lines of `start end name [word]`.

    Raises:
        FacrtError: the file cannot be written.
    """
    ends = [*(sound.start_s for sound in sounds[1:]), seconds]
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text("".join(map(_line, sounds, ends)), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise FacrtError(f"{path} cannot be written ({error.strerror}); make room there") from None


def _line(sound: Sound, end_s: float) -> str:
    word = "" if sound.word is None else f" {sound.word}"
    return f"{round(sound.start_s * UNITS_PER_SECOND)} {round(end_s * UNITS_PER_SECOND)} {sound.name}{word}\n"


def read_labels(path: Path) -> list[Sound]:
    """The sounds in a label file.

    Raises:
        RequestError: a line is none of `start end name [word]`, or begins before the one above it; it is named.
    """
    sounds: list[Sound] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            start, _, name, *word = line.split()
            places = [int(place) for place in word]
            if min(places, default=0) < 0:
                raise ValueError
            sounds.append(Sound(int(start) / UNITS_PER_SECOND, name, *places))
        except (ValueError, TypeError):
            form = "`start end name [word]` with times in 100 ns and the word's place in the text"
            raise RequestError(f"{path}, line {number}: {line!r} is no {form}") from None
        if sounds[-1].start_s < sounds[max(0, len(sounds) - 2)].start_s:
            raise RequestError(f"{path}, line {number}: begins before the line above it")
    return sounds


def classes_of_rows(sounds: Sequence[Sound], names: Sequence[str], num_rows: int) -> Tensor:
    """The class of what sounds in the middle of each row at 25 Hz: [num_rows] int64, places in `names`."""
    middles = (torch.arange(num_rows) + 0.5) / SLOTS_PER_SECOND
    starts = torch.tensor([sound.start_s for sound in sounds])
    classes = torch.tensor([names.index(sound.name) for sound in sounds])
    return classes[(torch.searchsorted(starts, middles, right=True) - 1).clamp(min=0)]


def groups_of_ids(
    sounds: Sequence[Sound], starts: Sequence[int], is_word: Sequence[bool], num_groups: int, group_size: int
) -> list[int] | None:
    """The group in which each text id is over: in order, no two in one group.

    Args:
        sounds: of the recording.
        starts: where each id begins in the text, in characters.
        is_word: whether it has letters; punctuation comes after its word.
        num_groups: of the recording.
        group_size: slots in a group.

    Returns:
        Per id its group, or None where there are fewer groups than ids.
    """
    words = list(_words(sounds))
    spoken = [max((i for i, (place, _) in enumerate(words) if place <= start), default=-1) for start in starts]
    groups: list[int] = []
    for i, word in enumerate(spoken):
        later = sum(w == word and said for w, said in zip(spoken[i + 1 :], is_word[i + 1 :], strict=True))
        end_s = words[word][1] if word >= 0 else 0.0
        wanted = int(end_s * SLOTS_PER_SECOND / group_size) - later + (not is_word[i])
        groups.append(max(wanted, groups[-1] + 1 if groups else 0))
    return _moved_inside(groups, num_groups)


def _words(sounds: Sequence[Sound]) -> Iterator[tuple[int, float]]:
    """Of each word, where it begins in the text and when it is over."""
    word: int | None = None
    ends_s = 0.0
    for sound, after in zip(sounds, [*sounds[1:], sounds[-1]], strict=True):
        if sound.word is not None:
            if word is not None:
                yield word, ends_s
            word = sound.word
        if sound.name != SILENCE:
            ends_s = after.start_s
    if word is not None:
        yield word, ends_s


def _moved_inside(groups: list[int], num_groups: int) -> list[int] | None:
    if len(groups) > num_groups:
        return None
    return [min(group, num_groups - (len(groups) - i)) for i, group in enumerate(groups)]
