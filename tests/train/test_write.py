"""Modules -> upstream's tensors -> the same modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facrt.model import checkpoint, flow, speech_tokenizer, vocoder
from facrt.model.weights import Layout, store
from facrt.train.write import keep_absent_zero
from goldens import DETOKENIZER, LM, S3
from safetensors.torch import load_file
from torch import nn


def modules() -> list[tuple[str, nn.Module, Layout, Path]]:
    chat = checkpoint.load_chat(LM / "model")
    speaking = DETOKENIZER / "model"
    mel, wave = checkpoint.load_flow(speaking), checkpoint.load_vocoder(speaking)
    hearing = checkpoint.load_speech_tokenizer(S3 / "model")
    return [
        ("chat", chat, checkpoint.chat_layout(chat.config), LM / "model" / "model.safetensors"),
        ("flow", mel, flow.flow_layout(mel.config), speaking / "flow.safetensors"),
        ("vocoder", wave, vocoder.vocoder_layout(wave.config), speaking / "hift.safetensors"),
        ("tokenizer", hearing, speech_tokenizer.speech_tokenizer_layout(hearing.config),
         next((S3 / "model").glob("*.safetensors"))),
    ]  # fmt: skip


@pytest.mark.parametrize("index", range(4))
def test_store_is_the_inverse_of_load(index: int) -> None:
    name, module, layout, path = modules()[index]
    stored, original = store(module, layout), load_file(path)
    for key, tensor in stored.items():
        if "weight.original" in key:  # a direction's length is free: the folded weight is what must come back
            continue
        torch.testing.assert_close(tensor, original[key].float(), rtol=0, atol=0, msg=f"{name} {key}")

    class Kept:
        where = name

        def shapes(self) -> dict[str, tuple[int, ...]]:
            return {key: tuple(value.shape) for key, value in stored.items()}

        def read(self, key: str) -> torch.Tensor:
            return stored[key]

    for key, weight in layout.items():
        torch.testing.assert_close(weight.read(Kept()), module.get_parameter(key), rtol=1e-6, atol=1e-7)


def test_key_biases_stay_zero() -> None:
    _, module, layout, _ = modules()[3]
    module.requires_grad_(True)
    with torch.no_grad():
        module.get_parameter("blocks.0.qkv.bias").fill_(1.0)
    with pytest.raises(AssertionError, match="not zero"):
        store(module, layout)
    keep_absent_zero(module, layout)
    store(module, layout)
    module.get_parameter("blocks.0.qkv.bias").sum().backward()
    gradient = module.get_parameter("blocks.0.qkv.bias").grad
    assert gradient is not None
    d = len(gradient) // 3
    assert gradient[:d].all()
    assert not gradient[d : 2 * d].any()
