"""Stage-by-stage parity: the PyTorch reference against a bundle, through the runtime that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import FacrtError, RequestError
from ..model import checkpoint
from ..model.generate import ChatModel
from ..model.generate import Step as ReferenceStep
from ..model.mel import whisper_log_mel
from ..model.noise import vocoder_noise
from ..model.settings import SPEECH_SYSTEM_PROMPT, GenerationSettings
from ..model.speech_head import RefinementLoop
from ..runtime import _native
from ..runtime.audio import read_audio
from ..runtime.backend import Array
from ..runtime.bundle import open_bundle
from ..runtime.engine import Engine, load
from ..runtime.generate import Step
from ..runtime.native_backbone import NativeBackbone
from ..runtime.native_speech_head import NativeSpeechHead
from ..runtime.prompt import Message, Prompter
from ..runtime.sampling import SpeechSampling
from .calibration import SHIPPED
from .cost import measure_cost
from .memory import available_bytes, reference_bytes
from .native_file import smallest_exact
from .tolerances import LIMITS, find_limit, judged_as

NUM_STEPS = 8
NUM_TOKENS = 40  # speech tokens through the detokenizer
SILENCE_RMS = 1e-5


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor compared."""

    stage: str
    component: str
    max_abs_error: float | None  # None: nothing to compare with
    relative_error: float | None  # L2
    limit: float | None  # on relative_error
    ok: bool
    note: str = ""


def measure(folder: Path, source: Path, detokenizer: Path | None, speech_tokenizer: Path | None) -> dict[str, Any]:
    """Compares a bundle with the checkpoint it came from.

    Args:
        folder: the bundle.
        source: the chat checkpoint.
        detokenizer, speech_tokenizer: their folders, where the bundle holds them.

    Returns:
        {"ok", "rows": [Row...], "text_ids_equal", "speech_ids_equal", "not_compared"}, ready for JSON; `not_compared`
        names what the bundle holds beyond the folders given.

    Raises:
        FacrtError: a number that is not finite, silence where the reference speaks, or an error over its limit.
    """
    report = compare(folder, source, detokenizer, speech_tokenizer)
    if not report["ok"]:
        bad = ", ".join(_complaint(row) for row in report["rows"] if not row["ok"])
        raise FacrtError(
            f"the bundle does not equal the reference ({bad or 'ids differ'}); --no-verify writes it all the same"
        )
    return report


def refuse_too_short(prompter: Prompter, positions: int | None) -> None:
    """Refuses caches that the conversation of `measure` does not fit; None: they have no fixed length.

    Raises:
        RequestError: it does not fit.
    """
    needed = len(prompter.encode(_messages(spoken_question()))) + NUM_STEPS
    if positions is not None and positions < needed:
        raise RequestError(
            f"--max-positions is {positions}; the comparison with the reference takes {needed}: "
            "allow that many or more, or leave it out with --no-verify"
        )


def _messages(pcm: NDArray[np.float32]) -> list[Message]:
    return [Message("system", SPEECH_SYSTEM_PROMPT), Message("user", None, pcm)]


def _complaint(row: dict[str, Any]) -> str:
    error = "" if row["relative_error"] is None else f" {row['relative_error']:.1e}"
    return f"{row['stage']}{error}{row['note']}"


