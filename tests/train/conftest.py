"""A tiny run with every stage trained for two steps, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_run
from facrt.train.run import Run, run_recipe


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Run:
    folder = tmp_path_factory.mktemp("tiny-run")
    recipe = tiny_run.recipe(folder)
    tiny_run.write_run_configs(folder, recipe)
    run = Run(recipe, folder, tiny_data)
    run_recipe(run)
    return run
