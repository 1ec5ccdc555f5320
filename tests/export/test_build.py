"""Plans without a GPU: what compiles, what is refused, that weights stay packed. By TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from facrt.errors import BundleError, FacrtError, RequestError
from facrt.export import build, compile
from facrt.export.build import build_plans, estimated_bytes
from facrt.export.compile import (
    CompileError,
    Job,
    compile_apart,
    compile_graph,
    profiles_of,
    refuse_unpacked,
    signature,
)
from facrt.export.pipeline import ExportRequest, OpenModel, export, open_model, write_graph
from facrt.export.targets import TARGETS
from facrt.model.components import MAX_CANDIDATES, Cache, Component, TensorSpec, components
from facrt.model.random_checkpoint import SameStep
from facrt.model.settings import GenerationSettings
from facrt.runtime import cuda, trt_library
from facrt.runtime.backend_ort import OrtBackend
from facrt.runtime.bundle import Manifest, PlanEntry, open_bundle
from facrt.runtime.engine import load
from facrt.runtime.sampling import SpeechSampling
from facrt.runtime.trt_speech_head import choice_inputs
from goldens import DETOKENIZER, LM
from onnx import TensorProto, helper
from small import POSITIONS, compiled

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt_rtx is not installed: facrt[rtx]"
)
BUNDLE_POSITIONS = 192  # room for the prompts that an export is checked with


# one of each kind; test_matrix.py compiles every scheme of every component
CASES = [
    ("audio_encoder", "int8"), ("backbone", "w8a8"), ("speech_head", "int4_128"), ("speech_head", "fp8"),
    ("vocoder", "int8"),
]  # fmt: skip


@needs_rtx
@pytest.mark.parametrize(("component", "scheme"), CASES)
def test_a_plan_for_every_desktop_gpu(small_model: OpenModel, tmp_path: Path, component: str, scheme: str) -> None:
    capabilities = [89, 120] if scheme == "fp8" else [80, 86, 89, 120]
    done = compiled(small_model, component, scheme, capabilities, tmp_path)
    assert done.plan_bytes == (tmp_path / f"{component}.{scheme}.onnx.plan").stat().st_size
    assert done.version.startswith("1.")


@needs_rtx
def test_the_form_of_jetpack_6_compiles_too(small_model: OpenModel, tmp_path: Path) -> None:
    """By the younger parser that is at hand; TensorRT 10.3 itself was never seen."""
    compiled(small_model, "speech_head", "int8", [86], tmp_path, TARGETS["orin-jp6"])


ROWS, COLS = 2560, 512


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Component]:
    """One matrix as a graph in every scheme, and its row of the table."""
    folder = tmp_path_factory.mktemp("matrices")
    source = open_model(LM / "model")
    layer = torch.nn.Linear(COLS, ROWS).requires_grad_(False)
    changed = replace(source, graphs=source.graphs | {"speech_upsampling": layer}, input_scales=SameStep())
    row = components(source.config, Cache("static", "float16", POSITIONS))["speech_upsampling"]
    row = replace(
        row, inputs=(replace(row.inputs[0], axes=("positions", COLS)),),
        outputs=(replace(row.outputs[0], axes=("positions", ROWS)),),
    )  # fmt: skip
    for scheme in ("fp16", "int8", "int4_128", "w8a8", "fp8"):
        write_graph(changed, row, scheme, TARGETS["rtx"], folder / f"{scheme}.onnx")
    return folder, row


def plan_of(matrices: tuple[Path, Component], scheme: str, capabilities: list[int], plan: Path) -> compile.Compiled:
    folder, row = matrices
    job = Job("tensorrt_rtx", str(folder / f"{scheme}.onnx"), str(plan), profiles_of(row), capabilities)
    return compile_graph(job, signature(row))


@needs_rtx
@pytest.mark.parametrize("capability", [86, 89, 120])
def test_a_plan_for_one_gpu(matrices: tuple[Path, Component], tmp_path: Path, capability: int) -> None:
    assert plan_of(matrices, "int4_128", [capability], tmp_path / "plan").plan_bytes


@needs_rtx
def test_fp8_is_for_some_gpus_alone(matrices: tuple[Path, Component], tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"fp8\.onnx does not compile with tensorrt_rtx .*HW-specific datatypes"):
        plan_of(matrices, "fp8", [86], tmp_path / "plan")


@needs_rtx
def test_weights_stay_packed(matrices: tuple[Path, Component], tmp_path: Path) -> None:
    """What each scheme saves of the plan is what it saves of the weights."""
    sizes = {
        scheme: plan_of(matrices, scheme, [89, 120] if scheme == "fp8" else [86, 89, 120], tmp_path / scheme).plan_bytes
        for scheme in ("fp16", "int8", "int4_128", "w8a8", "fp8")
    }
    for scheme, bits in {"int8": 8, "w8a8": 8, "fp8": 8, "int4_128": 4}.items():
        assert sizes["fp16"] - sizes[scheme] > 0.85 * ROWS * COLS * (16 - bits) / 8, sizes


@needs_rtx
def test_convolutions_stay_packed(tmp_path: Path) -> None:
    """One convolution in the vocoder's place."""
    channels, taps = 512, 7
    source = open_model(LM / "model", DETOKENIZER / "model")
    convolution = torch.nn.Conv1d(channels, channels, taps, padding=taps // 2).requires_grad_(False)
    changed = replace(source, graphs=source.graphs | {"vocoder": convolution})
    row = components(source.config, Cache("static", "float16", POSITIONS))["vocoder"]
    inside, outside = (replace(spec, axes=(1, channels, "frames")) for spec in (row.inputs[0], row.outputs[0]))
    row = replace(row, inputs=(inside,), outputs=(outside,), states=(), profiles=({"frames": (16, 50, 100)},))
    sizes = {}
    for scheme in ("fp16", "int8"):
        write_graph(changed, row, scheme, TARGETS["rtx"], tmp_path / scheme)
        job = Job("tensorrt_rtx", str(tmp_path / scheme), str(tmp_path / "plan"), profiles_of(row), [86, 89, 120])
        sizes[scheme] = compile_graph(job, signature(row)).plan_bytes
    assert sizes["fp16"] - sizes["int8"] > 0.85 * channels * channels * taps, sizes


def test_a_plan_that_is_too_large() -> None:
    refuse_unpacked("head.onnx", 63 << 20, 68 << 20)
    with pytest.raises(CompileError, match=r"head\.onnx of 63 MiB became a plan of 130 MiB: its weights are stored"):
        refuse_unpacked("head.onnx", 63 << 20, 130 << 20)


def attention_graph(path: Path, mask: bool, spare_input: bool = False) -> dict[str, Any]:
    """A step with a static cache whose length is told by a mask, or by `nonpad_kv_seqlen`; its signature."""
    f16, i64 = TensorProto.FLOAT16, TensorProto.INT64
    caches = {name: (f16, [1, 2, 32, 64]) for name in ("past_k", "past_v")}
    inputs = {name: (f16, [1, 2, 1, 64]) for name in "qkv"} | caches | {"position": (i64, [1])}
    outputs = {"y": (f16, [1, 2, 1, 64]), "new_k": caches["past_k"], "new_v": caches["past_v"]}
    nodes = [
        helper.make_node("TensorScatter", [f"past_{n}", n, "position"], [f"new_{n}"], axis=-2, mode="linear")
        for n in "kv"
    ]
    constants = [helper.make_tensor("one", i64, [1], [1])]
    if mask:
        inputs["mask"] = (f16, [1, 1, 1, 32])
        nodes.append(helper.make_node("Attention", ["q", "new_k", "new_v", "mask"], ["y"]))
    else:
        nodes.append(helper.make_node("Add", ["position", "one"], ["length"]))
        nodes.append(helper.make_node("Attention", ["q", "new_k", "new_v", "", "", "", "length"], ["y"]))
    if spare_input:
        inputs["spare"] = (f16, [1, 8])
    values = [[helper.make_tensor_value_info(n, *v) for n, v in side.items()] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "step", *values, constants)
    opsets = [helper.make_opsetid("", 24)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), path)
    names = {f16: "float16", i64: "int64"}
    sides = {"inputs": inputs, "outputs": outputs}
    return {side: {n: names[v[0]] for n, v in tensors.items()} for side, tensors in sides.items()}


