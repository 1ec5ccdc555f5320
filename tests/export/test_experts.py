"""A quantized mixture of experts: one operator that runs the chosen experts and no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from facrt.export.pipeline import open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model.checkpoint import chat_layout, load_chat
from facrt.model.components import Cache, components
from facrt.model.config_files import read_chat_config
from facrt.model.decoder import CachedAttention, MixtureOfExperts
from facrt.model.random_checkpoint import SPECIALS, byte_tokenizer, random_tensors
from facrt.quant.schemes import SCHEMES
from goldens import LM
from safetensors.torch import save_file

IDS = {token: 256 + i for i, token in enumerate(SPECIALS)}
EXPERTS = {
    "model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "decoder_sparse_step": 1, "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 270,
}  # fmt: skip


def make_checkpoint(folder: Path, shares_sum_to_one: bool) -> None:
    folder.mkdir()
    raw = json.loads((LM / "model" / "config.json").read_text())
    raw["audio_token_index"] = IDS["<|AUDIO|>"]
    raw["text_config"] |= {**EXPERTS, "norm_topk_prob": shares_sum_to_one, "eos_token_id": IDS["<|im_end|>"]}
    raw["text_config"] |= {f"{name}_index": IDS[f"<|{name}|>"] for name in ("audio_bos", "audio_eos", "sil")}
    (folder / "config.json").write_text(json.dumps(raw))
    byte_tokenizer(IDS).save(str(folder / "tokenizer.json"))
    tensors = random_tensors(chat_layout(read_chat_config(folder)), torch.Generator().manual_seed(3))
    for name, tensor in tensors.items():
        if name.endswith("mlp.gate.weight"):
            tensor.mul_(8)  # far from ties: rounding must not choose another expert
    save_file(tensors, folder / "model.safetensors")


def rounded(folder: Path, scheme: str) -> torch.nn.Module:
    """The reference with the integers' values, all but the router's."""
    backbone, form = load_chat(folder).backbone, SCHEMES[scheme]
    assert form.quantize is not None
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.Linear) and layer.out_features != 6:
                layer.weight.copy_(form.dequantize(form.quantize(layer.weight)))
            if isinstance(layer, MixtureOfExperts):
                for experts in (layer.gate_up, layer.down):
                    for weight in experts:
                        weight.copy_(form.dequantize(form.quantize(weight)))
    return backbone


@pytest.mark.parametrize(("scheme", "shares_sum_to_one"), [("int8", True), ("int4_32", False)])
def test_the_operator_equals_the_chosen_experts(tmp_path: Path, scheme: str, shares_sum_to_one: bool) -> None:
    checkpoint = tmp_path / "checkpoint"
    make_checkpoint(checkpoint, shares_sum_to_one)
    model = open_model(checkpoint)
    row = components(model.config, Cache("static"))["backbone"]
    write_graph(model, row, scheme, TARGETS["cpu"], tmp_path / "backbone.onnx")
    graph = onnx.load(tmp_path / "backbone.onnx").graph
    assert [node.op_type for node in graph.node].count("QMoE") == 2
    assert not [t for t in graph.initializer if len(t.dims) == 3 and t.data_type == onnx.TensorProto.FLOAT16]
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    feeds = {"embeds": x.numpy(), "position": np.zeros(1, np.int64)}
    for pair in row.states:
        feeds[pair.input.name] = np.zeros([5 if a == "capacity" else a for a in pair.input.axes], np.float32)
    (found,) = ort.InferenceSession(tmp_path / "backbone.onnx").run(["hidden"], feeds)
    with torch.no_grad():
        wanted = rounded(checkpoint, scheme)(x, CachedAttention(model.config.chat.text))[0].numpy()
    # MatMulNBits rounds activations to INT8 as well
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.03
