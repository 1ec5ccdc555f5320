"""An export that is killed leaves nothing or a whole bundle, and the next one mends what is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from facrt.export import pipeline
from facrt.export.pipeline import ExportRequest, export
from facrt.runtime.bundle import open_bundle
from goldens import LM

NUM_KILLS = 20
CHUNKS, CHUNK_BYTES, PAUSE_S = 4, 4096, 0.002


def write_slowly(_model: object, component: object, _scheme: str, _target: object, path: Path, _: object) -> int:
    """Stands for a graph: the same files, without the tracing, which writes nothing."""
    with path.open("wb") as file:
        for _ in range(CHUNKS):
            file.write(os.urandom(CHUNK_BYTES))
            file.flush()
            time.sleep(PAUSE_S)
    return CHUNKS * CHUNK_BYTES


def in_a_child(out: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # the parent's threads did not come along
            export(ExportRequest(str(LM / "model"), out, verify=False))
        finally:
            os._exit(0)
    return child


def test_killed_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "write_graph", write_slowly)
    out, draw = tmp_path / "bundle", random.Random(5)
    started = time.perf_counter()
    os.waitpid(in_a_child(out), 0)
    whole_s = time.perf_counter() - started
    open_bundle(out)
    for moment in range(NUM_KILLS):
        if moment == NUM_KILLS // 2:  # from here on nothing is there to be replaced
            (out / "manifest.json").unlink()
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        child = in_a_child(out)
        time.sleep(draw.uniform(0, whole_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if out.exists():
            open_bundle(out)
    export(ExportRequest(str(LM / "model"), out, verify=False))
    open_bundle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
