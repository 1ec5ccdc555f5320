"""The targets: what each row asks for, what is refused before a weight is read, what the graphs hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from facrt.errors import RequestError
from facrt.export.attention import FORMS
from facrt.export.pipeline import ExportRequest, OpenModel, export, open_model, write_graph
from facrt.export.targets import CPU_SCHEMES, GPU_SCHEMES, TARGETS
from facrt.model.components import PREFILL_ROWS, Cache, components
from facrt.model.random_checkpoint import SameStep
from facrt.quant.recipe import RECIPES, Wish
from facrt.quant.schemes import SCHEMES
from facrt.runtime import _native
from goldens import DETOKENIZER, LM, S3

GPU_TARGETS = [name for name in TARGETS if name != "cpu"]
Tensor = onnx.TensorProto


def test_the_rows() -> None:
    assert set(TARGETS) == {"cpu", "rtx", "orin-jp6", "orin", "thor", "cuda"}
    assert {*CPU_SCHEMES, *GPU_SCHEMES} == set(SCHEMES)
    for row in TARGETS.values():
        assert set(row.schemes) <= set(SCHEMES)
        assert row.attention in FORMS
        assert row.default in RECIPES
    fp8 = {name for name, row in TARGETS.items() if "fp8" in row.schemes}
    assert fp8 == {"rtx", "thor", "cuda"}  # no Orin
    jetpack6 = TARGETS["orin-jp6"]
    assert (jetpack6.opset, jetpack6.attention, jetpack6.cache) == (18, "Decomposed", "prefix")
    same = {(TARGETS[name].opset, TARGETS[name].attention, TARGETS[name].cache, TARGETS[name].integers)
            for name in ("rtx", "orin", "thor", "cuda")}  # fmt: skip
    assert same == {(24, "Scatter", "static", "qdq")}  # so what holds for rtx's graphs holds for all of them


@pytest.mark.parametrize("target", GPU_TARGETS)
@pytest.mark.parametrize("precision", RECIPES)
def test_every_recipe_but_fp32_is_one_that_a_gpu_runs(target: str, precision: str) -> None:
    row = TARGETS[target]
    wish = Wish(precision, {}, row.substitutes)
    if precision == "fp32":
        with pytest.raises(RequestError, match=rf"target {target} cannot run fp32 \(backbone\); allowed: fp16, int8"):
            wish.refuse_impossible(row.schemes, target, row.limited)
        return
    wish.refuse_impossible(row.schemes, target, row.limited)
    names = ["audio_encoder", "backbone", "speech_head", "speech_choice", "vocoder_source", "vocoder"]
    assert set(wish.recipe(names).values()) <= set(row.schemes)


def test_the_builder_needs_no_torch() -> None:
    code = "import facrt.export.build, facrt.runtime.backend_tensorrt, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "onnx", "onnx_ir", "onnxscript"} & set(done.stdout.split())


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    """A checkpoint whose weights would be missed if anyone looked."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(LM / "model" / name, folder / name)
    return folder


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fp32 caches": ({"target": "rtx", "precision": "fp32"}, r"target rtx cannot run fp32 \(backbone\); allowed: fp16"),
    "fp8 on Orin": (
        {"target": "orin", "overrides": {"backbone": "fp8"}}, r"target orin cannot run fp8 \(backbone\); allowed: fp16"
    ),
    "small blocks": (
        {"target": "rtx", "overrides": {"speech_head": "awq_32"}}, r"target rtx cannot run awq_32 \(speech_head\)"
    ),
    "choosing in fp16": (
        {"target": "rtx", "overrides": {"speech_choice": "fp16"}},
        "speech_choice cannot be stored as fp16; allowed: fp32",
    ),
    "native head": ({"target": "rtx", "native": "int8"}, "target rtx has no native speech head: leave --native out"),
    "an INT8 cache that is scattered into": (
        {"target": "rtx", "kv_cache": "int8"}, "target rtx has no int8 KV cache; allowed: fp16"
    ),
    "a half cache on the CPU": (
        {"target": "cpu", "kv_cache": "fp16"}, "target cpu has no fp16 KV cache; allowed: fp32, int8"
    ),
    "no positions": ({"target": "orin", "max_positions": 0}, "--max-positions is 0; 1 or more is needed"),
    "unknown": ({"target": "nx"}, "target 'nx' is unknown; allowed: cpu, rtx, orin-jp6, orin, thor, cuda"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_before_weights_are_read(fault: str, weightless: Path, tmp_path: Path) -> None:
    options, words = REFUSED[fault]
    with pytest.raises(RequestError, match=words):
        export(ExportRequest(str(weightless), tmp_path / "out", build=False, **options))
    assert not (tmp_path / "out").exists()


def test_quantized_experts_are_refused(weightless: Path, tmp_path: Path) -> None:
    raw = json.loads((weightless / "config.json").read_text())
    raw["text_config"] |= {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
                           "moe_intermediate_size": 32, "decoder_sparse_step": 1}  # fmt: skip
    (weightless / "config.json").write_text(json.dumps(raw))
    request = ExportRequest(str(weightless), tmp_path / "out", target="orin", precision="int8")
    with pytest.raises(RequestError, match=r"target orin cannot run experts in int8 \(backbone\); allowed: fp16"):
        export(request)


def test_the_command_line_refuses(facrt: Any, weightless: Path, tmp_path: Path) -> None:
    line = facrt.refusal("export", weightless, "--out", tmp_path / "b", "--target", "orin-jp6", "--set", "backbone=fp8")
    assert "target orin-jp6 cannot run fp8 (backbone); allowed: fp16, int8, int4_128, awq_128, w8a8" in line


def written(model: OpenModel, component: str, scheme: str, target: str, folder: Path) -> onnx.ModelProto:
    row = TARGETS[target]
    table = components(model.config, row.keep(64))
    write_graph(model, table[component], scheme, row, folder / f"{component}.onnx")
    return onnx.load(folder / f"{component}.onnx")


STORED = {"int8": Tensor.INT8, "w8a8": Tensor.INT8, "int4_128": Tensor.INT4, "fp8": Tensor.FLOAT8E4M3FN}


@pytest.mark.parametrize("scheme", ["fp16", *STORED])
def test_a_product_is_what_the_scheme_says(small_model: OpenModel, tmp_path: Path, scheme: str) -> None:
    """The graph in ONNX Runtime against the scheme's own dequantized weight."""
    weight = torch.randn(640, 256, generator=torch.Generator().manual_seed(0)) * 0.05
    weight[3] = 0
    bias = torch.randn(640, generator=torch.Generator().manual_seed(1))
    layer = torch.nn.Linear(256, 640)
    layer.weight, layer.bias = (torch.nn.Parameter(value, requires_grad=False) for value in (weight, bias))
    changed = replace(small_model, graphs=small_model.graphs | {"speech_upsampling": layer})
    row = components(small_model.config, Cache("static"))["speech_upsampling"]
    row = replace(
        row, inputs=(replace(row.inputs[0], axes=("positions", 256)),),
        outputs=(replace(row.outputs[0], axes=("positions", 640)),),
    )  # fmt: skip
    write_graph(changed, row, scheme, TARGETS["rtx"], tmp_path / "g.onnx")
    graph = onnx.load(tmp_path / "g.onnx")
    kinds = {t.data_type for t in graph.graph.initializer}
    assert STORED.get(scheme, Tensor.FLOAT16) in kinds
    scales = [onnx.numpy_helper.to_array(t) for t in graph.graph.initializer if t.name.endswith(".scales")]
    assert all((one != 0).all() for one in scales)  # TensorRT refuses zeros
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(2))
    form, given, kept = SCHEMES[scheme], x, weight
    if form.quantize:
        kept = form.dequantize(form.quantize(weight))
    if scheme == "w8a8":
        given = (x / SameStep.value).round().clamp(-128, 127) * SameStep.value
    if scheme == "fp8":
        step = SameStep.value * 127 / 448
        given = torch.from_numpy((x / step).numpy().astype(ml_dtypes.float8_e4m3fn).astype(np.float32)) * step
    wanted = (given @ kept.T + bias).numpy()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # else it rounds the input as well
    (found,) = ort.InferenceSession(tmp_path / "g.onnx", options).run(None, {"u": x.numpy()})
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 3e-3
    size = sum(len(t.raw_data) for t in graph.graph.initializer)
    bits = {"fp16": 16, "int4_128": 4}.get(scheme, 8)
    assert size < weight.numel() * bits / 8 * 1.05 + 640 * 4 + 640 * 2 + 64


