"""The decoder against transformers' Qwen3 and Qwen3-MoE, and fed in pieces against fed whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from facrt.model.config import DecoderConfig
from facrt.model.decoder import CachedAttention, Decoder, decoder_layout, run_all_experts, run_chosen_experts
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model, Qwen3MoeConfig, Qwen3MoeModel

DENSE = DecoderConfig(48, 96, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=16, rope_theta=5e6, vocab_size=32)
SPARSE = replace(
    DENSE, num_experts=8, num_experts_per_token=3, expert_intermediate_size=40, sparse_step=2, dense_layers=(1,)
)
VARIANTS = {
    "dense": DENSE,
    "attention bias": replace(DENSE, attention_bias=True),
    "experts": replace(SPARSE, sparse_step=1, dense_layers=()),
    "experts in some layers": replace(SPARSE, num_layers=5),
    "experts not renormalized": replace(SPARSE, sparse_step=1, dense_layers=(0,), norm_expert_weights=False),
}


def theirs(config: DecoderConfig) -> nn.Module:
    """transformers' model of the same configuration with random weights."""
    torch.manual_seed(0)
    common = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.attention_bias,
        "vocab_size": config.vocab_size,
    }
    if not config.num_experts:
        model: nn.Module = Qwen3Model(Qwen3Config(**common))
    else:
        experts = {
            "num_experts": config.num_experts,
            "num_experts_per_tok": config.num_experts_per_token,
            "moe_intermediate_size": config.expert_intermediate_size,
            "norm_topk_prob": config.norm_expert_weights,
            "decoder_sparse_step": config.sparse_step,
            "mlp_only_layers": list(config.dense_layers),
        }
        model = Qwen3MoeModel(Qwen3MoeConfig(**common, **experts))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


class MemorySource:
    """Upstream tensors in memory, under the names that checkpoints use."""

    where = "memory"

    def __init__(self, model: nn.Module) -> None:
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in model.state_dict().items():
            if name.endswith("experts.gate_up_proj"):  # newer transformers hold all experts in one tensor
                for e, both in enumerate(tensor):
                    gate, up = both.chunk(2)
                    stem = f"{name.removesuffix('gate_up_proj')}{e}"
                    self.tensors |= {f"{stem}.gate_proj.weight": gate, f"{stem}.up_proj.weight": up}
            elif name.endswith("experts.down_proj"):
                stem = name.removesuffix("down_proj")
                self.tensors |= {f"{stem}{e}.down_proj.weight": down for e, down in enumerate(tensor)}
            else:
                self.tensors[name] = tensor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name.removeprefix("x.")]


@pytest.fixture(scope="module", params=list(VARIANTS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Decoder]:
    config = VARIANTS[request.param]
    reference = theirs(config)
    source, layout = MemorySource(reference), decoder_layout(config, "x")
    decoder = Decoder(config)
    decoder.load_state_dict({name: weight.read(source) for name, weight in layout.items()})
    return reference, decoder.eval().requires_grad_(False)


def test_equals_transformers(pair: tuple[nn.Module, Decoder]) -> None:
    reference, decoder = pair
    x = torch.randn(11, decoder.config.hidden_size, generator=torch.Generator().manual_seed(1))
    wanted = reference(inputs_embeds=x[None]).last_hidden_state[0]
    torch.testing.assert_close(decoder(x, CachedAttention(decoder.config)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pieces", [[1] * 11, [4, 1, 6], [10, 1], [2, 9]])
def test_pieces_equal_whole(pair: tuple[nn.Module, Decoder], pieces: list[int]) -> None:
    _, decoder = pair
    x = torch.randn(11, decoder.config.hidden_size, generator=torch.Generator().manual_seed(2))
    whole = decoder(x, CachedAttention(decoder.config))
    cache = CachedAttention(decoder.config)
    fed = torch.cat([decoder(part, cache) for part in x.split(pieces)])
    torch.testing.assert_close(fed, whole, rtol=0, atol=2e-5)


def test_truncate_forgets(pair: tuple[nn.Module, Decoder]) -> None:
    _, decoder = pair
    x = torch.randn(9, decoder.config.hidden_size, generator=torch.Generator().manual_seed(3))
    cache = CachedAttention(decoder.config)
    decoder(x[:7], cache)
    cache.truncate(4)
    assert cache.length == 4
    again = decoder(x[4:], cache)
    torch.testing.assert_close(again, decoder(x, CachedAttention(decoder.config))[4:], rtol=0, atol=2e-5)


def test_both_ways_to_run_experts_agree() -> None:
    generator = torch.Generator().manual_seed(4)
    x, gate_up, down = (torch.randn(s, generator=generator) for s in ((7, 12), (5, 16, 12), (5, 12, 8)))
    weights, chosen = torch.rand(7, 5, generator=generator).topk(2)
    few = run_chosen_experts(x, gate_up, down, chosen, weights)
    torch.testing.assert_close(run_all_experts(x, gate_up, down, chosen, weights), few, rtol=1e-5, atol=1e-4)