@needs_rtx
def test_the_lint_lets_a_mask_pass(tmp_path: Path) -> None:
    wanted = attention_graph(tmp_path / "step.onnx", mask=True)
    trt, log = trt_library.open_library("tensorrt_rtx"), trt_library.Log()
    builder = trt.Builder(trt_library.logger_of(trt, log))
    network = compile.parse(trt, builder, str(tmp_path / "step.onnx"), log)
    assert compile.lint(trt, network) + compile.differences(trt, network, wanted) == []


@needs_rtx
@pytest.mark.parametrize(
    ("mask", "spare_input", "fault"),
    [(False, False, r"the result of .* is dropped"), (True, True, "input spare is read by no layer")],
)
def test_the_lint_refuses(tmp_path: Path, mask: bool, spare_input: bool, fault: str) -> None:
    """TensorRT-RTX drops `nonpad_kv_seqlen` without a word, and compiles what then attends to padding."""
    wanted = attention_graph(tmp_path / "step.onnx", mask, spare_input)
    job = Job("tensorrt_rtx", str(tmp_path / "step.onnx"), str(tmp_path / "plan"), [], [86, 120])
    with pytest.raises(CompileError, match=fault):
        compile_graph(job, wanted)
    assert not (tmp_path / "plan").exists()


@needs_rtx
def test_a_network_that_is_not_the_tables(tmp_path: Path) -> None:
    wanted = attention_graph(tmp_path / "step.onnx", mask=True)
    wanted["inputs"]["mask"] = "float32"
    job = Job("tensorrt_rtx", str(tmp_path / "step.onnx"), str(tmp_path / "plan"), [], [86])
    with pytest.raises(CompileError, match=r"inputs differ from the table: .*mask"):
        compile_graph(job, wanted)


