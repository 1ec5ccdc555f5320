"""The backbone: text embedding, shared decoder, text head (SEMANTICS.md 4)."""

from __future__ import annotations

from torch import Tensor, nn

from .config import DecoderConfig
from .decoder import Attend, Decoder, decoder_layout
from .weights import Layout, plain, under

UPSTREAM = "language_model"


class Backbone(nn.Module):
    """Qwen3 (dense or mixture of experts) on input embeddings."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.decoder = Decoder(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, embeds: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        """Runs the new positions.

        Args:
            embeds: [S, hidden_size].
            attend: attention over the past and these.

        Returns:
            hidden [S, hidden_size] after the final norm, and the text logits [vocab_size] of the last position.
        """
        hidden = self.decoder(embeds, attend)
        return hidden, self.head(hidden[-1:])[0]


def backbone_layout(config: DecoderConfig) -> Layout:
    """Which upstream tensors make which parameter of `Backbone`."""
    shape = (config.vocab_size, config.hidden_size)
    table = f"{UPSTREAM}.model.embed_tokens.weight"
    return {
        "embedding.weight": plain(table, *shape),
        "head.weight": plain(table if config.tie_word_embeddings else f"{UPSTREAM}.lm_head.weight", *shape),
        **under("decoder", decoder_layout(config, f"{UPSTREAM}.model")),
    }
