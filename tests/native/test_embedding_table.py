"""The memory-mapped embedding table against numpy and torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facrt.runtime import _native

ROWS, COLS, GROUP = 50, 700, 5


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, COLS)).astype(np.float32)  # [ROWS, COLS]


@pytest.fixture(scope="module")
def opened(table: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> _native.EmbeddingTable:
    path = tmp_path_factory.mktemp("table") / "table.bin"
    path.write_bytes(b"header." + table.tobytes())
    return _native.EmbeddingTable(path, ROWS, COLS, "float32", offset=7)


@pytest.fixture
def ids() -> np.ndarray:
    return np.random.default_rng(1).integers(0, ROWS, 4 * GROUP)


def test_gather(opened: _native.EmbeddingTable, table: np.ndarray, ids: np.ndarray) -> None:
    assert (opened.rows, opened.cols) == (ROWS, COLS)
    np.testing.assert_array_equal(opened.gather(ids), table[ids])
    out = np.empty((len(ids), COLS), np.float32)
    opened.gather_into(ids, out)
    np.testing.assert_array_equal(out, table[ids])
    assert opened.gather(ids[:0]).shape == (0, COLS)


def test_results_outlive_the_table(table: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    table.tofile(path)
    row = _native.EmbeddingTable(str(path), ROWS, COLS, "float32").gather(np.array([3]))
    path.unlink()
    np.testing.assert_array_equal(row[0], table[3])
    row += 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_width_tables(dtype: str, table: np.ndarray, ids: np.ndarray, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    half = torch.from_numpy(table).to(getattr(torch, dtype))
    path = tmp_path / "table.bin"
    path.write_bytes(half.view(torch.int16).numpy().tobytes())
    opened = _native.EmbeddingTable(path, ROWS, COLS, dtype)
    np.testing.assert_array_equal(opened.gather(ids), half.float().numpy()[ids])


def test_every_float16_widens_exactly(tmp_path: Path) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    path = tmp_path / "table.bin"
    halves.tofile(path)
    row = _native.EmbeddingTable(path, 1, 65536, "float16").gather(np.array([0]))[0]
    np.testing.assert_array_equal(row, halves.astype(np.float32))


@pytest.mark.parametrize("group_size", [1, 4, 5])
def test_group_mean(opened: _native.EmbeddingTable, table: np.ndarray, ids: np.ndarray, group_size: int) -> None:
    torch = pytest.importorskip("torch")
    wanted = torch.from_numpy(table)[torch.from_numpy(ids)].reshape(-1, group_size, COLS).mean(1).numpy()
    np.testing.assert_allclose(opened.group_mean(ids, group_size), wanted, rtol=0, atol=1e-6)


def test_group_average(opened: _native.EmbeddingTable, table: np.ndarray, ids: np.ndarray) -> None:
    text_row = np.random.default_rng(2).normal(size=COLS).astype(np.float32)
    group = ids[:GROUP]
    wanted = (text_row + table[group].mean(0)) / 2
    average = opened.group_average(group, text_row)
    assert average.shape == (COLS,)
    np.testing.assert_allclose(average, wanted, rtol=0, atol=1e-6)
    opened.group_average_into(group, text_row, text_row)
    np.testing.assert_array_equal(text_row, average)


@pytest.mark.parametrize("bad", [-1, ROWS, 2**62])
def test_ids_outside_the_table_are_named(opened: _native.EmbeddingTable, bad: int) -> None:
    ids = np.array([0, bad])
    out = np.zeros((2, COLS), np.float32)
    for call in (
        lambda: opened.gather(ids),
        lambda: opened.gather_into(ids, out),
        lambda: opened.group_mean(ids, 2),
        lambda: opened.group_average(ids, out[0]),
    ):
        with pytest.raises(IndexError, match=rf"id {bad} is outside 0 \.\. {ROWS - 1}"):
            call()
    assert not out.any()


def test_shapes_and_dtypes_are_checked(opened: _native.EmbeddingTable, ids: np.ndarray) -> None:
    row = np.zeros(COLS, np.float32)
    frozen = np.zeros(COLS, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="group_size 3 must be > 0 and divide the 20 ids"):
        opened.group_mean(ids, 3)
    with pytest.raises(ValueError, match="group_size 0"):
        opened.group_mean(ids, 0)
    with pytest.raises(ValueError, match=f"out has {COLS - 1} columns, must have {COLS}"):
        opened.gather_into(ids, np.zeros((len(ids), COLS - 1), np.float32))
    with pytest.raises(ValueError, match="out has"):
        opened.gather_into(ids, np.zeros((1, COLS), np.float32))
    with pytest.raises(ValueError, match="text_row has 1 values"):
        opened.group_average(ids, row[:1])
    with pytest.raises(ValueError, match="0 ids"):
        opened.group_average(ids[:0], row)
    for bad_out in (frozen, np.zeros(COLS), np.zeros(2 * COLS, np.float32)[::2]):
        with pytest.raises(TypeError):
            opened.group_average_into(ids, row, bad_out)
    with pytest.raises(TypeError):
        opened.gather(ids.astype(np.int32))


def test_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    path.write_bytes(bytes(48))
    with pytest.raises(ValueError, match="has 48 bytes, too few for 4 rows of 4 items of 4 bytes from byte 0"):
        _native.EmbeddingTable(path, 4, 4, "float32")
    with pytest.raises(ValueError, match="too few"):
        _native.EmbeddingTable(path, 3, 4, "float32", offset=1)
    with pytest.raises(ValueError, match="too few"):
        _native.EmbeddingTable(path, 2**62, 2**62, "float16")
    with pytest.raises(ValueError, match="dtype 'int8' is not one of float32, float16, bfloat16"):
        _native.EmbeddingTable(path, 3, 4, "int8")
    with pytest.raises(ValueError, match="must be > 0"):
        _native.EmbeddingTable(path, 0, 4, "float32")
    with pytest.raises(ValueError, match="not a regular file"):
        _native.EmbeddingTable(tmp_path, 3, 4, "float32")
    with pytest.raises(FileNotFoundError, match="cannot open"):
        _native.EmbeddingTable(tmp_path / "absent", 3, 4, "float32")
