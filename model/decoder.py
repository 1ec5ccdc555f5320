"""The Qwen3 decoder, dense or mixture of experts: one module for the backbone and for the speech head.

How attention sees the past is the caller's: `forward` takes an `Attend`, so that PyTorch's cache and every form of
exported graph run the same layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import DecoderConfig
from .weights import Layout, Part, fused, linear, norm, plain, stacked, under


class Attend(Protocol):
    """Causal attention over everything a layer has seen.

    Called once per layer with queries [S, num_heads, head_dim] and keys and values [S, num_kv_heads, head_dim], before
    rotary positions; returns [S, num_heads * head_dim].
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class Decoder(nn.Module):
    """Layers and the final norm; no embedding, no head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:  # [S, hidden_size] -> [S, hidden_size], normed
        for layer in self.layers:
            x = layer(x, attend)
        return self.norm(x)


class DecoderLayer(nn.Module):
    """RMSNorm, attention with QK-norm, RMSNorm, SwiGLU (or experts); residuals around both."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.sizes = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        head_dim, eps = config.head_dim, config.rms_norm_eps
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=eps)
        self.qkv = nn.Linear(config.hidden_size, sum(self.sizes) * head_dim, bias=config.attention_bias)
        self.q_norm = nn.RMSNorm(head_dim, eps=eps)
        self.k_norm = nn.RMSNorm(head_dim, eps=eps)
        self.out = nn.Linear(config.num_heads * head_dim, config.hidden_size, bias=config.attention_bias)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=eps)
        self.mlp = MixtureOfExperts(config) if config.is_sparse(index) else Mlp(config)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (sum(self.sizes), -1))
        q, k, v = heads.split(self.sizes, dim=1)
        x = x + self.out(attend(self.index, self.q_norm(q), self.k_norm(k), v))
        return x + self.mlp(self.mlp_norm(x))


class Mlp(nn.Module):
    """SwiGLU with fused gate and up projections."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class MixtureOfExperts(nn.Module):
    """Qwen3-MoE: each row goes through the `num_experts_per_token` experts that the router likes best."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        e, i, h = config.num_experts, config.expert_intermediate_size, config.hidden_size
        self.num_chosen = config.num_experts_per_token
        self.renormalize = config.norm_expert_weights
        self.router = nn.Linear(h, e, bias=False)
        self.gate_up = nn.Parameter(torch.empty(e, 2 * i, h))
        self.down = nn.Parameter(torch.empty(e, h, i))
        self.mix: Mix = run_chosen_experts

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).float().softmax(-1).topk(self.num_chosen, dim=-1)  # [S, num_chosen]
        if self.renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        return self.mix(x, self.gate_up, self.down, chosen, weights.to(x.dtype))


