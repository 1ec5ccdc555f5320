"""Every scheme on the CPU in one run: bytes, errors, agreement under teacher forcing, speed.

    python bench/quantization.py CHECKPOINT --data HELD_OUT --work DIR --json

`--work` keeps the bundles, so that a second run only measures. `--data` names dataset folders (docs/TRAINING.md): the
users' recordings of the first conversations of each are what the bundles are compared on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, check, finish, interleaved_ms
from facrt.export.calibration import read_questions
from facrt.export.cost import measure_cost, packed_bytes_per_weight
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, checkpoint_folder, export
from facrt.model.checkpoint import load_chat
from facrt.model.settings import GenerationSettings
from facrt.runtime.audio import read_audio
from facrt.runtime.backend import Array
from facrt.runtime.engine import Engine, load
from facrt.runtime.sampling import SpeechSampling

# name -> recipe, overrides for every component that has Linear layers
LINEAR = ("audio_encoder", "audio_grouping", "backbone", "speech_upsampling", "speech_head", "flow_estimator")
SCHEMES = ("fp16", "int8", "int4_128", "int4_32", "awq_128", "awq_32", "w8a8")
AGREEMENT = {"int8": 0.99, "int4": 0.95}  # of speech tokens; asked of a trained model
BYTES = {8: 1.15, 4: 0.7}
CACHED = 50  # backbone positions before the steps that are timed


def recipes(names: list[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Bundle -> precision and overrides: each scheme on all Linear layers, and the two named recipes."""
    chosen: dict[str, tuple[str, dict[str, str]]] = {"fp32": ("fp32", {})}
    for name in names:
        base = "int8" if name not in ("fp16",) else "fp16"
        chosen[name] = (base, dict.fromkeys(LINEAR, name) if name not in ("fp16", "int8", "int4") else {})
    if "int4" in names:
        chosen["int4"] = ("int4", {})
    return chosen


def bundle(source: Path, folder: Path, precision: str, overrides: dict[str, str]) -> Path:
    if not (folder / "manifest.json").exists():
        has_flow = (source / "detokenizer").is_dir()
        kept = {name: scheme for name, scheme in overrides.items() if has_flow or name != "flow_estimator"}
        export(ExportRequest(str(source), folder, precision=precision, overrides=kept, verify=False))
    return folder


def held_out(folders: list[Path], count: int) -> list[Array]:
    """The users' recordings, 16 kHz: `count` of each dataset."""
    if not folders:
        return read_questions(None)[:count]
    from facrt.train.dataset import read_dataset

    spoken = []
    for folder in folders:
        messages = (message for conversation in read_dataset(folder) for message in conversation.messages)
        audio = (message.audio for message in messages if message.role == "user" and message.audio)
        spoken += [read_audio(path) for path in islice(audio, count)]
    return spoken


def calls(engine: Engine) -> dict[str, Callable[[], object]]:
    """What is timed: a backbone step, a native group, two seconds heard, two seconds from codes to sound."""
    wide, random = engine.config.text.hidden_size, np.random.default_rng(0)
    rows = random.standard_normal((CACHED, wide)).astype(np.float32)
    sampling = SpeechSampling(GenerationSettings())

    def step() -> None:
        engine.backbone.truncate(CACHED)
        engine.backbone(rows[:1])

    def group() -> None:
        engine.speech_head.truncate(CACHED)
        engine.speech_head.group(rows[0], sampling)

    engine.backbone.truncate(0)
    engine.backbone(rows)
    engine.speech_head.reset()
    engine.speech_head.prefill(rows, sampling)
    pcm = question(2.0)
    timed: dict[str, Callable[[], object]] = {
        "backbone step": step, "speech group": group, "hearing 2 s": lambda: engine.hearing.encode(pcm),
    }  # fmt: skip
    if engine.detokenizer is not None:
        codes = np.random.default_rng(1).integers(0, engine.config.num_codes, 50).tolist()
        timed["sound of 2 s"] = lambda: engine.synthesize(codes)
    return timed


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("source", nargs="?", default="nano", help="a checkpoint folder, or nano")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="held-out datasets; default: a few questions")
    parser.add_argument("--count", type=int, default=8, help="recordings compared, of each dataset")
    parser.add_argument("--work", type=Path, help="keeps the bundles")
    parser.add_argument("--schemes", nargs="+", default=[*SCHEMES, "int4"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--export-only", action="store_true", help="make the bundles and stop")
    options = parser.parse_args()
    questions = held_out(options.data, options.count)
    source, name = checkpoint_folder(options.source)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        folders = {n: bundle(source, work / n, *how) for n, how in recipes(options.schemes).items()}
        if options.export_only:
            return
        report = {"source": name, **compare(source, folders, questions, options.rounds, options.threads)}
    finish(report, options.json)


def compare(
    source: Path, folders: dict[str, Path], questions: list[Array], rounds: int, threads: int | None
) -> dict[str, Any]:
    """Speeds of all bundles in turn, then the cost of each; ready for JSON."""
    engines = {name: load(folder, num_threads=threads, max_positions=512) for name, folder in folders.items()}
    timed = {f"{what}, {name}": call for name, engine in engines.items() for what, call in calls(engine).items()}
    speeds = interleaved_ms(timed, rounds)
    chat = load_chat(source)
    detokenizer = source / "detokenizer" if (source / "detokenizer").is_dir() else None
    torch.set_num_threads(threads or torch.get_num_threads())
    costs, checks = {}, []
    for name, folder in folders.items():
        engine = load(folder, num_threads=threads, max_positions=512, backbone="onnx", speech_head="onnx")
        costs[name] = measure_cost(engine, chat, detokenizer, questions)
        checks += _checks(name, engine, costs[name], speeds, folder)
    return {"speeds_ms": speeds, "costs": costs, "checks": checks}


def _checks(
    name: str, engine: Engine, cost: dict[str, Any], speeds: dict[str, float], folder: Path
) -> list[dict[str, Any]]:
    recipe = engine.bundle.manifest.recipe
    rows = [check(f"{name}: bundle", engine.bundle.size_bytes / 2**20, "MiB")]
    for component in LINEAR:
        bits = 4 if recipe.get(component, "").startswith(("int4", "awq")) else 8
        if recipe.get(component) in ("int8", "int4_32", "int4_128", "awq_32", "awq_128"):
            size = packed_bytes_per_weight(folder / f"{component}.onnx")
            rows.append(check(f"{name}: {component}, bytes per weight", size, "B", BYTES[bits]))
    rows.append(check(f"{name}: text tokens that differ", 100 * (1 - cost["text_agreement"]), "%"))
    limit = 100 * (1 - AGREEMENT[name]) if name in AGREEMENT else None
    rows.append(check(f"{name}: speech tokens that differ", 100 * (1 - cost["speech_agreement"]), "%", limit))
    if "mel_l1" in cost:
        rows.append(check(f"{name}: mel", cost["mel_l1"], "nats"))
        rows.append(check(f"{name}: spectrum", cost["spectral_distance_db"], "dB"))
    rows += [check(key, value, "ms") for key, value in speeds.items() if key.endswith(f", {name}")]
    return rows


if __name__ == "__main__":
    main()
