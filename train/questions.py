"""The questions' log-mels, computed once and read from one memory-mapped file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.geometry import num_slots
from ..model.mel import whisper_log_mel
from ..runtime.audio import read_audio

Progress = Callable[[int, int], None]
SAVE_SECONDS = 30.0
LEVEL_JITTER = 0.1  # of the scaled log-mel, 0.4 in log10 power
MASKED_MELS, MASKED_FRAMES, NUM_MASKS = 16, 10, 1
WARP = 0.1  # of the frequency axis, either way: longer and shorter vocal tracts


class QuestionStore:
    """Log-mels [num_mels, L] float16 of WAV files, 100 frames/s; made once, then memory-mapped."""

    def __init__(self, paths: Sequence[Path], cache: Path, num_mels: int, progress: Progress = lambda *_: None) -> None:
        index_path, data_path = cache.with_suffix(".json"), cache.with_suffix(".f16")
        names = [str(path) for path in paths]
        made = json.loads(index_path.read_text()) if index_path.exists() else _nothing()
        if made["names"] != names[: len(made["names"])]:
            made = _nothing()
        missing = names[len(made["names"]) :]
        if missing:
            with data_path.open("r+b" if data_path.exists() and made["names"] else "wb") as file:
                file.seek(made["ends"][-1] * num_mels * 2)
                saved = time.monotonic()
                for i, name in enumerate(missing):
                    pcm = torch.from_numpy(read_audio(Path(name)))
                    mel = whisper_log_mel(pcm, num_mels).T.contiguous()
                    file.write(mel.half().numpy().tobytes())
                    made["names"].append(name)
                    made["slots"].append(num_slots(len(pcm)))
                    made["ends"].append(made["ends"][-1] + mel.shape[0])
                    progress(i + 1, len(missing))
                    if time.monotonic() - saved > SAVE_SECONDS:
                        file.flush()
                        _write_index(index_path, made)
                        saved = time.monotonic()
                file.truncate()
            _write_index(index_path, made)
        self.num_mels = num_mels
        self._ends: list[int] = made["ends"]
        self._slots: list[int] = made["slots"]
        self._places = {Path(name): i for i, name in enumerate(made["names"])}
        self._rows = np.memmap(data_path, np.float16, "r").reshape(-1, num_mels)

    def num_slots(self, path: Path) -> int:
        """25 Hz slots of the audio."""
        return self._slots[self._places[path]]

    def mel(self, path: Path) -> Tensor:
        """[num_mels, L] float32."""
        place = self._places[path]
        return torch.from_numpy(self._rows[self._ends[place] : self._ends[place + 1]].astype(np.float32)).T


def _nothing() -> dict[str, Any]:
    return {"names": [], "ends": [0], "slots": []}


def _write_index(path: Path, made: dict[str, Any]) -> None:
    """By rename, after the data that it describes."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(made))
    partial.replace(path)


def disturbed(mel: Tensor, draw: torch.Generator) -> Tensor:
    """A log-mel [num_mels, L] of another speaker at another level, with masked bands and moments (SpecAugment)."""
    mel = _warped(mel, 1 + WARP * (2 * float(torch.rand((), generator=draw)) - 1))
    mel = mel + LEVEL_JITTER * torch.randn((), generator=draw)
    quiet = float(mel.min())
    mel = mel.clone()
    for _ in range(NUM_MASKS):
        height, width = (int(torch.randint(1, size, (1,), generator=draw)) for size in (MASKED_MELS, MASKED_FRAMES))
        low = int(torch.randint(max(1, mel.shape[0] - height), (1,), generator=draw))
        start = int(torch.randint(max(1, mel.shape[1] - width), (1,), generator=draw))
        mel[low : low + height] = quiet
        mel[:, start : start + width] = quiet
    return mel


def _warped(mel: Tensor, factor: float) -> Tensor:
    """What stood at a place of the mel axis stands `factor` times lower; the last band goes on above its end."""
    place = (torch.arange(mel.shape[0]) * factor).clamp(max=mel.shape[0] - 1)
    below = place.long().clamp(max=mel.shape[0] - 2)
    share = (place - below)[:, None]
    return mel[below] * (1 - share) + mel[below + 1] * share
