"""Exported bundles against the golden runs: through the runtime, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facrt.model.settings import GenerationSettings
from facrt.runtime.engine import Engine
from facrt.runtime.generate import Step
from facrt.runtime.prompt import Message
from goldens import LM, LM_RUNS, expected, inputs, lm_params, meta, waveforms
from tolerances import TOLERANCES

ASSISTANT_TEXT = "Hello, how are you?"


def messages(case: str, mixed_speech_ids: list[int]) -> list[Message]:
    """The case's conversation, without its system prompt."""
    heard = [pcm.astype(np.float32) / 32768 for pcm in waveforms(case)]
    if case == "textonly":
        return [Message("user", "What is the capital of France?")]
    if case == "s2t":
        return [Message("user", "Describe it.", heard[0])]
    if case == "twoturn":
        return [Message("user", None, heard[0]), Message("assistant", ASSISTANT_TEXT), Message("user", None, heard[1])]
    if case == "mixed":
        spoken = Message("assistant", None, None, tuple(mixed_speech_ids))
        return [Message("user", None, heard[0]), spoken, Message("user", "Go on.")]
    return [Message("user", None, heard[0])]


@pytest.mark.parametrize(("case", "run"), LM_RUNS)
def test_runtime_equals_golden(
    golden_engine_with_head: Engine, mixed_speech_ids: list[int], case: str, run: str
) -> None:
    golden_engine = golden_engine_with_head
    wanted, params = expected(LM, f"_{case}"), lm_params(case, run)
    history = messages(case, mixed_speech_ids)
    system = golden_engine.conversation(speech=not params["disable_speech"]).messages
    prompt = golden_engine.prompter.encode([*system, *history])
    assert prompt.tolist() == inputs(LM, f"_{case}")["input_ids"][0].tolist()
    embeds = [golden_engine.hearing.embed(m) for m in history if golden_engine.prompter.num_slots(m)]
    heard = np.concatenate(embeds) if embeds else np.zeros((0, 64), np.float32)
    prefill: list[Step] = []
    logits: list[np.ndarray] = []

    def observe(step: Step) -> None:
        if not prefill:
            prefill.append(Step(step.embeds, step.hidden, step.text_logits, step.speech_tokens, step.speech_logits))
        logits.append(step.text_logits.copy())

    golden_engine.loop.forget()
    turn, _ = golden_engine.loop.run(prompt, heard, GenerationSettings(**params), observe)
    assert turn.text_ids == wanted[f"{run}__text_ids"].tolist()
    assert turn.speech_ids == wanted[f"{run}__speech_ids"].tolist()
    close(prefill[0].embeds, wanted["prefill_inputs_embeds"][0], "embeds")
    close(prefill[0].hidden, wanted["prefill_hidden"][0], "hidden")
    rows = wanted[f"{run}__text_logits"]
    close(np.stack(logits[: len(rows)]), rows, "text_logits")
    if f"{run}__srh_logits" in wanted:
        close(np.stack(prefill[0].speech_logits), wanted[f"{run}__srh_logits"][0], "speech_logits")


def close(actual: np.ndarray, wanted: np.ndarray, component: str) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCES[component, "fp32"])


def cli_runs() -> list[tuple[str, str]]:
    """Runs that the command line can ask for: greedy text, the checkpoint's own eos."""
    runs = []
    for case, run in LM_RUNS:
        params = lm_params(case, run)
        reachable = params["text_greedy"] and params["eos_token_id"] == 506
        if reachable and params["force_text_abos"] != params["disable_speech"]:
            runs.append((case, run))
    return runs


@pytest.mark.parametrize(("case", "run"), cli_runs())
def test_command_line_equals_golden(
    facrt: Any,
    golden_bundle: Path,
    golden_wavs: dict[str, list[Path]],
    mixed_speech_ids: list[int],
    tmp_path: Path,
    case: str,
    run: str,
) -> None:
    wanted, params = expected(LM, f"_{case}"), lm_params(case, run)
    arguments: list[Any] = ["run", golden_bundle, "--greedy", "--max-steps", params["max_new_tokens"]]
    arguments += ["--repetition-penalty", params["repetition_penalty"]]
    wavs = golden_wavs[case]
    if case == "textonly":
        arguments += ["--text", "What is the capital of France?"]
    elif case == "s2t":
        arguments += [wavs[0], "--text", "Describe it.", "--no-speech"]
    elif case in ("twoturn", "mixed"):
        second: dict[str, Any] = {"role": "assistant", "text": ASSISTANT_TEXT}
        third: dict[str, Any] = {"role": "user", "audio": str(wavs[-1])}
        if case == "mixed":
            second, third = {"role": "assistant", "speech_ids": mixed_speech_ids}, {"role": "user", "text": "Go on."}
        history = [{"role": "user", "audio": str(wavs[0])}, second, third]
        (tmp_path / "messages.json").write_text(json.dumps(history))
        arguments += ["--messages", tmp_path / "messages.json"]
    else:
        arguments += [wavs[0]]
    (turn,) = facrt.json(*arguments, cwd=tmp_path)["turns"]
    assert turn["text_ids"] == wanted[f"{run}__text_ids"].tolist()
    assert turn["speech_ids"] == wanted[f"{run}__speech_ids"].tolist()
    if params["disable_speech"]:
        assert turn["audio"] is None
    else:
        assert Path(tmp_path / turn["audio"]["path"]).exists()


def test_every_golden_case_is_run_by_the_command_line() -> None:
    assert {case for case, _ in cli_runs()} == set(meta(LM)["cases"])
