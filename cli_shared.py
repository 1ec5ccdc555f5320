"""What all modules of the command line share."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from .errors import RequestError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def print_json(value: dict[str, Any]) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def scheme_overrides(items: list[str] | None) -> dict[str, str]:
    """The COMPONENT=SCHEME of every --set.

    Raises:
        RequestError: one is of another form.
    """
    overrides = {}
    for item in items or []:
        component, _, scheme = item.partition("=")
        if not (component and scheme):
            raise RequestError(f"--set {item!r} is not of the form COMPONENT=SCHEME")
        overrides[component] = scheme
    return overrides
