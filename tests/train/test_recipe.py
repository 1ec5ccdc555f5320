"""Recipes are read strictly; every fault is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from facrt.errors import RequestError
from facrt.train.recipe import RECIPES, STAGES, read_recipe


def test_the_shipped_recipe() -> None:
    recipe = read_recipe("nano")
    assert set(recipe.schedules) == set(STAGES)
    assert all(schedule.steps > 0 for schedule in recipe.schedules.values())
    assert 0 < recipe.alpha < 1


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[stages.flow]", "[stages.flo]", "stages.flow is missing; stages.flo is unknown"),
        ("seed = 1", "", "seed is missing"),
        ("alpha = 0.5", "alpha = 1.5", "cocktail.alpha is needed, 0 to 1"),
        ("words_held = true", "words_held = 1", "cocktail.words_held is needed, true or false"),
        ("words_held = true", "words_held = true\nbeta = 1", "cocktail.beta is unknown"),
        ("frames = 32", "", "stages.vocoder.frames is missing"),
        ("wave_weight = 1.0", "wave_weight = 1.0\nwidth = 3", "stages.vocoder.width is unknown"),
        ("wave_weight = 1.0", "wave_weight = 1.0\noptimizer = 'sgd'", "vocoder.optimizer is 'sgd'; adamw, muon are"),
        ("read_aloud = 10000", "aloud = 10000", "data.read_aloud is missing; data.aloud is unknown"),
        ("[mix]", "[mixture]", "mix is missing; mixture is unknown"),
        ("seed = 1", "seed = ", "is no TOML"),
        ("seed = 1", "seed = 1\n[compute]\ndevice = 'gpu'\naccumulate = 0", "'gpu'; auto, cpu, cuda .*; 1 or more"),
        ("seed = 1", "seed = 1\n[compute]\ndtype = 'fp16'", "'fp16'; fp32, bf16 are allowed"),
        ("seed = 1", "seed = 1\n[compute]\ngradient_checkpointing = 1", "true or false"),
        ("seed = 1", "seed = 1\n[compute]\nworkers = -1", "compute.workers is -1; 0 or more is needed"),
        ("seed = 1", "seed = 1\n[compute]\nprecision = 'bf16'", "compute.precision is unknown"),
        ("seed = 1", "compute = 3\nseed = 1", "compute is no table"),
    ],
)
def test_faults(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = (RECIPES / "nano.toml").read_text()
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(RequestError, match=complaint):
        read_recipe(tmp_path / "r.toml")


def test_a_missing_recipe_lists_those_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="one of 8b, nano"):
        read_recipe(tmp_path / "nowhere.toml")
