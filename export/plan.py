"""What a device will do with a model, before there is either: memory, build, time, the recipe to take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..model.components import Cache, ModelConfig, components
from ..model.config_files import existing
from ..model.published import PUBLISHED
from ..quant.recipe import RECIPES, Wish
from ..quant.schemes import SCHEMES
from . import footprint, roofline
from .devices import Device
from .source import checkpoint_folder, companions, read_config

POSITIONS = 4096  # what the caches hold, as `facrt.load` makes them
REAL_TIME_SHARE = 0.8  # of real time that answering may take, so that other work is not heard


def read_source(source: str, detokenizer: Path | None = None, speech_tokenizer: Path | None = None) -> ModelConfig:
    """The configuration behind SOURCE: a checkpoint folder (its weights may be missing), nano, or a published model.

    Raises:
        CheckpointError: the folder, or one beside it, holds no readable configuration.
    """
    if source in PUBLISHED and not Path(source).is_dir():
        return PUBLISHED[source]
    folder = existing(checkpoint_folder(source)[0])
    return read_config(folder, *companions(folder, detokenizer, speech_tokenizer))


def plan(config: ModelConfig, device: Device, wish: Wish | None = None, positions: int = POSITIONS) -> dict[str, Any]:
    """The whole plan, ready for JSON.

    Args:
        config: what the checkpoint says of itself.
        device: a row.
        wish: the recipe to plan for; default: the one that is advised.
        positions: backbone positions that the caches hold.

    Returns:
        "device", "positions", "precision" (the recipe's name), "recipe" (component -> scheme), "memory"
        (`footprint.memory`), "total_bytes", "usable_bytes", "fits", "build" (`footprint.build`),
        "speech_ms_per_second" and "first_audio_parts_ms" (by component), "real_time_factor", "first_audio_ms",
        "recipes" (the named ones in short), "advised", "advice".

    Raises:
        RequestError: the wish names what does not exist or what the device cannot run, or positions is not positive.
    """
    if positions < 1:
        raise RequestError(f"positions is {positions}; 1 or more is needed")
    names = list(components(config, Cache("static")))
    if wish is not None:
        wish.refuse_impossible(tuple(name for name in SCHEMES if device.runs(name)), device.target)
    named = {name: Wish(name).recipe(names) for name in RECIPES if device.is_cpu or name != "fp32"}
    tried = {name: _measure(footprint.Setup(config, device, recipe), positions) for name, recipe in named.items()}
    advised = _advised(tried)
    name = wish.precision if wish is not None else advised or _smallest(tried)
    chosen = wish.recipe(names) if wish is not None else named[name]
    short = ("total_bytes", "fits", "real_time_factor", "first_audio_ms", "build")
    return {
        "device": _describe(device),
        "positions": positions,
        "precision": name,
        "recipe": chosen,
        **_measure(footprint.Setup(config, device, chosen), positions),
        "recipes": {name: {key: one[key] for key in short} for name, one in tried.items()},
        "advised": advised,
        "advice": _advice(tried, advised),
    }


def _describe(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "caption": device.caption,
        "target": device.target,
        "memory_bytes": device.memory_bytes,
        "reserved_bytes": device.reserved_bytes,
        "bytes_per_second": device.bandwidth,
        "macs_per_second": device.macs,
        "int8_macs_per_second": device.integer_macs,
        "sm": device.sm,
        "sources": {"memory": device.memory_source, "macs": device.macs_source},
    }


def _measure(setup: footprint.Setup, positions: int) -> dict[str, Any]:
    parts = footprint.memory(setup, positions)
    total, usable = footprint.total(parts), setup.device.memory_bytes - setup.device.reserved_bytes
    speech, first = (
        {name: roofline.milliseconds(setup, name, cost) for name, cost in costs(setup).items()}
        for costs in (roofline.speech_costs, roofline.first_audio_costs)
    )
    return {
        "memory": parts,
        "total_bytes": total,
        "usable_bytes": usable,
        "fits": total <= usable,
        "build": footprint.build(setup, usable),
        "speech_ms_per_second": speech,
        "real_time_factor": sum(speech.values()) / 1e3,
        "first_audio_parts_ms": first,
        "first_audio_ms": sum(first.values()),
    }


def _smallest(tried: Mapping[str, dict[str, Any]]) -> str:
    return min(tried, key=lambda name: tried[name]["total_bytes"])


def _advised(tried: Mapping[str, dict[str, Any]]) -> str | None:
    """The most precise recipe that fits and keeps up, else the fastest that fits; None: none can be built and held."""
    fitting = [name for name, one in tried.items() if one["fits"] and one["build"]["fits"] is not False]
    in_time = [name for name in fitting if tried[name]["real_time_factor"] <= REAL_TIME_SHARE]
    return in_time[0] if in_time else min(fitting, key=lambda name: tried[name]["real_time_factor"], default=None)


def _advice(tried: Mapping[str, dict[str, Any]], advised: str | None) -> str:
    if advised is None:
        name = _smallest(tried)
        one = tried[name]
        usable = f"{one['usable_bytes'] / 2**30:.1f} GiB"
        if one["fits"]:
            needed = f"{one['build']['bytes'] / 2**30:.1f} GiB"
            return f"{name} fits, but building it needs {needed} of {usable}: give the board swap while it builds"
        return f"nothing fits: {name} needs {one['total_bytes'] / 2**30:.1f} GiB of {usable}"
    factor = tried[advised]["real_time_factor"]
    if factor > 1:
        return f"{advised} fits, but takes {factor:.2f} s for a second of speech: answers would pause"
    if factor > REAL_TIME_SHARE:
        return f"{advised} just keeps up ({factor:.2f} of real time): other work on the device would be heard"
    return f"take {advised}: it fits and takes {factor:.2f} of real time"
