"""The TensorRT backend as far as no GPU is needed; what needs one carries the marker `gpu` and was never run."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from facrt.errors import BundleError, RequestError
from facrt.export.build import build_plans
from facrt.export.pipeline import ExportRequest, OpenModel, export
from facrt.model.components import Cache, Component, components
from facrt.model.settings import GenerationSettings
from facrt.runtime import backend_tensorrt, cuda
from facrt.runtime.backend_tensorrt import differences, open_plans
from facrt.runtime.bundle import Bundle, PlanEntry, open_bundle
from facrt.runtime.engine import Engine, load
from facrt.runtime.sampling import SpeechSampling
from facrt.runtime.trt_speech_head import SLOT_BYTES, Block, choice_inputs
from goldens import DETOKENIZER

KINDS = {"float32": "f32", "float16": "f16", "int8": "i8", "int64": "i64", "int32": "i32"}
TRT = SimpleNamespace(**KINDS, __version__="1.7.1")


class FakeEngine:
    """What an engine of a component says of itself; `wrong` replaces an answer."""

    def __init__(self, component: Component, wrong: dict[str, Any] | None = None) -> None:
        self.component, self.wrong = component, wrong or {}
        self.specs = {s.name: s for s in (*component.all_inputs, *component.all_outputs)}
        self.names = [name for name in self.specs if self.wrong.get(name) != "absent"]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_dtype(self, name: str) -> str:
        return self.wrong.get(f"{name} dtype", KINDS[self.specs[name].dtype])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        lengths = self.wrong.get("profile", self.component.profiles[index])
        return [[lengths[a][k] if isinstance(a, str) else a for a in self.specs[name].axes] for k in range(3)]


@pytest.fixture
def bundle(golden_bundle: Path) -> Bundle:
    """The golden bundle as if TensorRT-RTX 1.7.1 had compiled its head."""
    opened = open_bundle(golden_bundle, check_hashes=False)
    plans = {"speech_head": PlanEntry("speech_head.plan", "tensorrt_rtx", "1.7.1", (86, 89))}
    return replace(opened, manifest=replace(opened.manifest, target="rtx", plans=plans))


def test_bindings_and_profiles_are_the_tables(golden_bundle: Path) -> None:
    model = open_bundle(golden_bundle, check_hashes=False).manifest.model
    for layout, dtype in (("static", "float16"), ("prefix", "float16"), ("prefix", "int8")):
        for component in components(model, Cache(layout, dtype, 64)).values():
            if component.name == "vocoder_source":
                continue  # float64, which TensorRT has not: it stays on the CPU
            assert differences(TRT, FakeEngine(component), component) == []
    head = components(model, Cache("static", "float16", 64))["speech_head"]
    for wrong, fault in (
        ({"z": "absent"}, "z is missing"),
        ({"past_key_0 dtype": "f32"}, "past_key_0 is float32"),
        ({"profile": {"new": (1, 1, 3)}}, "profile 0 of z is "),
    ):
        assert any(fault in found for found in differences(TRT, FakeEngine(head, wrong), head))
    other = replace(head, inputs=head.inputs[:1])
    assert differences(TRT, FakeEngine(head), other) == ["position is no tensor of speech_head"]


def test_no_plans(golden_bundle: Path, facrt: Any) -> None:
    line = facrt.refusal("run", golden_bundle, "--text", "Hi.", "--backend", "tensorrt")
    assert "holds no plans: run facrt build" in line
    assert "its graphs run on the CPU with --backend onnx" in line
    assert "backend 'gpu' is unknown; allowed: onnx, cuda, tensorrt" in facrt.refusal(
        "run", golden_bundle, "--text", "Hi.", "--backend", "gpu"
    )


def test_a_plan_of_another_version(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_tensorrt, "open_library", lambda name: SimpleNamespace(__version__="1.8.0"))
    with pytest.raises(BundleError, match=r"speech_head\.plan was compiled by tensorrt_rtx 1\.7\.1, 1\.8\.0 is inst"):
        open_plans(bundle)


def test_a_plan_for_another_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_tensorrt, "open_library", lambda name: TRT)
    monkeypatch.setattr(cuda, "device", lambda: cuda.Device(90, False, 1 << 36, 1 << 36))
    with pytest.raises(BundleError, match=r"was compiled for SM86, SM89, this GPU is SM90; run facrt build .* here"):
        open_plans(bundle)
    monkeypatch.setattr(cuda, "device", lambda: cuda.Device(89, False, 1 << 36, 1 << 36))
    assert open_plans(bundle)[1].capability == 89


def test_no_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_tensorrt, "open_library", lambda name: TRT)
    monkeypatch.setattr(cuda, "call", refuse)
    with pytest.raises(RequestError, match=r"no NVIDIA GPU can be used here: .*\(CUDA error 35\); its graphs run on"):
        open_plans(bundle)


def refuse(name: str, *_: Any) -> None:
    raise cuda.CudaError(f"{name}: the driver is too old (CUDA error 35)")


def test_no_cuda_provider(golden_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(RequestError, match=r"has no CUDAExecutionProvider here: pip install onnxruntime-gpu"):
        load(golden_bundle, backend="cuda", check_hashes=False)


def test_what_the_device_can_choose() -> None:
    greedy = choice_inputs(GenerationSettings(repetition_penalty=1.2))
    assert greedy is not None
    assert (int(greedy["top_k"][0]), float(greedy["penalty"][0])) == (1, np.float32(1.2))
    drawn = choice_inputs(GenerationSettings(do_sample=True, top_k=20, top_p=0.8, temperature=0.7))
    assert drawn is not None
    assert (int(drawn["top_k"][0]), float(drawn["top_p"][0])) == (20, np.float32(0.8))
    for top_k in (0, 65):  # off, or more than the graph keeps: the host chooses
        assert choice_inputs(GenerationSettings(do_sample=True, top_k=top_k)) is None


class HostMemory:
    """Stands for device memory where there is no device."""

    def __init__(self, num_bytes: int, pinned: bool = False) -> None:
        self._raw = (ctypes.c_byte * max(1, num_bytes))()
        self.address, self.num_bytes = ctypes.addressof(self._raw), num_bytes


def test_a_block_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots start at TensorRT's alignment and do not overlap."""
    monkeypatch.setattr(cuda, "Memory", HostMemory)
    block = Block({"a": ("float32", (65,), 2), "b": ("int64", (1,), 3), "c": ("float32", (1, 3), 1)})
    places = [block.address(n, i) for n, count in (("a", 2), ("b", 3), ("c", 1)) for i in range(count)]
    offsets = [place - places[0] for place in places]
    assert offsets == [0, 512, 1024, 1280, 1536, 1792]
    assert block.num_bytes == 2048
    assert all(offset % SLOT_BYTES == 0 for offset in offsets)
    block.array("a", 1)[:] = 1
    block.array("b", 2)[:] = 7
    assert not block.array("a", 0).any()
    assert block.array("b", 2).tolist() == [7]
    assert block.array("c").shape == (1, 3)