def compare(
    folder: Path,
    source: Path,
    detokenizer: Path | None,
    speech_tokenizer: Path | None,
    questions: Sequence[Array] | None = None,
    backend: str = "onnx",
) -> dict[str, Any]:
    """The report of `measure`, good or bad; with `questions`, "quantization" too: what `cost.measure_cost` says.

    The bundle runs in ONNX Runtime on the CPU, whatever it is for, unless another `backend` of `engine.load` is named.
    """
    needed, free = reference_bytes(source), available_bytes()
    if needed > free:
        return {"ok": True, "skipped": f"the reference needs {needed >> 30} GiB of memory, {free >> 30} are free"}
    form = "onnx" if "backbone" in open_bundle(folder, check_hashes=False).manifest.graphs else "native"
    engine = load(folder, check_hashes=False, backbone=form, speech_head="onnx", backend=backend)
    rows: list[Row] = []
    with torch.inference_mode():
        chat = checkpoint.load_chat(source)
        ids_equal = _compare_chat(engine, chat, rows)
        if detokenizer is not None:
            _compare_detokenizer(engine, detokenizer, rows)
        elif engine.has_audio:
            rows.append(_gate_detokenizer(engine))
        if speech_tokenizer is not None:
            ids_equal["voice_ids_equal"] = _compare_speech_tokenizer(engine, speech_tokenizer)
    exact = all(ids_equal.values()) or set(judged_as(engine.bundle.manifest).values()) != {"fp32"}
    model = engine.bundle.manifest.model
    held = {
        "detokenizer": model.flow and not detokenizer,
        "speech tokenizer": model.speech_tokenizer and not speech_tokenizer,
    }
    return {
        "ok": exact and all(row.ok for row in rows),
        "rows": [asdict(row) for row in rows],
        **ids_equal,
        "not_compared": [name for name, alone in held.items() if alone],
        **({"quantization": measure_cost(engine, chat, detokenizer, questions)} if questions else {}),
    }


def spoken_question() -> Array:
    """A question in speech, 3.2 s at 16 kHz: how a trained encoder rounds sounds that are none says little."""
    return read_audio(SHIPPED / "3.ogg")


def question(seconds: float = 3.3, sample_rate: int = 16_000) -> NDArray[np.float32]:
    """A fixed speech-like signal: gliding harmonics under syllable-rate loudness, and a little noise."""
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / sample_rate
    voice = sum(np.sin(h * phase) / h for h in range(1, 12))
    loudness = 0.1 * np.clip(np.sin(2 * np.pi * 2.1 * t), 0, None)
    noise = np.random.default_rng(0).standard_normal(len(t)) * 1e-3
    return (voice * loudness + noise).astype(np.float32)


def _row(
    engine: Engine, rows: list[Row], stage: str, component: str, actual: NDArray, wanted: Tensor, note: str = ""
) -> None:
    limit = find_limit(stage, component, judged_as(engine.bundle.manifest))
    _append(rows, stage, component, limit, actual, wanted, note)


def _append(
    rows: list[Row], stage: str, component: str, limit: float | None, actual: NDArray, wanted: Tensor, note: str = ""
) -> None:
    reference = wanted.detach().numpy().astype(np.float64)
    found = np.asarray(actual, np.float64)
    if found.shape != reference.shape:
        rows.append(Row(stage, component, None, None, limit, False, f" shape {list(found.shape)}"))
        return
    finite = bool(np.isfinite(found).all())
    difference = found - reference
    norm = float(np.sqrt((reference**2).sum())) or 1.0
    if not finite:
        rows.append(Row(stage, component, None, None, limit, False, " NaN or infinity"))
        return
    relative = float(np.sqrt((difference**2).sum())) / norm
    ok = not note and (limit is None or relative <= limit)
    rows.append(Row(stage, component, float(np.abs(difference).max()), relative, limit, ok, note))


