"""The spine of `facrt export`: load, trace, store, check, save."""

from __future__ import annotations

import errno
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import CheckpointError, RequestError
from ..model import checkpoint
from ..model.backbone import Backbone
from ..model.components import Component, ModelConfig, components
from ..model.config import ChatConfig
from ..model.config_files import read_chat_config, read_json, read_sampling
from ..model.decoder import MixtureOfExperts, run_all_experts
from ..model.flow import Flow, flow_noise
from ..model.generate import ChatModel
from ..model.speech_head import SpeechHead
from ..model.speech_tokenizer import SpeechTokenizer
from ..model.vocoder import Vocoder
from ..quant.recipe import HIGH_PRECISION, Wish, read_wish
from ..quant.schemes import SCHEMES, Scheme
from ..runtime.bundle import Manifest, TableEntry, hash_files, open_bundle
from ..runtime.engine import DEFAULT_MAX_POSITIONS
from ..staging import staged
from . import native_backbone, native_head, passes, qdq, quantized, tables
from .build import build_plans, open_build_library
from .calibration import calibrate, open_prompter, read_questions
from .cost import is_quantized
from .device_sampling import SpeechChoice, SpeechInput
from .native_file import find_packing, smallest_exact, supports
from .parity import compare, measure, refuse_too_short
from .source import checkpoint_folder, companions, read_config
from .targets import Target, find_target
from .trace import DecoderGraph, StepGraph, trace

EXTERNAL_DATA_BYTES = 256 << 20  # a larger graph keeps its weights in a file beside it, which is memory-mapped
BACKBONE_FORMS = ("native", "onnx", "both")
EXPERTS = ("gate_up", "down")  # parameters of a mixture of experts
SMALL_BYTES = 256  # tensors up to this stay in the graph
PRODUCTS = {"nbits": quantized.packed_product, "qdq": qdq.dequantized_product}
ARITHMETIC = {"nbits": passes.store_as_float16, "qdq": passes.compute_in_float16}
Progress = Callable[[str, str, int], None]  # stage, component, bytes written (0: begins)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the user asks of `facrt export`."""

    source: str  # a checkpoint folder, or "nano"
    out: Path
    target: str = "cpu"
    precision: str | None = None  # a named recipe; default: the recipe file's, else fp32
    overrides: Mapping[str, str] = field(default_factory=dict)  # component -> scheme, stronger than the recipe's
    recipe: Path | None = None  # a TOML file
    calibration: Path | None = None  # spoken questions; default: those that ship with facrt
    detokenizer: Path | None = None  # default: SOURCE/detokenizer where it exists
    speech_tokenizer: Path | None = None  # default: SOURCE/s3tokenizer where it exists
    verify: bool = True
    native: str | None = None  # precision of the native speech head; default: the recipe's for speech_head
    max_positions: int = DEFAULT_MAX_POSITIONS  # of a target whose caches have one length for good
    build: bool = True  # compile at once, where the target is compiled ahead of time
    system: str | None = None  # the system prompt of the bundle's conversations; default: the checkpoint's
    backbone: str = "both"  # the forms that a CPU's backbone is written in: native, onnx or both
    kv_cache: str | None = None  # how the graphs keep keys and values: fp32, fp16 or int8; default: as the target does


