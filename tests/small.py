"""A checkpoint of one layer per transformer, whose columns blocks of 128 divide: what plans are made of in tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from facrt.export.compile import Compiled, Job, compile_graph, profiles_of, signature
from facrt.export.pipeline import OpenModel, open_model, write_graph
from facrt.export.targets import TARGETS, Target
from facrt.model.checkpoint import chat_layout
from facrt.model.components import components
from facrt.model.config_files import read_chat_config
from facrt.model.random_checkpoint import SPECIALS, SameStep, byte_tokenizer, random_tensors
from goldens import DETOKENIZER, LM, S3
from safetensors.torch import save_file

POSITIONS = 64
IDS = {token: 256 + i for i, token in enumerate(SPECIALS)}
DECODER = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 64,
}  # fmt: skip
ENCODER = {
    "codebook_size": 104, "bos_token_id": 100, "eos_token_id": 101, "pad_token_id": 102, "output_dim": 128,
    "d_model": 128, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 256,
}  # fmt: skip


def open_small(folder: Path) -> OpenModel:
    """Writes the checkpoint and opens it, with the golden detokenizer and speech tokenizer."""
    raw = json.loads((LM / "model" / "config.json").read_text())
    raw["audio_token_index"], raw["hidden_size"] = IDS["<|AUDIO|>"], DECODER["hidden_size"]
    audio, text = raw["audio_config"], raw["text_config"]
    audio |= ENCODER
    audio["crq_transformer_config"] |= DECODER
    text |= {**DECODER, "vocab_size": 270, "eos_token_id": IDS["<|im_end|>"]}
    text |= {f"{name}_index": IDS[f"<|{name}|>"] for name in ("audio_bos", "audio_eos", "sil")}
    (folder / "config.json").write_text(json.dumps(raw))
    byte_tokenizer(IDS).save(str(folder / "tokenizer.json"))
    tensors = random_tensors(chat_layout(read_chat_config(folder)), torch.Generator().manual_seed(5))
    save_file(tensors, folder / "model.safetensors")
    return replace(open_model(folder, DETOKENIZER / "model", S3 / "model"), input_scales=SameStep())


def compiled(
    model: OpenModel,
    component: str,
    scheme: str,
    capabilities: list[int],
    folder: Path,
    target: Target = TARGETS["rtx"],
) -> Compiled:
    """One component's graph and its plan, with `POSITIONS` in the caches, in the folder."""
    row = components(model.config, target.keep(POSITIONS))[component]
    graph = folder / f"{component}.{scheme}.onnx"
    write_graph(model, row, scheme, target, graph)
    job = Job("tensorrt_rtx", str(graph), f"{graph}.plan", profiles_of(row), capabilities)
    return compile_graph(job, signature(row))
