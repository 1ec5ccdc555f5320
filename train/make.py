"""The generator's conversations as a dataset folder: rendered by several processes, resumable, the same for a seed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from .. import __version__
from ..errors import FacrtError, RequestError
from ..model.geometry import SAMPLE_RATE_HZ
from ..runtime.audio import write_wav
from . import speak
from .dataset import LINES, Conversation, SpokenMessage, write_lines
from .intent import MARK
from .intents import Example, Split, example_at, fingerprint
from .labels import label_path, write_labels
from .loose import loose_example, loose_fingerprint
from .practice import aloud_example

SETTINGS = "made.json"
LOOSE_EVERY = 3  # of training's conversations, one is put loosely
JOBS_AT_ONCE = 16  # that a process takes
Progress = Callable[[int, int], None]  # files there, files in all


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What to make."""

    out: Path
    split: Split
    count: int  # conversations; a larger count of the same seed continues a folder
    seed: int
    workers: int = 1  # processes
    read_aloud: int = 0  # further conversations: practice, typed, of which only the answers are spoken

    def __post_init__(self) -> None:
        faults = [f"{name} is {getattr(self, name)}" for name in ("count", "workers") if getattr(self, name) < 1]
        if faults:
            raise RequestError(f"{' and '.join(faults)}; 1 or more is needed")
        if self.read_aloud < 0:
            raise RequestError(f"read_aloud is {self.read_aloud}; 0 or more is needed")
        if self.read_aloud and self.split is not Split.TRAIN:
            raise RequestError(f"practice is read aloud for training; split {self.split.value} has none")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A conversation and the names of its files."""

    id: str
    example: Example
    questions: tuple[Path, ...]  # none: it is typed
    answers: tuple[Path, ...]
    condition: speak.Condition | None = None  # of the questions


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    text: str
    condition: speak.Condition | None  # None: an answer

    @property
    def is_done(self) -> bool:
        return self.path.exists() and label_path(self.path).exists()


def make_dataset(request: DataRequest, progress: Progress = lambda *_: None) -> int:
    """Writes `audio/` and at last `data.jsonl`; files that are there already are kept, so a stopped run goes on.

    An answer that several conversations share is one file.

    Returns:
        How many audio files the dataset names.

    Raises:
        RequestError: the folder holds something else, or data of another seed, split or version.
        FacrtError: espeak-ng is missing, the folder cannot be written, or a process died.
    """
    _claim(request)
    made = [*_generated(request), *_practised(request)]
    jobs = {job.path: job for asked in made for job in _jobs(asked)}
    missing = [job for job in jobs.values() if not job.is_done]
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    for folder in {job.path.parent for job in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    for _ in _rendered(missing, request.workers):
        done += 1
        progress(done, len(jobs))
    write_lines(request.out / LINES, map(_conversation, made))
    return len(jobs)


def _claim(request: DataRequest) -> None:
    """Writes the folder's settings, or compares them."""
    path = request.out / SETTINGS
    settings = {
        "split": request.split.value, "seed": request.seed, "facrt": __version__, "generator": fingerprint(),
        "espeak_ng": speak.espeak_version(),
    }  # fmt: skip
    if request.split is Split.TRAIN:
        settings["loose"] = loose_fingerprint()
    try:
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found != settings:
                raise RequestError(f"{request.out} was made with {found}, not with {settings}; choose another --out")
            for left in request.out.glob("audio/**/.*.partial"):
                left.unlink()
            return
        if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
            raise RequestError(f"{request.out} holds something that this command did not make; choose another --out")
        request.out.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        partial.replace(path)
    except (OSError, ValueError) as error:
        raise FacrtError(f"{request.out} cannot be used ({error}); choose another --out") from None


def _rendered(jobs: list[_Job], workers: int) -> Iterator[None]:
    if workers == 1 or len(jobs) <= JOBS_AT_ONCE:
        yield from map(_render, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_render, jobs, chunksize=JOBS_AT_ONCE)
        except BrokenProcessPool:
            raise FacrtError("a process that made speech died; run the same command again: it goes on") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _render(job: _Job) -> None:
    if job.condition is None:
        sounds = speak.sounds_of_answer(job.text)
        pcm, rate_hz = speak.speak_answer(job.text, sounds), speak.ANSWER_RATE_HZ
    else:
        pcm, rate_hz = speak.speak_question(job.text, job.condition), SAMPLE_RATE_HZ
        sounds = speak.sounds_of_question(job.text, job.condition)
    write_labels(label_path(job.path), sounds, len(pcm) / rate_hz)
    write_wav(job.path, pcm, rate_hz)


def _generated(request: DataRequest) -> Iterator[_Asked]:
    for index in range(request.count):
        example = _example(request, index)
        name = f"{request.split.value}-{request.seed}-{index:07d}"
        questions = tuple(_question_path(request, index, number) for number in range(len(example.turns)))
        condition = speak.draw_condition(request.split, f"{request.split.value}/{request.seed}/{index}")
        yield _Asked(name, example, questions, _answer_paths(request, example), condition)


def _example(request: DataRequest, index: int) -> Example:
    if request.split is Split.TRAIN and index % LOOSE_EVERY == LOOSE_EVERY - 1:
        return loose_example(f"{request.seed}/{index}")
    return example_at(request.split, request.seed, index)


def _practised(request: DataRequest) -> Iterator[_Asked]:
    for index in range(request.read_aloud):
        example = aloud_example(request.seed, index)
        yield _Asked(f"aloud-{request.seed}-{index:07d}", example, (), _answer_paths(request, example))


def _jobs(asked: _Asked) -> Iterator[_Job]:
    for turn, question, answer in zip_longest(asked.example.turns, asked.questions, asked.answers):
        if question is not None and asked.condition is not None:
            seed = (asked.condition.seed + asked.questions.index(question)) % 2**32
            yield _Job(question, turn.user_text, replace(asked.condition, seed=seed))
        yield _Job(answer, turn.answer_text, None)


def _question_path(request: DataRequest, index: int, turn: int) -> Path:
    return request.out / "audio" / "questions" / f"{index // 1000:04d}" / f"{index:07d}-{turn}.wav"


def _answer_paths(request: DataRequest, example: Example) -> tuple[Path, ...]:
    digests = [hashlib.sha256(turn.answer_text.encode()).hexdigest()[:16] for turn in example.turns]
    return tuple(request.out / "audio" / "answers" / digest[:2] / f"{digest}.wav" for digest in digests)


def _conversation(asked: _Asked) -> Conversation:
    messages: list[SpokenMessage] = []
    open_mark, close_mark = MARK
    for turn, question, answer in zip_longest(asked.example.turns, asked.questions, asked.answers):
        call = (turn.tool_call or "").removeprefix(open_mark).removesuffix(close_mark)
        messages += [
            SpokenMessage("user", turn.user_text, question),
            SpokenMessage("assistant", turn.answer_text, answer, json.loads(call or "null")),
        ]
    return Conversation(asked.id, tuple(messages), asked.example.intent)