def has_gpu() -> bool:
    try:
        cuda.device()
    except cuda.CudaError:
        return False
    return True


on_a_gpu = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU: never run so far")]


@pytest.fixture(scope="module")
def pair(small_model: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """The same bundle as TensorRT's engines and as graphs on the CPU."""
    folder = tmp_path_factory.mktemp("gpu") / "bundle"
    target = "rtx" if importlib.util.find_spec("tensorrt_rtx_bindings") else "cuda"
    export(ExportRequest(str(small_model.folder), folder, target, detokenizer=DETOKENIZER / "model", max_positions=64))
    if target != "rtx":
        build_plans(folder)
    return load(folder), load(folder, backend="onnx")


class TestOnAGpu:
    pytestmark = on_a_gpu

    def test_the_backbone(self, pair: tuple[Engine, Engine]) -> None:
        """Prefill, steps and a truncated cache: as the graphs say, up to float16."""
        x = np.random.default_rng(0).standard_normal((12, 128)).astype(np.float32)
        rows = []
        for engine in pair:
            found = [engine.backbone(x[:9])[0].copy(), *(engine.backbone(row[None])[0].copy() for row in x[9:])]
            engine.backbone.truncate(5)
            rows.append(np.concatenate([*found, engine.backbone(x[5:])[0]]))
        assert np.linalg.norm(rows[0] - rows[1]) / np.linalg.norm(rows[1]) < 2e-2

    def test_the_group_on_the_device(self, pair: tuple[Engine, Engine]) -> None:
        """The first call, the recording and the replay of the CUDA graph."""
        u = np.random.default_rng(1).standard_normal((9, 128)).astype(np.float32)
        logits = []
        for engine in pair:
            greedy, head = SpeechSampling(GenerationSettings()), engine.speech_head
            head.reset()
            head.prefill(u[:3], greedy)
            found = []
            for row in u[3:]:
                head.group(row, greedy)
                found.append(head.group_logits()[0])  # later ones hang on tokens, which rounding may turn
            logits.append(np.stack(found[:1]))
        assert np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[1]) < 5e-2

    def test_an_answer(self, pair: tuple[Engine, Engine]) -> None:
        reply = pair[0].respond(text="Hi.", greedy=True, max_steps=4)
        assert reply.audio is not None
        assert np.isfinite(reply.audio).all()
