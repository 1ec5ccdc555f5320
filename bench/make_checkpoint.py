"""Writes a checkpoint of the real 8B model's shape with random bf16 weights, in shards as upstream publishes them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from facrt.model.checkpoint import chat_layout
from facrt.model.config_files import read_chat_config
from facrt.model.random_checkpoint import FIRST_SPECIAL, SPECIALS, byte_tokenizer
from safetensors.torch import save_file

SHARD_BYTES = 4 << 30


def config(num_layers: int, num_speech_layers: int, num_encoder_layers: int) -> dict[str, Any]:
    """docs/REAL_CONFIG.md."""
    special = {token: FIRST_SPECIAL + i for i, token in enumerate(SPECIALS)}
    decoder = {"model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8, "rms_norm_eps": 1e-6}
    return {
        "model_type": "funaudiochat",
        "audio_token_index": special["<|AUDIO|>"],
        "audio_config": {
            "bos_token_id": 6561, "eos_token_id": 6562, "pad_token_id": 6563, "codebook_size": 6565, "group_size": 5,
            "d_model": 1280, "encoder_layers": num_encoder_layers, "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120, "n_window": 100, "num_mel_bins": 128,
            "crq_transformer_config": decoder | {
                "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": num_speech_layers,
                "num_attention_heads": 16, "rope_theta": 1e6,
            },
        },
        "text_config": decoder | {
            "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": num_layers, "num_attention_heads": 32,
            "rope_theta": 5e6, "vocab_size": 151_936, "eos_token_id": special["<|im_end|>"],
            **{f"{name}_index": special[f"<|{name}|>"] for name in ("audio_bos", "audio_eos", "sil")},
        },
    }  # fmt: skip


def write(folder: Path, raw: dict[str, Any]) -> int:
    """Writes the folder and returns the bytes of its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=1))
    byte_tokenizer({token: FIRST_SPECIAL + i for i, token in enumerate(SPECIALS)}).save(str(folder / "tokenizer.json"))
    parts = [part for weight in chat_layout(read_chat_config(folder)).values() for part in weight.parts]
    shapes = {part.name: part.shape for part in parts if part.name is not None}
    generator = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = 0

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name)
        index.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes.items():
        scale = 0.02 if len(shape) > 1 else 0.0
        offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        noise = torch.empty(shape, dtype=torch.bfloat16).uniform_(-1, 1, generator=generator)
        shard[name] = noise * (scale * 3**0.5) + offset
        total += shard[name].nbytes
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            flush()
    flush()
    weight_map = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weight_map))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=36, help="of the backbone")
    parser.add_argument("--speech-layers", type=int, default=28)
    parser.add_argument("--encoder-layers", type=int, default=32)
    options = parser.parse_args()
    total = write(options.out, config(options.layers, options.speech_layers, options.encoder_layers))
    print(f"{options.out}: {total / 2**30:.2f} GiB of bf16 weights")


if __name__ == "__main__":
    main()
