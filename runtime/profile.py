"""Where a turn's time goes: its waterfall, every component's calls, memory, and power where the board tells it."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from .backend import Array
from .engine import Engine
from .events import AudioChunk, TurnEnded
from .metrics import PHASES
from .native_backbone import NativeBackbone
from .native_speech_head import NativeSpeechHead
from .tegrastats import sampled, summarize

FEED_SAMPLES = 320  # 20 ms


@dataclass(frozen=True, slots=True)
class Span:
    """One call of a component."""

    component: str
    start_ms: float  # since the first sample was fed
    duration_ms: float
    thread: str
    grown_bytes: int  # of the process's resident memory, meanwhile


class Recorder:
    """The calls of all components of an engine."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.started = time.perf_counter()

    def timed(self, component: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **options: Any) -> Any:
            before, start = resident_bytes(), time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                end = time.perf_counter()
                begin_ms, name = (start - self.started) * 1e3, threading.current_thread().name
                grown = resident_bytes() - before
                self.spans.append(Span(component, begin_ms, (end - start) * 1e3, name, grown))

        return recorded


class _Proxy:
    """An object some of whose methods are replaced."""

    def __init__(self, target: Any, **methods: Any) -> None:
        self.__dict__.update(methods, _target=target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


@contextmanager
def recording(engine: Engine) -> Iterator[Recorder]:
    """Notes every call of the engine's components while the block runs."""
    recorder, undo = Recorder(), []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    hearing, loop, head = engine.hearing, engine.loop, engine.speech_head
    put(hearing, "_encoder", recorder.timed("audio_encoder", hearing._encoder))
    put(hearing, "_grouping", recorder.timed("audio_grouping", hearing._grouping))
    put(loop, "_backbone", _Proxy(loop._backbone, call=recorder.timed("backbone", loop._backbone)))
    methods = {name: recorder.timed("speech_head", getattr(head, name)) for name in ("extend", "prefill", "group")}
    put(loop, "_speech_head", _Proxy(head, **methods))
    if engine.detokenizer is not None:
        graphs = {
            "front": "flow_front",
            "estimator": "flow_estimator",
            "source": "vocoder_source",
            "vocoder": "vocoder",
        }
        for attribute, component in graphs.items():
            graph = getattr(engine.detokenizer, attribute)
            put(engine.detokenizer, attribute, recorder.timed(component, graph))
    try:
        yield recorder
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def profile(engine: Engine, pcm: Array, **options: Any) -> dict[str, Any]:
    """One spoken turn: fed in pieces of 20 ms as fast as they are taken, then answered as a stream.

    Args:
        pcm: the question, 16 kHz float32 [N].
        options: as in `Conversation.stream`.

    Returns:
        {"question_seconds", "speech_seconds", "phases_ms" (since the end of the question), "real_time_factor",
        "components" (name -> calls, total_ms, median_ms, longest_ms, grown_bytes), "weights_bytes" (by component),
        "peak_resident_bytes", "tegrastats" (empty where there is none), "end_of_question_ms", "spans"}; times of spans
        count from the first sample fed.
    """
    talk, seconds, phases = engine.conversation(), 0.0, {}
    engine.loop.forget()
    with sampled() as samples, recording(engine) as recorder:
        for i in range(0, len(pcm), FEED_SAMPLES):
            talk.feed(pcm[i : i + FEED_SAMPLES])
        end_ms = (time.perf_counter() - recorder.started) * 1e3
        for event in talk.stream(**options):
            if isinstance(event, AudioChunk):
                seconds += event.duration_ms / 1e3
            elif isinstance(event, TurnEnded):
                phases = event.timings_ms
    return {
        "question_seconds": len(pcm) / 16_000,
        "speech_seconds": seconds,
        "phases_ms": {phase: phases[phase] for phase in PHASES if phase in phases},
        "real_time_factor": (phases["done"] - phases["heard"]) / 1e3 / seconds if seconds else None,
        "components": _by_component(recorder.spans),
        "weights_bytes": weights_bytes(engine),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "tegrastats": summarize(samples),
        "end_of_question_ms": end_ms,
        "spans": recorder.spans,
    }


def hummed_question(seconds: float = 3.3) -> Array:
    """A question without words, 16 kHz float32 [N]: gliding harmonics at the rate of syllables, and a little noise."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / 16_000
    voice = sum(np.sin(h * phase) / h for h in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(len(t)) * 1e-3
    return (voice * 0.1 * np.clip(np.sin(2 * np.pi * 2.1 * t), 0, None) + noise).astype(np.float32)


def _by_component(spans: list[Span]) -> dict[str, dict[str, float]]:
    rows: dict[str, list[Span]] = {}
    for span in spans:
        rows.setdefault(span.component, []).append(span)
    return {
        name: {
            "calls": len(calls),
            "total_ms": sum(span.duration_ms for span in calls),
            "median_ms": float(np.median([span.duration_ms for span in calls])),
            "longest_ms": max(span.duration_ms for span in calls),
            "grown_bytes": sum(max(0, span.grown_bytes) for span in calls),
        }
        for name, calls in rows.items()
    }


def weights_bytes(engine: Engine) -> dict[str, int]:
    """What each component's files weigh, in the form that runs, and tables."""
    manifest = engine.bundle.manifest
    native = {
        "backbone": isinstance(engine.backbone, NativeBackbone),
        "speech_head": isinstance(engine.speech_head, NativeSpeechHead),
    }
    stems = manifest.graphs | {name: file for name, file in manifest.native.items() if native[name]}
    stems |= {f"table {name}": entry.file for name, entry in manifest.tables.items()}
    return {
        name: sum(entry.size_bytes for file, entry in manifest.files.items() if file.startswith(stem))
        for name, stem in stems.items()
    }


def resident_bytes() -> int:
    """This process's resident memory now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def chrome_trace(report: dict[str, Any]) -> dict[str, Any]:
    """A report as a trace file of chrome://tracing and Perfetto."""
    threads = sorted({span.thread for span in report["spans"]})
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": i, "args": {"name": name}} for i, name in enumerate(threads)
    ]
    for span in report["spans"]:
        row = {"name": span.component, "ph": "X", "pid": 1, "tid": threads.index(span.thread)}
        events.append(row | {"ts": span.start_ms * 1e3, "dur": span.duration_ms * 1e3})
    for phase, ms in {"end of question": 0.0, **report["phases_ms"]}.items():
        at_us = (report["end_of_question_ms"] + ms) * 1e3
        events.append({"name": phase, "ph": "i", "s": "g", "pid": 1, "tid": 0, "ts": at_us})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def draw(report: dict[str, Any], path: Path) -> None:
    """A report as a picture: a lane per component, a line per phase.

    Raises:
        RequestError: Pillow is not installed, or the file cannot be written.
    """
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError:
        raise RequestError("Pillow is not installed; pictures need: pip install 'facrt[live]'") from None
    names = list(report["components"])
    width, left, lane = 1200, 150, 28
    height = lane * (len(names) + 3)
    begin = report["end_of_question_ms"] - 0.1 * report["phases_ms"]["done"]
    scale = (width - left - 20) / (report["end_of_question_ms"] + report["phases_ms"]["done"] - begin)
    image = Image.new("RGB", (width, height), "white")
    canvas = ImageDraw.Draw(image)
    for i, name in enumerate(names):
        y = lane * (i + 1)
        canvas.text((8, y + 6), name, fill="black")
        for span in report["spans"]:
            if span.component == name and span.start_ms + span.duration_ms > begin:
                x = left + max(0.0, span.start_ms - begin) * scale
                end = left + (span.start_ms + span.duration_ms - begin) * scale
                canvas.rectangle((x, y + 4, max(end, x + 1), y + lane - 4), fill=_COLORS[i % len(_COLORS)])
    for i, (phase, ms) in enumerate({"end of question": 0.0, **report["phases_ms"]}.items()):
        x = left + (report["end_of_question_ms"] + ms - begin) * scale
        canvas.line((x, 0, x, height - 1.5 * lane), fill="gray")
        canvas.text(
            (min(x + 2, width - 130), height - lane * (1.9 - 0.5 * (i % 3))), f"{phase} {ms:.0f} ms", fill="black"
        )
    try:
        image.save(path, format="PNG")
    except OSError as error:
        raise RequestError(f"{path} cannot be written ({error}); choose another --png") from None


_COLORS = ("#4472c4", "#70ad47", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5", "#264478", "#9e480e")
