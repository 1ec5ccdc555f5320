"""Trained modules -> a checkpoint folder in the file formats of the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model.config_files import SAMPLING_KEY
from ..model.weights import Layout, store

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>",
            "<|audio_pad|>", "<|sil|>")  # fmt: skip
TOOL_MARKS = ("<tool_call>", "</tool_call>")  # plain words to the decoder of answers, one id each
PROMPT_WORDS = (
    "You are asked to generate both text and speech tokens at the same time.",
    "You are asked to generate text tokens.",
    "You are a helpful assistant.",
    "system\nuser\nassistant\n",
)
SPEAKER = "nano"
NUM_CODES = 6561


def write_text_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int) -> None:
    """Learns a byte-level BPE and writes `tokenizer.json`; the marks come after its vocabulary."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    prompts = (words for words in PROMPT_WORDS for _ in range(100))
    marks = [tokenizers.AddedToken(mark, special=False, normalized=False) for mark in TOOL_MARKS]
    tokenizer.train_from_iterator((*prompts, *(_without_marks(text) for text in texts)), trainer)
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    tokenizer.add_tokens(marks)
    tokenizer.save(str(folder / "tokenizer.json"))


def _without_marks(text: str) -> str:
    for mark in TOOL_MARKS:
        text = text.replace(mark, " ")
    return text


def write_configs(folder: Path, shapes: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the configuration files of chat model, detokenizer and speech tokenizer; `tokenizer.json` is there."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = {mark: tokenizer.token_to_id(mark) or 0 for mark in SPECIALS}
    assert all(ids.values()), "marks come after the vocabulary"
    write_json(folder / "config.json", _chat_config(shapes, ids, tokenizer.get_vocab_size()))
    write_json(folder / "generation_config.json", {"eos_token_id": ids["<|im_end|>"], SAMPLING_KEY: SAMPLING})
    for name in ("detokenizer", "s3tokenizer"):
        (folder / name).mkdir(exist_ok=True)
    write_json(folder / "detokenizer" / "config.json", {"flow": shapes["flow"], "hift": shapes["hift"]})
    write_json(folder / "s3tokenizer" / "config.json", dict(shapes["speech_tokenizer"]))


SAMPLING = {"temperature": 0.3, "top_k": 0, "top_p": 0.8, "repetition_penalty": 1.0}  # nano's codes repeat: no penalty


def _chat_config(shapes: Mapping[str, Mapping[str, Any]], ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    chat, hidden = shapes["chat"], shapes["backbone"]["hidden_size"]
    common = {"model_type": "qwen3", "rms_norm_eps": 1e-6, "rope_theta": 1_000_000}
    return {
        "architectures": ["FunAudioChatForConditionalGeneration"],
        "model_type": "funaudiochat",
        "audio_token_index": ids["<|AUDIO|>"],
        "hidden_size": hidden,
        "audio_config": {
            "model_type": "funaudiochat_audio_encoder",
            "bos_token_id": NUM_CODES,
            "eos_token_id": NUM_CODES + 1,
            "pad_token_id": NUM_CODES + 2,
            "codebook_size": NUM_CODES + 4,
            "continuous_features_mode": "replace",
            "n_window": 100,
            "num_mel_bins": 128,
            "output_dim": hidden,
            **chat,
            "crq_transformer_config": {**common, **shapes["speech_head"]},
        },
        "text_config": {
            **common,
            **shapes["backbone"],
            "vocab_size": vocabulary,
            "tie_word_embeddings": True,
            "eos_token_id": ids["<|im_end|>"],
            "audio_bos_index": ids["<|audio_bos|>"],
            "audio_eos_index": ids["<|audio_eos|>"],
            "sil_index": ids["<|sil|>"],
        },
    }


def speaker_embedding(size: int) -> Tensor:
    """The one voice's embedding [size]: any fixed vector serves a model of one voice."""
    return torch.randn(size, generator=torch.Generator().manual_seed(20_260))


def write_weights(path: Path, module: nn.Module, layout: Layout) -> None:
    """A module's parameters under upstream's names, float16."""
    tensors = {name: tensor.half().contiguous() for name, tensor in store(module, layout).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A small readable file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def keep_absent_zero(module: nn.Module, layout: Layout) -> None:
    """Zeroes the parts of parameters that checkpoints do not store (key biases), and their gradients from now on."""
    for name, weight in layout.items():
        if all(part.name is not None for part in weight.parts):
            continue
        parameter = module.get_parameter(name)
        kept = [torch.full(p.shape, float(p.name is not None)) for p in weight.parts]
        mask = weight.combine(kept)
        with torch.no_grad():
            parameter.mul_(mask)
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))
