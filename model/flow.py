"""Flow matching: 25 Hz speech tokens -> 50 Hz log-mel (SEMANTICS.md 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RequestError
from .config import FlowConfig
from .geometry import FLOW_LOOK_BACK_TOKENS
from .weights import Layout, Part, fused, linear, plain, under

UPSTREAM = "decoder.estimator"
IGNORED = (f"{UPSTREAM}.rotary_embed.inv_freq",)  # computed here
NOISE_FRAMES = 15_000  # 300 s
LAYER_NORM_EPS = 1e-6
ROPE_THETA = 1e4
TIME_SCALE = 1000.0
MASKED = -1e9

See = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values [B, H, F, D] of a layer -> [B, H, F, D]


class Flow(nn.Module):
    """The whole flow: conditioning, then Euler steps with classifier-free guidance."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.front = FlowFront(config)
        self.estimator = FlowEstimator(config)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Any,
        speaker: Any,
        noise: Any = None,
        prompt_tokens: Any = None,
        prompt_mel: Any = None,
        streaming: bool = False,
        finalize: bool = True,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Tokens to log-mel; arrays may be numpy's or torch's.

        Args:
            tokens: [1, n] or [n] integers.
            speaker: [1, speaker_dim], not normalized.
            noise: [1, num_mels, >= frames], the prompt's frames included; default: the model's fixed noise.
            prompt_tokens: [1, P] or [P] integers.
            prompt_mel: [1, token_mel_ratio * P, num_mels].
            streaming: attention in chunks of `chunk_frames`, with all left context; False: full attention.
            finalize: False holds back the last `pre_lookahead` tokens, which are right context only.
            visible: [F, F] bool, which frames each frame attends to, where it is neither of the two.

        Returns:
            [1, num_mels, token_mel_ratio * n], without the prompt's frames, and without the tokens held back.

        Raises:
            RequestError: more frames than there is noise, or no token that yields a frame.
        """
        c = self.config
        parts = [_row(part) for part in (prompt_tokens, tokens) if part is not None]
        mu, spk = self.front(torch.cat(parts, dim=1), _float(speaker))  # [1, num_mels, F], [1, num_mels]
        if not finalize:
            mu = mu[:, :, : -c.pre_lookahead * c.token_mel_ratio]
        cond = torch.zeros_like(mu)
        num_prompt_frames = 0
        if prompt_mel is not None:
            given = _float(prompt_mel).transpose(1, 2)
            num_prompt_frames = given.shape[2]
            cond = torch.cat([given, cond[:, :, num_prompt_frames:]], dim=2)
        x = _float(flow_noise(c.num_mels) if noise is None else noise)[:, :, : mu.shape[2]]
        if mu.shape[2] <= num_prompt_frames:
            raise RequestError(f"{mu.shape[2] - num_prompt_frames} mel frames are left to synthesize, 1 is needed")
        if x.shape != mu.shape:
            raise RequestError(f"{mu.shape[2]} mel frames are asked for, there is noise for {x.shape[2]}")
        if visible is None:
            visible = visible_in_chunks(x.shape[2], c.chunk_frames if streaming else x.shape[2])
        return self._solve(x, mu, spk, cond, visible)[:, :, num_prompt_frames:]

    def _solve(self, x: Tensor, mu: Tensor, spk: Tensor, cond: Tensor, visible: Tensor) -> Tensor:
        mu, spk, cond = (torch.cat([v, torch.zeros_like(v)]) for v in (mu, spk, cond))  # guided row, unguided row
        rate = self.config.guidance_rate
        times = euler_times(self.config.num_steps)
        t = times[0]
        for end in times[1:]:
            dt = end - t
            v = self.estimator(torch.cat([x, x]), mu, t.expand(2), spk, cond, visible)
            x = x + dt * ((1 + rate) * v[:1] - rate * v[1:])
            t = t + dt
        return x


def euler_times(num_steps: int) -> Tensor:
    """[num_steps + 1] float32 from 0 to 1, cosine schedule."""
    return 1 - torch.cos(torch.linspace(0, 1, num_steps + 1) * 0.5 * torch.pi)


@cache
def flow_noise(num_mels: int = 80) -> Tensor:
    """The fixed start [1, num_mels, 15000]: torch.randn after seed 0; the global generator is left alone."""
    return torch.randn(1, num_mels, NOISE_FRAMES, generator=torch.Generator().manual_seed(0))


def visible_in_chunks(num_frames: int, chunk_frames: int) -> Tensor:
    """[F, F] bool: a frame sees all frames before it and those of its own chunk (SEMANTICS.md 7)."""
    frame = torch.arange(num_frames)
    return frame < (frame[:, None] // chunk_frames + 1) * chunk_frames


def visible_in_blocks(block_ends: Sequence[int], left_frames: int) -> Tensor:
    """[F, F] bool: a frame sees its own block and the `left_frames` frames before it; F is the last end."""
    frame, ends = torch.arange(block_ends[-1]), torch.tensor(block_ends)
    block = torch.searchsorted(ends, frame, right=True)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), ends])[block]
    return (frame < ends[block][:, None]) & (frame >= first[:, None] - left_frames)


def _row(tokens: Any) -> Tensor:
    return torch.as_tensor(tokens).long().reshape(1, -1)


def _float(array: Any) -> Tensor:
    return torch.as_tensor(array).float()


class FlowFront(nn.Module):
    """Tokens and speaker to the estimator's conditioning."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.num_mels)
        self.look_ahead = nn.Conv1d(config.num_mels, config.pre_channels, config.pre_lookahead + 1)
        self.look_back = nn.Conv1d(config.pre_channels, config.num_mels, FLOW_LOOK_BACK_TOKENS + 1)
        self.speaker = nn.Linear(config.speaker_dim, config.num_mels)

    def forward(self, tokens: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """One utterance.

        Its last `pre_lookahead` tokens see zeros as right context; a caller with more to come drops their frames.

        Args:
            tokens: [1, n] int64; negative ones count as 0.
            speaker: [1, speaker_dim], not normalized.

        Returns:
            mu [1, num_mels, token_mel_ratio * n] and spk [1, num_mels].
        """
        x = self.embedding(tokens.clamp(min=0)).transpose(1, 2)  # [1, num_mels, n]
        h = F.leaky_relu(self.look_ahead(F.pad(x, (0, self.config.pre_lookahead))))
        h = x + self.look_back(F.pad(h, (FLOW_LOOK_BACK_TOKENS, 0)))
        mu = h.unsqueeze(3).expand(-1, -1, -1, self.config.token_mel_ratio).flatten(2)
        return mu, self.speaker(F.normalize(speaker, dim=1))


class FlowEstimator(nn.Module):
    """The diffusion transformer: velocity of the mel at time t."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        dim, kernel, groups = config.dim, config.position_kernel, config.position_groups
        self.input = nn.Linear(4 * config.num_mels, dim)
        self.position1 = nn.Conv1d(dim, dim, kernel, groups=groups)
        self.position2 = nn.Conv1d(dim, dim, kernel, groups=groups)
        self.time1 = nn.Linear(config.time_embedding_dim, dim)
        self.time2 = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(EstimatorBlock(config) for _ in range(config.depth))
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, config.num_mels)
        self.time_frequencies: Tensor  # [time_embedding_dim / 2]
        self.rotary_frequencies: Tensor  # [head_dim / 2]
        self.register_buffer("time_frequencies", _time_frequencies(config.time_embedding_dim), persistent=False)
        self.register_buffer("rotary_frequencies", _rotary_frequencies(config.head_dim), persistent=False)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, spk: Tensor, cond: Tensor, visible: Tensor) -> Tensor:
        """One evaluation of the velocity field over a whole utterance.

        Args:
            x, mu, cond: [B, num_mels, F] float32.
            t: [B] in [0, 1].
            spk: [B, num_mels].
            visible: [F, F] bool, the frames that each frame attends to.

        Returns:
            [B, num_mels, F].
        """
        start = x.new_zeros(x.shape[0], self.config.dim, self.config.position_kernel - 1)
        h, _ = self._embed(x, mu, spk, cond, [start, start])
        masked = MaskedAttention(torch.where(visible, 0.0, MASKED))
        return self._velocity(h, t, torch.arange(x.shape[2], device=x.device), [masked] * self.config.depth)

    def step(
        self, x: Tensor, mu: Tensor, t: Tensor, spk: Tensor, cond: Tensor, position: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """`forward` for a block of frames that sees itself and the frames in the caches, and nothing after it.

        Args:
            x, mu, t, spk, cond: as in `forward`, of the block's frames.
            position: [1] int64, frames before the block.
            states: what the two position convolutions saw last, each [B, dim, position_kernel - 1]; then key and value
                of each layer over the P cached frames, each [P, B * num_heads, head_dim].

        Returns:
            The velocity [B, num_mels, F] and the states after the block, of keys and values the block's rows only.
        """
        h, tails = self._embed(x, mu, spk, cond, states[:2])
        layers = [PastAttention(*states[i : i + 2]) for i in range(2, len(states), 2)]
        velocity = self._velocity(h, t, torch.arange(x.shape[2], device=x.device) + position, layers)
        return (velocity, *tails, *(rows for layer in layers for rows in layer.rows))

    def _embed(
        self, x: Tensor, mu: Tensor, spk: Tensor, cond: Tensor, tails: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """[B, F, dim], and what the position convolutions will need of it for the next block."""
        speaker = spk.unsqueeze(2).expand(-1, -1, x.shape[2])
        h = self.input(torch.cat([x, cond, mu, speaker], dim=1).transpose(1, 2))  # [B, F, dim]
        left, kept = self.config.position_kernel - 1, []
        y = h.transpose(1, 2)
        for conv, tail in zip((self.position1, self.position2), tails, strict=True):
            y = torch.cat([tail, y], dim=2)
            kept.append(y[:, :, -left:])
            y = _mish(conv(y))
        return h + y.transpose(1, 2), kept

    def _velocity(self, h: Tensor, t: Tensor, frame: Tensor, layers: Sequence[See]) -> Tensor:
        modulation = F.silu(self._time(t)).unsqueeze(1)  # [B, 1, dim]
        angles = frame.unsqueeze(1) * self.rotary_frequencies  # [F, head_dim / 2]
        cos, sin = angles.cos(), angles.sin()
        for block, see in zip(self.blocks, layers, strict=True):
            h = block(h, modulation, cos, sin, see)
        scale, shift = self.final_modulation(modulation).chunk(2, dim=-1)
        return self.output(_modulated(h, shift, scale)).transpose(1, 2)

    def _time(self, t: Tensor) -> Tensor:  # [B] -> [B, dim]
        angles = TIME_SCALE * t.unsqueeze(1) * self.time_frequencies
        return self.time2(F.silu(self.time1(torch.cat([angles.sin(), angles.cos()], dim=1))))


class EstimatorBlock(nn.Module):
    """A transformer layer whose norms are modulated by time."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        dim, inner, ffn = config.dim, config.num_heads * config.head_dim, config.ff_mult * config.dim
        self.modulation = nn.Linear(dim, 6 * dim)
        self.qkv = nn.Linear(dim, 3 * inner)
        self.out = nn.Linear(inner, dim)
        self.fc1 = nn.Linear(dim, ffn)
        self.fc2 = nn.Linear(ffn, dim)

    def forward(self, x: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor, see: See) -> Tensor:
        # x [B, F, dim], modulation [B, 1, dim], cos and sin [F, head_dim / 2]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(modulation).chunk(6, dim=-1)
        x = x + gate_a * self._attend(_modulated(x, shift_a, scale_a), cos, sin, see)
        h = F.gelu(self.fc1(_modulated(x, shift_m, scale_m)), approximate="tanh")
        return x + gate_m * self.fc2(h)

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, see: See) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)  # [B, H, F, D]
        q, k = _rotate_first_head(q, cos, sin), _rotate_first_head(k, cos, sin)
        return self.out(see(q, k, v).transpose(1, 2).flatten(2))


