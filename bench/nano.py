"""The quality of a bundle of nano on held-out conversations: right words, right tool calls, intelligible speech."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from common import arguments, at_least, check, finish, median
from facrt.errors import FacrtError, RequestError
from facrt.report import count_progress
from facrt.runtime.audio import checked_pcm, read_audio
from facrt.runtime.engine import Engine, load
from facrt.runtime.prompt import Message
from facrt.train.dataset import Conversation, SpokenMessage, read_dataset
from facrt.train.intents import Split
from facrt.train.judge import Share, Verdict, judge, share, written
from facrt.train.make import DataRequest, make_dataset

MAX_STEPS = 256
CODES_PER_SECOND = 25
SPLITS = (Split.VALIDATION, Split.UNSEEN_SLOTS, Split.UNSEEN_PHRASINGS, Split.UNSEEN_VOICES)
WANTED = {Split.UNSEEN_SLOTS: 0.95, Split.UNSEEN_VOICES: 0.95, Split.UNSEEN_PHRASINGS: 0.80}
WANTED_CALLS, WANTED_RETRIEVAL, RECOGNIZER_LOSS = 0.95, 0.97, 0.06


@dataclass(frozen=True, slots=True)
class Mode:
    """How a question comes in and its answer goes out."""

    caption: str
    spoken_question: bool
    spoken_answer: bool


SPOKEN = Mode("speech to speech", True, True)
MODES = (SPOKEN, Mode("speech to text", True, False), Mode("text to speech", False, True),
         Mode("text to text", False, False))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """One turn of one conversation."""

    right: SpokenMessage
    text: str
    verdict: Verdict
    speech_ids: list[int]


def held_out(cache: Path, split: Split, count: int, seed: int) -> list[Conversation]:
    """A split's conversations, made once; a larger count continues what is there."""
    folder = cache / f"{split.value}-{seed}"
    with count_progress(f"speaking {split.value}") as progress:
        make_dataset(DataRequest(folder, split, count, seed), progress)
    return list(read_dataset(folder))


def answers(engine: Engine, conversation: Conversation, mode: Mode) -> Iterator[Answered]:
    """Each turn answered after the right history."""
    history = list(engine.conversation(speech=mode.spoken_answer).messages)
    for user, right in zip(conversation.messages[::2], conversation.messages[1::2], strict=True):
        assert user.audio is not None
        heard = Message("user", None, read_audio(user.audio)) if mode.spoken_question else Message("user", user.text)
        history.append(heard)
        reply = engine.answer(history, speech=mode.spoken_answer, greedy=True, max_steps=MAX_STEPS, synthesize=False)
        yield Answered(right, reply.text, judge(reply.text, right), reply.speech_ids)
        history.append(Message("assistant", written(right)))


def answer_all(engine: Engine, conversations: list[Conversation], mode: Mode) -> list[Answered]:
    found: list[Answered] = []
    with count_progress(mode.caption) as progress:
        for number, conversation in enumerate(conversations, start=1):
            found.extend(answers(engine, conversation, mode))
            progress(number, len(conversations))
    return found


def summary(split: Split, mode: Mode, found: list[Answered], engine: Engine) -> dict[str, Any]:
    """A split's counts in a mode, said as soon as they are there."""
    verdicts = [one.verdict for one in found]
    answers, calls = share(v.words for v in verdicts), share(v.call for v in verdicts if v.call is not None)
    ratios = duration_ratios(engine, found) if mode.spoken_answer else []
    sys.stderr.write(f"{split.value:<17} {mode.caption:<17} answers {answers}   tool calls {calls}\n")
    return {
        "split": split.value,
        "mode": mode.caption,
        "answers": answers,
        "calls": calls,
        "whole": share(v.right for v in verdicts),
        "undue_calls": sum(v.undue_call for v in verdicts),
        "median_duration_ratio": median(ratios) if ratios else None,
    }


def duration_ratios(engine: Engine, found: list[Answered]) -> list[float]:
    """Seconds of speech over those of the reference, of answers whose words are right."""
    ratios = []
    for one in found:
        if one.verdict.words and one.right.audio is not None:
            seconds = sum(i < engine.config.num_codes for i in one.speech_ids) / CODES_PER_SECOND
            ratios.append(seconds / soundfile.info(one.right.audio).duration)
    return ratios


