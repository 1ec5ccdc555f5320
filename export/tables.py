"""The embedding tables that the runtime maps from disk: plain rows, read by the C++ side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ..model.generate import ChatModel
from ..runtime.bundle import TableEntry

Reader = Callable[[], Tensor]


def write_chat_tables(
    chat: ChatModel, readers: Mapping[int, Reader], scheme: str, folder: Path
) -> dict[str, TableEntry]:
    """Writes the text table, the speech table, and the speech table already projected for token grouping.

    The projection of a mean is the mean of projections, so a step of the runtime gathers `group_size` rows and
    multiplies nothing. Float16, unless the backbone's scheme is fp32.
    """
    grouping = chat.grouping
    text, speech, projection = (
        readers[id(p)]() if id(p) in readers else p
        for p in (chat.backbone.embedding.weight, grouping.embedding.weight, grouping.discrete.weight)
    )
    arrays = {"text_embedding": text, "speech_embedding": speech, "speech_grouping": speech @ projection.T}
    dtype = np.float32 if scheme == "fp32" else np.float16
    return {
        name: write_array(array.detach().numpy().astype(dtype, copy=False), folder / f"{name}.bin")
        for name, array in arrays.items()
    }


def write_array(array: np.ndarray, path: Path) -> TableEntry:
    """Writes a row-major little-endian array as it is."""
    with path.open("wb") as file:
        file.write(np.ascontiguousarray(array).data)  # ndarray.tofile may lose the last bytes on a full disk, silently
    return TableEntry(path.name, array.dtype.name, array.shape)
