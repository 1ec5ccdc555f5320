"""Connectionist temporal classification: rows that need not say which of them speaks which label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLANK = 0
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # a letter is its place + 1
NUM_LETTER_CLASSES = len(LETTERS) + 1


def ctc_loss(scores: Sequence[Tensor], labels: Sequence[Tensor], blank: int = BLANK) -> Tensor:
    """The loss per label, mean over items; an item with fewer rows than its labels need counts nothing.

    Args:
        scores: per item, [rows, classes] before softmax, of any float type.
        labels: per item, [count] int64.
        blank: the class of rows that speak none.
    """
    rows = nn.utils.rnn.pad_sequence([row.float() for row in scores])
    return F.ctc_loss(
        rows.log_softmax(-1), torch.cat(list(labels)).to(rows.device),
        tuple(len(row) for row in scores), tuple(len(word) for word in labels),  # type: ignore[arg-type]
        blank=blank, zero_infinity=True,
    )  # fmt: skip


def spell(text: str) -> Tensor:
    """A text's letters as labels; other signs are left out."""
    return torch.tensor([LETTERS.index(char) + 1 for char in text.lower() if char in LETTERS])
