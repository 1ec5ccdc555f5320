"""Artifacts that many tests share: each bundle is exported once per run, whatever the number of workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from facrt.export.pipeline import ExportRequest, OpenModel, export
from facrt.runtime.engine import FORMS, Engine, load
from filelock import FileLock
from goldens import DETOKENIZER, LM, LM_CASES, S3, inputs, waveforms
from small import open_small

NUM_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
TORCH_THREADS = max(1, 2 // NUM_WORKERS)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(TORCH_THREADS)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """A folder by its name, made by the first worker that needs it; the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if NUM_WORKERS > 1 else base) / "shared"
    shared.mkdir(exist_ok=True)

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():  # an export appears whole or not at all
                make(shared / name)
        return shared / name

    return folder


@pytest.fixture(scope="session")
def golden_bundle(make_once: MakeOnce) -> Path:
    """The golden chat model with the golden detokenizer and speech tokenizer, fp32, cpu."""

    def make(out: Path) -> None:
        export(ExportRequest(str(LM / "model"), out, detokenizer=DETOKENIZER / "model", speech_tokenizer=S3 / "model"))

    return make_once("golden", make)


@pytest.fixture(scope="session")
def nano_bundle(make_once: MakeOnce) -> Path:
    """The model that ships, fp32, cpu."""
    return make_once("nano", lambda out: export(ExportRequest("nano", out, verify=False)))


@pytest.fixture(scope="session")
def golden_engine(golden_bundle: Path) -> Engine:
    return load(golden_bundle, max_positions=512)


@pytest.fixture(scope="session", params=FORMS)
def golden_engine_with_head(request: pytest.FixtureRequest, golden_bundle: Path) -> Engine:
    """The golden engine with each kind of speech head."""
    return load(golden_bundle, max_positions=512, backbone=request.param, speech_head=request.param)


@pytest.fixture
def talkative_engine(golden_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Every code is spoken, though the golden flow has fewer codes than the golden chat model."""
    monkeypatch.setattr(golden_engine.detokenizer, "codes", lambda ids: [i % 729 for i in ids if 0 <= i < 6561])
    return golden_engine


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """One layer of everything; the golden detokenizer."""
    return open_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def bundle_copy(golden_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def golden_wavs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The golden user audios as 16-bit WAV files, per case."""
    folder = tmp_path_factory.mktemp("wavs")
    files: dict[str, list[Path]] = {}
    for case in LM_CASES:
        files[case] = [folder / f"{case}_{i}.wav" for i in range(len(waveforms(case)))]
        for path, pcm in zip(files[case], waveforms(case), strict=True):
            soundfile.write(path, pcm, 16_000, subtype="PCM_16")
    return files


@pytest.fixture(scope="session")
def mixed_speech_ids() -> list[int]:
    """The ids of the `mixed` case's second audio, which has no waveform."""
    given = inputs(LM, "_mixed")
    return given["speech_ids"][1][given["speech_attention_mask"][1] == 1].tolist()


class Facrt:
    """The command line as a user runs it."""

    def __call__(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "facrt.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)

    def json(self, *arguments: object, cwd: Path | None = None) -> dict[str, Any]:
        result = self(*arguments, "--json", cwd=cwd)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def refusal(self, *arguments: object, cwd: Path | None = None) -> str:
        """The one line of a user's mistake."""
        result = self(*arguments, cwd=cwd)
        assert result.returncode == 2, (result.returncode, result.stderr)
        assert result.stdout == ""
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("facrt: ")
        return lines[0]


@pytest.fixture(scope="session")
def facrt() -> Facrt:
    return Facrt()


@pytest.fixture(scope="session")
def speaker() -> np.ndarray:
    """The golden speaker embedding [192]."""
    return inputs(DETOKENIZER, "_flow")["embedding"][0]
