"""A live turn: from the end of the user's speech to first words and first sound, streamed and whole, side by side."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from common import arguments, at_least, check, finish, median
from facrt.runtime.audio import read_audio
from facrt.runtime.conversation import Conversation
from facrt.runtime.engine import Engine, load
from facrt.runtime.events import AudioChunk, TurnEnded
from facrt.runtime.metrics import PHASES

SPOKEN = Path(__file__).parent.parent / "docs" / "questions"
QUESTIONS = [SPOKEN / "what-is-seven-plus-eight.wav", SPOKEN / "when-does-the-library-open-on-monday.wav"]
FEED_SAMPLES = 320  # 20 ms at 16 kHz
RATE_HZ = 16_000
INTERRUPTED = "When does the museum open?"


def questions(files: list[Path], count: int) -> list[np.ndarray]:
    """`count` spoken questions: the files in turn, each time at another speed and loudness."""
    random = np.random.default_rng(0)
    pcm = [read_audio(path) for path in files]
    spoken = []
    for i in range(count):
        speed, gain = random.uniform(0.8, 1.25), random.uniform(0.3, 1.0)
        spoken.append(soxr.resample(pcm[i % len(pcm)] * np.float32(gain), RATE_HZ * speed, RATE_HZ))
    return spoken


def streamed(engine: Engine, pcm: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    """One turn, its audio fed in pieces before the clock starts; milliseconds since the end of speech."""
    engine.loop.forget()
    with engine.conversation() as talk:
        started = time.perf_counter()
        for i in range(0, len(pcm), FEED_SAMPLES):
            talk.feed(pcm[i : i + FEED_SAMPLES])
        fed_ms = (time.perf_counter() - started) * 1e3
        seconds = 0.0
        for event in talk.stream(**options):
            if isinstance(event, AudioChunk):
                seconds += event.duration_ms / 1e3
            if isinstance(event, TurnEnded):
                end = event
    row = {phase: end.timings_ms[phase] for phase in PHASES if phase in end.timings_ms}
    return row | {"listening": fed_ms, "speech_seconds": seconds, "speaking_ms": row["done"] - row["heard"]}


def whole(engine: Engine, pcm: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    """The same turn after its end, in one piece: sound is there when all of it is."""
    engine.loop.forget()
    reply = engine.respond(pcm, **options)
    timings = reply.timings
    steps_ms = timings.num_steps * (timings.backbone_step_ms + timings.speech_group_ms)
    prefill = timings.encode_ms + timings.prefill_ms
    return {"heard": timings.encode_ms, "prefill": prefill, "generated": prefill + steps_ms, "done": timings.total_ms}


@dataclass
class Cut:
    """What an interrupt at one moment of an answer led to."""

    silenced_ms: float  # until the last event
    kept: bool  # the history holds the words of the speech groups that began to be played
    goes_on: bool  # the next turn's ids are those of a fresh conversation with that history


def cut_in(engine: Engine, options: dict[str, Any], after_s: float, share: float) -> Cut | None:
    """Interrupts an answer after a while, when a share of its sound was played; None where the answer was quicker."""
    talk = engine.conversation()
    called: list[float] = []
    handed_ms = played_ms = 0.0

    def interrupt() -> None:
        nonlocal played_ms
        played_ms = share * handed_ms
        called.append(time.perf_counter())
        talk.interrupt(played_ms)

    timer = threading.Timer(after_s, interrupt)
    timer.start()
    last: Any = None
    for last in talk.stream(text=INTERRUPTED, **options):
        if isinstance(last, AudioChunk):
            handed_ms += last.duration_ms
    end = time.perf_counter()
    timer.join()
    assert isinstance(last, TurnEnded)
    if last.reason != "interrupted":
        return None
    kept = engine.prompter.decode(last.text_ids[: ids_heard(engine, last.speech_ids, played_ms)])
    text = talk.messages[-1].text if talk.messages[-1].role == "assistant" else ""
    return Cut((end - called[0]) * 1e3, text == kept, next_ids(talk) == fresh_ids(engine, talk))


def uninterrupted_s(engine: Engine, options: dict[str, Any]) -> float:
    """How long the answer takes that `cut_in` interrupts."""
    begin = time.perf_counter()
    for _ in engine.conversation().stream(text=INTERRUPTED, **options):
        pass
    return time.perf_counter() - begin


def ids_heard(engine: Engine, speech_ids: list[int], played_ms: float) -> int:
    """Text ids up to the one beside the last speech group that began to be played; <|audio_bos|> is before them."""
    size = engine.config.group_size
    codes = [
        sum(0 <= i < engine.config.num_codes for i in speech_ids[at : at + size])
        for at in range(0, len(speech_ids), size)
    ]
    begins_ms = np.cumsum([0, *codes])[:-1] * 40
    begun = int((begins_ms < played_ms).sum())
    return 1 + begun if begun else 0


def next_ids(talk: Conversation) -> tuple[list[int], list[int]]:
    *_, last = talk.stream(text="Thank you.", greedy=True, max_steps=3)
    assert isinstance(last, TurnEnded)
    return last.text_ids, last.speech_ids


def fresh_ids(engine: Engine, talk: Conversation) -> tuple[list[int], list[int]]:
    """The newest turn again by an engine with nothing in its caches."""
    engine.loop.forget()
    reply = engine.answer(talk.messages[:-1], synthesize=False, greedy=True, max_steps=3)
    engine.loop.forget()
    return reply.text_ids, reply.speech_ids


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    names = {name: None for row in rows for name in row}  # a function call makes no sound
    return {name: median([row[name] for row in rows if name in row]) for name in names}


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--bundle", type=Path, help="default: nano, exported anew (needs facrt[export])")
    parser.add_argument(
        "--audio", type=Path, nargs="+", default=QUESTIONS, help="spoken questions that are answered aloud"
    )
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--steps", type=int, default=25, help="backbone steps of each answer (5 a second)")
    parser.add_argument("--interrupts", type=int, default=200, help="at random moments of answers")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    options = {"greedy": True, "max_steps": given.steps, "eos_token_id": -1}
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle
        if bundle is None:
            from facrt.export.pipeline import ExportRequest, export

            bundle = Path(folder) / "nano"
            export(ExportRequest("nano", bundle, verify=False))
        engine = load(bundle, num_threads=given.threads)
        spoken = questions(given.audio, given.questions)
        streamed(engine, spoken[0], options)
        rows = [streamed(engine, pcm, options) for pcm in spoken]
        long = np.resize(spoken[0], 10 * RATE_HZ)
        pairs = [(streamed(engine, long, options), whole(engine, long, options)) for _ in range(5)]
        random = np.random.default_rng(1)
        full = median([uninterrupted_s(engine, options) for _ in range(5)])
        moments = [(random.uniform(0, full), random.uniform(0, 1)) for _ in range(given.interrupts)]
        tried = [cut_in(engine, options, after_s, share) for after_s, share in moments]
        cuts = [cut for cut in tried if cut is not None]
    live, ten = medians(rows), medians([a for a, _ in pairs])
    at_once = medians([b for _, b in pairs])
    factor = median([row["speaking_ms"] / 1e3 / row["speech_seconds"] for row in rows if row["speech_seconds"]])
    checks = [
        check("end of speech to first audio", live["first_audio"], "ms", 300),
        check("end of speech to first text", live["first_text"], "ms", 150),
        check("real-time factor of speaking", factor, "ratio", 0.5),
        check("10 s question: first audio streamed / whole", ten["first_audio"] / at_once["done"], "ratio", 1 / 3),
        at_least("interrupts that came within an answer", len(cuts), "turns", given.interrupts // 2),
        check("interrupt to silence, longest", max((cut.silenced_ms for cut in cuts), default=0.0), "ms", 100),
        check("interrupts after which the history is not what was played", sum(not c.kept for c in cuts), "turns", 0),
        check("interrupts after which the next turn's ids differ", sum(not c.goes_on for c in cuts), "turns", 0),
    ]
    report = {
        "questions": len(rows), "seconds": [len(pcm) / RATE_HZ for pcm in spoken], "steps": given.steps,
        "median_ms": live, "interrupts": {"tried": len(tried), "in_time": len(cuts),
        "median_ms": median([cut.silenced_ms for cut in cuts]) if cuts else 0.0},
        "ten_seconds": {"streamed_ms": ten, "whole_ms": at_once}, "checks": checks,
    }  # fmt: skip
    finish(report, given.json)


if __name__ == "__main__":
    main()
