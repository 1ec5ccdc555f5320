"""A recipe: model shapes, stages and their schedules, read strictly from TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .compute import Compute
from .loop import Schedule
from .optimizer import OPTIMIZERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
STAGES = ("tokenizer", "flow", "vocoder", "pitch", "text", "encoder", "alignment", "cocktail1", "cocktail2")
SHAPES = ("speech_tokenizer", "flow", "hift", "text_tokenizer", "chat", "backbone", "speech_head")
CHAT_STAGES = STAGES[-3:]  # what a checkpoint is trained by that is there already
TABLES = ("cocktail", "mix", "stages")
NEW_MODEL_TABLES = ("data", *SHAPES)  # all or none; none: the recipe trains a checkpoint
OPTIONAL = ("compute",)
DATA_KEYS = ("train", "read_aloud", "splices", "workers")
COCKTAIL_KEYS = ("alpha", "words_held")
COMPUTE_KEYS = tuple(field.name for field in fields(Compute))
SCHEDULE_KEYS = tuple(field.name for field in fields(Schedule))
EXTRA_KEYS = {"tokenizer": ("decoder_layers",), "vocoder": ("frames", "wave_weight"), "pitch": ("frames",),
              "text": ("questions", "shares", "practice"), "encoder": ("placed_steps",)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run gives, but the data."""

    seed: int
    data: Mapping[str, int]
    shapes: Mapping[str, Mapping[str, Any]]  # none where a checkpoint is trained
    schedules: Mapping[str, Schedule]  # of the stages, in order
    extras: Mapping[str, Mapping[str, Any]]  # a stage's own settings
    alpha: float
    words_held: bool  # the spoken stages leave the text table's rows of words as the base model's
    mix: Mapping[str, float]
    compute: Compute


def read_recipe(path: Path | str) -> Recipe:
    """Reads a TOML file, or a recipe that ships with facrt by its name.

    Raises:
        RequestError: no such file, no TOML, or keys that are unknown, missing or of the wrong kind; all are listed.
    """
    shipped = RECIPES / f"{path}.toml"
    path = shipped if shipped.exists() else Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RequestError(f"{path} cannot be read; a TOML file, or one of {names}, is needed") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is no TOML: {error}") from None
    faults = _faults(raw)
    if faults:
        raise RequestError(f"{path}: {'; '.join(faults)}")
    stages = raw["stages"]
    return Recipe(
        seed=raw["seed"],
        data=raw.get("data", {}),
        shapes={name: raw[name] for name in SHAPES if name in raw},
        schedules={name: _schedule(stages[name], EXTRA_KEYS.get(name, ())) for name in STAGES if name in stages},
        extras={name: {key: stages[name][key] for key in EXTRA_KEYS.get(name, ())} for name in stages},
        alpha=raw["cocktail"]["alpha"],
        words_held=raw["cocktail"]["words_held"],
        mix=raw["mix"],
        compute=Compute(**raw.get("compute", {})),
    )


def _faults(raw: Mapping[str, Any]) -> list[str]:
    is_new = any(name in raw for name in NEW_MODEL_TABLES)
    wanted: tuple[str, ...] = (*NEW_MODEL_TABLES, *TABLES) if is_new else TABLES
    faults = [f"{name} is missing" for name in ("seed", *wanted) if name not in raw]
    faults += [f"{name} is unknown" for name in raw if name not in ("seed", *wanted, *OPTIONAL)]
    faults += [f"{name} is no table" for name in (*wanted, *OPTIONAL) if not isinstance(raw.get(name, {}), dict)]
    if faults:
        return faults
    if is_new:
        faults += [f"data.{key} is missing" for key in DATA_KEYS if key not in raw["data"]]
        faults += [f"data.{key} is unknown" for key in raw["data"] if key not in DATA_KEYS]
    stages = raw["stages"]
    trained: tuple[str, ...] = STAGES if is_new else CHAT_STAGES
    faults += [f"stages.{name} is missing" for name in trained if name not in stages]
    faults += [f"stages.{name} is unknown" for name in stages if name not in trained]
    for name in set(stages) & set(trained):
        allowed = (*SCHEDULE_KEYS, *EXTRA_KEYS.get(name, ()))
        needed = ("steps", "batch_size", "lr", "final_lr", "warmup", *EXTRA_KEYS.get(name, ()))
        faults += [f"stages.{name}.{key} is missing" for key in needed if key not in stages[name]]
        faults += [f"stages.{name}.{key} is unknown" for key in stages[name] if key not in allowed]
        chosen = stages[name].get("optimizer", OPTIMIZERS[0])
        if chosen not in OPTIMIZERS:
            faults.append(f"stages.{name}.optimizer is {chosen!r}; {', '.join(OPTIMIZERS)} are allowed")
    if not 0 <= raw["cocktail"].get("alpha", -1) <= 1:
        faults.append("cocktail.alpha is needed, 0 to 1")
    if not isinstance(raw["cocktail"].get("words_held"), bool):
        faults.append("cocktail.words_held is needed, true or false")
    faults += [f"cocktail.{key} is unknown" for key in raw["cocktail"] if key not in COCKTAIL_KEYS]
    return faults + _compute_faults(raw.get("compute", {}))


def _compute_faults(raw: Mapping[str, Any]) -> list[str]:
    unknown = [f"compute.{key} is unknown" for key in raw if key not in COMPUTE_KEYS]
    return unknown or Compute(**raw).faults()


def _schedule(raw: Mapping[str, Any], extras: tuple[str, ...]) -> Schedule:
    values = {key: value for key, value in raw.items() if key not in extras}
    if "betas" in values:
        values["betas"] = tuple(values["betas"])
    return Schedule(**values)
