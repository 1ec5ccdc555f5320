"""One spoken turn: milliseconds per backbone step and per refinement group, beside the PyTorch reference."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from common import arguments, check, finish, median
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, checkpoint_folder, export
from facrt.model.checkpoint import load_chat
from facrt.model.decoder import CachedAttention
from facrt.model.settings import SPEECH_SYSTEM_PROMPT, GenerationSettings
from facrt.model.speech_head import RefinementLoop
from facrt.runtime.engine import FORMS, Engine, load
from facrt.runtime.generate import Step
from facrt.runtime.prompt import Message

GREEDY = {"text_greedy": True, "force_text_abos": True, "eos_token_id": -1}


def reference_ms(source: Path, prompt: np.ndarray, pcm: np.ndarray, num_steps: int) -> dict[str, float]:
    """PyTorch's medians over the same steps, the backbone and the group timed apart."""
    chat = load_chat(source)
    ids = torch.from_numpy(prompt)
    with torch.inference_mode():
        cache, loop = CachedAttention(chat.config.text), RefinementLoop(chat.speech_head, chat.config)
        rows = chat.backbone.embedding(ids)
        hidden, _ = chat.backbone(chat.merge(ids, rows, chat.audio_rows([pcm])), cache)
        pick = lambda logits, _: int(logits.argmax())  # noqa: E731
        loop.prefill(hidden + rows, pick)
        backbone, group = [], []
        row = rows[-1:]
        for _ in range(num_steps):
            started = time.perf_counter()
            hidden, _ = chat.backbone(row, cache)
            stepped = time.perf_counter()
            loop.group(hidden + row, pick)
            backbone.append((stepped - started) * 1e3)
            group.append((time.perf_counter() - stepped) * 1e3)
    return {"backbone": median(backbone), "group": median(group)}


def growth(engine: Engine, prompt: np.ndarray, embeds: np.ndarray, num_steps: int) -> dict[str, float]:
    """What a turn's steps allocate: bindings made after the prefill, and Python memory kept per step."""
    marks: list[tuple[int, int]] = []

    def observe(_: Step) -> None:
        decoders = (engine.backbone, getattr(engine.speech_head, "decoder", None))
        made = sum(getattr(decoder, "num_bindings", 0) for decoder in decoders)  # C++ decoders bind nothing
        marks.append((made, tracemalloc.get_traced_memory()[0]))

    tracemalloc.start()
    engine.loop.run(prompt, embeds, GenerationSettings(max_new_tokens=num_steps, **GREEDY), observe)
    tracemalloc.stop()
    (first, _), (last, _) = marks[0], marks[-1]
    middle = len(marks) // 2
    return {"bindings": last - first, "kept": (marks[-1][1] - marks[middle][1]) / (len(marks) - 1 - middle)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("source", nargs="?", default="nano", help="a checkpoint folder, or nano")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", choices=FORMS, default=None)
    parser.add_argument("--speech-head", choices=FORMS, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source, name = checkpoint_folder(options.source)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export(ExportRequest(str(source), bundle, verify=False))
        forms = {"backbone": options.backbone, "speech_head": options.speech_head}
        engine = load(bundle, num_threads=options.threads, **forms)
        pcm = question()
        message = Message("user", None, pcm)
        prompt = engine.prompter.encode([Message("system", SPEECH_SYSTEM_PROMPT), message])
        embeds = engine.hearing.embed(message)
        settings = GenerationSettings(max_new_tokens=options.steps, **GREEDY)
        engine.loop.run(prompt, embeds, settings)
        timings = []
        for _ in range(3):
            engine.loop.forget()
            timings.append(engine.loop.run(prompt, embeds, settings)[1])
        reference = [reference_ms(source, prompt, pcm, options.steps) for _ in range(3)]
        kept = growth(engine, prompt, embeds, options.steps)
    backbone = median([median(t.backbone_ms) for t in timings])
    group = median([median(t.speech_head_ms) for t in timings])
    torch_backbone, torch_group = (median([r[k] for r in reference]) for k in ("backbone", "group"))
    checks = [
        check("backbone step, runtime", backbone, "ms"),
        check("backbone step, PyTorch", torch_backbone, "ms"),
        check("backbone step, runtime / PyTorch", backbone / torch_backbone, "ratio", 1.0),
        check("refinement group, runtime", group, "ms"),
        check("refinement group, PyTorch", torch_group, "ms"),
        check("refinement group, runtime / PyTorch", group / torch_group, "ratio", 1.0),
        check("prefill, runtime", median([t.prefill_ms for t in timings]), "ms"),
        check("bindings made by steps", kept["bindings"], "count", 0),
        check("Python memory kept per step", kept["kept"], "bytes", 4096),
    ]
    finish({"source": name, "positions": len(prompt), "steps": options.steps, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