Mix = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def run_chosen_experts(x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Runs each expert on the rows that chose it: the least work, but its shapes depend on the data."""
    y = torch.zeros_like(x)
    for expert in chosen.unique().tolist():
        row, slot = torch.where(chosen == expert)
        gate, up = (x[row] @ gate_up[expert].T).chunk(2, dim=-1)
        y.index_add_(0, row, (F.silu(gate) * up) @ down[expert].T * weights[row, slot, None])
    return y


def run_all_experts(x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Runs every expert on every row and weighs the results: fixed shapes, for graphs."""
    gate, up = (x @ gate_up.transpose(1, 2)).chunk(2, dim=-1)  # [E, S, I]
    every = (F.silu(gate) * up) @ down.transpose(1, 2)  # [E, S, H]
    share = torch.zeros(x.shape[0], gate_up.shape[0], dtype=x.dtype).scatter(1, chosen, weights)  # [S, E]
    return (every * share.T[:, :, None]).sum(0)


class CachedAttention:
    """PyTorch's `Attend`: rotary positions, keys and values kept for the next call, softmax in float32."""

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config
        self.length = 0  # positions seen before the current forward pass
        self._keys: dict[int, Tensor] = {}  # layer -> [length, num_kv_heads, head_dim]
        self._values: dict[int, Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        positions = torch.arange(self.length, self.length + q.shape[0])
        cos, sin = rotary_angles(positions, self.config)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if layer in self._keys:
            k, v = torch.cat([self._keys[layer], k]), torch.cat([self._values[layer], v])
        self._keys[layer], self._values[layer] = k, v
        if layer == self.config.num_layers - 1:
            self.length += q.shape[0]
        visible = torch.arange(k.shape[0])[None] <= positions[:, None]
        return attention(q, k, v, torch.where(visible, 0.0, float("-inf")))

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on."""
        self.length = min(self.length, length)
        for cache in (self._keys, self._values):
            for layer, rows in cache.items():
                cache[layer] = rows[: self.length]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention.

    Args:
        q: [S, num_heads, D]. k, v: [P, num_kv_heads, D]. mask: [S, P], added to the scores.

    Returns:
        [S, num_heads * D].
    """
    shape = (q.shape[0], k.shape[1], -1, q.shape[2])  # [S, KV, heads per KV head, D]
    grouped = q.reshape(shape).permute(1, 2, 0, 3)  # [KV, R, S, D]
    scores = grouped @ k.permute(1, 2, 0)[:, None] * q.shape[2] ** -0.5 + mask
    mixed = scores.float().softmax(-1).to(v.dtype) @ v.transpose(0, 1)[:, None]
    return mixed.permute(2, 0, 1, 3).flatten(1)


def rotary_angles(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, each [S, head_dim / 2] float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    angles = positions[:, None].float() * (1.0 / config.rope_theta**exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotary embedding of x [S, heads, D] by angles [S, D / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def decoder_layout(config: DecoderConfig, source: str) -> Layout:
    """Which upstream tensors (under `source`) make which parameter of `Decoder`."""
    layout: Layout = under("norm", norm(f"{source}.norm", config.hidden_size, bias=False))
    for i in range(config.num_layers):
        layout.update(under(f"layers.{i}", _layer_layout(config, i, f"{source}.layers.{i}")))
    return layout


def _layer_layout(config: DecoderConfig, index: int, source: str) -> Layout:
    h, d = config.hidden_size, config.head_dim
    rows = {"q": config.num_heads * d, "k": config.num_kv_heads * d, "v": config.num_kv_heads * d}
    attn = f"{source}.self_attn"
    layout: Layout = {
        **under("attention_norm", norm(f"{source}.input_layernorm", h, bias=False)),
        "qkv.weight": fused(*(Part(f"{attn}.{n}_proj.weight", (size, h)) for n, size in rows.items())),
        **under("q_norm", norm(f"{attn}.q_norm", d, bias=False)),
        **under("k_norm", norm(f"{attn}.k_norm", d, bias=False)),
        **under("out", linear(f"{attn}.o_proj", h, rows["q"], bias=config.attention_bias)),
        **under("mlp_norm", norm(f"{source}.post_attention_layernorm", h, bias=False)),
    }
    if config.attention_bias:
        layout["qkv.bias"] = fused(*(Part(f"{attn}.{n}_proj.bias", (size,)) for n, size in rows.items()))
    mlp = _experts_layout if config.is_sparse(index) else _mlp_layout
    layout.update(under("mlp", mlp(config, f"{source}.mlp")))
    return layout


def _mlp_layout(config: DecoderConfig, source: str) -> Layout:
    i, h = config.intermediate_size, config.hidden_size
    return {
        "gate_up.weight": fused(Part(f"{source}.gate_proj.weight", (i, h)), Part(f"{source}.up_proj.weight", (i, h))),
        **under("down", linear(f"{source}.down_proj", h, i, bias=False)),
    }


def _experts_layout(config: DecoderConfig, source: str) -> Layout:
    i, h = config.expert_intermediate_size, config.hidden_size
    experts = [f"{source}.experts.{e}" for e in range(config.num_experts)]
    return {
        **under("router", linear(f"{source}.gate", config.num_experts, h, bias=False)),
        "gate_up": stacked(
            *(fused(Part(f"{e}.gate_proj.weight", (i, h)), Part(f"{e}.up_proj.weight", (i, h))) for e in experts)
        ),
        "down": stacked(*(plain(f"{e}.down_proj.weight", h, i) for e in experts)),
    }
