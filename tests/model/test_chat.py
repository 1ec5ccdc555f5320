"""The PyTorch reference against every run of the golden chat fixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facrt.model import geometry
from facrt.model.checkpoint import load_chat
from facrt.model.generate import ChatModel, Step, as_float_pcm
from facrt.model.mel import whisper_log_mel
from goldens import LM, LM_CASES, LM_RUNS, audio_arguments, expected, inputs, lm_params, waveforms
from tolerances import TOLERANCES


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return load_chat(LM / "model")


def close(actual: torch.Tensor, wanted: np.ndarray, component: str) -> None:
    assert tuple(actual.shape) == wanted.shape
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=TOLERANCES[component, "fp32"])


@pytest.mark.parametrize(("case", "run"), LM_RUNS)
def test_generation(chat: ChatModel, case: str, run: str) -> None:
    given, wanted = inputs(LM, f"_{case}"), expected(LM, f"_{case}")
    steps: list[Step] = []
    result = chat.generate(
        given["input_ids"], waveforms(case), observe=steps.append, **audio_arguments(case), **lm_params(case, run)
    )
    assert result.text_ids == wanted[f"{run}__text_ids"].tolist()
    assert result.speech_ids == wanted[f"{run}__speech_ids"].tolist()
    close(steps[0].embeds[None], wanted["prefill_inputs_embeds"], "embeds")
    close(steps[0].hidden[None], wanted["prefill_hidden"], "hidden")
    if "prefill_srh_input" in wanted:
        close(steps[0].speech_input[None], wanted["prefill_srh_input"], "hidden")
    close(torch.stack([s.embeds[-1] for s in steps]), wanted[f"{run}__step_embeds"], "embeds")
    close(torch.stack([s.hidden[-1] for s in steps]), wanted[f"{run}__step_hidden"], "hidden")
    logits = wanted[f"{run}__text_logits"]
    close(torch.stack([s.text_logits for s in steps[: len(logits)]]), logits, "text_logits")
    if f"{run}__srh_tokens" in wanted:
        assert [s.speech_tokens for s in steps] == wanted[f"{run}__srh_tokens"].tolist()
    if f"{run}__srh_logits" in wanted:
        logits = wanted[f"{run}__srh_logits"]
        close(torch.stack([torch.stack(s.speech_logits) for s in steps[: len(logits)]]), logits, "speech_logits")


@pytest.mark.parametrize("case", [c for c in LM_CASES if waveforms(c)])
def test_audio_encoder(chat: ChatModel, case: str) -> None:
    wanted, given = expected(LM, f"_{case}"), audio_arguments(case)
    slots = given["speech_ids"].shape[1]
    rows = [chat.encode_audio(w)[:slots] for w in waveforms(case)]
    close(
        torch.stack([F.pad(r, (0, 0, 0, slots - len(r))) for r in rows]), wanted["audio_encoder_out"], "audio_encoder"
    )
    assert [geometry.num_mel_frames(len(w)) for w in waveforms(case)] == wanted["feature_lens"].tolist()
    grouped = chat.audio_rows(
        waveforms(case),
        speech_ids=given["speech_ids"],
        mask=given["speech_attention_mask"],
        exists=given["feature_exist_mask"],
    )
    for rows_, row in zip(grouped, wanted["grouped_audio_features"], strict=True):
        close(rows_, row[: len(rows_)], "grouping")


@pytest.mark.parametrize("case", [c for c in LM_CASES if waveforms(c)])
def test_log_mel(case: str) -> None:
    wanted = expected(LM, f"_{case}")
    for i, waveform in enumerate(waveforms(case)):
        mel = whisper_log_mel(as_float_pcm(waveform))
        if f"mel{i}" in wanted:
            close(mel, wanted[f"mel{i}"], "mel")
        elif "mel0_head200" in wanted:
            close(mel[:, :200], wanted["mel0_head200"], "mel")
            close(mel[:, -200:], wanted["mel0_tail200"], "mel")


def test_slots_follow_upstreams_rounding() -> None:
    assert geometry.num_slots(18560) == 28  # 18560 / 640 is 29
    off = [n for n in range(0, 300 * 16000, 160) if geometry.num_slots(n) != n // 640]
    assert len(off) == 463  # SEMANTICS.md 1


def test_greedy_ids_do_not_depend_on_the_seed_and_sampled_ones_repeat_with_it(chat: ChatModel) -> None:
    prompt = inputs(LM, "_textonly")["input_ids"]
    sampled = {"max_new_tokens": 8, "do_sample": True, "temperature": 0.8, "top_p": 0.9, "force_text_abos": True}
    first, again, other = (chat.generate(prompt, seed=seed, **sampled) for seed in (1, 1, 2))
    assert first == again
    assert first != other
