"""The two small graphs that keep the refinement loop on the GPU: what a sub-step takes, and which token it chooses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.components import MAX_CANDIDATES


class SpeechInput(nn.Module):
    """A sub-step's input: its sub-vector plus the embedding of the token before it."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, sub_vectors: Tensor, index: Tensor, token: Tensor) -> Tensor:
        # sub_vectors [1, group_size * H], index [1], token [1] -> [1, H]
        rows = sub_vectors.reshape(-1, self.embedding.embedding_dim)
        return rows[index] + self.embedding(token)


class SpeechChoice(nn.Module):
    """`model.sampling.process` and a draw: the Gumbel-max trick turns noise that was drawn before into a token."""

    def forward(
        self, logits: Tensor, seen: Tensor, penalty: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Chooses among the `top_k` best, at most MAX_CANDIDATES; `top_k` 1 is greedy.

        Args:
            logits: [K]. seen: [K], 1 for ids that the repetition penalty applies to, else 0.
            penalty, temperature, top_p: [1]. top_k: [1] int64.
            noise: [MAX_CANDIDATES] Gumbel noise.

        Returns:
            The token [1] int64, and `seen` with it.
        """
        penalized = torch.where(logits < 0, logits * penalty, logits / penalty)
        scores = torch.where(seen > 0, penalized, logits) / temperature
        count = min(MAX_CANDIDATES, logits.shape[0])
        best, ids = scores[None].topk(count)  # [1, count], best first; TensorRT wants two axes
        rank = torch.arange(count)[None]
        kept = rank < top_k
        shares = torch.where(kept, best, torch.full_like(best, -1e30)).softmax(-1)
        before = shares.cumsum(-1) - shares
        kept = kept & ((before < top_p) | (rank == 0))
        drawn = torch.where(kept, best + noise[None, :count], torch.full_like(best, -1e30))
        token = ids.gather(1, drawn.argmax(-1, keepdim=True))[0]
        return token, torch.maximum(seen, (torch.arange(logits.shape[0]) == token).to(seen.dtype))
