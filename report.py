"""What the command line shows on stderr: progress, tables, timings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .runtime.bundle import Bundle
from .runtime.engine import Reply

console = Console(stderr=True)


def say(line: str) -> None:
    """One line for the user."""
    console.print(escape(line), highlight=False)


@contextlib.contextmanager
def export_progress() -> Iterator[Callable[[str, str, int], None]]:
    """A line per component with its size, and a spinner for the one at work."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("opening the checkpoint", total=None)

        def show(stage: str, component: str, size_bytes: int) -> None:
            progress.update(task, description=f"{stage} {component}")
            if size_bytes:
                progress.console.print(f"  {component:<18} {size_bytes / 2**20:10.2f} MiB", highlight=False)

        yield show


@contextlib.contextmanager
def count_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of how much of a whole is done, with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_parity(report: dict[str, Any]) -> None:
    """The stage-by-stage table of `verify`."""
    if "skipped" in report:
        say(f"parity was not measured: {report['skipped']}")
        return
    table = Table(title="bundle against the PyTorch reference")
    for column in ("stage", "component", "largest error", "relative (L2)", "limit", ""):
        table.add_column(column, justify="right" if column not in ("stage", "component") else "left")
    for row in report["rows"]:
        limit = "-" if row["limit"] is None else f"{row['limit']:.0e}"
        verdict = ("ok" if row["ok"] else "FAILED") + row["note"]
        errors = ("-" if row[n] is None else f"{row[n]:.1e}" for n in ("max_abs_error", "relative_error"))
        table.add_row(row["stage"], row["component"], *errors, limit, verdict)
    console.print(table)
    for name, equal in report.items():
        if name.endswith("_equal"):
            say(f"{name.removesuffix('_equal').replace('_', ' ')}: {'equal' if equal else 'DIFFERENT'}")
    for name in report["not_compared"]:
        say(f"the {name} was not compared: name its folder with --{name.replace(' ', '-')} DIR")


def print_cost(cost: dict[str, Any]) -> None:
    """What quantization cost: a table of components, then tokens and sound."""
    table = Table(title="what quantization cost")
    for column in ("component", "scheme", "MiB", "bytes per weight", "of float32", "SQNR by layer [dB]"):
        table.add_column(column, justify="left" if column in ("component", "scheme") else "right")
    for name, row in cost["components"].items():
        layers = [f"{one['sqnr_db']:.0f}" for one in cost["layers"] if one["component"] == name]
        shown = " ".join(layers if len(layers) < 8 else [*layers[:3], "..", *layers[-3:]])
        size, share = f"{row['bytes'] / 2**20:.2f}", f"1/{row['compression']:.1f}"
        table.add_row(name, row["scheme"], size, f"{row['bytes_per_weight']:.2f}", share, shown)
    console.print(table)
    for kind in ("text", "speech"):
        share, count = cost[f"{kind}_agreement"], cost[f"num_{kind}_tokens"]
        say(f"{kind} tokens as the reference's, step by step on its own answers: {share:.1%} of {count}")
    if "mel_l1" in cost:
        say(
            f"mel {cost['mel_l1']:.3f} nats (relative {cost['mel_relative']:.1e}), waveform's spectrum "
            f"{cost['spectral_distance_db']:.2f} dB from the reference's"
        )


def print_timings(reply: Reply) -> None:
    """Where an answer's time went, in one line."""
    t = reply.timings
    say(
        f"  {t.total_ms:.0f} ms: hearing {t.encode_ms:.0f}, prefill {t.prefill_ms:.0f}, {t.num_steps} steps of "
        f"{t.backbone_step_ms:.1f} + {t.speech_group_ms:.1f}, voice {t.synthesize_ms:.0f}"
    )


def print_bundle(bundle: Bundle) -> None:
    """A bundle's components, on stdout."""
    manifest, out = bundle.manifest, Console()
    chat = manifest.model.chat
    out.print(
        f"{bundle.folder}: {manifest.source} for {manifest.target}, {bundle.size_bytes / 2**20:.1f} MiB, "
        f"facrt {manifest.facrt_version}, attention {manifest.attention}",
        highlight=False,
    )
    out.print(
        f"backbone {chat.text.num_layers} x {chat.text.hidden_size}, speech head {chat.speech.num_layers} x "
        f"{chat.speech.hidden_size}, group size {chat.group_size}, codebook {chat.codebook_size}",
        highlight=False,
    )
    table = Table()
    for column in ("component", "what it does", "precision", "MiB"):
        table.add_column(column, justify="right" if column == "MiB" else "left")
    for name, component in bundle.components.items():
        stem = manifest.graphs[name]
        size = sum(entry.size_bytes for file, entry in manifest.files.items() if file.startswith(stem))
        table.add_row(name, component.caption, manifest.recipe[name], f"{size / 2**20:.2f}")
    for name, entry in manifest.tables.items():
        table.add_row(
            name, f"table {list(entry.shape)}", entry.dtype, f"{manifest.files[entry.file].size_bytes / 2**20:.2f}"
        )
    out.print(table)


def print_doctor(findings: dict[str, Any]) -> None:
    """The findings of `doctor`, on stdout."""
    out = Console()
    table = Table(show_header=False)
    for name in ("facrt", "python", "machine", "processor", "cores", "native_module"):
        table.add_row(name, str(findings[name]))
    memory = findings["memory_available_bytes"]
    table.add_row("memory available", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB")
    table.add_row("ONNX Runtime providers", ", ".join(findings["onnxruntime_providers"]))
    for name, version in findings["packages"].items():
        missing = f"not installed: {findings['install'].get(name, 'reinstall facrt')}"
        table.add_row(name, escape(version or missing))
    out.print(table)
    out.print("bundles for the CPU can run here" if findings["ok"] else "bundles cannot run here", highlight=False)