def export(request: ExportRequest, progress: Progress = lambda *_: None) -> Manifest:
    """Exports a checkpoint to a bundle. The folder appears whole or not at all.

    Raises:
        RequestError: unknown target, recipe, scheme or component, or `out` is in the way.
        CheckpointError: the checkpoint cannot be loaded.
        FacrtError: the bundle cannot be written (no space, no permission).
    """
    target = find_target(request.target).with_cache(request.kv_cache)
    wish = _wish(request, target)
    wish.refuse_impossible(target.schemes, target.name, target.limited)
    _refuse_misplaced(request, target)
    refuse_occupied(request.out)
    questions = read_questions(request.calibration)
    source, name = checkpoint_folder(request.source)
    beside = companions(checkpoint.existing(source), request.detokenizer, request.speech_tokenizer)
    config = read_config(source, *beside)
    table = components(config, target.keep(request.max_positions))
    recipe = wish.recipe(table)
    _refuse_quantized_experts(config.chat, recipe, target)
    if request.backbone == "native" and not supports(config.chat.text):
        raise RequestError("a mixture of experts has no native backbone: leave --backbone out")
    model = open_model(source, *beside)
    if request.verify:
        refuse_too_short(open_prompter(model), target.keep(request.max_positions).positions)
    model = calibrate(model, recipe, questions, progress, has_int8_cache=target.cache_dtype == "int8")
    with staged(request.out) as folder:
        manifest = _write(model, table, recipe, target, name, folder, request, progress)
        manifest.write(folder)
        if request.verify:
            progress("checking", "parity", 0)
            manifest = replace(manifest, parity=measure(folder, source, model.detokenizer, model.speech_tokenizer))
            manifest.write(folder)
        if target.build is not None and target.build.ahead_of_time and request.build:
            manifest = build_plans(folder, progress)
    return manifest


def _wish(request: ExportRequest, target: Target) -> Wish:
    """The recipe file and the arguments, which are stronger."""
    base = read_wish(request.recipe, target.default) if request.recipe else Wish(target.default)
    overrides = {**base.overrides, **request.overrides}
    return Wish(request.precision or base.precision, overrides, target.substitutes)


def _refuse_misplaced(request: ExportRequest, target: Target) -> None:
    """What the target has no use for, or this machine cannot compile."""
    if request.native is not None and target.integers != "nbits":
        raise RequestError(f"target {target.name} has no native speech head: leave --native out")
    if request.native is not None:
        find_packing(request.native)
    if request.backbone not in BACKBONE_FORMS:
        raise RequestError(f"--backbone {request.backbone!r} is unknown; allowed: {', '.join(BACKBONE_FORMS)}")
    if request.backbone != "both" and target.integers != "nbits":
        raise RequestError(f"target {target.name} has no native backbone: leave --backbone out")
    if request.max_positions < 1:
        raise RequestError(f"--max-positions is {request.max_positions}; 1 or more is needed")
    if target.build is not None and target.build.ahead_of_time and request.build:
        open_build_library(target.build)


def _refuse_quantized_experts(config: ChatConfig, recipe: Mapping[str, str], target: Target) -> None:
    for name, decoder in (("backbone", config.text), ("speech_head", config.speech)):
        sparse = any(decoder.is_sparse(i) for i in range(decoder.num_layers))
        if sparse and SCHEMES[recipe[name]].quantize and target.integers == "qdq":
            raise RequestError(f"target {target.name} cannot run experts in {recipe[name]} ({name}); allowed: fp16")


def verify(
    folder: Path,
    source: str,
    detokenizer: Path | None = None,
    speech_tokenizer: Path | None = None,
    questions: Path | None = None,
) -> dict[str, Any]:
    """Compares a bundle with its checkpoint; the report of `parity.compare`, with "quantization" where it is quantized.

    Args:
        folder: the bundle.
        source: a checkpoint folder, or "nano".
        detokenizer, speech_tokenizer: their folders, where they lie elsewhere.
        questions: spoken questions on which a quantized bundle is compared, as `calibration.read_questions` takes
            them; default: those that ship with facrt.

    Raises:
        AudioError: a question cannot be used.
        BundleError, CheckpointError: either cannot be opened, or the two are of different models.
        RequestError: the reference does not fit the memory.
    """
    spoken = read_questions(questions)
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    path, _ = checkpoint_folder(source)
    detokenizer, speech_tokenizer = companions(path, detokenizer, speech_tokenizer)
    if read_chat_config(checkpoint.existing(path)) != manifest.model.chat:
        raise CheckpointError(f"{source} has another configuration than the checkpoint that {folder} came from")
    keep_detokenizer = detokenizer if manifest.model.flow is not None else None
    keep_tokenizer = speech_tokenizer if manifest.model.speech_tokenizer is not None else None
    asked = spoken if is_quantized(bundle) else None
    report = compare(folder, path, keep_detokenizer, keep_tokenizer, asked)
    if "skipped" in report:
        raise RequestError(f"{folder} cannot be verified here: {report['skipped']}")
    return report


