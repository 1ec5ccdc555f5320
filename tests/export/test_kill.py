"""An export that is killed leaves nothing or a whole bundle, and the next one mends what is left."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from unittest import mock

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


def export_slowly(out: Path) -> None:
    with mock.patch.object(pipeline, "write_graph", write_slowly):
        export(ExportRequest(str(LM / "model"), out, verify=False))


def test_killed_at_random_moments(tmp_path: Path) -> None:
    # children of a process that has run no thread: one forked from this one may find a lock that nobody will release
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload([__name__])
    out, draw = tmp_path / "bundle", random.Random(5)

    def begun() -> multiprocessing.process.BaseProcess:
        child = children.Process(target=export_slowly, args=(out,))
        child.start()
        return child

    begun().join()  # starts the server as well
    started = time.perf_counter()
    begun().join()
    whole_s = time.perf_counter() - started
    open_bundle(out)
    for moment in range(NUM_KILLS):
        if moment == NUM_KILLS // 2:  # from here on nothing is there to be replaced
            (out / "manifest.json").unlink()
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        child = begun()
        time.sleep(draw.uniform(0, whole_s))
        child.kill()
        child.join()
        if out.exists():
            open_bundle(out)
    begun().join()
    open_bundle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
