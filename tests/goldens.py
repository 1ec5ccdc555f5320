"""The golden fixtures as the tests read them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
LM = GOLDEN / "lm"
DETOKENIZER = GOLDEN / "cosyvoice3"
S3 = GOLDEN / "s3tokenizer"


@cache
def meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


@cache
def inputs(folder: Path, name: str = "") -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"inputs{name}.npz"))


@cache
def expected(folder: Path, name: str = "") -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"expected{name}.npz"))


LM_CASES = tuple(meta(LM)["cases"])
LM_RUNS = tuple((case, run) for case in LM_CASES for run in meta(LM)["cases"][case]["runs"])


def lm_params(case: str, run: str) -> dict[str, Any]:
    return meta(LM)["cases"][case]["runs"][run]["params"]


def waveforms(case: str) -> list[np.ndarray]:
    """The case's user audios, int16 at 16 kHz."""
    given = inputs(LM, f"_{case}")
    return [given[f"wav{i}_int16"] for i in range(9) if f"wav{i}_int16" in given]


def audio_arguments(case: str) -> dict[str, np.ndarray]:
    given = inputs(LM, f"_{case}")
    return {k: given[k] for k in ("speech_ids", "speech_attention_mask", "feature_exist_mask") if k in given}
