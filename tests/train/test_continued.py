"""Training that starts from a checkpoint: the golden one, by the recipe for real ones, on data of another rate."""

from __future__ import annotations

import filecmp
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch
from facrt.errors import CheckpointError, RequestError
from facrt.model.checkpoint import load_chat, load_speech_tokenizer
from facrt.model.weights import SafetensorsSource
from facrt.runtime.audio import read_audio
from facrt.train.continued import ContinuedRun, open_run, write_chat_checkpoint, write_result
from facrt.train.recipe import CHAT_STAGES, RECIPES, read_recipe
from facrt.train.run import run_recipe
from goldens import LM, S3

MODEL, TOKENIZER = LM / "model", S3 / "model"
RATE_HZ, ANSWER_SAMPLES = 22_050, 7_777


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_dataset(tmp_path_factory.mktemp("other") / "data", RATE_HZ, ANSWER_SAMPLES)


def short_recipe(folder: Path, accumulate: int = 1) -> Path:
    """The shipped one, a few steps of it; float32, since few processors are quick at bfloat16."""
    text = (RECIPES / "8b.toml").read_text(encoding="utf-8")
    for key, value in {"steps": 2, "warmup": 1, "accumulate": accumulate, "dtype": '"fp32"'}.items():
        text = re.sub(rf"^{key} = [^#\n]*", f"{key} = {value} ", text, flags=re.MULTILINE)
    (folder / "8b-short.toml").write_text(text, encoding="utf-8")
    return folder / "8b-short.toml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> ContinuedRun:
    folder = tmp_path_factory.mktemp("continued")
    made = open_run(read_recipe(short_recipe(folder, 2)), folder, data, MODEL, TOKENIZER, lambda *_: None)
    assert isinstance(made, ContinuedRun)
    run_recipe(made)
    return made


def test_the_recipe_has_the_reports_values() -> None:
    recipe = read_recipe("8b")
    assert tuple(recipe.schedules) == CHAT_STAGES
    rates = {name: (schedule.lr, schedule.final_lr) for name, schedule in recipe.schedules.items()}
    assert (rates["cocktail1"], rates["cocktail2"], recipe.alpha) == ((1e-4, 1e-5), (1e-5, 1e-6), 0.5)
    assert (recipe.compute.dtype, recipe.compute.gradient_checkpointing) == ("bf16", True)


def test_the_result_is_a_checkpoint_like_its_source(run: ContinuedRun) -> None:
    folder, size = write_result(run)
    assert size > 0
    before, after = SafetensorsSource(MODEL), SafetensorsSource(folder)
    assert after.shapes() == before.shapes()
    assert after.dtypes() == before.dtypes()
    for path in MODEL.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert filecmp.cmp(path, folder / path.relative_to(MODEL), shallow=False)
    trained, source = load_chat(folder), load_chat(MODEL)
    wanted = run.trained_chat("cocktail2").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in trained.state_dict().items())
    for part in ("audio_encoder", "grouping", "backbone", "speech_head"):
        ours, theirs = (model.get_submodule(part).state_dict() for model in (trained, source))
        assert any(not torch.equal(ours[name], theirs[name]) for name in ours), f"{part} did not learn"
    assert write_result(run) == (folder, size), "again in the place of what stood there"


def test_an_untrained_model_is_written_as_it_was(tmp_path: Path) -> None:
    write_chat_checkpoint(load_chat(MODEL), MODEL, tmp_path / "same", shard_bytes=200_000)
    before, after = SafetensorsSource(MODEL), SafetensorsSource(tmp_path / "same")
    assert len(after.files) > 1
    assert all(torch.equal(after.read(name), before.read(name)) for name in before.shapes())


def test_speech_ids_are_those_of_the_resampled_answer(run: ContinuedRun, data: Path) -> None:
    tokenizer = load_speech_tokenizer(TOKENIZER)
    path = data / "a1.wav"
    ids = run.speech[str(path)]
    assert torch.equal(ids, tokenizer.encode(read_audio(path)))
    assert len(ids) == -(-ANSWER_SAMPLES * 25 // RATE_HZ)
    conversation = run.conversations[1]
    groups = run.maker(run.speech).make(conversation, 0, spoken_question=True, spoken_answer=True).groups
    assert groups is not None
    assert groups.flatten()[5 : 5 + len(ids)].tolist() == ids.tolist()


def test_the_second_stage_starts_half_way_to_the_source(run: ContinuedRun) -> None:
    name = "decoder.layers.0.qkv.weight"
    first, source = (model.backbone.state_dict()[name] for model in (run.trained_chat("cocktail1"), load_chat(MODEL)))
    start = run.stage("cocktail2").module.get_submodule("backbone").state_dict()[name]
    torch.testing.assert_close(start, (first + source) / 2, rtol=0, atol=1e-6)


def test_the_alignment_leaves_the_backbone_alone(run: ContinuedRun) -> None:
    aligned, source = run.trained_chat("alignment").state_dict(), load_chat(MODEL).state_dict()
    changed = {name.split(".")[0] for name, value in aligned.items() if not torch.equal(value, source[name])}
    assert changed == {"audio_encoder", "grouping", "speech_head"}


def test_two_processes_by_the_command_line(tmp_path: Path, data: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "facrt.cli",
        "train", "run", "--recipe", str(short_recipe(tmp_path)), "--from", str(MODEL), "--speech-tokenizer",
        str(TOKENIZER), "--data", str(data), "--out", str(tmp_path / "run"), "--threads", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stages"] == list(CHAT_STAGES), "one process reports"
    load_chat(tmp_path / "run" / "checkpoint")
    rows = (tmp_path / "run" / "cocktail2" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2], "one process logs"


@pytest.mark.parametrize(
    ("recipe", "arguments", "complaint"),
    [
        ("8b", {"data": None}, "with --data"),
        ("8b", {"source": None, "tokenizer": None}, "with --from"),
        ("nano", {"source": None}, "belongs to --from"),
        ("8b", {"out": MODEL / "run"}, "choose another --out"),
        ("8b", {"tokenizer": None}, "with --speech-tokenizer"),
    ],
)
def test_refusals(tmp_path: Path, data: Path, recipe: str, arguments: dict[str, Path | None], complaint: str) -> None:
    given = {"out": tmp_path, "data": data, "source": MODEL, "tokenizer": TOKENIZER, **arguments}
    with pytest.raises(RequestError, match=complaint):
        run_recipe(
            open_run(
                read_recipe(recipe), given["out"] or tmp_path, given["data"], given["source"], given["tokenizer"],
                lambda *_: None,
            ),
            ("alignment",),
        )  # fmt: skip


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(CheckpointError):
        open_run(read_recipe("8b"), tmp_path / "out", data, tmp_path, TOKENIZER, lambda *_: None)
