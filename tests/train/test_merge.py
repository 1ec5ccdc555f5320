"""Merging checkpoints: values, types, shards, mismatches, and that nothing is left half-written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Facrt
from facrt.errors import CheckpointError, FacrtError, RequestError
from facrt.model import checkpoint, random_checkpoint
from facrt.model.weights import SafetensorsSource
from facrt.train import merge as merging
from facrt.train.merge import merge
from safetensors.torch import save_file
from torch import Tensor

SHAPES = {"embed": (37, 16), "norm": (16,), "scale": (), "stack": (3, 8, 16), "empty": (0, 4)}


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    return {**made, "positions": torch.arange(5), "odd": torch.randn(3, generator=generator).to(torch.bfloat16)}


def write(folder: Path, state: dict[str, Tensor], shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"kept": true}')
    (folder / "detokenizer").mkdir()
    (folder / "detokenizer" / "model.safetensors").write_bytes(b"kept as it is")
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    index = {}
    for i in range(shards):
        names = sorted(state)[i::shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: state[name] for name in names}, folder / file)
        index.update(dict.fromkeys(names, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def read(folder: Path) -> dict[str, Tensor]:
    source = SafetensorsSource(folder)
    return {name: source.read(name) for name in source.shapes()}


def expected(a: dict[str, Tensor], b: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """In float64, rounded once."""
    return {
        name: (a[name].double() * alpha + b[name].double() * (1 - alpha)).to(a[name].dtype)
        if a[name].is_floating_point()
        else a[name]
        for name in a
    }


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 3])
def test_values(tmp_path: Path, alpha: float, dtype: torch.dtype, shards: int) -> None:
    a, b = tensors(1, dtype), tensors(2, dtype)
    merge(write(tmp_path / "a", a, shards), write(tmp_path / "b", b), alpha, tmp_path / "c")
    found = read(tmp_path / "c")
    assert found.keys() == a.keys()
    for name, wanted in expected(a, b, alpha).items():
        assert found[name].dtype == a[name].dtype
        if alpha in (0.0, 1.0):
            assert torch.equal(found[name], wanted), name
        else:
            torch.testing.assert_close(found[name].float(), wanted.float(), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_a_s_type_is_kept_and_b_s_may_differ(tmp_path: Path) -> None:
    a, b = tensors(1, torch.bfloat16), tensors(2, torch.float32)
    merge(write(tmp_path / "a", a), write(tmp_path / "b", b), 0.5, tmp_path / "c")
    assert {name: tensor.dtype for name, tensor in read(tmp_path / "c").items()} == {n: t.dtype for n, t in a.items()}


def test_infinities_of_the_other_side_do_not_matter(tmp_path: Path) -> None:
    a, b = tensors(1), tensors(2)
    b["norm"][0] = float("inf")
    merge(write(tmp_path / "a", a), write(tmp_path / "b", b), 1.0, tmp_path / "c")
    assert torch.equal(read(tmp_path / "c")["norm"], a["norm"])


def test_rest_of_a_s_folder_is_copied(tmp_path: Path) -> None:
    merge(write(tmp_path / "a", tensors(1), 3), write(tmp_path / "b", tensors(2)), 0.5, tmp_path / "c")
    names = {path.relative_to(tmp_path / "c").as_posix() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert names == {"config.json", "detokenizer/model.safetensors", "model.safetensors"}
    assert (tmp_path / "c" / "detokenizer" / "model.safetensors").read_bytes() == b"kept as it is"
    assert (tmp_path / "c" / "config.json").read_text() == '{"kept": true}'


def test_large_results_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "ROWS_ELEMENTS", 40)
    a, b = tensors(1), tensors(2)
    seen: list[tuple[int, int]] = []
    folders = write(tmp_path / "a", a), write(tmp_path / "b", b, 2)
    size = merge(*folders, 0.5, tmp_path / "c", lambda *step: seen.append(step), shard_bytes=1600)
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "c").glob("model-*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == [file.name for file in files]
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 2
    assert index["metadata"]["total_size"] == size == sum(tensor.nbytes for tensor in a.values())
    assert seen[-1] == (size, size)
    assert len(seen) > 20
    for name, wanted in expected(a, b, 0.5).items():
        torch.testing.assert_close(read(tmp_path / "c")[name].float(), wanted.float())


def test_all_mismatches_are_listed(tmp_path: Path) -> None:
    a, b = tensors(1), tensors(2)
    b["norm"] = b["norm"][:8].clone()
    b["renamed"] = b.pop("embed")
    b["positions"] = b["positions"] + 1
    b["stack"] = b["stack"].to(torch.int32)
    with pytest.raises(CheckpointError) as caught:
        merge(write(tmp_path / "a", a), write(tmp_path / "b", b), 0.5, tmp_path / "c")
    message = str(caught.value)
    for part in ("safetensors: embed", "safetensors: renamed", "norm is [16] and [8]", "positions holds whole numbers"):
        assert part in message
    assert "stack is of type F32 and I32" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_requests_that_do_not_fit(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", tensors(1)), write(tmp_path / "b", tensors(2))
    with pytest.raises(RequestError, match=r"alpha is 1\.5; 0 \(all of B\) to 1"):
        merge(a, b, 1.5, tmp_path / "c")
    with pytest.raises(RequestError, match="alpha is nan"):
        merge(a, b, float("nan"), tmp_path / "c")
    with pytest.raises(RequestError, match="is there already"):
        merge(a, b, 0.5, b)
    with pytest.raises(RequestError, match="lies in"):
        merge(a, b, 0.5, a / "c")
    with pytest.raises(CheckpointError, match="is no folder"):
        merge(a, tmp_path / "none", 0.5, tmp_path / "c")
    (tmp_path / "file").touch()
    with pytest.raises(FacrtError, match="cannot be written"):
        merge(a, b, 0.5, tmp_path / "file" / "c")


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", tensors(1)), write(tmp_path / "b", tensors(2))

    def fail(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(a, b, 0.5, tmp_path / "c", fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_killed_halfway_leaves_no_checkpoint_and_can_be_run_again(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", tensors(1)), write(tmp_path / "b", tensors(2))
    script = (
        "import sys, time; from facrt.train.merge import merge\n"
        "def wait(done, total):\n    print('writing', flush=True); time.sleep(60)\n"
        "merge(*sys.argv[1:3], 0.5, sys.argv[3], wait)"
    )
    command = [sys.executable, "-c", script, str(a), str(b), str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "c").exists()
    started = time.monotonic()
    merge(a, b, 0.5, tmp_path / "c")
    assert time.monotonic() - started < 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_merged_checkpoint_loads(tmp_path: Path, facrt: Facrt) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        random_checkpoint.write_checkpoint(tmp_path / name)
    doubled = {name: tensor * 2 for name, tensor in read(tmp_path / "b").items()}
    save_file(doubled, tmp_path / "b" / "model.safetensors")
    shown = facrt.json("train", "merge", tmp_path / "a", tmp_path / "b", "--alpha", 0.25, "--out", tmp_path / "c")
    assert shown["alpha"] == 0.25
    a, c = (dict(checkpoint.load_chat(tmp_path / name).named_parameters()) for name in ("a", "c"))
    for name, tensor in a.items():
        torch.testing.assert_close(c[name], tensor * 1.75)
    checkpoint.load_flow(tmp_path / "c" / "detokenizer")


def test_command_names_what_does_not_match(tmp_path: Path, facrt: Facrt) -> None:
    a, b = write(tmp_path / "a", tensors(1)), write(tmp_path / "b", {"norm": torch.zeros(2)})
    assert "norm is [16] and [2]" in facrt.refusal("train", "merge", a, b, "--out", tmp_path / "c")
