"""Label files: what is written is read, rows get what sounds in their middle, broken lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from facrt.errors import RequestError
from facrt.train.labels import classes_of_rows, label_path, read_labels, write_labels

SOUNDS = [(0.0, "sil"), (0.1, "h"), (0.15, "@"), (0.31, "oU"), (0.5, "sil")]


def test_round_trip(tmp_path: Path) -> None:
    path = label_path(tmp_path / "question.wav")
    write_labels(path, SOUNDS, 0.7)
    assert path.read_text().splitlines()[1] == "1000000 1500000 h"
    assert path.read_text().splitlines()[-1] == "5000000 7000000 sil"
    assert read_labels(path) == SOUNDS
    assert list(tmp_path.iterdir()) == [path]


def test_rows_get_what_sounds_in_their_middle() -> None:
    names = ["@", "h", "oU", "sil"]
    found = classes_of_rows(SOUNDS, names, 17)  # middles at 0.02, 0.06, 0.10, 0.14, 0.18, ..., 0.66
    assert [names[i] for i in found] == ["sil"] * 2 + ["h"] * 2 + ["@"] * 4 + ["oU"] * 4 + ["sil"] * 5


@pytest.mark.parametrize("line", ["1 2", "a 2 x", "1 2 3 4", "9 10 x\n1 2 y"])
def test_broken_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.lab"
    path.write_text(f"0 1 sil\n{line}\n")
    with pytest.raises(RequestError, match=r"x\.lab, line [23]"):
        read_labels(path)
