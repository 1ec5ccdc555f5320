"""A bundle is read strictly: whatever is changed, missing, misplaced or unknown is one error that names the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
from facrt.errors import BundleError
from facrt.runtime.bundle import FORMAT_VERSION, hash_files, open_bundle, read_manifest
from facrt.runtime.engine import load

Raw = dict[str, Any]


def edit(bundle: Path, change: Callable[[Raw], object]) -> None:
    """Rewrites the manifest."""
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def refusal(bundle: Path, check_hashes: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle, check_hashes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_whole_bundle_opens_anywhere(bundle_copy: Path) -> None:
    bundle = open_bundle(bundle_copy)
    assert bundle.size_bytes == sum((bundle_copy / name).stat().st_size for name in bundle.manifest.files)
    assert {*bundle.manifest.files, "manifest.json"} == {path.name for path in bundle_copy.iterdir()}
    assert read_manifest(bundle_copy / "manifest.json") == bundle.manifest


@pytest.mark.parametrize("name", ["backbone.onnx", "speech_embedding.bin", "tokenizer.json", "chat_template.jinja"])
def test_a_flipped_bit(bundle_copy: Path, name: str) -> None:
    flip(bundle_copy / name)
    message = refusal(bundle_copy)
    assert name in message
    assert "SHA-256" in message
    assert "export the bundle again" in message
    open_bundle(bundle_copy, check_hashes=False)


@pytest.mark.parametrize("check_hashes", [True, False])
@pytest.mark.parametrize("name", ["flow_noise.bin", "vocoder.onnx"])
def test_a_truncated_file(bundle_copy: Path, name: str, check_hashes: bool) -> None:
    size = (bundle_copy / name).stat().st_size
    (bundle_copy / name).write_bytes((bundle_copy / name).read_bytes()[:-1])
    message = refusal(bundle_copy, check_hashes)
    assert name in message
    assert f"has {size - 1} bytes, the manifest says {size}" in message


@pytest.mark.parametrize("check_hashes", [True, False])
@pytest.mark.parametrize("name", ["audio_encoder.onnx", "text_embedding.bin", "tokenizer.json"])
def test_a_missing_file(bundle_copy: Path, name: str, check_hashes: bool) -> None:
    (bundle_copy / name).unlink()
    assert f"{name} is missing; export the bundle again" in refusal(bundle_copy, check_hashes)


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "linked folder"])
@pytest.mark.parametrize("check_hashes", [True, False])
def test_a_path_that_leaves_the_folder(bundle_copy: Path, kind: str, check_hashes: bool) -> None:
    outside = bundle_copy.parent / "outside"
    outside.mkdir()
    (bundle_copy / "backbone.onnx").rename(outside / "backbone.onnx")
    name = "backbone.onnx"
    if kind == "up":
        name = "../outside/backbone.onnx"
    elif kind == "absolute":
        name = str(outside / "backbone.onnx")
    elif kind == "link":
        (bundle_copy / name).symlink_to(outside / name)
    else:
        (bundle_copy / "graphs").symlink_to(outside)
        name = "graphs/backbone.onnx"

    def rename(raw: Raw) -> None:
        raw["graphs"]["backbone"] = name
        raw["files"][name] = raw["files"].pop("backbone.onnx")

    edit(bundle_copy, rename)
    message = refusal(bundle_copy, check_hashes)
    assert repr(name) in message
    assert "outside the bundle" in message


def test_a_path_inside_that_is_a_folder(bundle_copy: Path) -> None:
    (bundle_copy / "tokenizer.json").unlink()
    (bundle_copy / "tokenizer.json").mkdir()
    assert "tokenizer.json is missing" in refusal(bundle_copy)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(FORMAT_VERSION + 1, "install a newer facrt"), (0, "export it again"), ("two", "export it again")],
)
def test_another_format_version(bundle_copy: Path, version: object, remedy: str) -> None:
    def change(raw: Raw) -> None:
        raw["format_version"] = version
        raw["something_new"] = 1

    edit(bundle_copy, change)
    message = refusal(bundle_copy)
    assert f"has format version {version!r}, this facrt reads {FORMAT_VERSION}; {remedy}" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "\x00", '{"format_version": '])
def test_a_damaged_manifest(bundle_copy: Path, text: str) -> None:
    (bundle_copy / "manifest.json").write_text(text)
    assert "manifest.json is no manifest of facrt" in refusal(bundle_copy)


def test_a_manifest_of_bytes(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_bytes(b"\xff\xfe{}")
    assert "manifest.json is no manifest of facrt" in refusal(bundle_copy)


FIELDS = (
    "facrt_version", "source", "target", "attention", "cache", "model", "recipe", "graphs", "native", "tables",
    "tokenizer", "chat_template", "system", "sampling", "speakers", "parity", "files",
    "cache_dtype", "positions", "plans",
)  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field(bundle_copy: Path, name: str) -> None:
    edit(bundle_copy, lambda raw: raw.pop(name))
    message = refusal(bundle_copy)
    assert "manifest.json is damaged" in message
    assert name in message


def test_every_field_is_tested(bundle_copy: Path) -> None:
    assert {*FIELDS, "format_version"} == set(json.loads((bundle_copy / "manifest.json").read_text()))


def set_in(*path: str | int, value: object) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        place: Any = raw
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


DAMAGE: dict[str, tuple[Callable[[Raw], object], list[str]]] = {
    "unknown field": (set_in("colour", value="red"), ["damaged", "colour"]),
    "unknown field of the model": (set_in("model", "chat", "colour", value=1), ["damaged", "colour"]),
    "unknown kind of model": (set_in("model", "nose", value={}), ["damaged", "nose"]),
    "missing field of the model": (lambda raw: raw["model"]["chat"].pop("group_size"), ["damaged", "group_size"]),
    "impossible model": (set_in("model", "chat", "group_size", value=0), ["damaged", "group_size is 0"]),
    "model of words": (set_in("model", "chat", value="big"), ["damaged"]),
    "flow without vocoder": (lambda raw: raw["model"].pop("vocoder"), ["damaged"]),
    "unknown cache layout": (set_in("cache", value="heap"), ["damaged", "'heap'"]),
    "file without a hash": (lambda raw: raw["files"]["backbone.onnx"].pop("sha256"), ["damaged", "sha256"]),
    "files is a list": (set_in("files", value=["backbone.onnx"]), ["damaged"]),
    "recipe is a list": (set_in("recipe", value=["fp32"]), ["damaged", "recipe"]),
    "sampling is a number": (set_in("sampling", value=3), ["damaged", "sampling"]),
    "a system prompt that is no text": (set_in("system", value=3), ["damaged", "system"]),
    "tokenizer is null": (set_in("tokenizer", value=None), ["damaged", "tokenizer"]),
    "a graph missing": (lambda raw: raw["graphs"].pop("speech_head"), ["speech_head", "export the bundle again"]),
    "an unknown native form": (set_in("native", "lungs", value="backbone.onnx"), ["lungs"]),
    "a native form outside": (set_in("native", "speech_head", value="../x.bin"), ["../x.bin"]),
    "a native form that is a number": (set_in("native", "speech_head", value=3), ["damaged", "native"]),
    "a graph too many": (set_in("graphs", "lungs", value="backbone.onnx"), ["lungs", "export the bundle again"]),
    "a recipe entry missing": (lambda raw: raw["recipe"].pop("vocoder"), ["recipe", "vocoder"]),
    "a table missing": (lambda raw: raw["tables"].pop("speech_grouping"), ["speech_grouping"]),
    "the flow noise missing": (lambda raw: raw["tables"].pop("flow_noise"), ["flow_noise"]),
    "table shape": (set_in("tables", "text_embedding", "shape", value=[64, 512]), ["text_embedding", "(512, 64)"]),
    "table shape of words": (set_in("tables", "text_embedding", "shape", value="big"), ["text_embedding"]),
    "table type": (set_in("tables", "text_embedding", "dtype", value="float16"), ["text_embedding.bin", "float16"]),
    "unknown table type": (set_in("tables", "text_embedding", "dtype", value="int3"), ["damaged", "int3"]),
    "noise type": (set_in("tables", "flow_noise", "dtype", value="float16"), ["flow_noise", "float32"]),
    "noise of no shape": (set_in("tables", "flow_noise", "shape", value=[]), ["flow_noise"]),
    "noise shape": (set_in("tables", "flow_noise", "shape", value=[1, 40, 30000]), ["flow_noise"]),
    "a speaker without a row": (set_in("speakers", "ann", value=1), ["speakers"]),
    "a speaker outside the table": (set_in("speakers", value={"ann": 7}), ["speakers"]),
    "a file without size and hash": (lambda raw: raw["files"].pop("tokenizer.json"), ["tokenizer.json"]),
    "a template without size and hash": (lambda raw: raw["files"].pop("chat_template.jinja"), ["chat_template.jinja"]),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_wrong_manifest(bundle_copy: Path, fault: str) -> None:
    change, words = DAMAGE[fault]
    edit(bundle_copy, change)
    message = refusal(bundle_copy)
    for word in (str(bundle_copy), *words):
        assert word in message


def test_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path, tmp_path / "file"):
        assert f"{path} holds no manifest.json: it is no bundle" in refusal(path)


def rehash(bundle: Path) -> None:
    """Makes a change look wanted, so that only the content can betray it."""

    def change(raw: Raw) -> None:
        for name, entry in hash_files(bundle, raw["files"]).items():
            raw["files"][name] = {"size_bytes": entry.size_bytes, "sha256": entry.sha256}

    edit(bundle, change)


def load_refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load(bundle, max_positions=8)
    return str(caught.value)


def test_graphs_that_hold_something_else(bundle_copy: Path) -> None:
    shutil.copyfile(bundle_copy / "speech_upsampling.onnx", bundle_copy / "audio_grouping.onnx")
    rehash(bundle_copy)
    message = load_refusal(bundle_copy)
    assert "audio_grouping.onnx has no tensor" in message
    (bundle_copy / "audio_grouping.onnx").write_bytes(b"no graph")
    rehash(bundle_copy)
    assert "audio_grouping.onnx does not load in ONNX Runtime" in load_refusal(bundle_copy)


def test_a_graph_of_another_width(bundle_copy: Path) -> None:
    graph = onnx_ir.load(bundle_copy / "vocoder.onnx")
    mel = graph.graph.inputs[0]
    mel.shape = onnx_ir.Shape([1, 79, "frames"])
    onnx_ir.save(graph, bundle_copy / "vocoder.onnx")
    rehash(bundle_copy)
    message = load_refusal(bundle_copy)
    assert "vocoder.onnx" in message


def test_a_tokenizer_or_template_that_is_none(bundle_copy: Path) -> None:
    (bundle_copy / "chat_template.jinja").write_text("{% for %}")
    rehash(bundle_copy)
    assert "chat_template.jinja is no chat template" in load_refusal(bundle_copy)
    (bundle_copy / "tokenizer.json").write_text("{}")
    rehash(bundle_copy)
    assert "tokenizer.json is no tokenizer" in load_refusal(bundle_copy)


def test_hash_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5_000_000)
    (tmp_path / "b").write_bytes(b"")
    found = hash_files(tmp_path, ["b", "a"])
    assert list(found) == ["a", "b"]
    assert found["a"].size_bytes == 5_000_000
    assert found["a"].sha256 == hashlib.sha256(b"x" * 5_000_000).hexdigest()
    assert found["b"].sha256 == hashlib.sha256(b"").hexdigest()


def test_the_command_line_refuses(facrt: Any, bundle_copy: Path, tmp_path: Path) -> None:
    flip(bundle_copy / "backbone.onnx")
    for verb in (["run", bundle_copy, "--text", "Hi."], ["inspect", bundle_copy], ["inspect", bundle_copy, "--json"]):
        line = facrt.refusal(*verb, cwd=tmp_path)
        assert "backbone.onnx does not have the SHA-256 of the manifest; export the bundle again" in line
    assert not (tmp_path / "answer.wav").exists()
    for verb in ("run", "inspect"):
        text = ["--text", "Hi."] if verb == "run" else []
        assert "it is no bundle; make one with facrt export" in facrt.refusal(verb, tmp_path, *text, cwd=tmp_path)
