"""The S3 tokenizer v3: 16 kHz waveform -> 25 Hz speech ids, for voice prompts (SEMANTICS.md 9)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import SpeechTokenizerConfig
from .mel import reflect_log_mel
from .weights import Layout, Part, fused, linear, norm, plain, under

IGNORED: tuple[str, ...] = ()
LAYER_NORM_EPS = 1e-5
ROPE_THETA = 1e4
FFN_MULT = 4
NUM_DIGITS, NUM_LEVELS = 8, 3  # an id in base 3
TANH_SCALE = 0.9990000128746033
WINDOW_FRAMES, STRIDE_FRAMES, DROPPED_IDS = 3000, 2600, 50  # 30 s windows; ids dropped at each inner edge


class SpeechTokenizer(nn.Module):
    """Log-mel to ids: two strided convolutions, a transformer with memory, finite scalar quantization."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.conv1 = nn.Conv1d(config.num_mels, d, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(TokenizerBlock(config) for _ in range(config.num_layers))
        self.project_down = nn.Linear(d, NUM_DIGITS)
        self.rotary_frequencies: Tensor  # [head_dim / 2]
        self.place_values: Tensor  # [NUM_DIGITS] int64
        head_dim = d // config.num_heads
        frequencies = 1.0 / ROPE_THETA ** (torch.arange(0, head_dim, 2, device="cpu").float() / head_dim)
        self.register_buffer("rotary_frequencies", frequencies, persistent=False)
        self.register_buffer("place_values", NUM_LEVELS ** torch.arange(NUM_DIGITS, device="cpu"), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """One unpadded utterance.

        Args:
            mel: [1, num_mels, L] float32.

        Returns:
            [1, n] int64, n = ceil(ceil(L / 2) / 2).
        """
        return self.quantize(self.project_down(self.hidden(mel)))

    def hidden(self, mel: Tensor) -> Tensor:
        """The encoder's output: [1, num_mels, L] -> [1, n, d_model]."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * self.rotary_frequencies
        cos, sin = angles.cos(), angles.sin()  # [n, head_dim / 2]
        for block in self.blocks:
            x = block(x, cos, sin)
        return x

    def quantize(self, projected: Tensor) -> Tensor:
        """[..., 8] float32, before tanh, to ids [...] int64; the first digit is the least significant."""
        digits = torch.round(torch.tanh(projected) * TANH_SCALE) + 1
        return (digits.long() * self.place_values).sum(-1)

    @torch.inference_mode()
    def encode(self, waveform_16k: Any) -> Tensor:
        """A whole recording; above 30 s in overlapping windows.

        Args:
            waveform_16k: [N] or [1, N] float32 samples at 16 kHz.

        Returns:
            [n] int64.

        Raises:
            AudioError: fewer than 201 samples.
        """
        mel = reflect_log_mel(torch.as_tensor(waveform_16k).flatten(), self.config.num_mels)  # [num_mels, L]
        mel = mel.to(self.place_values.device)
        num_frames = mel.shape[1]
        pieces = []
        for start in range(0, max(1, num_frames - WINDOW_FRAMES + STRIDE_FRAMES), STRIDE_FRAMES):
            ids = self(mel[None, :, start : start + WINDOW_FRAMES])[0]
            is_last = start + WINDOW_FRAMES >= num_frames
            pieces.append(ids[DROPPED_IDS if start else 0 : None if is_last else -DROPPED_IDS])
        return torch.cat(pieces)


class TokenizerBlock(nn.Module):
    """A pre-norm transformer layer whose attention has a convolutional memory of its values (FSMN) beside it."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        d, kernel = config.d_model, config.fsmn_kernel
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.memory = nn.Conv1d(d, d, kernel, groups=d, bias=False)
        self.ffn_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(d, FFN_MULT * d)
        self.fc2 = nn.Linear(FFN_MULT * d, d)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # x [1, n, d], cos and sin [n, head_dim / 2]
        x = x + self._attend(self.attention_norm(x), cos, sin)
        return x + self.fc2(F.gelu(self.fc1(self.ffn_norm(x))))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        left = (self.memory.kernel_size[0] - 1) // 2
        padding = (left, self.memory.kernel_size[0] - 1 - left)
        remembered = v + self.memory(F.pad(v.transpose(1, 2), padding)).transpose(1, 2)
        q, k, v = (y.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))  # [1, heads, n, head_dim]
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        scores = q @ k.transpose(2, 3) * (1 / math.sqrt(q.shape[-1]))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)) + remembered


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on pairs half a head apart: x [..., n, D], cos and sin [n, D / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def speech_tokenizer_layout(config: SpeechTokenizerConfig) -> Layout:
    """Which upstream tensors make which parameter of `SpeechTokenizer`."""
    d = config.d_model
    layout: Layout = {
        "conv1.weight": plain("encoder.conv1.weight", d, config.num_mels, 3),
        "conv1.bias": plain("encoder.conv1.bias", d),
        "conv2.weight": plain("encoder.conv2.weight", d, d, 3),
        "conv2.bias": plain("encoder.conv2.bias", d),
        **under("project_down", linear("quantizer._codebook.project_down", NUM_DIGITS, d)),
    }
    for i in range(config.num_layers):
        source = f"encoder.blocks.{i}"
        names = [f"{source}.attn.{name}" for name in ("query", "key", "value")]
        biases = (Part(f"{names[0]}.bias", (d,)), Part(None, (d,)), Part(f"{names[2]}.bias", (d,)))
        block: Layout = {
            **under("attention_norm", norm(f"{source}.attn_ln", d)),
            "qkv.weight": fused(*(Part(f"{name}.weight", (d, d)) for name in names)),
            "qkv.bias": fused(*biases),
            **under("out", linear(f"{source}.attn.out", d, d)),
            "memory.weight": plain(f"{source}.attn.fsmn_block.weight", d, 1, config.fsmn_kernel),
            **under("ffn_norm", norm(f"{source}.mlp_ln", d)),
            **under("fc1", linear(f"{source}.mlp.0", FFN_MULT * d, d)),
            **under("fc2", linear(f"{source}.mlp.2", d, FFN_MULT * d)),
        }
        layout.update(under(f"blocks.{i}", block))
    return layout
