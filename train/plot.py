"""Pictures of training: the losses of each stage, and the two skills over the share of a merge."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import FacrtError, RequestError

FIXED = ("stage", "step", "seconds")
PANEL_INCHES, COLUMNS = (5.2, 3.2), 2
SMOOTH_FROM = 100  # points; a running median of a fiftieth of them is drawn over longer curves
WIDEST_LINEAR = 20  # largest over smallest value of a panel; beyond, its scale is logarithmic

Points = dict[int, tuple[float, float]]  # step -> seconds, value


def read_losses(folder: Path) -> dict[str, dict[str, Points]]:
    """stage -> curve -> points, of all `*.jsonl` below a folder, or of one file.

    A line is {"stage": text, "step": whole number, "seconds": number, NAME: number...}. A step that was done again
    after a restart counts as it was done last. A last line without its end is still being written: it is left out.

    Raises:
        RequestError: no log is there, or a line is no such object: file and line are named.
    """
    files = sorted(folder.rglob("*.jsonl")) if folder.is_dir() else [folder]
    stages: dict[str, dict[str, Points]] = defaultdict(lambda: defaultdict(dict))
    for path in files:
        for row in _rows(path):
            for name, value in row.items():
                if name not in FIXED:
                    stages[row["stage"]][name][row["step"]] = (row["seconds"], value)
    if not stages:
        raise RequestError(f"{folder} holds no losses; a training run's folder with *.jsonl files is needed")
    return stages


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is no readable log of losses ({error})") from None
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        row = _row(line)
        if row is None:
            raise RequestError(
                f'{path}, line {number}: {{"stage": text, "step": whole number, "seconds": number, NAME: number...}} '
                f"is needed, found {line[:60]}"
            )
        yield row


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str) or type(row.get("step")) is not int:
        return None
    numbers = [row.get("seconds"), *(value for name, value in row.items() if name not in FIXED)]
    return row if all(type(number) in (int, float) for number in numbers) else None


def plot_losses(folder: Path, out: Path) -> list[str]:
    """Draws a panel per stage, in the order in which they began, as PNG.

    Returns:
        The stages.

    Raises:
        RequestError: as of `read_losses`.
        FacrtError: the picture cannot be written.
    """
    stages = read_losses(folder)
    columns = min(COLUMNS, len(stages))
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (stage, curves), axes in zip(stages.items(), panels, strict=False):
        _draw_stage(axes, stage, curves)
    for axes in list(figure.axes)[len(stages) :]:
        axes.remove()
    _save(figure, out)
    return list(stages)


def _draw_stage(axes: Axes, stage: str, curves: dict[str, Points]) -> None:
    seconds = max(second for points in curves.values() for second, _ in points.values())
    axes.set_title(f"{stage} ({_duration(seconds)})", fontsize=10)
    axes.set_xlabel("step")
    finite = []
    for number, (name, points) in enumerate(curves.items()):
        steps = np.array(sorted(points))
        values = np.array([points[step][1] for step in steps], np.float64)
        finite.append(values[np.isfinite(values)])
        smooth = _running_median(values, len(values) // 50) if len(values) >= SMOOTH_FROM else values
        axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth, color=f"C{number}", linewidth=1.4, label=name, marker="." if len(values) < 2 else "")
    shown = np.concatenate(finite)
    if len(shown) and shown.min() > 0 and shown.max() > WIDEST_LINEAR * shown.min():
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _running_median(values: np.ndarray, half: int) -> np.ndarray:
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def plot_alpha(points: Sequence[dict[str, float]], out: Path) -> None:
    """Draws what a merge `alpha * M_1 + (1 - alpha) * M_0` knows, over alpha, as PNG.

    Args:
        points: of {"alpha": 0 to 1, "text": share of the base model's skill right, "speech": of the speech task's};
            several of the same alpha (seeds) are dots around their mean.

    Raises:
        RequestError: there is no point, or one lacks a number.
        FacrtError: the picture cannot be written.
    """
    if not points:
        raise RequestError("there is no point to draw: a list of alpha, text and speech is needed")
    try:
        table = np.array([[point[name] for name in ("alpha", "text", "speech")] for point in points], np.float64)
    except (KeyError, TypeError, ValueError):
        raise RequestError("each point needs the numbers alpha, text and speech") from None
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    alphas = np.unique(table[:, 0])
    captions = (("text skill of the base model", "o"), ("speech task", "s"))
    for column, (caption, marker) in enumerate(captions, start=1):
        means = [table[table[:, 0] == alpha, column].mean() * 100 for alpha in alphas]
        axes.plot(alphas, means, color=f"C{column}", marker=marker, label=caption)
        axes.plot(table[:, 0], table[:, column] * 100, ".", color=f"C{column}", alpha=0.4)
    axes.set_xlabel("alpha: share of the model trained on speech (0: the base model)")
    axes.set_ylabel("right answers, %")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, format="png", dpi=120)
        partial.replace(out)
    except OSError as error:
        raise FacrtError(f"{out} cannot be written ({error.strerror}); choose another --out") from None
