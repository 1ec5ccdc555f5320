"""The split of the upsampled hidden state against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from facrt.runtime import _native

T, GROUP, HIDDEN = 7, 5, 12


@pytest.fixture
def upsampled() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(T, GROUP * HIDDEN)).astype(np.float32)  # [T, GROUP * HIDDEN]


@pytest.fixture
def previous() -> np.ndarray:
    return np.random.default_rng(1).normal(size=HIDDEN).astype(np.float32)  # [HIDDEN]


@pytest.mark.parametrize("num_positions", [1, T])
def test_prefill(upsampled: np.ndarray, previous: np.ndarray, num_positions: int) -> None:
    wanted = upsampled[:num_positions].reshape(-1, HIDDEN)[: num_positions * GROUP - (GROUP - 1)] + previous
    np.testing.assert_array_equal(_native.split_prefill(upsampled[:num_positions], previous, GROUP), wanted)


def test_step(upsampled: np.ndarray, previous: np.ndarray) -> None:
    out = np.empty(HIDDEN, np.float32)
    for index in range(GROUP):
        _native.split_step_into(upsampled[3], index, previous, out)
        np.testing.assert_array_equal(out, upsampled[3].reshape(GROUP, HIDDEN)[index] + previous)


def test_shapes_are_checked(upsampled: np.ndarray, previous: np.ndarray) -> None:
    for group_size in (0, -5, 4, 2**62):
        with pytest.raises(ValueError, match=f"must have group_size {group_size} x {HIDDEN}"):
            _native.split_prefill(upsampled, previous, group_size)
    with pytest.raises(ValueError, match="group_size"):
        _native.split_prefill(upsampled, previous[:0], GROUP)
    with pytest.raises(ValueError, match="positions 0"):
        _native.split_prefill(upsampled[:0], previous, GROUP)
    with pytest.raises(ValueError, match="out must be as long as previous"):
        _native.split_step_into(upsampled[0], 0, previous, np.empty(HIDDEN + 1, np.float32))
    for index in (-1, GROUP):
        with pytest.raises(IndexError, match=rf"index {index} is outside 0 \.\. {GROUP - 1}"):
            _native.split_step_into(upsampled[0], index, previous, previous)
    with pytest.raises(TypeError):
        _native.split_prefill(upsampled[:, ::2], previous, GROUP)