def _compare_chat(engine: Engine, chat: ChatModel, rows: list[Row]) -> dict[str, bool]:
    pcm = spoken_question()
    messages = _messages(pcm)
    mel = _native.whisper_log_mel(pcm, chat.config.audio.num_mels)
    _row(engine, rows, "log_mel", "log_mel", mel, whisper_log_mel(torch.from_numpy(pcm), chat.config.audio.num_mels))
    _row(engine, rows, "audio_encoder", "audio_encoder", engine.hearing.encode(pcm), chat.encode_audio(pcm))
    embeds = engine.hearing.embed(messages[1])
    _row(engine, rows, "audio_grouping", "audio_grouping", embeds, chat.audio_rows([pcm])[0])

    options: dict[str, Any] = {"max_new_tokens": NUM_STEPS, "text_greedy": True, "force_text_abos": True}
    prompt = engine.prompter.encode(messages)
    wanted: list[ReferenceStep] = []
    reference = chat.generate(prompt, [pcm], observe=wanted.append, eos_token_id=-1, **options)
    found: list[Step] = []
    copies: Callable[[Step], None] = lambda s: found.append(  # noqa: E731
        Step(s.embeds.copy(), s.hidden.copy(), s.text_logits.copy(), s.speech_tokens, s.speech_logits)
    )
    turn, _ = engine.loop.run(prompt, embeds, GenerationSettings(eos_token_id=-1, **options), copies)
    same = _steps_with_equal_inputs(wanted, found)
    _row(engine, rows, "embeds", "backbone", found[0].embeds, wanted[0].embeds)
    _row(engine, rows, "hidden", "backbone", found[0].hidden, wanted[0].hidden)
    text = np.stack([s.text_logits for s in found[:same]])
    _row(engine, rows, "text_logits", "backbone", text, torch.stack([s.text_logits for s in wanted[:same]]))
    speech = np.stack([s.speech_logits[0] for s in found[:same]])
    _row(engine, rows, "speech_logits", "speech_head", speech, torch.stack([s.speech_logits[0] for s in wanted[:same]]))
    manifest = engine.bundle.manifest
    if "backbone" in manifest.native and "backbone" in manifest.graphs:
        _compare_native_backbone(engine, chat, wanted[0], rows)
    if "speech_head" in manifest.native:
        ids = torch.from_numpy(prompt)
        _compare_native_head(engine, chat, wanted[0].hidden + chat.backbone.embedding(ids), rows)
    return {
        "text_ids_equal": turn.text_ids == reference.text_ids,
        "speech_ids_equal": turn.speech_ids == reference.speech_ids,
    }


def _compare_native_backbone(engine: Engine, chat: ChatModel, wanted: ReferenceStep, rows: list[Row]) -> None:
    """The prompt: later steps depend on tokens, which rounding may turn."""
    manifest = engine.bundle.manifest
    path, capacity = engine.bundle.folder / manifest.native["backbone"], len(wanted.embeds)
    backbone = NativeBackbone(path, chat.config, capacity, 1, manifest.cache_dtype)
    stored = _exact_as_fp32(backbone.loop.format, chat.backbone)
    if manifest.cache_dtype == "int8" and not stored.startswith("int"):
        stored = "int8"  # as `judged_as` does
    hidden, logits = backbone(wanted.embeds.numpy())
    _append(rows, "native_hidden", "backbone", LIMITS["hidden"].get(stored), hidden, wanted.hidden)
    _append(rows, "native_text_logits", "backbone", LIMITS["text_logits"].get(stored), logits, wanted.text_logits)


def _exact_as_fp32(stored: str, module: nn.Module) -> str:
    """The format of a weight file; fp32 where a smaller one holds these weights exactly."""
    return "fp32" if stored == smallest_exact(module, {}) else stored


def _compare_native_head(engine: Engine, chat: ChatModel, u: Tensor, rows: list[Row]) -> None:
    """The first sub-step after the prompt u [T, H]: later ones depend on tokens, which rounding may turn."""
    manifest = engine.bundle.manifest
    head = NativeSpeechHead(engine.bundle.folder / manifest.native["speech_head"], chat.config, len(u), 1)
    head.prefill(u.numpy(), SpeechSampling(GenerationSettings()))
    loop = RefinementLoop(chat.speech_head, chat.config)
    loop.prefill(u, lambda logits, _: int(logits.argmax()))
    found, wanted = head.group_logits()[0], loop.last_logits[0]
    limit = LIMITS["speech_logits"].get(_exact_as_fp32(head.loop.format, chat.speech_head))
    _append(rows, "native_speech_logits", "speech_head", limit, found, wanted)


def _steps_with_equal_inputs(wanted: list[ReferenceStep], found: list[Step]) -> int:
    """Steps until the first token differs, that one included: beyond it the two see different inputs."""
    for i, (a, b) in enumerate(zip(wanted, found, strict=False)):
        if a.speech_tokens != b.speech_tokens or int(a.text_logits.argmax()) != int(b.text_logits.argmax()):
            return i + 1
    return min(len(wanted), len(found))


