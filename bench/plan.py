"""What `facrt plan --device this` predicts beside what this machine does: steps, groups, prompts, sound, memory.

facrt export nano --out bundle --precision int8; python bench/plan.py nano bundle --json
A slice of the real width: bench/make_checkpoint.py --layers 2 --speech-layers 8 --encoder-layers 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, check, finish, interleaved_ms, median, timed_ms
from facrt.export import footprint, roofline
from facrt.export.devices import this_device
from facrt.export.plan import read_source
from facrt.model.settings import GenerationSettings
from facrt.runtime.engine import Engine, load
from facrt.runtime.flow_stream import BlockPlan
from facrt.runtime.profile import resident_bytes
from facrt.runtime.sampling import SpeechSampling

PAST = 200  # backbone positions in the caches
SPEECH_TOKENS = 100  # of the utterance that is synthesized
OFF_BY = 1.5  # a plan is used to choose a board: within this factor
SAMPLING = GenerationSettings(repetition_penalty=1.2)
Checks = list[dict[str, Any]]


def compared(name: str, predicted: float, measured: float, unit: str, limit: float | None = OFF_BY) -> Checks:
    ratio = measured / predicted
    return [
        check(f"{name}, predicted", predicted, unit),
        check(f"{name}, measured", measured, unit),
        check(f"{name}, off by a factor of", max(ratio, 1 / ratio), "x", limit),
    ]


def generation_checks(engine: Engine, setup: footprint.Setup, rounds: int) -> Checks:
    """A backbone step and a group at `PAST` positions, and the prompt that leads there."""
    wide = engine.config.text.hidden_size
    rows = (np.random.default_rng(0).standard_normal((PAST, wide)) * 0.02).astype(np.float32)

    def prompt() -> None:
        engine.backbone.truncate(0)
        engine.backbone(rows)

    def step() -> None:
        engine.backbone.truncate(PAST)
        engine.backbone(rows[:1])

    def group() -> None:
        engine.speech_head.truncate(PAST)
        engine.speech_head.group(rows[0], SpeechSampling(SAMPLING))

    prompt()
    engine.speech_head.reset()
    engine.speech_head.prefill(rows, SpeechSampling(SAMPLING))
    ms = interleaved_ms({"step": step, "group": group}, rounds)
    ms["prompt"] = median([timed_ms(prompt) for _ in range(3)])
    group_ms = sum(roofline.milliseconds(setup, n, c) for n, c in roofline.group_costs(setup, PAST).items())
    step_ms = roofline.milliseconds(setup, "backbone", roofline.step_cost(setup, 1, PAST))
    prompt_ms = roofline.milliseconds(setup, "backbone", roofline.step_cost(setup, PAST, PAST // 2))
    return [
        *compared(f"backbone step at {PAST}", step_ms, ms["step"], "ms"),
        *compared(f"group at {PAST}", group_ms, ms["group"], "ms"),
        *compared(f"backbone, prompt of {PAST}", prompt_ms, ms["prompt"], "ms"),
    ]


def sound_checks(engine: Engine, setup: footprint.Setup) -> Checks:
    """The detokenizer's share of a second of speech, streamed."""
    detokenizer = engine.detokenizer
    if detokenizer is None:
        return []
    ids = np.random.default_rng(1).integers(0, 6561, SPEECH_TOKENS).tolist()
    speaker = np.array(engine.bundle.array("speakers")[0])

    def speak() -> None:
        stream = detokenizer.stream(speaker, BlockPlan((), 25, BlockPlan().left_frames))
        for i in range(0, SPEECH_TOKENS, 5):
            stream.push(ids[i : i + 5])
        stream.finish()

    speak()
    measured = median([timed_ms(speak) for _ in range(3)]) / (SPEECH_TOKENS / 25)
    costs = roofline.speech_costs(setup)
    predicted = sum(roofline.milliseconds(setup, name, costs[name]) for name in ("flow_estimator", "vocoder"))
    return compared("flow and vocoder, per second of speech", predicted, measured, "ms")


def memory_checks(setup: footprint.Setup, resident: int) -> Checks:
    """What the process holds once everything ran; tables are mapped, and only what is looked up is held."""
    parts = footprint.memory(setup, PAST) | {"tables": 0}
    return compared("resident memory", footprint.total(parts) / 2**20, resident / 2**20, "MiB")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("source", help="what the bundle was exported from")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    config = read_source(options.source)
    engine = load(options.bundle, max_positions=512, check_hashes=False)
    device = this_device()
    setup = footprint.Setup(config, device, engine.bundle.manifest.recipe)
    checks = generation_checks(engine, setup, options.rounds) + sound_checks(engine, setup)
    checks += memory_checks(setup, resident_bytes())
    after = this_device()
    checks.append(check("bandwidth at the end / at the beginning", after.bandwidth / device.bandwidth, "x"))
    row = {
        "gigabytes_per_s": device.bandwidth / 1e9,
        "gmacs": device.macs / 1e9,
        "int8_gmacs": device.integer_macs / 1e9,
    }
    finish({"source": options.source, "device": row, "recipe": setup.recipe, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
