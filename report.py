"""What the command line shows on stderr: progress, tables, timings."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .runtime.bundle import Bundle
from .runtime.conversation import Conversation
from .runtime.engine import Reply
from .runtime.metrics import PHASES

console = Console(stderr=True)


class HasLevel(Protocol):
    level_db: float  # below full scale


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


@contextlib.contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a longer work, one below the other."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.completed:>6.0f} of {task.total:.0f}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


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


@contextlib.contextmanager
def chat_meter(ears: HasLevel, talk: Conversation) -> Iterator[None]:
    """The microphone's level and what the conversation is doing, in one line of a terminal."""
    bar = BarColumn(bar_width=30)
    with Progress(
        TextColumn("{task.description}"), bar, console=console, transient=True, auto_refresh=False
    ) as progress:
        task, over = progress.add_task("", total=60), threading.Event()

        def show() -> None:
            while not over.wait(0.1):
                doing = "speaking " if talk.is_answering else "hearing  " if talk.fed_ms else "listening"
                progress.update(task, description=doing, completed=max(0.0, ears.level_db + 60), refresh=True)

        thread = threading.Thread(target=show, daemon=True)
        if console.is_terminal:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.is_alive():
                thread.join()


def print_turn(reason: str, timings_ms: Mapping[str, float]) -> None:
    """How an answer ended, and when its phases were reached."""
    phases = ", ".join(f"{phase.replace('_', ' ')} {ms:.0f}" for phase, ms in timings_ms.items())
    say(f"  {reason}{': ms ' if phases else ''}{phases}")


def print_profile(report: Mapping[str, Any]) -> None:
    """A turn's phases and components."""
    phases = Table(
        title=f"a question of {report['question_seconds']:.1f} s, {report['speech_seconds']:.1f} s of answer"
    )
    phases.add_column("phase")
    phases.add_column("ms since the end of the question", justify="right")
    for phase, ms in report["phases_ms"].items():
        phases.add_row(PHASES[phase], f"{ms:.1f}")
    console.print(phases)
    table = Table()
    for column in ("component", "calls", "ms in all", "median", "longest", "MiB grown", "MiB of weights"):
        table.add_column(column, justify="left" if column == "component" else "right")
    for name, row in report["components"].items():
        times = (f"{row[key]:.1f}" for key in ("total_ms", "median_ms", "longest_ms"))
        weights = report["weights_bytes"].get(name, 0) / 2**20
        table.add_row(name, f"{row['calls']:.0f}", *times, f"{row['grown_bytes'] / 2**20:.1f}", f"{weights:.1f}")
    console.print(table)
    factor = report["real_time_factor"]
    say(f"real-time factor {'-' if factor is None else f'{factor:.3f}'}, "
        f"peak resident memory {report['peak_resident_bytes'] / 2**20:.0f} MiB")  # fmt: skip
    for rail, power in report["tegrastats"].get("power_mw", {}).items():
        say(f"{rail}: {power['mean'] / 1e3:.1f} W, at most {power['peak'] / 1e3:.1f} W")


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
    if manifest.plans:
        plan = next(iter(manifest.plans.values()))
        size = sum(manifest.files[one.file].size_bytes for one in manifest.plans.values())
        numbers = sorted({number for one in manifest.plans.values() for number in one.capabilities})
        out.print(
            f"{len(manifest.plans)} plans of {plan.library} {plan.version} for "
            f"{', '.join(f'SM{number}' for number in numbers)}, {size / 2**20:.1f} MiB",
            highlight=False,
        )
    table = Table()
    for column in ("component", "what it does", "precision", "MiB"):
        table.add_column(column, justify="right" if column == "MiB" else "left")
    for name, component in bundle.components.items():
        if name not in manifest.graphs:
            continue
        stem = manifest.graphs[name]
        size = sum(entry.size_bytes for file, entry in manifest.files.items() if file.startswith(stem))
        table.add_row(name, component.caption, manifest.recipe[name], f"{size / 2**20:.2f}")
    for name, file in manifest.native.items():
        size, precision = manifest.files[file].size_bytes, "" if name in manifest.graphs else manifest.recipe[name]
        table.add_row(f"{name}, native", bundle.components[name].caption, precision, f"{size / 2**20:.2f}")
    for name, entry in manifest.tables.items():
        table.add_row(
            name, f"table {list(entry.shape)}", entry.dtype, f"{manifest.files[entry.file].size_bytes / 2**20:.2f}"
        )
    out.print(table)


