"""Token grouping ("audio_tower"): 25 Hz rows or ids -> 5 Hz rows of the backbone's width (SEMANTICS.md 3)."""

from __future__ import annotations

from torch import Tensor, nn

from .weights import Layout, linear, plain, under

UPSTREAM = "audio_tower"


class Grouping(nn.Module):
    """The speech table E, shared with the speech head, and the two projections."""

    def __init__(self, codebook_size: int, hidden_size: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.embedding = nn.Embedding(codebook_size, hidden_size)
        self.discrete = nn.Linear(hidden_size, hidden_size, bias=False)
        self.continuous = nn.Linear(hidden_size, hidden_size, bias=False)

    def of_ids(self, ids: Tensor) -> Tensor:  # [n] int64, n a multiple of group_size -> [n / group_size, H]
        return self.discrete(self.embedding(ids).unflatten(0, (-1, self.group_size)).mean(1))

    def forward(self, rows: Tensor) -> Tensor:  # encoder rows [groups, group_size, H] -> [groups, H]
        return self.continuous(rows.mean(1))


def grouping_layout(codebook_size: int, hidden_size: int) -> Layout:
    """Which upstream tensors make which parameter of `Grouping`."""
    h = hidden_size
    return {
        "embedding.weight": plain(f"{UPSTREAM}.embed_tokens.weight", codebook_size, h),
        **under("discrete", linear(f"{UPSTREAM}.output_matching", h, h, bias=False)),
        **under("continuous", linear(f"{UPSTREAM}.continual_output_matching", h, h, bias=False)),
    }
