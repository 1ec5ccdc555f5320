"""`facrt export`: what it refuses before any work, broken checkpoints, full disks, precisions, large graphs."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from facrt.errors import CheckpointError, FacrtError, RequestError
from facrt.export import parity, pipeline
from facrt.export.parity import question
from facrt.export.pipeline import ExportRequest, export, open_model, write_graph
from facrt.export.tables import write_array
from facrt.export.targets import find_target
from facrt.model.checkpoint import load_chat
from facrt.model.components import Cache, components
from facrt.model.config_files import read_sampling
from facrt.model.settings import PUBLISHED_SAMPLING
from facrt.runtime.bundle import Manifest, open_bundle
from facrt.runtime.detokenizer import Detokenizer
from facrt.runtime.engine import load
from goldens import DETOKENIZER, LM
from safetensors.torch import load_file, save_file

CHAT = LM / "model"
KIOSK = "You are the kiosk of the town library."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A chat checkpoint that a test may damage."""
    return Path(shutil.copytree(CHAT, tmp_path / "checkpoint"))


def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused early must not have cost a trace."""

    def fail(*_: object) -> None:
        raise AssertionError("a graph was traced")

    monkeypatch.setattr(pipeline, "trace", fail)


def listing(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


Request = Callable[[Path], ExportRequest]
EARLY: dict[str, tuple[Request, type[Exception], str]] = {
    "unknown target": (
        lambda out: ExportRequest(str(CHAT), out, target="toaster"),
        RequestError, r"target 'toaster' is unknown; allowed: .*cpu",
    ),
    "unknown precision": (
        lambda out: ExportRequest(str(CHAT), out, precision="fp7"),
        RequestError, r"precision 'fp7' is unknown; allowed: fp32, fp16, int8, int4",
    ),
    "unknown component": (
        lambda out: ExportRequest(str(CHAT), out, overrides={"lungs": "fp16", "backbone": "fp16"}),
        RequestError, r"--set names no component: lungs; there are audio_encoder, .*speech_head",
    ),
    "unknown precision of a component": (
        lambda out: ExportRequest(str(CHAT), out, overrides={"backbone": "int1"}),
        RequestError, r"scheme 'int1' of backbone is unknown; allowed: fp32, fp16, int8, int4_128, .*int4$",
    ),
    "unknown precision of the native speech head": (
        lambda out: ExportRequest(str(CHAT), out, native="int3"),
        RequestError, r"speech head precision 'int3' is unknown; allowed: fp32, fp16, bf16, int8",
    ),
    "a component that this bundle lacks": (
        lambda out: ExportRequest(str(CHAT), out, overrides={"vocoder": "fp16"}),
        RequestError, r"--set names no component: vocoder",
    ),
    "missing source": (
        lambda out: ExportRequest("/nowhere/at/all", out),
        CheckpointError, r"/nowhere/at/all is no folder; a checkpoint folder",
    ),
    "source is a file": (
        lambda out: ExportRequest(str(CHAT / "config.json"), out),
        CheckpointError, r"config\.json is no folder",
    ),
    "source without config.json": (
        lambda out: ExportRequest(str(CHAT / "speech_tokenizer"), out),
        CheckpointError, r"speech_tokenizer/config\.json is missing",
    ),
    "a detokenizer as source": (
        lambda out: ExportRequest(str(DETOKENIZER / "model"), out),
        CheckpointError, r"no key 'audio_config'.*no Fun-Audio-Chat checkpoint",
    ),
    "a chat model as detokenizer": (
        lambda out: ExportRequest(str(CHAT), out, detokenizer=CHAT),
        CheckpointError, r"no key 'flow'.*no CosyVoice3 detokenizer",
    ),
    "a detokenizer that is nowhere": (
        lambda out: ExportRequest(str(CHAT), out, detokenizer=Path("/nowhere")),
        CheckpointError, r"/nowhere is no folder",
    ),
    "a chat model as speech tokenizer": (
        lambda out: ExportRequest(str(CHAT), out, speech_tokenizer=CHAT),
        CheckpointError, r"no key 'n_audio_state'.*no S3 tokenizer",
    ),
    "caches that the comparison does not fit": (
        lambda out: ExportRequest(str(CHAT), out, target="orin", max_positions=20, build=False),
        RequestError, r"--max-positions is 20; the comparison with the reference takes \d+: .*with --no-verify",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", EARLY)
def test_refused_before_any_work(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tracing(monkeypatch)
    request, kind, words = EARLY[fault]
    with pytest.raises(kind, match=words) as caught:
        export(request(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not listing(tmp_path)


@pytest.mark.parametrize("item", ["backbone", "backbone=", "=fp16"])
def test_set_of_another_form(facrt: Any, tmp_path: Path, item: str) -> None:
    line = facrt.refusal("export", CHAT, "--out", "out", "--set", item, cwd=tmp_path)
    assert f"--set {item!r} is not of the form COMPONENT=SCHEME" in line
    assert not listing(tmp_path)


def test_the_command_line_refuses(facrt: Any, tmp_path: Path) -> None:
    line = facrt.refusal("export", CHAT, "--out", "out", "--target", "toaster", "--json", cwd=tmp_path)
    assert "target 'toaster' is unknown" in line
    assert not listing(tmp_path)


def test_out_that_holds_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tracing(monkeypatch)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    (tmp_path / "letter").write_text("dear")
    before = listing(tmp_path)
    with pytest.raises(RequestError, match=r"photos holds files but no bundle; choose another --out or empty it"):
        export(ExportRequest(str(CHAT), tmp_path / "photos"))
    with pytest.raises(RequestError, match=r"letter is a file; --out names a folder"):
        export(ExportRequest(str(CHAT), tmp_path / "letter"))
    assert listing(tmp_path) == before


BAD_CONFIG: dict[str, tuple[Callable[[dict[str, Any]], object] | str, str]] = {
    "no JSON": ("{", "config.json is no readable JSON"),
    "a list": ("[]", "config.json holds a list, a JSON object is needed"),
    "no group size": (lambda c: c["audio_config"].pop("group_size"), "config.json has no key 'group_size'"),
    "no text model": (lambda c: c.pop("text_config"), "config.json has no key 'text_config'"),
    "no heads": (lambda c: c["text_config"].pop("num_attention_heads"), "no key 'num_attention_heads'"),
    "group size 0": (lambda c: c["audio_config"].update(group_size=0), "group_size is 0"),
    "another architecture": (lambda c: c["text_config"].update(model_type="llama"), "'llama' is not supported"),
    "scaled positions": (
        lambda c: c["text_config"].update(rope_scaling={"rope_type": "yarn", "factor": 4}),
        "rope_scaling",
    ),
}


@pytest.mark.parametrize("fault", BAD_CONFIG)
def test_bad_config(fault: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tracing(monkeypatch)
    change, words = BAD_CONFIG[fault]
    path = checkpoint / "config.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=words) as caught:
        export(ExportRequest(str(checkpoint), checkpoint.parent / "out"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_no_text_tokenizer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tracing(monkeypatch)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        export(ExportRequest(str(checkpoint), checkpoint.parent / "out"))


def test_no_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        load_chat(checkpoint)


@pytest.mark.parametrize("kept", [0, 5, 1000, 2_000_000])
def test_truncated_safetensors(facrt: Any, checkpoint: Path, kept: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no whole safetensors file .*copy it again"):
        load_chat(checkpoint)
    if kept == 2_000_000:
        line = facrt.refusal("export", checkpoint, "--out", checkpoint.parent / "out")
        assert "model.safetensors is no whole safetensors file" in line
        assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_all_wrong_tensors_are_listed_in_one_error(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    missing = [name for name in tensors if name.endswith("layers.1.self_attn.q_proj.weight")][:2]
    assert len(missing) == 2
    for name in missing:
        del tensors[name]
    reshaped = "audio_tower.embed_tokens.weight"
    rows, cols = tensors[reshaped].shape
    tensors[reshaped] = tensors[reshaped].T.contiguous()
    norm = "language_model.model.norm.weight"
    tensors[norm] = tensors[norm][:-1].clone()
    tensors |= {"language_model.model.nose.weight": torch.zeros(3), "zebra": torch.zeros(1)}
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_chat(checkpoint)
    message = str(caught.value)
    for name in missing:
        assert name in message
    assert "extra: language_model.model.nose.weight, zebra" in message
    assert f"{reshaped} is [{cols}, {rows}], [{rows}, {cols}] is needed" in message
    assert f"{norm} is [63], [64] is needed" in message
    assert "\n" not in message


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_chat(folder).state_dict()


def split(checkpoint: Path) -> list[str]:
    """Rewrites the weights as three shards with an index; returns their names."""
    tensors = load_file(checkpoint / "model.safetensors")
    names = [f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    parts = [dict(list(tensors.items())[i::3]) for i in range(3)]
    for name, part in zip(names, parts, strict=True):
        save_file(part, checkpoint / name)
    owner = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": owner}))
    (checkpoint / "model.safetensors").unlink()
    return names


def test_shards(checkpoint: Path) -> None:
    names = split(checkpoint)
    wanted, found = state(CHAT), state(checkpoint)
    assert list(wanted) == list(found)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    (checkpoint / names[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"{names[1]} is missing, though the index names it"):
        load_chat(checkpoint)
    for index in ("{", "{}", "[]"):
        (checkpoint / "model.safetensors.index.json").write_text(index)
        with pytest.raises(CheckpointError, match="no index of safetensors shards"):
            load_chat(checkpoint)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints(checkpoint: Path, dtype: torch.dtype) -> None:
    path = checkpoint / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    wanted, found = state(CHAT), state(checkpoint)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted[name].to(dtype).float(), rtol=0, atol=0)


def test_tied_text_tables(checkpoint: Path) -> None:
    path, config = checkpoint / "model.safetensors", checkpoint / "config.json"
    tensors = load_file(path)
    head = tensors.pop("language_model.lm_head.weight")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"missing: language_model\.lm_head\.weight"):
        load_chat(checkpoint)
    raw = json.loads(config.read_text())
    raw["text_config"]["tie_word_embeddings"] = True
    config.write_text(json.dumps(raw))
    tied = load_chat(checkpoint)
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    assert not torch.equal(tensors["language_model.lm_head.weight"], head)
    save_file(tensors, path)
    raw["text_config"]["tie_word_embeddings"] = False
    config.write_text(json.dumps(raw))
    untied = load_chat(checkpoint)
    prompt = np.arange(12)
    options: dict[str, Any] = {"max_new_tokens": 4, "text_greedy": True, "force_text_abos": True}
    wanted, found = untied.generate(prompt, [], **options), tied.generate(prompt, [], **options)
    assert (found.text_ids, found.speech_ids) == (wanted.text_ids, wanted.speech_ids)


def with_small_files() -> None:
    """No file may grow beyond 300 kB: a full disk, as far as a process can tell."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@pytest.fixture(scope="module")
