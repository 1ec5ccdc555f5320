"""Core-Cocktail's merge, alpha * A + (1 - alpha) * B, for checkpoints of any size: a few rows in memory at a time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError, FacrtError, RequestError
from ..model.checkpoint import existing
from ..model.weights import SafetensorsSource
from ..staging import staged

SHARD_BYTES = 4 << 30
ROWS_ELEMENTS = 1 << 24  # of a tensor, at a time
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
Progress = Callable[[int, int], None]  # bytes written, bytes in all


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return torch.Size(self.shape).numel() * DTYPES[self.dtype].itemsize


def merge(
    a: Path | str,
    b: Path | str,
    alpha: float,
    out: Path | str,
    progress: Progress = lambda *_: None,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Writes alpha * A + (1 - alpha) * B, computed in float32 and stored in A's types, with the rest of A's folder.

    Tensors that are not floating point must be equal. The folder appears whole or not at all.

    Returns:
        The bytes of the weights written.

    Raises:
        RequestError: alpha is not within 0..1, or `out` is in the way.
        CheckpointError: a folder cannot be read, or the tensors do not match: all mismatches are listed.
        FacrtError: the folder cannot be written.
    """
    if not 0 <= alpha <= 1:
        raise RequestError(f"alpha is {alpha}; 0 (all of B) to 1 (all of A) is allowed")
    folder_a, folder_b, out = existing(a), existing(b), Path(out)
    _refuse_in_the_way(out, folder_a, folder_b)
    source_a, source_b = SafetensorsSource(folder_a), SafetensorsSource(folder_b)
    entries = _matched(source_a, source_b)
    total = sum(entry.size_bytes for entry in entries)
    written = 0
    with staged(out, total) as staging:
        copy_rest(folder_a, source_a, staging)
        shards = _shards(entries, shard_bytes)
        for path, shard in zip(shard_paths(staging, len(shards)), shards, strict=True):
            with path.open("wb") as file:
                _write_header(file, shard)
                for entry in shard:
                    for rows in _merged(entry, source_a, source_b, alpha):
                        written += _write_tensor(file, rows)
                        progress(written, total)
        if len(shards) > 1:
            _write_index(staging, shards, total)
    return total


def _matched(a: SafetensorsSource, b: SafetensorsSource) -> list[_Entry]:
    """A's tensors, after every mismatch with B has been found."""
    shapes_a, shapes_b = a.shapes(), b.shapes()
    faults = [f"only in {a.where}: {name}" for name in sorted(set(shapes_a) - set(shapes_b))]
    faults += [f"only in {b.where}: {name}" for name in sorted(set(shapes_b) - set(shapes_a))]
    entries = []
    for name in sorted(set(shapes_a) & set(shapes_b)):
        dtype, other = a.dtypes()[name], b.dtypes()[name]
        unknown = sorted({dtype, other} - set(DTYPES))
        if shapes_a[name] != shapes_b[name]:
            faults.append(f"{name} is {list(shapes_a[name])} and {list(shapes_b[name])}")
        elif unknown:
            faults.append(f"{name} is of type {unknown[0]}, which cannot be merged")
        elif DTYPES[dtype].is_floating_point != DTYPES[other].is_floating_point:
            faults.append(f"{name} is of type {dtype} and {other}")
        elif not DTYPES[dtype].is_floating_point and not torch.equal(a.read(name), b.read(name)):
            faults.append(f"{name} holds whole numbers that differ")
        entries.append(_Entry(name, shapes_a[name], dtype))
    if faults:
        raise CheckpointError(f"{a.where} and {b.where} cannot be merged ({'; '.join(faults)})")
    return entries


def _merged(entry: _Entry, a: SafetensorsSource, b: SafetensorsSource, alpha: float) -> Iterator[Tensor]:
    """The merged tensor in blocks of rows, in A's type."""
    dtype = DTYPES[entry.dtype]
    if not dtype.is_floating_point or not entry.shape:
        yield _blend(a.read(entry.name), b.read(entry.name), alpha, dtype)
        return
    step = max(1, ROWS_ELEMENTS // max(1, torch.Size(entry.shape[1:]).numel()))
    with a.rows(entry.name) as rows_a, b.rows(entry.name) as rows_b:
        for start in range(0, entry.shape[0], step):
            yield _blend(rows_a[start : start + step], rows_b[start : start + step], alpha, dtype)


def _blend(a: Tensor, b: Tensor, alpha: float, dtype: torch.dtype) -> Tensor:
    """[...] alpha * a + (1 - alpha) * b; at 0 and 1 the other side's infinities do not matter."""
    if not dtype.is_floating_point or alpha == 1:
        return a.to(dtype)
    if alpha == 0:
        return b.to(dtype)
    return (a.float() * alpha).add_(b.float(), alpha=1 - alpha).to(dtype)


def _shards(entries: list[_Entry], shard_bytes: int) -> list[list[_Entry]]:
    """Entries by shard, at most `shard_bytes` each unless one alone is larger; wide types first, for alignment."""
    shards: list[list[_Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.size_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.size_bytes
    return [sorted(shard, key=lambda entry: (-DTYPES[entry.dtype].itemsize, entry.name)) for shard in shards]


def shard_paths(folder: Path, count: int) -> list[Path]:
    """The names that so many shards of one checkpoint have."""
    if count == 1:
        return [folder / "model.safetensors"]
    return [folder / f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _write_header(file: BinaryIO, shard: list[_Entry]) -> None:
    """The head of a safetensors file: its length (8 bytes), then JSON padded to a multiple of 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard:
        ends = [offset, offset + entry.size_bytes]
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": ends}
        offset = ends[1]
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    file.write(len(raw).to_bytes(8, "little") + raw)


def _write_tensor(file: BinaryIO, tensor: Tensor) -> int:
    assert sys.byteorder == "little", "safetensors is little-endian"
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return file.write(raw.data)


def _write_index(folder: Path, shards: list[list[_Entry]], total: int) -> None:
    paths = shard_paths(folder, len(shards))
    weight_map = {entry.name: path.name for path, shard in zip(paths, shards, strict=True) for entry in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def copy_rest(folder: Path, source: SafetensorsSource, staging: Path) -> None:
    """Copies all of a checkpoint folder but its weights."""
    weights = {INDEX, "model.safetensors", *(path.name for path in source.files)}

    def ignored(where: str, names: list[str]) -> set[str]:
        return weights.intersection(names) if Path(where) == folder else set()

    try:
        shutil.copytree(folder, staging, ignore=ignored, dirs_exist_ok=True)
    except shutil.Error as error:
        raise FacrtError(f"{folder} cannot be copied ({error.args[0][0][2]})") from None


def _refuse_in_the_way(out: Path, *folders: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} is there already; choose another --out or remove it")
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise RequestError(f"{out} lies in {folder}, which is merged; choose another --out")
