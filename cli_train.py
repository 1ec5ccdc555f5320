"""The `facrt train` verbs: libraries are imported when a verb needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import Json, print_json
from .errors import RequestError

app = typer.Typer(no_args_is_help=True, help="Training data, merging of checkpoints, pictures of losses.")


@app.command("data")
def train_data(
    out: Annotated[Path, typer.Option(help="The dataset's folder; one that was stopped is continued.")],
    split: Annotated[
        str, typer.Option(help="train, validation, unseen-slots, unseen-phrasings or unseen-voices.")
    ] = "train",
    count: Annotated[int, typer.Option(help="Conversations.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    read_aloud: Annotated[int, typer.Option(help="Further conversations, typed practice with spoken answers.")] = 0,
    json_: Json = False,
) -> None:
    """Make spoken training data: a kiosk-and-robot assistant's conversations."""
    from .report import count_progress, say
    from .train.intents import find_split
    from .train.make import DataRequest, make_dataset

    request = DataRequest(out, find_split(split), count, seed, workers, read_aloud)
    with count_progress("speaking") as progress:
        files = make_dataset(request, progress)
    say(f"{out}: {count + read_aloud} conversations, {files} audio files")
    if json_:
        print_json({"dataset": str(out), "conversations": count + read_aloud, "audio_files": files})


@app.command("merge")
def train_merge(
    a: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same shapes.")],
    out: Annotated[Path, typer.Option(help="The merged checkpoint's folder.")],
    alpha: Annotated[float, typer.Option(help="A's share, 0 to 1.")] = 0.5,
    json_: Json = False,
) -> None:
    """Merge two checkpoints: alpha * A + (1 - alpha) * B, tensor by tensor."""
    from .report import count_progress, say

    try:
        from .train.merge import merge
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; merging needs: pip install 'facrt[train]'") from None
    with count_progress("merging") as progress:
        size = merge(a, b, alpha, out, progress)
    say(f"{out}: {size / 2**20:.1f} MiB of weights")
    if json_:
        print_json({"checkpoint": str(out), "alpha": alpha, "size_bytes": size})


@app.command("run")
def train_run(
    out: Annotated[
        Path,
        typer.Option(help="The run's folder: data, checkpoints, logs, at last nano/ (with --from: checkpoint/)."),
    ],
    recipe: Annotated[str, typer.Option(help="A recipe that ships with facrt, or a TOML file.")] = "nano",
    stages: Annotated[list[str] | None, typer.Option("--stage", help="Only this stage; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="A dataset folder instead of the generator's.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A chat checkpoint to train further; its recipe is 8b or alike.")
    ] = None,
    speech_tokenizer: Annotated[
        Path | None, typer.Option(help="The S3 tokenizer's folder. Default: s3tokenizer in that checkpoint.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: the CPU cores at hand.")] = None,
    json_: Json = False,
) -> None:
    """Train a model by a recipe; a run that was stopped goes on. Under torchrun, data parallel."""
    from .report import say, stage_progress

    try:
        import torch

        from .train import parallel
        from .train.continued import open_run, write_result
        from .train.recipe import read_recipe
        from .train.run import run_recipe
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; training needs: pip install 'facrt[train]'") from None
    if threads is not None:
        if threads < 1:
            raise RequestError(f"--threads is {threads}; 1 or more is needed")
        torch.set_num_threads(threads)
    with stage_progress() as show, parallel.processes():
        is_first = not parallel.rank()
        run_ = open_run(read_recipe(recipe), out, data, source, speech_tokenizer, show if is_first else lambda *_: None)
        chosen = tuple(stages or run_.stages)
        run_recipe(run_, chosen)
        made, size = write_result(run_) if is_first and chosen == run_.stages else (out, 0)
    if size:
        say(f"{made}: {size / 2**20:.1f} MiB; facrt export {made} --out bundle/")
    if json_ and is_first:
        print_json({"run": str(out), "stages": list(chosen), "checkpoint_bytes": size})


@app.command("plot")
def train_plot(
    logs: Annotated[Path, typer.Argument(metavar="LOGDIR", help="A training run's folder, or one *.jsonl of it.")],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("losses.png"),
    json_: Json = False,
) -> None:
    """Draw the losses of a training run, a panel per stage, as PNG."""
    from .report import say

    try:
        from .train.plot import plot_losses
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; drawing needs: pip install 'facrt[train]'") from None
    stages = plot_losses(logs, out)
    say(f"{out}: {', '.join(stages)}")
    if json_:
        print_json({"picture": str(out), "stages": stages})
