"""Log-mels of several audios, laid out so that one pass through the encoder takes them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.audio_encoder import AudioEncoder
from ..model.generate import ChatModel
from ..model.geometry import num_groups

NUM_WIDTHS = 4  # a last window is padded to quarters of a whole one
BEYOND = -1


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Windows of several audios by their width, and which of their rows make which row and group of an audio."""

    windows: tuple[Tensor, ...]  # each [W, num_mels, width] float16 log-mel, 100 frames/s; some may be of no audio
    frames: tuple[Tensor, ...]  # each [W] int64: how many of them are valid
    pairs: Tensor  # [P, 2] int64: of each row at 25 Hz, its two at 50 Hz, counted through all windows
    counts: tuple[int, ...]  # rows at 25 Hz of each audio
    groups: Tensor  # [G, group_size] int64: rows at 25 Hz of each group at 5 Hz; P stands for silence beyond the end
    num_groups: tuple[int, ...]  # of each audio


def lay_out(mels: Sequence[Tensor], slots: Sequence[int], window_frames: int, group_size: int) -> AudioBatch:
    """The layout of some audios.

    Args:
        mels: per audio, [num_mels, L] log-mel, 100 frames/s.
        slots: the 25 Hz slots of each.
        window_frames: of a whole window of the encoder.
        group_size: slots in a group.
    """
    parts = [part for mel in mels for part in mel.split(window_frames, dim=1)]
    step = 2 * -(-window_frames // (2 * NUM_WIDTHS))
    alike: dict[int, list[int]] = defaultdict(list)
    for part, mel in enumerate(parts):
        alike[min(window_frames, -(-mel.shape[1] // step) * step)].append(part)
    windows, frames, rows_of, start = [], [], {}, 0
    for width, numbers in alike.items():
        spare = _few_sizes(len(numbers)) - len(numbers)
        padded = torch.stack([F.pad(parts[i], (0, width - parts[i].shape[1])) for i in numbers])
        windows.append(F.pad(padded, (0, 0, 0, 0, 0, spare)).half())
        frames.append(torch.tensor([*(parts[i].shape[1] for i in numbers), *([0] * spare)]))
        for i in numbers:
            rows_of[i] = start + torch.arange(-(-parts[i].shape[1] // 2))
            start += width // 2
        start += spare * (width // 2)
    pairs, groups, number, first = [], [], 0, 0
    for mel, slot_count in zip(mels, slots, strict=True):
        after = number + -(-mel.shape[1] // window_frames)
        rows = torch.cat([rows_of[i] for i in range(number, after)])
        count = max(1, len(rows) // 2)
        pairs.append(rows[: 2 * count].unflatten(0, (-1, 2)) if len(rows) > 1 else rows.expand(1, 2))
        places = torch.arange(group_size * num_groups(slot_count, group_size))
        groups.append(torch.where(places < count, first + places, BEYOND).unflatten(0, (-1, group_size)))
        number, first = after, first + count
    every = torch.cat(groups)
    return AudioBatch(
        tuple(windows), tuple(frames), torch.cat(pairs), tuple(map(len, pairs)),
        torch.where(every == BEYOND, first, every), tuple(map(len, groups)),
    )  # fmt: skip


def _few_sizes(count: int) -> int:
    """The next of the counts that have four binary digits and then zeros: for a new shape, a GPU plans anew."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def encode(encoder: AudioEncoder, batch: AudioBatch) -> Tensor:
    """The audio encoder over a batch on its device, before its last norm: [P, d_model] at 25 Hz."""
    rows = torch.cat([
        encoder.windows(windows.float(), frames)[0].flatten(0, 1)
        for windows, frames in zip(batch.windows, batch.frames, strict=True)
    ])  # fmt: skip
    return rows[batch.pairs].mean(1)


def means_of_groups(rows: Tensor, batch: AudioBatch) -> Tensor:
    """Projected rows [P, H] at 25 Hz -> their means [G, H] at 5 Hz."""
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])[batch.groups].mean(1)


def heard_rows(model: ChatModel, batch: AudioBatch) -> Tensor:
    """What the backbone gets of a batch of audios on its device: [G, H]."""
    encoder = model.audio_encoder
    rows = encoder.projection(encoder.post_norm(encode(encoder, batch)))
    return model.grouping.continuous(means_of_groups(rows, batch))
