"""A tiny Fun-Audio-Chat with fixed random weights, in the real one's file formats: what tests and benchmarks load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from torch import Tensor

from . import checkpoint
from .config_files import read_chat_config, read_detokenizer_config
from .flow import flow_layout
from .vocoder import vocoder_layout
from .weights import Layout

SEED = 20260
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>",
            "<|audio_pad|>", "<|sil|>")  # fmt: skip
FIRST_SPECIAL = 256  # ids below are bytes
HIDDEN, SPEAKER_DIM = 128, 192
SPOKEN_BYTES = b"abcdefghijklmnopqrstuvwxyz ,."


class SameStep(Mapping[str, float]):
    """One INT8 step for every input, where weights are random and calibration would say nothing."""

    value = 0.05

    def __getitem__(self, name: str) -> float:
        return self.value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def write_checkpoint(folder: Path) -> None:
    """Writes the chat folder and, in it, `detokenizer/`."""
    generator = torch.Generator().manual_seed(SEED)
    ids = {token: FIRST_SPECIAL + i for i, token in enumerate(SPECIALS)}
    _write_json(folder / "config.json", _chat_config(ids))
    _write_json(folder / "generation_config.json", {"eos_token_id": ids["<|im_end|>"]})
    byte_tokenizer(ids).save(str(folder / "tokenizer.json"))
    config = read_chat_config(folder)
    tensors = random_tensors(checkpoint.chat_layout(config), generator)
    head = tensors["language_model.lm_head.weight"]
    spoken = torch.zeros(len(head), 1)
    spoken[list(SPOKEN_BYTES)] = 3
    tensors["language_model.lm_head.weight"] = head * spoken
    save_file(tensors, folder / "model.safetensors")

    detokenizer = folder / "detokenizer"
    detokenizer.mkdir()
    _write_json(detokenizer / "config.json", _detokenizer_config())
    flow, vocoder = read_detokenizer_config(detokenizer)
    save_file(random_tensors(flow_layout(flow), generator), detokenizer / "flow.safetensors")
    hift = random_tensors(vocoder_layout(vocoder), generator)
    hift["f0_predictor.classifier.bias"].fill_(120.0)  # Hz
    hift["conv_post.parametrizations.weight.original0"].fill_(0.3)
    hift["conv_post.bias"][: vocoder.istft_size // 2 + 1] = -2.2  # log magnitude
    save_file(hift, detokenizer / "hift.safetensors")
    save_file({"nano": torch.randn(SPEAKER_DIM, generator=generator)}, detokenizer / "speakers.safetensors")


def random_tensors(layout: Layout, generator: torch.Generator) -> dict[str, Tensor]:
    """Every upstream tensor that `layout` names: ones for scales, zeros for biases, else scaled normals."""
    tensors: dict[str, Tensor] = {}
    parts = (part for weight in layout.values() for part in weight.parts)
    for name, shape in {part.name: part.shape for part in parts if part.name is not None}.items():
        if name.endswith("bias"):
            tensors[name] = torch.zeros(shape)
        elif len(shape) == 1 or name.endswith("original0"):
            tensors[name] = torch.ones(shape)
        else:
            fan_in = torch.Size(shape[1:]).numel()
            tensors[name] = torch.randn(shape, generator=generator) * fan_in**-0.5
    return tensors


def byte_tokenizer(ids: dict[str, int]) -> tokenizers.Tokenizer:
    """A text tokenizer whose ids below 256 are bytes and whose marks come after them, in the order of `ids`."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    order = [_byte_of(char) for char in alphabet]
    vocabulary = {char: byte for byte, char in zip(order, alphabet, strict=True)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in ids])
    return tokenizer


def _byte_of(char: str) -> int:
    """The byte that GPT-2's byte-level alphabet writes as this character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    code = ord(char)
    return code if code in printable else [b for b in range(256) if b not in printable][code - 256]


def _decoder_config(hidden: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
    }


def _chat_config(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["FunAudioChatForConditionalGeneration"],
        "model_type": "funaudiochat",
        "audio_token_index": ids["<|AUDIO|>"],
        "hidden_size": HIDDEN,
        "audio_config": {
            "model_type": "funaudiochat_audio_encoder",
            "bos_token_id": 6561,
            "eos_token_id": 6562,
            "pad_token_id": 6563,
            "codebook_size": 6565,
            "continuous_features_mode": "replace",
            "d_model": 96,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 192,
            "group_size": 5,
            "n_window": 100,
            "num_mel_bins": 128,
            "output_dim": HIDDEN,
            "crq_transformer_config": _decoder_config(96, 2, 4, 192),
        },
        "text_config": {
            **_decoder_config(HIDDEN, 3, 4, 256),
            "vocab_size": FIRST_SPECIAL + len(SPECIALS),
            "tie_word_embeddings": False,
            "eos_token_id": ids["<|im_end|>"],
            "audio_bos_index": ids["<|audio_bos|>"],
            "audio_eos_index": ids["<|audio_eos|>"],
            "sil_index": ids["<|sil|>"],
        },
    }


def _detokenizer_config() -> dict[str, Any]:
    return {
        "flow": {
            "vocab_size": 6561,
            "dim": 96,
            "depth": 2,
            "heads": 3,
            "dim_head": 32,
            "ff_mult": 2,
            "pre_channels": 128,
            "pre_lookahead_len": 3,
            "static_chunk_size": 50,
            "output_size": 80,
            "spk_embed_dim": SPEAKER_DIM,
            "token_mel_ratio": 2,
            "cfm": {"inference_cfg_rate": 0.7},
        },
        "hift": {
            "base_channels": 64,
            "f0_channels": 32,
            "in_channels": 80,
            "nb_harmonics": 8,
            "sampling_rate": 24000,
            "nsf_alpha": 0.1,
            "nsf_sigma": 0.003,
            "nsf_voiced_threshold": 10,
            "upsample_rates": [8, 5, 3],
            "upsample_kernel_sizes": [16, 11, 7],
            "istft_n_fft": 16,
            "istft_hop": 4,
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5]] * 3,
            "source_resblock_kernel_sizes": [7, 7, 11],
            "source_resblock_dilation_sizes": [[1, 3, 5]] * 3,
            "lrelu_slope": 0.1,
            "audio_limit": 0.99,
            "conv_pre_look_right": 4,
        },
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