def refuse_unquantized(folder: Path) -> None:
    """Raises RequestError where a bundle has no quantized component, so that there is nothing to draw."""
    if not is_quantized(open_bundle(folder)):
        raise RequestError(f"{folder} is not quantized: there is nothing to draw; leave --chart out")


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A checkpoint opened for tracing: small weights in memory, large ones on disk."""

    folder: Path
    config: ModelConfig
    graphs: dict[str, nn.Module]  # component -> the module behind it, before a target's attention form
    readers: dict[int, tables.Reader]  # id of a large parameter -> what reads it
    chat: ChatModel
    detokenizer: Path | None
    speech_tokenizer: Path | None
    flow: Flow | None
    chat_template: str | None
    input_scales: Mapping[str, float] = field(default_factory=dict)  # "component/parameter" -> INT8 step of its input
    cache_steps: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)  # decoder -> of key, value per layer


def open_model(folder: Path, detokenizer: Path | None = None, speech_tokenizer: Path | None = None) -> OpenModel:
    """Opens the chat checkpoint and what lies beside it or is named.

    Raises:
        CheckpointError: something is missing or broken, all wrong tensors listed.
    """
    folder = checkpoint.existing(folder)
    detokenizer, speech_tokenizer = companions(folder, detokenizer, speech_tokenizer)
    chat, readers = checkpoint.open_chat(folder)
    graphs: dict[str, nn.Module] = {
        "audio_encoder": chat.audio_encoder,
        "audio_grouping": chat.grouping,
        "backbone": chat.backbone,
        "speech_upsampling": chat.speech_head.upsample,
        "speech_head": chat.speech_head,
        "speech_input": SpeechInput(chat.grouping.embedding),
        "speech_choice": SpeechChoice(),
    }
    flow: Flow | None = None
    vocoder: Vocoder | None = None
    tokenizer: SpeechTokenizer | None = None
    if detokenizer is not None:
        flow, flow_readers = checkpoint.open_flow(detokenizer)
        vocoder, vocoder_readers = checkpoint.open_vocoder(detokenizer)
        readers = readers | flow_readers | vocoder_readers
        graphs |= {"flow_front": flow.front, "flow_estimator": StepGraph(flow.estimator)}
        graphs |= {"vocoder_source": StepGraph(vocoder.source), "vocoder": vocoder.decoder}
    if speech_tokenizer is not None:
        tokenizer, tokenizer_readers = checkpoint.open_speech_tokenizer(speech_tokenizer)
        readers = readers | tokenizer_readers
        graphs |= {"speech_tokenizer": tokenizer}
    config = ModelConfig(
        chat.config,
        flow.config if flow else None,
        vocoder.config if vocoder else None,
        tokenizer.config if tokenizer else None,
    )
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder / 'tokenizer.json'} is missing; a text tokenizer in that form is needed")
    template = _chat_template(folder)
    return OpenModel(folder, config, graphs, readers, chat, detokenizer, speech_tokenizer, flow, template)


def _write(
    model: OpenModel,
    table: Mapping[str, Component],
    recipe: Mapping[str, str],
    target: Target,
    name: str,
    folder: Path,
    request: ExportRequest,
    progress: Progress,
) -> Manifest:
    graphs = {}
    for component in table.values():
        if component.name == "backbone" and request.backbone == "native":
            continue
        progress("exporting", component.name, 0)
        graphs[component.name] = f"{component.name}.onnx"
        size = write_graph(model, component, recipe[component.name], target, folder / graphs[component.name], progress)
        progress("exporting", component.name, size)
    native = _write_native(model, recipe, folder, request, progress) if target.integers == "nbits" else {}
    progress("exporting", "tables", 0)
    entries: dict[str, TableEntry] = tables.write_chat_tables(model.chat, model.readers, recipe["backbone"], folder)
    speakers: dict[str, int] = {}
    if model.detokenizer is not None:
        assert model.config.flow is not None
        entries["flow_noise"] = tables.write_array(flow_noise().numpy(), folder / "flow_noise.bin")
        names, rows = _speakers(model.detokenizer, model.config.flow.speaker_dim)
        speakers = {name: i for i, name in enumerate(names)}
        entries["speakers"] = tables.write_array(rows, folder / "speakers.bin")
    shutil.copyfile(model.folder / "tokenizer.json", folder / "tokenizer.json")
    if model.chat_template is not None:
        (folder / "chat_template.jinja").write_text(model.chat_template, encoding="utf-8")
    files = [path.name for path in folder.iterdir()]
    progress("exporting", "tables", sum((folder / entry.file).stat().st_size for entry in entries.values()))
    return Manifest(
        facrt_version=__version__,
        source=name,
        target=target.name,
        attention=target.attention,
        cache=target.cache,
        cache_dtype=target.cache_dtype,
        positions=target.keep(request.max_positions).positions,
        model=model.config,
        recipe=dict(recipe),
        graphs=graphs,
        native=native,
        tables=entries,
        tokenizer="tokenizer.json",
        chat_template="chat_template.jinja" if model.chat_template is not None else None,
        system=request.system,
        sampling=read_sampling(model.folder),
        speakers=speakers,
        parity={},
        plans={},
        files=hash_files(folder, files),
    )


def _write_native(
    model: OpenModel, recipe: Mapping[str, str], folder: Path, request: ExportRequest, progress: Progress
) -> dict[str, str]:
    """The weight files of the C++ decoders, which run a dense backbone and speech head on a CPU: component -> file."""
    chat, files = model.chat, {}

    def precision_of(component: str, module: nn.Module, wanted: str | None) -> str:
        precision = wanted or SCHEMES[recipe[component]].packing
        return smallest_exact(module, model.readers) if precision == "fp32" else precision

    if supports(model.config.chat.text) and request.backbone != "onnx":
        files["backbone"] = native_backbone.FILE
        progress("exporting", "native backbone", 0)
        precision = precision_of("backbone", chat.backbone, None)
        path = folder / native_backbone.FILE
        size = native_backbone.write_native_backbone(chat.backbone, model.readers, precision, path)
        progress("exporting", "native backbone", size)
    if supports(model.config.chat.speech):
        files["speech_head"] = native_head.FILE
        progress("exporting", "native speech head", 0)
        precision = precision_of("speech_head", chat.speech_head, request.native)
        path = folder / native_head.FILE
        size = native_head.write_native_head(chat.speech_head, model.config.chat, model.readers, precision, path)
        progress("exporting", "native speech head", size)
    return files


def write_graph(
    model: OpenModel,
    component: Component,
    scheme: str,
    target: Target,
    path: Path,
    progress: Progress = lambda *_: None,
) -> int:
    """Traces one component and writes it, large weights streamed from the checkpoint; returns the bytes written."""
    module, chosen = model.graphs[component.name], SCHEMES[scheme]
    traced = module
    if isinstance(module, Backbone | SpeechHead):
        traced = DecoderGraph(module, target, model.cache_steps.get(component.name, ()))
    readers = {n: model.readers[id(p)] for n, p in traced.named_parameters() if id(p) in model.readers}
    matrices = _matrices(model, component.name, chosen, traced, readers) if chosen.quantize else {}
    mixtures = [name for name, layer in traced.named_modules() if isinstance(layer, MixtureOfExperts)]
    experts = [f"{name}.{parameter}" for name in mixtures for parameter in EXPERTS]
    operator = bool(experts) and chosen.quantize is not None and target.integers == "nbits"
    mix = quantized.experts_as_operator if operator else run_all_experts
    lengths, held_back = _example_lengths(model.config), {*readers, *matrices, *experts}
    graph = trace(traced, component, target, lengths, held_back, mix)
    quantized.quantize(graph, matrices, PRODUCTS[target.integers])
    if operator:
        quantized.quantize_experts(graph, chosen, lambda name: readers.get(name) or _in_memory(traced, name))
    passes.fill(graph, {name: read for name, read in readers.items() if name not in matrices})
    if chosen.quantize and component.name == "vocoder":
        quantized.quantize_convolutions(graph, chosen)
    if scheme != "fp32":
        ARITHMETIC[target.integers](graph)
    passes.drop_unused(graph)
    passes.declare_opsets(graph)
    weights = [value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value]
    data = f"{path.name}.data" if sum(weights) > EXTERNAL_DATA_BYTES else None

    def show(_: object, info: onnx_ir.external_data.CallbackInfo) -> None:
        progress("writing", f"{component.name} {info.index + 1}/{info.total}", 0)

    onnx_ir.save(graph, path, external_data=data, size_threshold_bytes=SMALL_BYTES, callback=show)
    written = sum(size for size in weights if size > SMALL_BYTES)
    if data and path.with_name(data).stat().st_size < written:  # a full disk can go unnoticed in the last write
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*"))


def _in_memory(module: nn.Module, name: str) -> tables.Reader:
    return functools.partial(module.get_parameter, name)


def _matrices(
    model: OpenModel, component: str, scheme: Scheme, traced: nn.Module, readers: Mapping[str, tables.Reader]
) -> dict[str, quantized.Matrix]:
    """The weights of a component's Linear layers, but for those that stay in high precision."""
    kept = HIGH_PRECISION.get(component, ())
    layers = [name for name, layer in traced.named_modules() if isinstance(layer, nn.Linear)]
    names = [f"{name}.weight" if name else "weight" for name in layers]  # a component may be one layer
    wrapper = "module." if isinstance(traced, DecoderGraph) else ""  # statistics have the component's own names
    return {
        name: quantized.Matrix(
            scheme,
            readers.get(name) or _in_memory(traced, name),
            model.input_scales.get(f"{component}/{name.removeprefix(wrapper)}"),
        )
        for name in names
        if not set(name.split(".")) & set(kept)
    }


def _example_lengths(config: ModelConfig) -> dict[str, int]:
    frames = 24
    lengths = {"groups": 3, "positions": 3, "frames": frames, "rows": 1}
    if config.vocoder is not None:
        lengths["samples"] = frames * config.vocoder.samples_per_frame
    return lengths


def _speakers(folder: Path, speaker_dim: int) -> tuple[Sequence[str], np.ndarray]:
    found = checkpoint.load_speakers(folder)
    if not found:
        return ["neutral"], np.zeros((1, speaker_dim), np.float32)
    wrong = [name for name, row in found.items() if row.shape != (speaker_dim,)]
    if wrong:
        raise CheckpointError(f"{folder}: speakers {', '.join(wrong)} do not have {speaker_dim} numbers")
    return list(found), torch.stack(list(found.values())).numpy()


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).exists():
            template = read_json(folder / name).get("chat_template")
            if isinstance(template, str):
                return template
    return None


def refuse_occupied(out: Path) -> None:
    """A bundle may be replaced by a new export, anything else may not.

    Raises:
        RequestError: `out` is a file, or a folder that holds something but no bundle.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").exists():
        raise RequestError(f"{out} holds files but no bundle; choose another --out or empty it")
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; --out names a folder")