def chat_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The golden chat model alone, fp16."""
    out = tmp_path_factory.mktemp("chat") / "bundle"
    (out.parent / "bundle").mkdir()
    (out.parent / "bundle" / "manifest.json").write_text("an older bundle")
    (out.parent / "bundle" / "older.bin").write_text("an older bundle's file")
    return out, export(ExportRequest(str(CHAT), out, precision="fp16", system=KIOSK))


def test_no_space_left(chat_bundle: tuple[Path, Manifest], tmp_path: Path) -> None:
    out = Path(shutil.copytree(chat_bundle[0], tmp_path / "older"))
    before = listing(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "facrt.cli", "export", str(CHAT), "--out", str(out), "--json"],
        capture_output=True, text=True, preexec_fn=with_small_files, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert [line for line in lines if line.startswith("facrt: ")] == lines[-1:]
    assert f"{out} cannot be written (File too large)" in lines[-1]
    assert "MiB are free there: make room or choose another --out" in lines[-1]
    assert "Traceback" not in result.stderr
    assert listing(tmp_path) == before


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("step", ["graphs", "tables", "manifest", "interrupted"])
def test_a_fault_at_any_step_leaves_what_was_there(
    chat_bundle: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, older: bool
) -> None:
    out = tmp_path / "out"
    if older:
        shutil.copytree(chat_bundle[0], out)
    before = listing(tmp_path)
    kind = KeyboardInterrupt if step == "interrupted" else FacrtError

    def fail(*_: object) -> None:
        raise KeyboardInterrupt if step == "interrupted" else OSError(28, "No space left on device")

    def write_nothing(_model: object, _component: object, _scheme: str, _target: object, path: Path, _: object) -> int:
        path.touch()
        return 0

    monkeypatch.setattr(pipeline, "write_graph", fail if step == "graphs" else write_nothing)
    if step == "tables":
        monkeypatch.setattr(pipeline.tables, "write_chat_tables", fail)
    elif step == "manifest":
        monkeypatch.setattr(Manifest, "write", fail)
    elif step == "interrupted":
        monkeypatch.setattr(pipeline, "measure", fail)
    with pytest.raises(kind) as caught:
        export(ExportRequest(str(CHAT), out))
    if kind is FacrtError:
        assert f"{out} cannot be written (No space left on device)" in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("num_numbers", [4, 2000, 1 << 20])
def test_a_table_on_a_full_disk_is_never_cut_silently(num_numbers: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_array(np.zeros(num_numbers, np.float32), Path("/dev/full"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_table_is_its_rows(tmp_path: Path, dtype: type[np.floating[Any]]) -> None:
    rows = np.random.default_rng(0).standard_normal((37, 11)).astype(dtype)
    entry = write_array(rows.T, tmp_path / "t.bin")
    assert (entry.file, entry.dtype, entry.shape) == ("t.bin", np.dtype(dtype).name, (11, 37))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "t.bin", dtype).reshape(11, 37), rows.T)


def test_an_export_replaces_an_older_bundle(chat_bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = chat_bundle
    assert open_bundle(folder).manifest == manifest
    assert not (folder / "older.bin").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_bundle_brings_its_system_prompt(chat_bundle: tuple[Path, Manifest], golden_bundle: Path) -> None:
    engine = load(chat_bundle[0], max_positions=64, check_hashes=False)
    assert engine.conversation().messages[0].text == KIOSK
    assert engine.conversation("Be brief.").messages[0].text == "Be brief."
    assert open_bundle(golden_bundle).manifest.system is None


def test_float16_storage_halves_the_files(chat_bundle: tuple[Path, Manifest], golden_bundle: Path) -> None:
    folder, manifest = chat_bundle
    assert manifest.parity["ok"]
    assert {row["stage"] for row in manifest.parity["rows"]} == {
        "log_mel", "audio_encoder", "audio_grouping", "embeds", "hidden", "text_logits", "speech_logits",
        "native_hidden", "native_text_logits", "native_speech_logits",
    }  # fmt: skip
    assert set(manifest.recipe.values()) == {"fp16"}
    whole = open_bundle(golden_bundle).manifest
    for name in ("text_embedding", "speech_embedding", "speech_grouping"):
        assert manifest.tables[name].dtype == "float16"
        assert 2 * manifest.files[f"{name}.bin"].size_bytes == whole.files[f"{name}.bin"].size_bytes
    for name, file in manifest.graphs.items():
        half, full = weight_bytes(folder / file), weight_bytes(golden_bundle / file)
        assert 0.5 * full <= half < 0.53 * full, name  # small tensors stay as they are
        saved = whole.files[file].size_bytes - manifest.files[file].size_bytes
        assert abs(saved - (full - half)) < 10_000, name  # nodes, which stay, but for the casts


def weight_bytes(path: Path) -> int:
    initializers = onnx_ir.load(path).graph.initializers.values()
    return sum(value.const_value.nbytes for value in initializers if value.const_value is not None)


def test_a_chat_folder_alone_answers_without_sound(
    facrt: Any, chat_bundle: tuple[Path, Manifest], golden_wavs: dict[str, list[Path]], tmp_path: Path
) -> None:
    folder, manifest = chat_bundle
    assert manifest.speakers == {}
    assert not {"vocoder", "flow_estimator", "speech_tokenizer"} & set(manifest.graphs)
    (turn,) = facrt.json("run", folder, golden_wavs["u2p0"][0], "--greedy", "--max-steps", 4, cwd=tmp_path)["turns"]
    assert turn["audio"] is None
    assert turn["text"]
    assert len(turn["text_ids"]) == 4
    assert len(turn["speech_ids"]) == 15
    assert not list(tmp_path.iterdir())
    engine = load(folder, max_positions=64, check_hashes=False)
    assert not engine.has_audio
    with pytest.raises(RequestError, match="no detokenizer; export it with --detokenizer DIR"):
        engine.synthesize([1, 2])
    with pytest.raises(RequestError, match="no speech tokenizer; export it with --speech-tokenizer DIR"):
        engine.encode_voice(question(1.0))


def test_inspect(facrt: Any, chat_bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = chat_bundle
    summary = facrt.json("inspect", folder)
    assert summary["recipe"] == manifest.recipe
    assert summary["files"] == {name: entry.size_bytes for name, entry in manifest.files.items()}
    assert summary["size_bytes"] == sum(summary["files"].values())
    table = facrt("inspect", folder)
    assert table.returncode == 0
    for name in manifest.graphs:
        assert name in table.stdout


def test_verify_refuses_another_checkpoint(chat_bundle: tuple[Path, Manifest], checkpoint: Path) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    raw["text_config"]["rope_theta"] = 10_000
    (checkpoint / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="another configuration than the checkpoint"):
        pipeline.verify(chat_bundle[0], str(checkpoint))
    with pytest.raises(CheckpointError, match="no folder"):
        pipeline.verify(chat_bundle[0], "/nowhere")


SOUNDS = {
    "as it is": (None, " finite, audible; no reference given"),
    "silence": (np.zeros(960, np.float32), " silence"),
    "nothing": (np.zeros(0, np.float32), " silence"),
    "NaN": (np.full(960, np.nan, np.float32), " NaN or infinity"),
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_verify_without_the_detokenizers_folder_listens(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch, sound: str
) -> None:
    wav, note = SOUNDS[sound]
    if wav is not None:
        monkeypatch.setattr(Detokenizer, "synthesize", lambda *_: wav)
    report = pipeline.verify(golden_bundle, str(CHAT))
    assert report["ok"] == (wav is None)
    assert report["not_compared"] == ["detokenizer", "speech tokenizer"]
    assert [(row["note"], row["ok"]) for row in report["rows"] if row["stage"] == "waveform"] == [(note, wav is None)]
    json.dumps(report, allow_nan=False)


def test_verify_says_that_the_memory_is_too_small(golden_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "available_bytes", lambda: 1 << 20)
    with pytest.raises(RequestError, match=r"cannot be verified here: the reference needs .* of memory"):
        pipeline.verify(golden_bundle, str(CHAT))


def test_verify_finds_other_weights(facrt: Any, chat_bundle: tuple[Path, Manifest], checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if n.startswith("language_model") and n.endswith("layers.1.mlp.down_proj.weight"))
    tensors[name] *= 1.5
    save_file(tensors, path)
    result = facrt("verify", chat_bundle[0], "--source", checkpoint, "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    bad = {row["stage"] for row in report["rows"] if not row["ok"]}
    assert {"hidden", "text_logits"} <= bad
    assert not bad & {"log_mel", "audio_encoder", "audio_grouping", "embeds"}


def test_parity_refuses_numbers_that_are_not_finite(
    chat_bundle: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = parity.compare
    original = parity._row

    def spoiled(engine: Any, rows: Any, stage: str, component: str, actual: Any, wanted: Any, note: str = "") -> None:
        actual = np.array(actual)
        if stage == "hidden":
            actual.flat[0] = np.nan
        original(engine, rows, stage, component, actual, wanted, note)

    monkeypatch.setattr(parity, "_row", spoiled)
    assert not compare(chat_bundle[0], CHAT, None, None)["ok"]
    with pytest.raises(FacrtError, match=r"hidden NaN or infinity.*--no-verify"):
        parity.measure(chat_bundle[0], CHAT, None, None)


def run_graph(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds))


def test_large_graphs_keep_their_weights_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, model = find_target("cpu"), open_model(CHAT)
    component = components(model.config, Cache(target.cache))["speech_upsampling"]
    sizes = [write_graph(model, component, "fp32", target, tmp_path / "whole.onnx")]
    monkeypatch.setattr(pipeline, "EXTERNAL_DATA_BYTES", 0)
    sizes.append(write_graph(model, component, "fp32", target, tmp_path / "split.onnx"))
    names = ["split.onnx", "split.onnx.data", "whole.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    split_bytes = [(tmp_path / name).stat().st_size for name in names[:2]]
    assert sizes == [(tmp_path / "whole.onnx").stat().st_size, sum(split_bytes)]
    assert split_bytes[0] < 10_000 < split_bytes[1]
    feeds = {"u": np.random.default_rng(0).standard_normal((7, 64)).astype(np.float32)}
    (wanted,), (found,) = (run_graph(tmp_path / name, feeds) for name in ("whole.onnx", "split.onnx"))
    np.testing.assert_array_equal(found, wanted)
    reference = model.chat.speech_head.upsample
    assert found.shape == (7, 5 * 64)
    for parameter in reference.parameters():
        if id(parameter) in model.readers:
            parameter.data = model.readers[id(parameter)]()
    np.testing.assert_allclose(found, reference(torch.from_numpy(feeds["u"])).detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"facrt_sampling": {"temperature": 0}}, "temperature 0 is not above 0"),
        ({"facrt_sampling": {"heat": 1}}, "allowed are temperature"),
        ({"facrt_sampling": 3}, "allowed are temperature"),
    ],
)
def test_sampling_of_a_checkpoint(tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    assert read_sampling(tmp_path) == PUBLISHED_SAMPLING
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"temperature": 0.1, "facrt_sampling": {"repetition_penalty": 1.0}}))
    assert read_sampling(tmp_path) == {**PUBLISHED_SAMPLING, "repetition_penalty": 1.0}
    path.write_text(json.dumps(given))
    with pytest.raises(CheckpointError, match=complaint):
        read_sampling(tmp_path)
