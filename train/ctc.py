"""Connectionist temporal classification: rows that need not say which of them speaks which label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # a letter is its place + 1
NUM_LETTER_CLASSES = len(LETTERS) + 1


def ctc_loss(
    scores: Tensor, labels: Tensor, num_rows: Sequence[int], num_labels: Sequence[int], blank: int = BLANK
) -> Tensor:
    """The loss per label, mean over items; an item with fewer rows than its labels need counts nothing.

    Args:
        scores: [rows, items, classes] before softmax, of any float type.
        labels: of all items, one after another, int64.
        num_rows: of each item.
        num_labels: of each item.
        blank: the class of rows that speak none.
    """
    return F.ctc_loss(
        scores.float().log_softmax(-1), labels.to(scores.device),
        tuple(num_rows), tuple(num_labels),  # type: ignore[arg-type]
        blank=blank, zero_infinity=True,
    )  # fmt: skip


def spell(text: str) -> Tensor:
    """A text's letters as labels; other signs are left out."""
    return torch.tensor([LETTERS.index(char) + 1 for char in text.lower() if char in LETTERS])
