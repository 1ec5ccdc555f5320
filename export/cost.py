"""What quantization cost: signal to noise by layer, tokens that changed, sound that changed, bytes that were saved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import RequestError
from ..model import checkpoint
from ..model.audio_encoder import EncoderLayer
from ..model.components import Component
from ..model.decoder import CachedAttention, DecoderLayer
from ..model.flow import EstimatorBlock
from ..model.generate import ChatModel, Step
from ..model.settings import SPEECH_SYSTEM_PROMPT
from ..quant.schemes import SCHEMES
from ..runtime.backend import Array
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine
from ..runtime.generate import merge
from ..runtime.prompt import Message
from .sizes import weights as weights_of

ANSWER_STEPS = 24
FLOW_TOKENS = 60
SPECTRUM_WINDOW = 1024
FLOOR_DB = -60.0  # below the loudest bin; quieter ones are not compared
LAYERS = (DecoderLayer, EncoderLayer, EstimatorBlock)
LAST_LINEAR = {"audio_encoder": "fc2", "backbone": "down", "speech_head": "down", "flow_estimator": "fc2"}


def is_quantized(bundle: Bundle) -> bool:
    manifest = bundle.manifest
    integers = any(SCHEMES[scheme].quantize for scheme in manifest.recipe.values() if scheme in SCHEMES)
    return integers or manifest.cache_dtype == "int8"


def measure_cost(
    engine: Engine, chat: ChatModel, detokenizer: Path | None, questions: Sequence[Array]
) -> dict[str, Any]:
    """The report on a quantized bundle, ready for JSON.

    Args:
        engine: the bundle, loaded with the onnx speech head: same integers as the native one, and it can be forced.
        chat: the reference in memory.
        detokenizer: its folder, if the bundle has one.
        questions: 16 kHz mono samples each.

    Returns:
        "components": name -> scheme, bytes, bytes per weight, compression against float32; "layers": rows of component,
        layer, sqnr_db, for the components that are stored as integers and have a graph; "text_agreement",
        "speech_agreement": shares of equal argmax under teacher forcing, with their counts; with a detokenizer "mel_l1"
        [nats], "mel_relative" and "spectral_distance_db" of the waveforms.
    """
    with torch.inference_mode():
        forced = [_teach(engine, chat, pcm) for pcm in questions]
        layers = _layers_of_chat(engine, chat, questions[0])
        report: dict[str, Any] = {"components": _sizes(engine.bundle), **_agreement(forced)}
        if detokenizer is not None:
            codes = [token for one in forced for token in one["codes"]][:FLOW_TOKENS]
            sound, rows = _sound(engine, detokenizer, codes)
            report |= sound
            layers += rows
    report["layers"] = layers
    return report


def _sizes(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Per component: bytes of its graph, or else its native form, per weight, and its float32 weights over them."""
    sizes, manifest = {}, bundle.manifest
    counted = weights_of(manifest.model)
    for name, scheme in manifest.recipe.items():
        file = manifest.graphs.get(name) or manifest.native[name]
        size = sum(entry.size_bytes for other, entry in manifest.files.items() if other.startswith(file))
        weights = num_weights(bundle.folder / file) if name in manifest.graphs else counted[name].total
        sizes[name] = {
            "scheme": scheme,
            "bytes": size,
            "bytes_per_weight": size / max(1, weights),
            "compression": 4 * weights / size,
        }
    return sizes


def num_weights(path: Path) -> int:
    """Weights that a graph stands for, padding and scales not counted."""
    graph = onnx.load(path, load_external_data=False).graph
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    shapes = [{a.name: a.i for a in node.attribute} for node in products]
    inside = {name for node in products for name in node.input[1:4]}
    others = (
        int(np.prod(t.dims))
        for t in graph.initializer
        if t.name not in inside and not t.name.endswith((".scales", ".zeros"))
    )
    return sum(shape["K"] * shape["N"] for shape in shapes) + sum(others)