@needs_rtx
def test_a_profile_that_contradicts_itself(small_model: OpenModel, tmp_path: Path) -> None:
    """More new rows than the cache has: TensorRT-RTX compiles it and only warns."""
    row = components(small_model.config, TARGETS["rtx"].keep(4))["backbone"]
    write_graph(small_model, row, "fp16", TARGETS["rtx"], tmp_path / "b.onnx")
    broken = replace(row, profiles=({"new": (1, 1, 9)},))
    job = Job("tensorrt_rtx", str(tmp_path / "b.onnx"), str(tmp_path / "plan"), profiles_of(broken), [86])
    with pytest.raises(CompileError, match="has a profile that contradicts itself"):
        compile_graph(job, signature(row))


@needs_rtx
def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    row = Component("x", "", 0, (TensorSpec("a", "float32", (1,)),), (TensorSpec("b", "float32", (1,)),))
    job = Job("tensorrt_rtx", str(tmp_path / "x.onnx"), str(tmp_path / "plan"), [], [86])
    with pytest.raises(CompileError, match=r"x\.onnx cannot be read by TensorRT"):
        compile_apart(job, row)


@pytest.fixture(scope="module")
def rtx(small_model: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A whole bundle for rtx, compiled where TensorRT-RTX is at hand."""
    out = tmp_path_factory.mktemp("rtx") / "bundle"
    found = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
    request = ExportRequest(str(small_model.folder), out, "rtx", detokenizer=DETOKENIZER / "model",
                            max_positions=BUNDLE_POSITIONS, build=found)  # fmt: skip
    return out, export(request)


@needs_rtx
def test_export_compiles(rtx: tuple[Path, Manifest]) -> None:
    folder, manifest = rtx
    assert set(manifest.plans) == set(manifest.graphs) - {"vocoder_source"}
    assert {plan.capabilities for plan in manifest.plans.values()} == {(80, 86, 89, 120)}
    assert open_bundle(folder).manifest == manifest  # every plan with its size and hash
    assert not list(folder.glob("*.partial"))
    assert manifest.parity["ok"]
    assert manifest.recipe["backbone"] == "fp16"


def test_the_graphs_of_a_bundle_for_a_gpu_answer_on_the_cpu(rtx: tuple[Path, Manifest]) -> None:
    engine = load(rtx[0], backend="onnx")
    assert engine.backbone.capacity == BUNDLE_POSITIONS
    reply = engine.respond(text="Hi.", greedy=True, max_steps=3)
    assert reply.audio is not None
    assert np.isfinite(reply.audio).all()
    assert len(reply.speech_ids) % engine.config.group_size == 0
    with pytest.raises(
        RequestError, match=r"max_positions 193 is more than the 192 of this bundle; .*--max-positions 193"
    ):
        load(rtx[0], backend="onnx", max_positions=193)


def test_the_device_loops_graphs_choose_as_the_host(rtx: tuple[Path, Manifest]) -> None:
    """speech_input, speech_head and speech_choice in a chain, as `DeviceLoop` launches them, without a device."""
    engine = load(rtx[0], backend="onnx")
    backend, head = OrtBackend(engine.bundle, 1), engine.speech_head
    u = np.random.default_rng(0).standard_normal((4, engine.config.text.hidden_size)).astype(np.float32)
    settings = GenerationSettings(repetition_penalty=1.3)
    head.prefill(u[:3], SpeechSampling(settings))
    wanted = head.group(u[3], SpeechSampling(settings))
    head.truncate(3)
    join, choose = backend.graph("speech_input"), backend.graph("speech_choice")
    (sub_vectors,) = backend.graph("speech_upsampling")(u[3:])
    choice = choice_inputs(settings)
    assert choice is not None
    token, seen = np.array(head._last_tokens[-1:]), np.zeros(engine.config.codebook_size, np.float32)
    found = []
    for i in range(engine.config.group_size):
        (z,) = join(sub_vectors, np.array([i]), token)
        (logits,) = head.decoder(z)
        given = (choice["penalty"], choice["temperature"], choice["top_k"], choice["top_p"])
        token, seen = choose(logits, seen, *given, np.zeros(MAX_CANDIDATES, np.float32))
        found.append(int(token[0]))
    assert found == wanted


def test_what_needs_no_compiling(golden_bundle: Path, facrt: Any) -> None:
    assert "is for cpu, which nothing is compiled for: it runs as it is" in facrt.refusal("build", golden_bundle)
    assert "it is no bundle" in facrt.refusal("build", LM)


@pytest.fixture
def orin(rtx: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """The same graphs in a bundle for Jetson Orin, without plans."""
    folder, manifest = rtx
    out = tmp_path / "orin"
    out.mkdir()
    plans = {plan.file for plan in manifest.plans.values()}
    for name in set(manifest.files) - plans:
        (out / name).hardlink_to(folder / name)
    files = {name: entry for name, entry in manifest.files.items() if name not in plans}
    replace(manifest, target="orin", plans={}, files=files).write(out)
    return out


def fake_library(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = types.SimpleNamespace(__version__=version)
    monkeypatch.setattr(build, "open_library", lambda name: module)


def fake_device(monkeypatch: pytest.MonkeyPatch, capability: int, free_bytes: int = 1 << 40) -> None:
    device = cuda.Device(capability, True, free_bytes, 1 << 40)
    monkeypatch.setattr(cuda, "device", lambda: device)


def test_the_library_is_absent(orin: Path, facrt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("tensorrt") is None:
        line = facrt.refusal("build", orin)
        assert "tensorrt is not installed: apt install python3-libnvinfer on a Jetson, elsewhere: pip install" in line
    monkeypatch.setitem(trt_library.MODULES, "tensorrt_rtx", "no_such_module")
    with pytest.raises(RequestError, match=r"tensorrt_rtx is not installed: pip install 'facrt\[rtx\]'$"):
        trt_library.open_library("tensorrt_rtx")


def test_the_library_is_too_old(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_library(monkeypatch, "10.3.0")
    with pytest.raises(RequestError, match=r"tensorrt 10\.3\.0 is too old for these graphs; 10\.15 or newer"):
        build_plans(orin)


def test_another_gpu(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_library(monkeypatch, "10.16.1")
    fake_device(monkeypatch, 110)
    with pytest.raises(RequestError, match=r"is for orin \(SM87\), this GPU is SM110; export it for another target"):
        build_plans(orin)


def test_no_gpu(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_library(monkeypatch, "10.16.1")
    monkeypatch.setattr(cuda, "call", refuse_call)
    with pytest.raises(FacrtError, match="no NVIDIA GPU can be used here: "):
        build_plans(orin)


def refuse_call(name: str, *_: Any) -> None:
    raise cuda.CudaError(f"{name}: no CUDA-capable device is detected (CUDA error 100)")


def test_too_little_memory(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_library(monkeypatch, "10.16.1")
    fake_device(monkeypatch, 87, free_bytes=100 << 20)
    before = sorted(orin.iterdir())
    with pytest.raises(FacrtError, match=r"needs about 0\.9 GiB of memory, 0\.1 are free: stop other programs"):
        build_plans(orin)
    assert sorted(orin.iterdir()) == before
    name, needed = estimated_bytes({"backbone": 987 << 20, "vocoder": 1 << 20})
    assert name == "backbone"
    assert needed > 4177 << 20  # what a graph of this size was seen to need


def test_a_failed_build_leaves_the_bundle(
    rtx: tuple[Path, Manifest], orin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_library(monkeypatch, "10.16.1")
    fake_device(monkeypatch, 87)

    def fail(job: Job, component: Component) -> compile.Compiled:
        if component.name == "backbone":
            raise CompileError("backbone.onnx does not compile")
        Path(job.plan).write_bytes(b"plan")
        return compile.Compiled("10.16.1", 1.0, 4, 0)

    monkeypatch.setattr(build, "compile_apart", fail)
    before = sorted(orin.iterdir())
    with pytest.raises(CompileError, match="does not compile"):
        build_plans(orin)
    assert sorted(orin.iterdir()) == before
    assert open_bundle(orin).manifest.plans == {}


def test_a_build_on_the_device(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that is a stand-in: jobs name no capability, plans remember the device's."""
    fake_library(monkeypatch, "10.16.1")
    fake_device(monkeypatch, 87)
    jobs: list[Job] = []

    def stand_in(job: Job, component: Component) -> compile.Compiled:
        jobs.append(job)
        Path(job.plan).write_bytes(b"plan")
        return compile.Compiled("10.16.1", 1.0, 4, 0)

    monkeypatch.setattr(build, "compile_apart", stand_in)
    manifest = build_plans(orin)
    assert {(job.library, tuple(job.capabilities)) for job in jobs} == {("tensorrt", ())}
    assert manifest.plans["backbone"] == PlanEntry("backbone.plan", "tensorrt", "10.16.1", (87,))
    assert open_bundle(orin).manifest == manifest


@needs_rtx
def test_a_truncated_plan(rtx: tuple[Path, Manifest], tmp_path: Path) -> None:
    path = tmp_path / "head.plan"
    path.write_bytes((rtx[0] / "speech_head.plan").read_bytes()[:500])
    trt = trt_library.open_library("tensorrt_rtx")
    with pytest.raises(BundleError, match=r"head\.plan is no plan that TensorRT 1\."):
        trt_library.deserialize(trt, path)
