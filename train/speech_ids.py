"""Speech ids of answers: computed once, kept in one file, and gone on with where that was left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

Progress = Callable[[int, int], None]
SAVE_SECONDS = 30.0


@torch.inference_mode()
def cached_ids(
    keys: Sequence[str], encode: Callable[[str], Tensor], cache: Path, progress: Progress = lambda *_: None
) -> list[Tensor]:
    """The ids of each key, [n] int64.

    Args:
        keys: what the ids are kept under.
        encode: the ids of a key, for those that the file lacks.
        cache: the file; written every 30 s and at the end, by rename.
        progress: called after each key.
    """
    kept: dict[str, Tensor] = torch.load(cache, weights_only=True) if cache.exists() else {}
    saved, is_whole = time.monotonic(), True
    for place, key in enumerate(keys):
        if key in kept:
            continue
        kept[key] = encode(key).short().cpu()
        is_whole = False
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(kept, cache)
            saved, is_whole = time.monotonic(), True
        progress(place + 1, len(keys))
    if not is_whole:
        _save(kept, cache)
    with torch.inference_mode(False):
        return [kept[key].long() for key in keys]


def _save(kept: dict[str, Tensor], cache: Path) -> None:
    partial = cache.with_name(f".{cache.name}.partial")
    torch.save(kept, partial)
    partial.replace(cache)