def print_plan(plan: Mapping[str, Any]) -> None:
    """One device's plan, on stdout."""
    out, device, memory = Console(), plan["device"], plan["memory"]
    out.print(
        f"{device['caption']}, {device['bytes_per_second'] / 1e9:.0f} GB/s, target {device['target']}", highlight=False
    )
    table = Table(title=f"memory, caches for {plan['positions']} positions")
    for column in ("part", "scheme", "GiB"):
        table.add_column(column, justify="right" if column == "GiB" else "left")
    rows = [(name, plan["recipe"][name], size) for name, size in memory["weights"].items()]
    rows += [(f"cache of {name}", "", size) for name, size in memory["caches"].items()]
    names = {"tables": "embedding tables", "workspace": "activations", "runtime": "runtime"}
    for name, scheme, size in [*rows, *((label, "", memory[part]) for part, label in names.items())]:
        table.add_row(name, scheme, f"{size / 2**30:.2f}")
    table.add_row(
        f"all, of {plan['usable_bytes'] / 2**30:.1f} usable", "", f"{plan['total_bytes'] / 2**30:.2f}", style="bold"
    )
    out.print(table)
    if memory["host"]:
        out.print(f"beside it, in the computer's memory: tables of {memory['host'] / 2**30:.2f} GiB", highlight=False)
    times = Table(title="time")
    for column in ("component", "ms per second of speech", "ms to the first sound"):
        times.add_column(column, justify="left" if column == "component" else "right")
    speech, first = plan["speech_ms_per_second"], plan["first_audio_parts_ms"]
    for name in dict.fromkeys([*first, *speech]):
        times.add_row(name, *(f"{part[name]:.1f}" if name in part else "-" for part in (speech, first)))
    times.add_row("all", f"{1e3 * plan['real_time_factor']:.0f}", f"{plan['first_audio_ms']:.0f}", style="bold")
    out.print(times)
    if "flow_estimator" not in speech:
        out.print("without a detokenizer: name its folder with --detokenizer DIR", highlight=False)
    built = plan["build"]
    out.print(
        f"build {built['where']}: {built['bytes'] / 2**30:.1f} GiB at its peak ({built['part']})", highlight=False
    )
    choice = Table(title="recipes", caption="RTF: seconds per second of speech; !: more than the device has")
    for column in ("recipe", "GiB", "RTF", "first sound [ms]", "build [GiB]"):
        choice.add_column(column, justify="left" if column == "recipe" else "right")
    for name, one in plan["recipes"].items():
        style = "bold" if name == plan["advised"] else None
        choice.add_row(name, *_plan_cells(one), style=style)
    out.print(choice)
    out.print(plan["advice"], highlight=False)


def print_plans(plans: Sequence[Mapping[str, Any]]) -> None:
    """A row per device, on stdout."""
    table = Table(caption="RTF: seconds per second of speech; !: more than the device has")
    for column in ("device", "GB/s", "recipe", "GiB", "RTF", "first sound [ms]", "build [GiB]"):
        left = column in ("device", "recipe")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for plan in plans:
        device, bandwidth = plan["device"]["name"], plan["device"]["bytes_per_second"] / 1e9
        table.add_row(device, f"{bandwidth:.0f}", plan["precision"], *_plan_cells(plan))
    Console().print(table)


def _plan_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    size = f"{one['total_bytes'] / 2**30:.1f}{'' if one['fits'] else '!'}"
    build = f"{one['build']['bytes'] / 2**30:.1f}{'!' if one['build']['fits'] is False else ''}"
    return size, f"{one['real_time_factor']:.2f}", f"{one['first_audio_ms']:.0f}", build


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