def test_graphs_of_jetpack_6_are_old_enough(small_model: OpenModel, tmp_path: Path) -> None:
    """Opset 18 and none of its younger operators; integers need the tag 21, their scales being float16."""
    graph = written(small_model, "speech_head", "fp16", "orin-jp6", tmp_path)
    assert [o.version for o in graph.opset_import if not o.domain] == [18]
    assert not {"Attention", "TensorScatter", "RotaryEmbedding", "RMSNormalization"} & {
        n.op_type for n in graph.graph.node
    }
    caches = [v for v in graph.graph.input if v.name.startswith("past_")]
    assert {v.type.tensor_type.elem_type for v in caches} == {Tensor.FLOAT16}
    graph = written(small_model, "speech_head", "int8", "orin-jp6", tmp_path)
    assert [o.version for o in graph.opset_import if not o.domain] == [21]
    assert Tensor.INT8 in {t.data_type for t in graph.graph.initializer}


def test_static_caches_have_their_length(small_model: OpenModel, tmp_path: Path) -> None:
    graph = written(small_model, "backbone", "fp16", "rtx", tmp_path)
    text = small_model.config.chat.text
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input}
    assert shapes["past_key_0"] == [1, text.num_kv_heads, 64, text.head_dim]
    assert not {n.domain for n in graph.graph.node} - {""}  # nothing that ONNX Runtime alone knows
    weights = [t for t in graph.graph.initializer if len(t.dims) == 2 and np.prod(t.dims) > 1024]
    assert {t.data_type for t in weights} == {Tensor.FLOAT16}