def packed_bytes_per_weight(path: Path) -> float:
    """Bytes of a graph's packed matrices and their scales, per weight."""
    graph = onnx.load(path, load_external_data=False).graph
    item_bytes = {onnx.TensorProto.UINT8: 1, onnx.TensorProto.FLOAT: 4}
    sizes = {t.name: int(np.prod(t.dims)) * item_bytes.get(t.data_type, 0) for t in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    shapes = [{a.name: a.i for a in node.attribute} for node in products]
    stored = sum(sizes[name] for node in products for name in node.input[1:3])
    return stored / sum(shape["K"] * shape["N"] for shape in shapes)


class _Forced:
    """Stands for the sampling of speech tokens: hands out given tokens, remembers what would have been chosen."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = iter(tokens)
        self.wanted: list[int] = []

    def pick(self, logits: Array, _group: list[int]) -> int:
        self.wanted.append(int(np.argmax(logits)))
        return next(self._tokens)


def _teach(engine: Engine, chat: ChatModel, pcm: Array) -> dict[str, Any]:
    """The reference answers; the bundle goes the same way and says at each step what it would have said."""
    message = Message("user", None, pcm)
    prompt = engine.prompter.encode([Message("system", SPEECH_SYSTEM_PROMPT), message])
    steps: list[Step] = []
    options: dict[str, Any] = {"text_greedy": True, "force_text_abos": True, "max_new_tokens": ANSWER_STEPS}
    turn = chat.generate(prompt, [pcm], observe=steps.append, **options)
    sampling: Any = _Forced([token for step in steps for token in step.speech_tokens])
    text, grouping = engine.bundle.embedding_table("text_embedding"), engine.bundle.embedding_table("speech_grouping")
    rows = text.gather(prompt)
    embeds = merge(prompt, rows, engine.hearing.embed(message), chat.config.audio_token_id)
    engine.backbone.truncate(0)
    engine.speech_head.reset()
    chosen: list[int] = []
    for i, step in enumerate(steps):
        if i:
            row = text.gather(np.array(turn.text_ids[i - 1 : i], np.int64))
            rows, embeds = row, row
            if not torch.equal(step.embeds[0], chat.backbone.embedding.weight[turn.text_ids[i - 1]]):
                group = np.array(steps[i - 1].speech_tokens, np.int64)
                embeds = grouping.group_average(group, row[0])[None]
        hidden, logits = engine.backbone(embeds)
        chosen.append(int(np.argmax(logits)))
        u = hidden + rows
        head = engine.speech_head
        head.group(u[0], sampling) if i else head.prefill(u, sampling)
    wanted = [int(logits.argmax()) for step in steps for logits in step.speech_logits]
    return {
        "text": [a == int(step.text_logits.argmax()) for a, step in zip(chosen, steps, strict=True)],
        "speech": [a == b for a, b in zip(sampling.wanted, wanted, strict=True)],
        "codes": [token for token in turn.speech_ids if token < chat.config.num_codes],
    }


def _agreement(forced: Sequence[dict[str, Any]]) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for kind in ("text", "speech"):
        equal = [same for one in forced for same in one[kind]]
        report[f"{kind}_agreement"] = float(np.mean(equal))
        report[f"num_{kind}_tokens"] = len(equal)
    return report


def _layers_of_chat(engine: Engine, chat: ChatModel, pcm: Array) -> list[dict[str, Any]]:
    """Every layer's output on one question, both sides fed with the reference's input to the component."""
    rows = []
    mel, num_frames = _windows(chat, pcm)
    seen = _reference_layers(chat.audio_encoder, lambda: chat.audio_encoder(mel, num_frames))
    rows += _compare(engine, "audio_encoder", [mel, num_frames], seen)
    message = Message("user", None, pcm)
    ids = torch.from_numpy(engine.prompter.encode([Message("system", SPEECH_SYSTEM_PROMPT), message]))
    texts = chat.backbone.embedding(ids)
    embeds = chat.merge(ids, texts, chat.audio_rows([pcm]))
    hidden: list[Tensor] = []
    seen = _reference_layers(
        chat.backbone, lambda: hidden.append(chat.backbone(embeds, CachedAttention(chat.config.text))[0])
    )
    rows += _compare(engine, "backbone", [embeds], seen)
    head, config = chat.speech_head, chat.config
    z = head.split(hidden[0] + texts) + chat.grouping.embedding.weight[config.speech_bos_id]
    seen = _reference_layers(head, lambda: head(z, CachedAttention(config.speech)))
    return rows + _compare(engine, "speech_head", [z], seen)


def _windows(chat: ChatModel, pcm: Array) -> tuple[Tensor, Tensor]:
    inputs: list[tuple[Tensor, Tensor]] = []
    handle = chat.audio_encoder.register_forward_pre_hook(lambda _, args: inputs.append(args))
    chat.encode_audio(pcm)
    handle.remove()
    return inputs[0]


def _reference_layers(module: nn.Module, run: Callable[[], object]) -> list[Tensor]:
    """What each transformer layer of the module puts out during `run`."""
    seen: list[Tensor] = []
    layers = [layer for layer in module.modules() if isinstance(layer, LAYERS)]
    handles = [layer.register_forward_hook(lambda _m, _i, y: seen.append(y.clone())) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    return seen


def _compare(engine: Engine, component: str, inputs: Sequence[Tensor], seen: Sequence[Tensor]) -> list[dict[str, Any]]:
    manifest = engine.bundle.manifest
    if component not in manifest.graphs or not SCHEMES[manifest.recipe[component]].quantize:
        return []
    found = run_with_layers(engine.bundle, component, [x.numpy() for x in inputs])
    rows = []
    for i, (a, b) in enumerate(zip(found, seen, strict=True)):
        reference = b.numpy().astype(np.float64)
        noise = float(((a.reshape(reference.shape) - reference) ** 2).sum())
        sqnr = float(10 * np.log10((reference**2).sum() / max(noise, 1e-30)))
        rows.append({"component": component, "layer": i, "sqnr_db": sqnr})
    return rows


def run_with_layers(bundle: Bundle, component: str, inputs: Sequence[NDArray]) -> list[NDArray]:
    """Runs the graph of a quantized component from empty caches; returns what each of its layers puts out."""
    path = bundle.graph_path(component)
    model = onnx.load(path, load_external_data=False)
    names = list(_layer_outputs(model.graph, LAST_LINEAR[component]))
    for name in names:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(names, _feeds(bundle.components[component], inputs))


def _feeds(component: Component, inputs: Sequence[NDArray]) -> dict[str, NDArray]:
    given = iter(inputs)
    length = len(inputs[0])
    feeds = {s.name: np.zeros(1, np.int64) if s.name == "position" else next(given) for s in component.inputs}
    for pair in component.states:
        sizes = {"capacity": length, "past": 0}
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in pair.input.axes]
        feeds[pair.input.name] = np.zeros(shape, pair.input.dtype)
    return feeds


def _layer_outputs(graph: onnx.GraphProto, last: str) -> Iterator[str]:
    """Names of the sums that end the layers: the first sum of two computed values behind each layer's last product."""
    stored = {tensor.name for tensor in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    form = r"(?:\.(?:packed|int8|int4|float8e4m3fn|float16|transposed.*))?"
    place = re.compile(rf"(?:layers|blocks)\.(\d+)\.(?:mlp\.)?{last}(?:\.weight)?{form}$")
    weights = {int(match[1]): name for name in stored if (match := place.search(name))}
    for _, weight in sorted(weights.items()):
        node = users[weight][0]
        while not (node.op_type == "Add" and not stored & set(node.input)):
            node = users[node.output[0]][0]
        yield node.output[0]


def _sound(engine: Engine, folder: Path, codes: list[int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Flow and vocoder on the same speech tokens; the estimator's layers in the middle of the way from noise to mel."""
    flow, vocoder = checkpoint.load_flow(folder), checkpoint.load_vocoder(folder)
    detokenizer = engine.detokenizer
    assert detokenizer is not None
    codes = [code for code in codes if code < flow.config.vocab_size]
    if len(codes) < FLOW_TOKENS:
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, flow.config.vocab_size, (FLOW_TOKENS,), generator=generator).tolist()
    speaker = np.array(engine.bundle.array("speakers")[0])
    calls: list[tuple[Tensor, ...]] = []
    handle = flow.estimator.register_forward_pre_hook(lambda _, args: calls.append(tuple(x.clone() for x in args)))
    mel = flow(torch.tensor(codes), torch.from_numpy(speaker)[None])
    handle.remove()
    found_mel = detokenizer.flow(np.array(codes), speaker)
    wav, found_wav = vocoder(mel)[0].numpy(), detokenizer.vocode(found_mel)
    middle = calls[len(calls) // 2]
    seen = _reference_layers(flow.estimator, lambda: flow.estimator(*middle))
    difference = found_mel - mel.numpy()
    report = {
        "mel_l1": float(np.abs(difference).mean()),
        "mel_relative": float(np.linalg.norm(difference) / np.linalg.norm(mel.numpy())),
        "spectral_distance_db": spectral_distance_db(found_wav, wav),
    }
    return report, _compare(engine, "flow_estimator", middle, seen)


def spectral_distance_db(a: Array, b: Array) -> float:
    """Mean difference of two waveforms' short-time spectra [dB], where b is not below its floor; phase is ignored."""
    spectra = []
    for wave in (a, b):
        frames = np.lib.stride_tricks.sliding_window_view(wave, SPECTRUM_WINDOW)[:: SPECTRUM_WINDOW // 4]
        power = np.abs(np.fft.rfft(frames * np.hanning(SPECTRUM_WINDOW), axis=1)) ** 2
        spectra.append(10 * np.log10(power + 1e-12))
    loud = spectra[1] > spectra[1].max() + FLOOR_DB
    return float(np.abs(spectra[0] - spectra[1])[loud].mean())


def draw(report: dict[str, Any], path: Path) -> None:
    """A chart: signal to noise by layer, and megabytes by component.

    Raises:
        RequestError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError:
        raise RequestError("matplotlib is not installed; --chart needs: pip install 'facrt[export]'") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for component in dict.fromkeys(row["component"] for row in report["layers"]):
        rows = [row for row in report["layers"] if row["component"] == component]
        scheme = report["components"][component]["scheme"]
        left.plot([r["layer"] for r in rows], [r["sqnr_db"] for r in rows], "o-", label=f"{component} ({scheme})")
    left.set(title="error by layer", xlabel="layer", ylabel="signal to quantization noise [dB]")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(fontsize="small")
    left.grid(alpha=0.3)
    names = list(report["components"])
    sizes = [report["components"][name]["bytes"] for name in names]
    ratios = [report["components"][name]["compression"] for name in names]
    saved = [size * max(0.0, ratio - 1) for size, ratio in zip(sizes, ratios, strict=True)]
    right.barh(names, [size / 2**20 for size in sizes], label="stored")
    right.barh(names, [s / 2**20 for s in saved], left=[s / 2**20 for s in sizes], alpha=0.3, label="saved")
    right.set(title="size", xlabel="MiB")
    right.invert_yaxis()
    right.legend()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written ({error}); --chart names a PNG file") from None
