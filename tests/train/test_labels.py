"""Label files: what is written is read, rows get what sounds in their middle, broken lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from facrt.errors import RequestError
from facrt.train.labels import classes_of_rows, groups_of_ids, label_path, read_labels, write_labels
from facrt.train.timing import Sound

SOUNDS = [Sound(0.0, "sil"), Sound(0.1, "h", 0), Sound(0.15, "@"), Sound(0.31, "oU"), Sound(0.5, "sil")]
ROOM_TEN = [Sound(0.0, "sil"), Sound(0.25, "r", 0), Sound(0.35, "u:"), Sound(0.45, "m"), Sound(0.55, "t", 5),
            Sound(0.65, "E"), Sound(0.75, "n"), Sound(0.85, "sil")]  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    path = label_path(tmp_path / "question.wav")
    write_labels(path, SOUNDS, 0.7)
    assert path.read_text().splitlines()[1] == "1000000 1500000 h 0"
    assert path.read_text().splitlines()[-1] == "5000000 7000000 sil"
    assert read_labels(path) == SOUNDS
    assert list(tmp_path.iterdir()) == [path]


def test_rows_get_what_sounds_in_their_middle() -> None:
    names = ["@", "h", "oU", "sil"]
    found = classes_of_rows(SOUNDS, names, 17)  # middles at 0.02, 0.06, 0.10, 0.14, 0.18, ..., 0.66
    assert [names[i] for i in found] == ["sil"] * 2 + ["h"] * 2 + ["@"] * 4 + ["oU"] * 4 + ["sil"] * 5


@pytest.mark.parametrize("line", ["1 2", "a 2 x", "1 2 x y", "1 2 x 3 4", "1 2 sil -1", "9 10 x\n1 2 y"])
def test_broken_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.lab"
    path.write_text(f"0 1 sil\n{line}\n")
    with pytest.raises(RequestError, match=r"x\.lab, line [23]"):
        read_labels(path)


def test_ids_stand_where_their_words_are_over() -> None:
    ids = {"starts": [0, 5, 8], "is_word": [True, True, False]}  # "Room ten."
    assert groups_of_ids(ROOM_TEN, **ids, num_groups=6, group_size=5) == [2, 4, 5]
    assert groups_of_ids(ROOM_TEN, **ids, num_groups=5, group_size=5) == [2, 3, 4], "the last ones move inside"
    assert groups_of_ids(ROOM_TEN, **ids, num_groups=2, group_size=5) is None
    pieces = {"starts": [0, 2, 5, 8], "is_word": [True, True, True, False]}  # "Ro" "om" " ten" "."
    assert groups_of_ids(ROOM_TEN, **pieces, num_groups=8, group_size=5) == [1, 2, 4, 5]
    assert groups_of_ids(ROOM_TEN, **ids, num_groups=30, group_size=1) == [13, 21, 22]
