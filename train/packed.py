"""Several samples through the reference's own modules at once: laid end to end, without padding between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..model.config import DecoderConfig
from ..model.decoder import Decoder, rotary_angles, rotate


class PackedAttention:
    """An `Attend` for training: causal within each sample of a packed sequence, nothing cached."""

    def __init__(self, config: DecoderConfig, lengths: Sequence[int], device: torch.device) -> None:
        self._padded = (len(lengths), max(lengths))
        sizes, whole = torch.tensor(lengths, device=device), sum(lengths)
        number = torch.arange(len(lengths), device=device)
        self._sample = torch.repeat_interleave(number, sizes, output_size=whole)
        self._positions = torch.arange(whole, device=device) - (sizes.cumsum(0) - sizes)[self._sample]
        angles = rotary_angles(torch.arange(max(lengths)), config)
        self._cos, self._sin = (angle.to(device)[self._positions] for angle in angles)
        self._repeats = config.num_heads // config.num_kv_heads

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = rotate(q, self._cos, self._sin), rotate(k, self._cos, self._sin)
        q, k, v = self._pad(q), self._pad(k), self._pad(v)  # padding comes last, so causal attention never sees it
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self._repeats > 1)
        return y.transpose(1, 2)[self._sample, self._positions].flatten(1)

    def _pad(self, x: Tensor) -> Tensor:  # [S, heads, D] -> [samples, heads, longest, D]
        return x.new_zeros((*self._padded, *x.shape[1:])).index_put((self._sample, self._positions), x).transpose(1, 2)


def decode(decoder: Decoder, x: Tensor, attend: PackedAttention, recompute: bool) -> Tensor:
    """`decoder(x, attend)`; with `recompute`, of each layer only the input is kept for the way back."""
    if not recompute:
        return decoder(x, attend)
    for layer in decoder.layers:
        x = checkpoint(layer, x, attend, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn in there
    return decoder.norm(x)
