"""The generator's conversations as a dataset folder: rendered by several processes, resumable, the same for a seed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from .. import __version__
from ..errors import FacrtError, RequestError
from ..model.geometry import SAMPLE_RATE_HZ
from ..runtime.audio import write_wav
from . import speak
from .dataset import LINES, Conversation, SpokenMessage, write_lines
from .intent import MARK
from .intents import Example, Split, Turn, example_at, fingerprint
from .labels import label_path, write_labels

SETTINGS = "made.json"
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

    def __post_init__(self) -> None:
        faults = [f"{name} is {getattr(self, name)}" for name in ("count", "workers") if getattr(self, name) < 1]
        if faults:
            raise RequestError(f"{' and '.join(faults)}; 1 or more is needed")


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    text: str
    condition: speak.Condition | None  # None: an answer

    @property
    def is_done(self) -> bool:
        return self.path.exists() and (self.condition is None or label_path(self.path).exists())


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
    made = [(index, example_at(request.split, request.seed, index)) for index in range(request.count)]
    jobs = {job.path: job for index, example in made for job in _jobs(request, index, example)}
    missing = [job for job in jobs.values() if not job.is_done]
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    for folder in {job.path.parent for job in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    for _ in _rendered(missing, request.workers):
        done += 1
        progress(done, len(jobs))
    write_lines(request.out / LINES, (_conversation(request, index, example) for index, example in made))
    return len(jobs)


def _claim(request: DataRequest) -> None:
    """Writes the folder's settings, or compares them."""
    path = request.out / SETTINGS
    settings = {
        "split": request.split.value, "seed": request.seed, "facrt": __version__, "generator": fingerprint(),
        "espeak_ng": speak.espeak_version(),
    }  # fmt: skip
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
        write_wav(job.path, speak.speak_answer(job.text), speak.ANSWER_RATE_HZ)
    else:
        heard = speak.speak_question(job.text, job.condition)
        sounds = speak.sounds_of_question(job.text, job.condition)
        write_labels(label_path(job.path), sounds, len(heard) / SAMPLE_RATE_HZ)
        write_wav(job.path, heard, SAMPLE_RATE_HZ)


def _jobs(request: DataRequest, index: int, example: Example) -> Iterator[_Job]:
    condition = speak.draw_condition(request.split, f"{request.split.value}/{request.seed}/{index}")
    for number, turn in enumerate(example.turns):
        heard = replace(condition, seed=(condition.seed + number) % 2**32)
        yield _Job(_question_path(request, index, number), turn.user_text, heard)
        yield _Job(_answer_path(request, turn), turn.answer_text, None)


def _question_path(request: DataRequest, index: int, turn: int) -> Path:
    return request.out / "audio" / "questions" / f"{index // 1000:04d}" / f"{index:07d}-{turn}.wav"


def _answer_path(request: DataRequest, turn: Turn) -> Path:
    digest = hashlib.sha256(turn.answer_text.encode()).hexdigest()[:16]
    return request.out / "audio" / "answers" / digest[:2] / f"{digest}.wav"


def _conversation(request: DataRequest, index: int, example: Example) -> Conversation:
    messages: list[SpokenMessage] = []
    open_mark, close_mark = MARK
    for number, turn in enumerate(example.turns):
        call = (turn.tool_call or "").removeprefix(open_mark).removesuffix(close_mark)
        messages += [
            SpokenMessage("user", turn.user_text, _question_path(request, index, number)),
            SpokenMessage("assistant", turn.answer_text, _answer_path(request, turn), json.loads(call or "null")),
        ]
    return Conversation(f"{request.split.value}-{request.seed}-{index:07d}", tuple(messages), example.intent)
