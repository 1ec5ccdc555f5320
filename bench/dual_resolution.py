"""Dual resolution: a backbone at 5 Hz (group_size 5) against one at 25 Hz (1), with the same data and steps.

Both start from the run's base model and encoder and are trained by the recipe's alignment and stage 1. Training is
timed on the same conversations in turn; generation is the PyTorch reference's loop on validation questions.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from common import arguments, check, finish, median
from facrt.model.generate import ChatModel
from facrt.runtime.audio import read_audio
from facrt.train.answers import Answer
from facrt.train.chat_stage import ChatStage
from facrt.train.dataset import Conversation
from facrt.train.questions import QuestionStore
from facrt.train.run import Run, Show
from facrt.train.samples import Speech
from training import Validation, open_run, run_arguments, share_exact, shortened, speech_accuracy, validation

GROUP_SIZES = (5, 1)
TOKENS_PER_SECOND = 25
LONGEST_ANSWER_S = 20
STAGES = ("alignment", "cocktail1")


@dataclass(frozen=True)
class Resolution(Run):
    """A run whose chat model has a group size of its own; data, tokenizer, base model and encoder are another's."""

    whole: Run | None = None
    group_size: int = 5

    @cached_property
    def configs(self) -> Path:
        folder = self.folder / "configs"
        if not (folder / "config.json").exists():
            partial = self.folder / ".configs.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self._whole.configs, partial)
            raw = json.loads((partial / "config.json").read_text(encoding="utf-8"))
            raw["audio_config"]["group_size"] = self.group_size
            (partial / "config.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
            partial.rename(folder)
        return folder

    @property
    def _whole(self) -> Run:
        assert self.whole is not None
        return self.whole

    @cached_property
    def conversations(self) -> list[Conversation]:
        return self._whole.conversations

    @cached_property
    def answers(self) -> list[Answer]:
        return self._whole.answers

    @cached_property
    def questions(self) -> QuestionStore:
        return self._whole.questions

    @cached_property
    def speech(self) -> Speech:
        return self._whole.speech

    @cached_property
    def splices(self) -> Speech:
        return self._whole.splices

    def ids_of(self, answers: list[Answer], cache: Path) -> list[torch.Tensor]:
        return self._whole.ids_of(answers, cache)

    @property
    def sound_names(self) -> list[str]:
        return self._whole.sound_names

    @property
    def encoder_folder(self) -> Path:
        return self._whole.encoder_folder

    def base(self) -> ChatModel:
        """A new speech head of this group size; the base model's weights do not depend on it."""
        model = self.new_chat()
        model.backbone.load_state_dict(self._whole.base().backbone.state_dict())
        return model


def train_step(stage: ChatStage, seed: int, run: Run) -> tuple[float, float]:
    """Seconds of one step's forward and backward pass, and seconds of speech in its answers."""
    device = run.recipe.compute.torch_device()
    batch = stage.draw(torch.Generator().manual_seed(seed))
    codes = sum(int((s.groups < stage.module.config.num_codes).sum()) for s in batch if s.groups is not None)
    _wait(device)
    started = time.perf_counter()
    with run.recipe.compute.autocast(device):
        loss, _ = stage.loss(0, torch.Generator().manual_seed(seed))
    loss.backward()
    _wait(device)
    seconds = time.perf_counter() - started
    stage.module.zero_grad(set_to_none=True)
    return seconds, codes / TOKENS_PER_SECOND


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_cost(runs: Mapping[int, Run], rounds: int) -> dict[int, dict[str, float]]:
    """Medians per group size, the steps taken in turn over the same conversations."""
    stages: dict[int, ChatStage] = {}
    for size, run in runs.items():
        model = run.trained_chat("cocktail1").requires_grad_(True).to(run.recipe.compute.torch_device())
        stage = run.spoken_stage("cocktail1", model)
        assert isinstance(stage, ChatStage)
        stages[size] = stage
        train_step(stage, 0, run)
    samples: dict[int, list[tuple[float, float]]] = {size: [] for size in runs}
    for seed in range(1, rounds + 1):
        for size, run in runs.items():
            samples[size].append(train_step(stages[size], seed, run))
    return {
        size: {
            "seconds_per_step": median([seconds for seconds, _ in pairs]),
            "seconds_per_second_of_speech": median([seconds / spoken for seconds, spoken in pairs if spoken]),
        }
        for size, pairs in samples.items()
    }


def generation_cost(models: Mapping[int, ChatModel], prompts: Mapping[int, Sequence[Any]], wavs: Sequence[Any]) -> Any:
    """Per group size, the reference loop's seconds per second of speech, questions and answers' text included."""
    ratios: dict[int, list[float]] = {size: [] for size in models}
    silent = dict.fromkeys(models, 0)
    for i, heard in enumerate(wavs):
        for size, model in models.items():
            steps = LONGEST_ANSWER_S * TOKENS_PER_SECOND // size
            started = time.perf_counter()
            said = model.generate(prompts[size][i], heard, text_greedy=True, force_text_abos=True, max_new_tokens=steps)
            seconds = time.perf_counter() - started
            spoken = sum(token < model.config.num_codes for token in said.speech_ids) / TOKENS_PER_SECOND
            if spoken:
                ratios[size].append(seconds / spoken)
            else:
                silent[size] += 1
    return {
        size: {"seconds_per_second_of_speech": median(found) if found else None, "answers_without_speech": silent[size]}
        for size, found in ratios.items()
    }


def main() -> None:
    parser = arguments(__doc__)
    run_arguments(parser, "bench-dual-resolution")
    parser.add_argument("--steps-alignment", type=int, help="default: the recipe's")
    parser.add_argument("--steps", type=int, help="of the stage after it; default: the recipe's cocktail1")
    parser.add_argument("--rounds", type=int, default=15, help="timed training steps")
    parser.add_argument("--answers", type=int, default=10, help="timed answers")
    options = parser.parse_args()
    whole = open_run(options)
    folder = options.out or options.run / "bench-dual-resolution"
    schedules = dict(whole.recipe.schedules)
    for name, steps in zip(STAGES, (options.steps_alignment, options.steps), strict=True):
        schedules[name] = shortened(schedules[name], steps)
    parts = folder / f"steps-{schedules['alignment'].steps}-{schedules['cocktail1'].steps}"
    recipe = replace(whole.recipe, schedules=schedules)
    runs, judged, models = {}, {}, {}
    for size in GROUP_SIZES:
        run = Resolution(recipe, parts / f"group-{size}", whole.data, _named(whole.show, size), whole, size)
        for name in STAGES:
            run.train(name)
        runs[size] = run
        judged[size] = validation(run, folder, options.validation, options.conversations)
        models[size] = run.trained_chat("cocktail1")
    costs = training_cost(runs, options.rounds)
    first = judged[GROUP_SIZES[0]].samples[: options.answers]
    generation = generation_cost(
        models, {size: [s.prompt for s in judged[size].samples] for size in GROUP_SIZES},
        [[read_audio(path) for path in sample.audios] for sample in first],
    )  # fmt: skip
    device = whole.recipe.compute.torch_device()
    table = [
        {"group_size": size, "training": costs[size], "generation": generation[size],
         **quality(models[size].to(device), judged[size])}
        for size in GROUP_SIZES
    ]  # fmt: skip
    show_table(table)
    coarse, fine = table
    checks = [
        *_ratio("training step, group_size 5 / 1", table, "training", "seconds_per_step"),
        *_ratio("training per second of speech, 5 / 1", table, "training", "seconds_per_second_of_speech"),
        *_ratio("generation per second of speech, 5 / 1", table, "generation", "seconds_per_second_of_speech"),
        check("exact answers, group_size 1 ahead", 100 * (fine["exact"] - coarse["exact"]), "points"),
        check("speech tokens, group_size 1 ahead", 100 * (fine["speech_right"] - coarse["speech_right"]), "points"),
    ]  # fmt: skip
    report = {
        "steps": [schedules[name].steps for name in STAGES], "spoken_answers": len(judged[1].samples), "table": table,
    }  # fmt: skip
    finish({**report, "checks": checks}, options.json)


def quality(model: ChatModel, judged: Validation) -> dict[str, float]:
    """Shares of answers whose text is exactly right, and of speech codes that are the likeliest, 0 to 1."""
    exact = share_exact(model, judged.samples, judged.questions)
    return {"exact": exact, "speech_right": speech_accuracy(model, judged)}


def _named(show: Show, size: int) -> Show:
    return lambda what, done, whole: show(f"group_size {size}, {what}", done, whole)


def _ratio(name: str, table: Sequence[dict[str, Any]], cost: str, key: str) -> list[dict[str, Any]]:
    """The check of group_size 5 over 1; none where a side said nothing, which the table shows."""
    coarse, fine = (line[cost][key] for line in table)
    return [check(name, coarse / fine, "ratio", 1.0)] if coarse and fine else []


def show_table(table: Sequence[dict[str, Any]]) -> None:
    lines = [f"{'group_size':>10} {'s/step':>8} {'train s/s':>10} {'generate s/s':>13} {'exact':>7} {'tokens':>7}"]
    for line in table:
        training, made = line["training"], line["generation"]["seconds_per_second_of_speech"]
        lines.append(
            f"{line['group_size']:>10} {training['seconds_per_step']:8.3f} "
            f"{training['seconds_per_second_of_speech']:10.3f} {'-' if made is None else f'{made:.3f}':>13} "
            f"{line['exact']:7.1%} {line['speech_right']:7.1%}"
        )
    sys.stderr.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