def voice(engine: Engine, spoken: list[list[Answered]], count: int, seed: int, cache: Path) -> dict[str, Any]:
    """Judges what is heard in answers whose words are right, of the splits in turn."""
    from facrt.train.listen import NUM_CANDIDATES, Listener

    in_turn = (one for one in chain.from_iterable(zip_longest(*spoken)) if one is not None and one.verdict.words)
    judged = list(islice(in_turn, count))
    with count_progress("speaking candidates") as progress:
        listener = Listener([one.right.text or "" for one in judged], seed, cache / "candidates", progress)
    heard, ceiling = [], []
    with count_progress("listening") as progress:
        for index, one in enumerate(judged):
            heard.append(listener.listen(index, sound(engine, one)))
            ceiling.append(listener.listen(index, listener.original(index)))
            progress(index + 1, len(judged))
    says = [one.says(text) for one, text in zip(heard, listener.texts, strict=True)]
    return {
        "judged": len(judged),
        "candidates": NUM_CANDIDATES,
        "retrieval": share(nearest for nearest, _ in says),
        "median_margin": median([one.retrieval.margin for one in heard]) if heard else 0.0,
        "recognizer": share(recognized for _, recognized in says),
        "recognizer_on_originals": share(
            one.recognized == text for one, text in zip(ceiling, listener.texts, strict=True)
        ),
    }


def sound(engine: Engine, one: Answered) -> np.ndarray:
    """An answer's sound at 16 kHz; a tenth of a second of silence where it has none."""
    assert engine.detokenizer is not None
    wave = engine.synthesize(one.speech_ids)
    wave = wave if len(wave) else np.zeros(engine.detokenizer.sample_rate // 10, np.float32)
    return checked_pcm(wave, engine.detokenizer.sample_rate, "the answer")


def judged_checks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is wanted of spoken questions; tool calls over the splits whose phrasings were trained."""
    spoken = {row["split"]: row for row in rows if row["mode"] == SPOKEN.caption}
    checks = [
        at_least(f"right answers, {split.value}", spoken[split.value]["answers"].value, "share", wanted)
        for split, wanted in WANTED.items()
    ]
    calls = [spoken[split.value]["calls"] for split in (Split.UNSEEN_SLOTS, Split.UNSEEN_VOICES)]
    right, total = sum(c.right for c in calls), sum(c.total for c in calls)
    return [
        *checks,
        at_least("right tool calls, unseen slots and voices", right / max(total, 1), "share", WANTED_CALLS),
    ]


def voice_checks(heard: dict[str, Any]) -> list[dict[str, Any]]:
    loss = heard["recognizer_on_originals"].value - heard["recognizer"].value
    return [
        at_least("answers judged by ear", heard["judged"], "count", 1),
        at_least("nearest candidate is the answer", heard["retrieval"].value, "share", WANTED_RETRIEVAL),
        check("recognizer, below its score on the originals", loss, "share", RECOGNIZER_LOSS),
    ]


def log_turns(path: Path, row: dict[str, Any], found: list[Answered]) -> None:
    with path.open("a", encoding="utf-8") as log:
        for one in found:
            turn = {"split": row["split"], "mode": row["mode"], "right": written(one.right), "answer": one.text}
            log.write(json.dumps({**turn, **asdict(one.verdict)}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--per-split", type=int, default=100, help="conversations of each split")
    parser.add_argument("--seed", type=int, default=0, help="of the conversations")
    parser.add_argument("--voice", type=int, nargs="?", const=100, default=0, help="judge this many answers by ear")
    parser.add_argument("--cache", type=Path, default=Path("out/bench-nano"), help="where the speech is kept")
    parser.add_argument("--log", type=Path, help="JSON lines to add every answer to")
    parser.add_argument("--threads", type=int, help="default: the CPU cores at hand")
    options = parser.parse_args()
    engine = load(options.bundle, num_threads=options.threads)
    if options.voice and engine.detokenizer is None:
        raise RequestError(f"{options.bundle} has no detokenizer: its voice cannot be judged")
    rows, spoken = [], []
    for split in SPLITS:
        conversations = held_out(options.cache, split, options.per_split, options.seed)
        for mode in MODES:
            found = answer_all(engine, conversations, mode)
            rows.append(summary(split, mode, found, engine))
            if mode is SPOKEN and split in WANTED:
                spoken.append(found)
            if options.log:
                log_turns(options.log, rows[-1], found)
    checks, heard = judged_checks(rows), None
    if options.voice:
        heard = voice(engine, spoken, options.voice, options.seed, options.cache)
        checks += voice_checks(heard)
    result = {"bundle": str(options.bundle), "per_split": options.per_split, "seed": options.seed, "results": rows,
              "voice": heard, "checks": checks}  # fmt: skip
    finish(as_json(result), options.json)


def as_json(value: Any) -> Any:
    """Shares as objects."""
    if isinstance(value, Share):
        return {**asdict(value), "value": value.value}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; judging needs: pip install 'facrt[judge]'")
    except FacrtError as error:
        sys.exit(f"{error}")