def _compare_detokenizer(engine: Engine, folder: Path, rows: list[Row]) -> None:
    detokenizer = engine.detokenizer
    assert detokenizer is not None
    flow, vocoder = checkpoint.load_flow(folder), checkpoint.load_vocoder(folder)
    pairs = engine.bundle.components["flow_estimator"].states
    tokens = torch.randint(0, flow.config.vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))
    speaker = np.asarray(engine.bundle.array("speakers")[0])
    row = torch.from_numpy(speaker.copy())[None]

    mu, spk = flow.front(tokens, row)
    found_mu, found_spk = detokenizer.front(tokens.numpy(), speaker[None])
    _row(engine, rows, "flow_front", "flow_front", found_mu, mu)
    _row(engine, rows, "flow_speaker", "flow_front", found_spk, spk)
    x = torch.randn(2, *mu.shape[1:], generator=torch.Generator().manual_seed(1))
    given = (
        x,
        mu.expand_as(x).contiguous(),
        torch.full((2,), 0.3),
        spk.expand(2, -1).contiguous(),
        torch.zeros_like(x),
    )
    states = [torch.zeros([axis if isinstance(axis, int) else 0 for axis in pair.input.axes]) for pair in pairs]
    halves = (slice(0, x.shape[2] // 2), slice(x.shape[2] // 2, None))  # the second sees the first through the caches
    for part in halves:
        position = torch.tensor([part.start])
        inputs = [v[:, :, part].contiguous() if v.ndim == 3 else v for v in given]
        noised, means, times, voice, known = inputs
        velocity, *new = flow.estimator.step(noised, means, times, voice, known, position, states)
        found, *_ = detokenizer.estimator(*(v.numpy() for v in (*inputs, position, *states)))
        _row(engine, rows, "flow_estimator", "flow_estimator", found, velocity)
        states = new
    mel = flow(tokens, row)
    _row(engine, rows, "flow_mel", "flow_estimator", detokenizer.flow(tokens[0].numpy(), speaker), mel)

    noise = vocoder_noise(mel.shape[2] * vocoder.config.samples_per_frame, vocoder.config.num_harmonics + 1)
    source = vocoder.source(mel, torch.from_numpy(noise))
    phase = np.zeros((1, 1, vocoder.config.num_harmonics + 1))
    found_source, _ = detokenizer.source(mel.numpy(), noise, phase, np.array(0))
    _row(engine, rows, "vocoder_source", "vocoder_source", found_source, source)
    wav = vocoder.decoder(mel, source)
    (found_wav,) = detokenizer.vocoder(mel.numpy(), source.numpy())
    _row(engine, rows, "vocoder", "vocoder", found_wav, wav)
    whole = detokenizer.synthesize(tokens[0].tolist(), speaker)
    silent = float(np.sqrt((whole**2).mean())) < SILENCE_RMS < float(wav.square().mean().sqrt())
    _row(engine, rows, "waveform", "vocoder", whole[None], wav, " silence" if silent else "")


def _gate_detokenizer(engine: Engine) -> Row:
    """Without a reference: numbers must be finite and not silence."""
    wav = engine.synthesize(np.random.default_rng(0).integers(0, engine.config.num_codes, 4 * NUM_TOKENS).tolist())
    finite = bool(np.isfinite(wav).all())
    silent = finite and (not len(wav) or float(np.sqrt((wav**2).mean())) < SILENCE_RMS)
    note = "" if finite and not silent else " silence" if silent else " NaN or infinity"
    return Row("waveform", "vocoder", None, None, None, not note, note or " finite, audible; no reference given")


def _compare_speech_tokenizer(engine: Engine, folder: Path) -> bool:
    pcm = question()
    reference = checkpoint.load_speech_tokenizer(folder).encode(torch.from_numpy(pcm))
    return engine.encode_voice(pcm) == reference.tolist()
