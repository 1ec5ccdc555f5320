"""Batches that other processes prepare are those that the training process would prepare itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facrt.train.audios import encode, lay_out
from facrt.train.compute import Compute
from facrt.train.loop import PreparingStage, run_stage
from facrt.train.run import Run


@pytest.mark.parametrize("name", ["encoder", "cocktail1"])
def test_workers_change_nothing(trained_run: Run, name: str, tmp_path: Path) -> None:
    losses = []
    for workers in (0, 2):
        stage, folder = trained_run.stage(name), tmp_path / str(workers)
        assert isinstance(stage, PreparingStage)
        schedule = trained_run.recipe.schedules[name]
        run_stage(stage, schedule, 3, folder, compute=Compute("cpu", accumulate=2, workers=workers))
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
        weights = torch.load(folder / "checkpoint.pt", weights_only=True)["module"]
        losses[-1].append({key: float(value.double().sum()) for key, value in weights.items()})
    assert losses[0] == losses[1]


def test_audios_of_all_lengths_at_once_are_those_one_by_one(trained_run: Run) -> None:
    """17 short windows are more than four binary digits hold, so one of no audio is added."""
    model = trained_run.base().eval()
    c = model.config.audio
    draw = torch.Generator().manual_seed(1)
    lengths = [1 + i % 8 for i in range(16)] + [c.window_frames - 1, c.window_frames, 2 * c.window_frames + 1]
    mels = [torch.randn(c.num_mels, length, generator=draw).half().float() for length in lengths]
    slots = [-(-length // 4) for length in lengths]
    with torch.inference_mode():
        batch = lay_out(mels, slots, c.window_frames, 5)
        assert sorted(len(frames) for frames in batch.frames) == [4, 18]
        rows = encode(model.audio_encoder, batch).split(batch.counts)
        for mel, found, count in zip(mels, rows, slots, strict=True):
            alone = lay_out([mel], [count], c.window_frames, 5)
            torch.testing.assert_close(found, encode(model.audio_encoder, alone), rtol=0, atol=1e-4)
            wanted = -(-mel.shape[1] // 2)
            assert len(found) == max(1, wanted // 2)