def test_the_profiles(small_model: OpenModel) -> None:
    """Every varying axis of every input has lengths; no profile of one row lies beside a larger one."""
    full = open_model(LM / "model", DETOKENIZER / "model", S3 / "model").config
    for target in GPU_TARGETS:
        for positions in (1, 3, 4096):
            for component in components(full, TARGETS[target].keep(positions)).values():
                axes = {a for spec in component.all_inputs for a in spec.axes if isinstance(a, str)}
                assert component.profiles or not axes
                for profile in component.profiles:
                    assert set(profile) == axes, component.name
                    assert all(0 <= low <= usual <= most for low, usual, most in profile.values())
                    assert profile.get("new", (1, 1, 2))[1] <= PREFILL_ROWS
                if len(component.profiles) > 1 and positions > 3:
                    first, second = (profile["new"] for profile in component.profiles)
                    assert first[2] > 1
                    assert second[0] <= first[2]


def chosen(session: ort.InferenceSession, logits: np.ndarray, seen: list[int], **options: Any) -> tuple[int, Any]:
    flags = np.zeros(len(logits), np.float32)
    flags[seen] = 1
    given = {"penalty": 1.0, "temperature": 1.0, "top_k": 1, "top_p": 1.0} | options
    feeds = {k: np.array([v], np.int64 if k == "top_k" else np.float32) for k, v in given.items() if k != "noise"}
    noise = given.get("noise", np.zeros(64, np.float32))
    token, seen_too = session.run(None, {"logits": logits, "seen": flags, "noise": noise, **feeds})
    return int(token[0]), seen_too


@pytest.fixture(scope="module")
def choice(small_model: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    folder = tmp_path_factory.mktemp("choice")
    written(small_model, "speech_choice", "fp32", "rtx", folder)
    return ort.InferenceSession(folder / "speech_choice.onnx")


def test_the_device_chooses_greedily_as_the_sampler(choice: ort.InferenceSession, small_model: OpenModel) -> None:
    random = np.random.default_rng(0)
    for penalty in (1.0, 1.3):
        for _ in range(20):
            logits = random.standard_normal(small_model.config.chat.codebook_size).astype(np.float32)
            seen = np.argsort(logits)[-3:].tolist()
            sampler = _native.Sampler(0)
            sampler.remember(np.array(seen, np.int64))
            wanted = sampler.pick(logits, repetition_penalty=penalty, greedy=True)
            token, seen_too = chosen(choice, logits, seen, penalty=penalty)
            assert token == wanted
            assert np.flatnonzero(seen_too).tolist() == sorted({*seen, token})


def test_the_device_draws_from_the_samplers_distribution(choice: ort.InferenceSession, small_model: OpenModel) -> None:
    """Shares of 4000 draws against the probabilities that the reference's processors leave."""
    from facrt.model.sampling import process
    from facrt.model.settings import GenerationSettings

    random = np.random.default_rng(3)
    logits = (random.standard_normal(small_model.config.chat.codebook_size) * 3).astype(np.float32)
    settings = GenerationSettings(do_sample=True, temperature=0.8, top_k=8, top_p=0.9, repetition_penalty=1.2)
    seen = [int(logits.argmax())]
    wanted = process(torch.from_numpy(logits), seen, settings).softmax(-1).numpy()
    options = {"penalty": 1.2, "temperature": 0.8, "top_k": 8, "top_p": 0.9}
    count = 4000
    noise = random.gumbel(size=(count, 64)).astype(np.float32)
    draws = [chosen(choice, logits, seen, **options, noise=row)[0] for row in noise]
    found = np.bincount(draws, minlength=len(wanted)) / count
    assert not found[wanted == 0].any()
    assert np.abs(found - wanted).max() < 4 * (0.25 / count) ** 0.5