class MaskedAttention:
    """Attention within one utterance."""

    def __init__(self, mask: Tensor) -> None:  # [F, F], added to the scores
        self.mask = mask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (_scores(q, k) + self.mask).softmax(-1) @ v


class PastAttention:
    """Attention over the cached frames and the new ones."""

    def __init__(self, past_keys: Tensor, past_values: Tensor) -> None:  # each [P, B * H, D]
        self.past = (past_keys, past_values)
        self.rows: list[Tensor] = []  # the new keys and values, each [F, B * H, D]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.rows = [x.permute(2, 0, 1, 3).flatten(1, 2) for x in (k, v)]
        k, v = (
            torch.cat([past.unflatten(1, (q.shape[0], -1)).permute(1, 2, 0, 3), new], dim=2)
            for past, new in zip(self.past, (k, v), strict=True)
        )
        return _scores(q, k).softmax(-1) @ v


def _scores(q: Tensor, k: Tensor) -> Tensor:  # [B, H, F, D], [B, H, P, D] -> [B, H, F, P]
    return q @ k.transpose(2, 3) * (1 / math.sqrt(q.shape[3]))


def _rotate_first_head(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on interleaved pairs; upstream gives them to head 0 only.

    Args:
        x: [B, H, F, D]. cos, sin: [F, D / 2].
    """
    even, odd = x[:, :1, :, 0::2], x[:, :1, :, 1::2]
    rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(3)
    return torch.cat([rotated, x[:, 1:]], dim=1)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS) * (1 + scale) + shift


def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(F.softplus(x))


def _time_frequencies(size: int) -> Tensor:
    half = size // 2
    return torch.exp(torch.arange(half, device="cpu").float() * -(math.log(ROPE_THETA) / (half - 1)))


def _rotary_frequencies(head_dim: int) -> Tensor:
    return 1.0 / ROPE_THETA ** (torch.arange(0, head_dim, 2, device="cpu").float() / head_dim)


def flow_layout(config: FlowConfig) -> Layout:
    """Which upstream tensors make which parameter of `Flow`."""
    return {**under("front", _front_layout(config)), **under("estimator", _estimator_layout(config))}


def _front_layout(c: FlowConfig) -> Layout:
    layer = "pre_lookahead_layer"
    return {
        "embedding.weight": plain("input_embedding.weight", c.vocab_size, c.num_mels),
        **under("look_ahead", _conv(f"{layer}.conv1", c.pre_channels, c.num_mels, c.pre_lookahead + 1)),
        **under("look_back", _conv(f"{layer}.conv2", c.num_mels, c.pre_channels, FLOW_LOOK_BACK_TOKENS + 1)),
        **under("speaker", linear("spk_embed_affine_layer", c.num_mels, c.speaker_dim)),
    }


def _estimator_layout(c: FlowConfig) -> Layout:
    embed, time = f"{UPSTREAM}.input_embed", f"{UPSTREAM}.time_embed.time_mlp"
    position = (c.dim, c.dim // c.position_groups, c.position_kernel)
    layout: Layout = {
        **under("input", linear(f"{embed}.proj", c.dim, 4 * c.num_mels)),
        **under("position1", _conv(f"{embed}.conv_pos_embed.conv1.0", *position)),
        **under("position2", _conv(f"{embed}.conv_pos_embed.conv2.0", *position)),
        **under("time1", linear(f"{time}.0", c.dim, c.time_embedding_dim)),
        **under("time2", linear(f"{time}.2", c.dim, c.dim)),
        **under("final_modulation", linear(f"{UPSTREAM}.norm_out.linear", 2 * c.dim, c.dim)),
        **under("output", linear(f"{UPSTREAM}.proj_out", c.num_mels, c.dim)),
    }
    inner, ffn = c.num_heads * c.head_dim, c.ff_mult * c.dim
    for i in range(c.depth):
        source = f"{UPSTREAM}.transformer_blocks.{i}"
        block: Layout = {
            **under("modulation", linear(f"{source}.attn_norm.linear", 6 * c.dim, c.dim)),
            "qkv.weight": fused(*(Part(f"{source}.attn.to_{n}.weight", (inner, c.dim)) for n in "qkv")),
            "qkv.bias": fused(*(Part(f"{source}.attn.to_{n}.bias", (inner,)) for n in "qkv")),
            **under("out", linear(f"{source}.attn.to_out.0", c.dim, inner)),
            **under("fc1", linear(f"{source}.ff.ff.0.0", ffn, c.dim)),
            **under("fc2", linear(f"{source}.ff.ff.2", c.dim, ffn)),
        }
        layout.update(under(f"blocks.{i}", block))
    return layout


def _conv(prefix: str, out_size: int, in_size: int, kernel: int) -> Layout:
    return {
        "weight": plain(f"{prefix}.weight", out_size, in_size, kernel),
        "bias": plain(f"{prefix}.bias", out_size),
    }
