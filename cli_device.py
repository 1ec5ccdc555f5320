"""Commands about bundles and the machine: inspect, doctor, build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_shared import Json
from .cli_shared import print_json as _print_json

BundleDir = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    for command in (build, inspect, doctor):
        app.command()(command)


def build(bundle: BundleDir, json_: Json = False) -> None:
    """Compile a bundle's graphs with TensorRT, on the device where the target asks for it."""
    from .export.build import build_plans
    from .report import export_progress, say

    with export_progress() as progress:
        manifest = build_plans(bundle, progress)
    plans = manifest.plans
    size = sum(manifest.files[plan.file].size_bytes for plan in plans.values())
    first = next(iter(plans.values()))
    say(f"{bundle}: {len(plans)} plans of {first.library} {first.version}, {size / 2**20:.1f} MiB")
    if json_:
        _print_json({"bundle": str(bundle), "size_bytes": size, **summary(manifest)})


def inspect(bundle: BundleDir, json_: Json = False) -> None:
    """Show what a bundle holds; all its files are checked."""
    from .report import print_bundle
    from .runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    if json_:
        _print_json({"bundle": str(bundle), "size_bytes": opened.size_bytes, **summary(opened.manifest)})
    else:
        print_bundle(opened)


def doctor(json_: Json = False) -> None:
    """Show what this machine has for facrt, and what is missing."""
    from .report import print_doctor
    from .runtime.doctor import examine

    findings = examine()
    if json_:
        _print_json(findings)
    else:
        print_doctor(findings)


def summary(manifest: Any) -> dict[str, Any]:
    """What `--json` says of a bundle."""
    return {
        "source": manifest.source,
        "target": manifest.target,
        "attention": manifest.attention,
        "facrt_version": manifest.facrt_version,
        "format_version": manifest.format_version,
        "recipe": manifest.recipe,
        "positions": manifest.positions,
        "plans": {
            name: {"library": plan.library, "version": plan.version, "capabilities": list(plan.capabilities)}
            for name, plan in manifest.plans.items()
        },
        "files": {name: entry.size_bytes for name, entry in manifest.files.items()},
        "speakers": list(manifest.speakers),
        "system": manifest.system,
        "sampling": manifest.sampling,
    }
