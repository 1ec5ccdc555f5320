"""What the benchmarks of training share: a run's folder, its validation conversations, the skills of a model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from facrt.model.generate import ChatModel
from facrt.train.answers import prepare_answers
from facrt.train.chat_stage import ChatStage
from facrt.train.dataset import LINES, Conversation, read_dataset
from facrt.train.evaluate import exact_answers
from facrt.train.intents import Split
from facrt.train.loop import Schedule
from facrt.train.make import DataRequest, make_dataset
from facrt.train.questions import QuestionStore
from facrt.train.recipe import read_recipe
from facrt.train.run import Run
from facrt.train.samples import Sample, num_answers

PROGRESS_SECONDS = 10.0
BATCH = 16


def run_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What says which run is measured, and where the benchmark keeps its own parts."""
    parser.add_argument("run", type=Path, help="a run's folder; its stages up to alignment have been run")
    parser.add_argument("--recipe", default="nano", help="the recipe of that run")
    parser.add_argument("--data", type=Path, help="the dataset folder, where it was not the generator's")
    parser.add_argument("--out", type=Path, help=f"takes the benchmark's checkpoints; default: RUN/{name}")
    parser.add_argument("--validation", type=Path, help="a dataset to judge by; default: the generator's own split")
    parser.add_argument("--conversations", type=int, default=200, help="how many of them are made")
    parser.add_argument("--threads", type=int, default=2)


def open_run(options: argparse.Namespace) -> Run:
    torch.set_num_threads(options.threads)
    return Run(read_recipe(options.recipe), options.run, options.data, progress())


def progress() -> Callable[[str, int, int], None]:
    """A line on stderr now and then."""
    shown = [0.0]

    def show(what: str, done: int, whole: int) -> None:
        if time.monotonic() - shown[0] > PROGRESS_SECONDS or done == whole:
            sys.stderr.write(f"{what}: {done} of {whole}\n")
            shown[0] = time.monotonic()

    return show


def shortened(schedule: Schedule, steps: int | None) -> Schedule:
    """A schedule over so many steps; None: as the recipe has it."""
    return schedule if steps is None else replace(schedule, steps=steps, warmup=min(schedule.warmup, -(-steps // 10)))


@dataclass(frozen=True)
class Validation:
    """Spoken questions with spoken answers that training did not see."""

    conversations: Sequence[Conversation]
    samples: Sequence[Sample]
    questions: QuestionStore


def validation(run: Run, folder: Path, given: Path | None, count: int) -> Validation:
    """Made once in `folder`; `given` is a dataset that is taken instead of the generator's."""
    folder.mkdir(parents=True, exist_ok=True)
    data = given or folder / "validation"
    if given is None and not (data / LINES).exists():
        request = DataRequest(data, Split.VALIDATION, count, run.recipe.seed, run.recipe.data["workers"])
        make_dataset(request, lambda done, whole: run.show("validation data", done, whole))
    conversations = list(read_dataset(data))
    messages = [message for conversation in conversations for message in conversation.messages if message.audio]
    spoken = [(m.text or "", m.audio) for m in messages if m.role == "assistant" and m.audio]
    answers = prepare_answers(spoken, folder / "answers.pt")
    ids = run.ids_of(answers, folder / "speech_ids.pt")
    maker = run.maker({answer.text: row for answer, row in zip(answers, ids, strict=True)})
    samples = [maker.make(c, turn, True, True) for c in conversations for turn in range(num_answers(c))]
    heard = list(dict.fromkeys(m.audio for m in messages if m.role == "user" and m.audio))
    questions = QuestionStore(heard, folder / "questions", run.questions.num_mels)
    return Validation(conversations, samples, questions)


def share_exact(model: ChatModel, samples: Sequence[Sample], questions: QuestionStore | None = None) -> float:
    """The share of answers whose text is exactly right, 0 to 1."""
    right = exact_answers(model, samples, questions)
    return sum(right) / len(right)


@torch.inference_mode()
def speech_accuracy(model: ChatModel, judged: Validation) -> float:
    """The share of speech codes that are the likeliest after the right ones before them, 0 to 1."""
    stage = ChatStage("evaluation", model, judged.questions, lambda _: [], disturb=False)
    right = asked = 0
    for start in range(0, len(judged.samples), BATCH):
        out = stage.predict(list(judged.samples[start : start + BATCH]))
        codes = out.speech_labels < model.config.num_codes
        right += int(((out.speech_logits.argmax(-1) == out.speech_labels) & codes).sum())
        asked += int(codes.sum())
    return right / asked
