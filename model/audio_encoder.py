"""The Whisper-like audio encoder ("continuous_audio_tower"): log-mel windows -> 25 Hz features (SEMANTICS.md 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AudioEncoderConfig
from .weights import Layout, Part, Weight, fused, linear, norm, plain, under

UPSTREAM = "continuous_audio_tower"
IGNORED = (f"{UPSTREAM}.audio_bos_eos_token.weight",)  # an unused parameter upstream
LAYER_NORM_EPS = 1e-5
MASKED = -1e9


class AudioEncoder(nn.Module):
    """Windows of log-mel, each on its own, to features of the backbone's width."""

    def __init__(self, config: AudioEncoderConfig, output_size: int) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.conv1 = nn.Conv1d(config.num_mels, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.post_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.projection = nn.Linear(d, output_size)
        self.positions: Tensor  # [half_window_frames, d_model]
        self.register_buffer("positions", sinusoids(config.half_window_frames, d), persistent=False)

    def forward(self, mel: Tensor, num_frames: Tensor) -> Tensor:
        """Encodes one audio.

        Args:
            mel: [W, num_mels, 2 * half_window_frames] float32, consecutive windows; all but the last full.
            num_frames: [W] int64, the valid mel frames of each window; what lies beyond is ignored.

        Returns:
            [ceil(W * half_window_frames / 2), output_size]; only the first `num_encoder_rows(sum(num_frames))` rows
            are meant.
        """
        x, valid = self.windows(mel, num_frames)
        return self.projection(self.post_norm(mean_of_pairs(x.flatten(0, 1), valid.flatten())))

    def windows(self, mel: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """The layers over windows, of one audio or of several.

        Args:
            mel: [W, num_mels, 2 * size] float32, size up to half_window_frames.
            num_frames: [W] int64, as in `forward`.

        Returns:
            [W, size, d_model] at 50 Hz, and which rows are valid [W, size] bool.
        """
        size = mel.shape[2] // 2
        frame = torch.arange(2 * size, device=num_frames.device)[None, None]
        inside = (frame < num_frames[:, None, None]).to(mel.dtype)  # [W, 1, 2 * size]
        x = F.gelu(self.conv1(mel * inside)) * inside
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positions[:size]
        valid = torch.arange(size, device=num_frames.device)[None] < ((num_frames + 1) // 2)[:, None]  # [W, size]
        mask = torch.where(valid, 0.0, MASKED)[:, None, None]  # [W, 1, 1, size]
        for layer in self.layers:
            x = layer(x, mask)
        return x, valid


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        d = config.d_model
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.ffn_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(d, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, d)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # x [W, size, d], mask [W, 1, 1, size]
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1])) + mask
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return x + self.fc2(F.gelu(self.fc1(self.ffn_norm(x))))


def mean_of_pairs(x: Tensor, valid: Tensor) -> Tensor:
    """Means of neighbouring rows over their valid ones: 50 Hz -> 25 Hz.

    Args:
        x: [N, d]. valid: [N] bool; the valid rows come first.

    Returns:
        [ceil(N / 2), d]; a pair with one valid row is that row, a pair with none is zero.
    """
    rows = F.pad(x * valid[:, None], (0, 0, 0, x.shape[0] % 2)).unflatten(0, (-1, 2))
    count = F.pad(valid.to(x.dtype), (0, x.shape[0] % 2)).unflatten(0, (-1, 2)).sum(1).clamp(min=1)
    return rows.sum(1) / count[:, None]


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, [length, channels]: sines, then cosines."""
    step = math.log(10_000) / (channels // 2 - 1)
    angles = torch.arange(length, device="cpu")[:, None] * torch.exp(-step * torch.arange(channels // 2, device="cpu"))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def audio_encoder_layout(config: AudioEncoderConfig, output_size: int) -> Layout:
    """Which upstream tensors make which parameter of `AudioEncoder`."""
    d, ffn = config.d_model, config.ffn_size
    layout: Layout = {
        "conv1.weight": plain(f"{UPSTREAM}.conv1.weight", d, config.num_mels, 3),
        "conv1.bias": plain(f"{UPSTREAM}.conv1.bias", d),
        "conv2.weight": plain(f"{UPSTREAM}.conv2.weight", d, d, 3),
        "conv2.bias": plain(f"{UPSTREAM}.conv2.bias", d),
        **under("post_norm", norm(f"{UPSTREAM}.ln_post", d)),
        **under("projection", linear(f"{UPSTREAM}.proj", output_size, d)),
    }
    for i in range(config.num_layers):
        source = f"{UPSTREAM}.layers.{i}"
        layer: Layout = {
            **under("attention_norm", norm(f"{source}.self_attn_layer_norm", d)),
            "qkv.weight": fused(*(Part(f"{source}.self_attn.{n}_proj.weight", (d, d)) for n in "qkv")),
            "qkv.bias": _qkv_bias(f"{source}.self_attn", d),
            **under("out", linear(f"{source}.self_attn.out_proj", d, d)),
            **under("ffn_norm", norm(f"{source}.final_layer_norm", d)),
            **under("fc1", linear(f"{source}.fc1", ffn, d)),
            **under("fc2", linear(f"{source}.fc2", d, ffn)),
        }
        layout.update(under(f"layers.{i}", layer))
    return layout


def _qkv_bias(source: str, d: int) -> Weight:
    return fused(Part(f"{source}.q_proj.bias", (d,)), Part(None, (d,)), Part(f"{source}.v_proj.bias", (d,)))
