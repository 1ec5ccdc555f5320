"""`facrt plan`: what a device will do with a model, before it is bought or the model is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import Json, print_json, scheme_overrides
from .errors import RequestError


def plan(
    source: Annotated[
        str, typer.Argument(help="A checkpoint folder (config.json is enough), nano, or 8b: the published one.")
    ],
    device: Annotated[str, typer.Option(help="A board or card by its name, this for this CPU, or all for a table.")],
    precision: Annotated[str | None, typer.Option(help="A recipe: fp32, fp16, int8, int4. Default: advised.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="COMPONENT=SCHEME, may be repeated.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file, as for export.")] = None,
    detokenizer: Annotated[Path | None, typer.Option(help="A CosyVoice3 folder.")] = None,
    speech_tokenizer: Annotated[Path | None, typer.Option(help="An S3 tokenizer folder.")] = None,
    positions: Annotated[int, typer.Option(help="Backbone positions that the caches hold (5 per second).")] = 4096,
    json_: Json = False,
) -> None:
    """Tell what a device will do with a model: memory, build, speed, and the recipe to take."""
    from .export.devices import DEVICES, find_device
    from .export.plan import plan as make
    from .export.plan import read_source
    from .quant.recipe import Wish, read_wish
    from .report import print_plan, print_plans

    wish = None
    try:
        if precision or set_ or recipe:
            base = read_wish(recipe) if recipe else Wish()
            wish = Wish(precision or base.precision, {**base.overrides, **scheme_overrides(set_)})
        config = read_source(source, detokenizer, speech_tokenizer)
    except ModuleNotFoundError as error:  # YAML of a detokenizer; TOML of a recipe on Python 3.10
        raise RequestError(f"{error.name} is not installed; reading this needs: pip install 'facrt[export]'") from None
    rows = list(DEVICES.values()) if device == "all" else [find_device(device)]
    plans = [make(config, row, wish, positions) for row in rows]
    if json_:
        print_json({"source": source, "plans": plans} if device == "all" else {"source": source, **plans[0]})
    elif device == "all":
        print_plans(plans)
    else:
        print_plan(plans[0])
