"""Several samples through the reference's own modules at once: laid end to end, without padding between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..model.audio_encoder import AudioEncoder, mean_of_pairs
from ..model.config import DecoderConfig
from ..model.decoder import Decoder, rotary_angles, rotate

NUM_WIDTHS = 4  # a last window is padded to quarters of a whole one


class PackedAttention:
    """An `Attend` for training: causal within each sample of a packed sequence, nothing cached."""

    def __init__(self, config: DecoderConfig, lengths: Sequence[int], device: torch.device) -> None:
        self._padded = (len(lengths), max(lengths))
        positions = torch.cat([torch.arange(length) for length in lengths])
        self._sample = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
        self._positions = positions.to(device)
        self._cos, self._sin = (angles.to(device) for angles in rotary_angles(positions, config))
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


def encode_audios(encoder: AudioEncoder, mels: Sequence[Tensor]) -> list[Tensor]:
    """The audio encoder over several audios, before its last norm; windows of like length go through it at once.

    Args:
        encoder: the reference's.
        mels: per audio, [num_mels, L] log-mel, 100 frames/s, on the encoder's device.

    Returns:
        Per audio, [num_encoder_rows(L) or one more, d_model] at 25 Hz.
    """
    size = encoder.config.window_frames
    step = 2 * -(-size // (2 * NUM_WIDTHS))
    windows = [window for mel in mels for window in mel.split(size, dim=1)]
    alike: dict[int, list[int]] = defaultdict(list)
    for place, window in enumerate(windows):
        alike[min(size, -(-window.shape[1] // step) * step)].append(place)
    encoded: dict[int, Tensor] = {}  # place -> its valid rows at 50 Hz
    for width, places in alike.items():
        frames = [windows[place].shape[1] for place in places]
        batch = torch.stack([F.pad(windows[place], (0, width - windows[place].shape[1])) for place in places])
        x, _ = encoder.windows(batch, torch.tensor(frames, device=batch.device))
        encoded |= {place: rows[: -(-n // 2)] for place, rows, n in zip(places, x, frames, strict=True)}
    every, audios = iter(encoded[place] for place in range(len(windows))), []
    for mel in mels:
        x = torch.cat(list(islice(every, -(-mel.shape[1] // size))))
        pairs = mean_of_pairs(x, torch.ones(len(x), dtype=torch.bool, device=x.device))
        audios.append(pairs[: max(1, len(x) // 2)])
    return audios
