"""Checkpoints of other shapes (groups of 3, experts, odd windows, tied tables): the runtime equals the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, export
from facrt.model.checkpoint import chat_layout, load_chat
from facrt.model.config_files import read_chat_config
from facrt.model.generate import ChatModel
from facrt.model.random_checkpoint import SPECIALS, byte_tokenizer, random_tensors
from facrt.model.settings import GenerationSettings
from facrt.runtime.engine import Engine, load
from facrt.runtime.prompt import Message
from goldens import LM
from safetensors.torch import save_file

IDS = {token: 256 + i for i, token in enumerate(SPECIALS)}


def config(**changes: Any) -> dict[str, Any]:
    """The golden configuration with other numbers."""
    raw = json.loads((LM / "model" / "config.json").read_text())
    raw["audio_token_index"] = IDS["<|AUDIO|>"]
    audio, text = raw["audio_config"], raw["text_config"]
    audio |= {"codebook_size": 104, "bos_token_id": 100, "eos_token_id": 101, "pad_token_id": 102, "output_dim": 40}
    audio |= {"d_model": 30, "encoder_attention_heads": 3, "encoder_ffn_dim": 50, "num_mel_bins": 80}
    audio |= changes.pop("audio", {})
    audio["crq_transformer_config"] |= {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 1}
    text |= {"vocab_size": 270, "hidden_size": 40, "num_key_value_heads": 4, "eos_token_id": IDS["<|im_end|>"]}
    text |= {f"{name}_index": IDS[f"<|{name}|>"] for name in ("audio_bos", "audio_eos", "sil")}
    text |= changes.pop("text", {})
    raw["hidden_size"] = text["hidden_size"]
    assert not changes
    return raw


EXPERTS = {
    "model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [1],
}  # fmt: skip
VARIANTS = {
    "groups of 3, odd windows": config(audio={"group_size": 3, "n_window": 35}),
    "experts, tied tables": config(text={**EXPERTS, "tie_word_embeddings": True}),
    "groups of 1": config(audio={"group_size": 1}, text={"num_key_value_heads": 1}),
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatModel, Engine]:
    folder = tmp_path_factory.mktemp("variant")
    source = folder / "checkpoint"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(VARIANTS[request.param]))
    byte_tokenizer(IDS).save(str(source / "tokenizer.json"))
    tensors = random_tensors(chat_layout(read_chat_config(source)), torch.Generator().manual_seed(5))
    table = tensors["audio_tower.embed_tokens.weight"]
    table.mul_(6)  # far from ties
    save_file(tensors, source / "model.safetensors")
    manifest = export(ExportRequest(str(source), folder / "bundle"))
    assert manifest.parity["ok"]
    return load_chat(source), load(folder / "bundle", max_positions=256)


@pytest.mark.parametrize("seconds", [0.05, 0.31, 1.9, 2.6])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_ids_equal_the_reference(pair: tuple[ChatModel, Engine], seconds: float, penalty: float) -> None:
    chat, engine = pair
    pcm = question(seconds)
    message = Message("user", "Well?", pcm)
    prompt = engine.prompter.encode([Message("system", "Speak."), message])
    options: dict[str, Any] = {
        "max_new_tokens": 12, "text_greedy": False, "repetition_penalty": penalty, "force_text_abos": True,
    }  # fmt: skip
    wanted = chat.generate(prompt, [pcm], **options)
    embeds = engine.hearing.embed(message)
    np.testing.assert_allclose(embeds, chat.audio_rows([pcm])[0], rtol=0, atol=1e-4)
    turn, _ = engine.loop.run(prompt, embeds, GenerationSettings(**options))
    assert (turn.text_ids, turn.speech_ids) == (wanted.text_ids, wanted.speech_ids)
    assert len(turn.speech_ids) == 11 * chat.config.group_size or chat.config.speech_eos_id in turn.speech_ids


def test_the_source_folder_is_not_needed_after_export(pair: tuple[ChatModel, Engine]) -> None:
    _, engine = pair
    assert all((engine.bundle.folder / Path(name)).is_file() for name in engine.bundle.manifest.files)
