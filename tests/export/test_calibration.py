"""Calibration: what is refused, statistics by way of the reference one layer at a time, the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from facrt.errors import AudioError
from facrt.export import calibration
from facrt.export.calibration import Packed, calibrate, head_inputs, read_questions, speak
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, export, open_model
from facrt.model import weights
from facrt.model.checkpoint import load_chat
from facrt.model.decoder import CachedAttention
from facrt.model.settings import SPEECH_SYSTEM_PROMPT
from facrt.runtime.prompt import Message
from goldens import DETOKENIZER, LM

QUIET = lambda *_: None  # noqa: E731


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "facrt" / "calibration"


def test_the_questions_that_ship() -> None:
    questions = read_questions(None)
    assert len(questions) == 8
    assert all(1 < len(pcm) / 16_000 < 5 and pcm.dtype == np.float32 for pcm in questions)


def test_a_list_of_questions(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", question(1.0), 16_000)
    (tmp_path / "list.txt").write_text("a.wav\n\n  a.wav\n")
    assert len(read_questions(tmp_path / "list.txt")) == 2
    assert len(read_questions(tmp_path)) == len(read_questions(tmp_path / "a.wav")) == 1


BAD = {
    "empty folder": (lambda p: None, r"set lists no WAV, FLAC or Ogg file"),
    "silent": (lambda p: soundfile.write(p / "a.wav", np.zeros(16_000), 16_000), r"a\.wav is silent"),
    "unreadable": (lambda p: (p / "a.wav").write_text("no sound"), r"a\.wav is no readable WAV"),
    "nowhere": (lambda p: p.rmdir(), r"set is missing"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_set_is_refused_before_any_work(fault: str, tmp_path: Path) -> None:
    make, words = BAD[fault]
    (tmp_path / "set").mkdir()
    make(tmp_path / "set")
    with pytest.raises(AudioError, match=words) as caught:
        export(ExportRequest("/nowhere/at/all", tmp_path / "out", precision="int4", calibration=tmp_path / "set"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_packed_sequences_are_the_sequences() -> None:
    backbone = load_chat(LM / "model").backbone
    parts = [torch.randn(n, backbone.config.hidden_size, generator=torch.Generator().manual_seed(n)) for n in (5, 1, 9)]
    packed = backbone.decoder(torch.cat(parts), Packed(backbone.config, [5, 1, 9]))
    alone = torch.cat([backbone.decoder(part, CachedAttention(backbone.config)) for part in parts])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_teacher_forced_rows_are_what_the_head_saw() -> None:
    model = open_model(LM / "model")
    chat, pcm = load_chat(LM / "model"), question(1.0)
    messages = [Message("system", SPEECH_SYSTEM_PROMPT), Message("user", None, pcm)]
    prompt = calibration.open_prompter(model).encode(messages)
    seen: list[torch.Tensor] = []
    chat.speech_head.input.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    spoken = speak(chat, prompt, pcm, 4)
    hidden = chat.backbone.decoder(spoken.embeds, CachedAttention(chat.config.text))
    z = head_inputs(chat, spoken, hidden + chat.backbone.embedding(spoken.ids))
    torch.testing.assert_close(z, torch.cat(seen), rtol=0, atol=1e-4)


def test_statistics_from_disk_equal_those_from_memory_and_are_cached(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    recipe = {"backbone": "awq_32", "speech_head": "w8a8", "flow_estimator": "w8a8", "audio_encoder": "awq_32"}
    questions = [question(1.0)]
    monkeypatch.setattr(calibration, "ANSWER_STEPS", 3)
    found = []
    for limit in (1 << 40, 2048):
        monkeypatch.setattr(weights, "LAZY_ELEMENTS", limit)
        model = open_model(LM / "model", DETOKENIZER / "model")
        assert bool([p for p in model.chat.parameters() if id(p) in model.readers]) == (limit == 2048)
        rewritten = calibrate(model, recipe, questions, QUIET)
        found.append(rewritten.input_scales)
        (file,) = cache.iterdir()
        if limit > 2048:
            file.unlink()
    whole, streamed = found
    assert whole.keys() == streamed.keys()
    assert len([name for name in whole if name.startswith("speech_head/")]) > 8
    np.testing.assert_allclose([whole[k] for k in whole], [streamed[k] for k in whole], rtol=1e-4)

    def fail(*_: object) -> None:
        raise AssertionError("statistics were collected though they are cached")

    monkeypatch.setattr(calibration, "_Observer", fail)
    calibrate(open_model(LM / "model", DETOKENIZER / "model"), recipe, questions, QUIET)
    with pytest.raises(AssertionError, match="though they are cached"):
        calibrate(open_model(LM / "model", DETOKENIZER / "model"), recipe, [question(1.1)], QUIET)
