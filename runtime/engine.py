"""A loaded bundle: questions in, answers out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model.settings import SPEECH_SYSTEM_PROMPT, TEXT_SYSTEM_PROMPT, GenerationSettings
from ..model.turn import Turn
from .audio import checked_pcm, read_audio
from .backend import Array, Backend, DecoderGraph, SpeechHead
from .backend_ort import OrtBackend
from .bundle import Bundle, open_bundle
from .conversation import Conversation
from .detokenizer import Detokenizer
from .flow_stream import BlockPlan
from .generate import Loop
from .hearing import Hearing
from .listening import Listener
from .metrics import Waterfall
from .native_backbone import NativeBackbone
from .native_speech_head import NativeSpeechHead
from .pipeline import Answer
from .prompt import Message, Prompter
from .speech_head import OnnxSpeechHead
from .tools import Tool
from .voice_tokenizer import VoiceTokenizer

DEFAULT_MAX_POSITIONS = 4096
FORMS = ("native", "onnx")  # of the backbone and of the speech head
SPEECH_CACHES = ("fp32", "fp16", "int8")
BACKENDS = ("onnx", "cuda", "tensorrt")
AudioInput = str | Path | np.ndarray


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock milliseconds of one answer; medians over its steps."""

    encode_ms: float  # log-mel, audio encoder, grouping
    prefill_ms: float  # backbone and speech head over the prompt
    backbone_step_ms: float
    speech_group_ms: float
    num_steps: int  # backbone steps after the prefill
    synthesize_ms: float  # flow and vocoder
    total_ms: float


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    text: str
    text_ids: list[int]  # as the loop returns them (SEMANTICS.md 5)
    speech_ids: list[int]  # likewise, flat
    audio: Array | None  # [N] float32 in [-1, 1]; None without a detokenizer, or with speech disabled
    sample_rate: int  # of audio, Hz
    timings: Timings


def load(
    folder: str | Path,
    *,
    num_threads: int | None = None,
    max_positions: int | None = None,
    check_hashes: bool = True,
    backbone: str | None = None,
    speech_head: str | None = None,
    speech_cache: str = "fp32",
    backend: str | None = None,
) -> Engine:
    """Opens a bundle and allocates all state.

    Args:
        folder: what `facrt export` wrote.
        num_threads: for the inference library and for the native loop; default: the CPU cores this process may use.
        max_positions: prompt plus answer, in backbone positions (5 per second of speech); default: what the bundle was
            compiled for, else 4096.
        check_hashes: False skips the SHA-256 of the bundle's files.
        backbone, speech_head: "native" or "onnx"; default: native where the bundle holds it and no GPU is asked for.
        speech_cache: how the native speech head keeps keys and values: "fp32", "fp16" or "int8".
        backend: "onnx" (the CPU), "cuda" (ONNX Runtime on an NVIDIA GPU) or "tensorrt"; default: as the target.

    Raises:
        BundleError: the bundle is damaged or of another version.
        RequestError: num_threads or max_positions is not at least 1, or the bundle has no such form or cache.
    """
    if num_threads is not None and num_threads < 1:
        raise RequestError(f"num_threads {num_threads} is not at least 1")
    bundle = open_bundle(folder, check_hashes)
    return Engine(bundle, num_threads or _num_cores(), max_positions, backbone, speech_head, speech_cache, backend)


def _open_backend(bundle: Bundle, num_threads: int, kind: str | None) -> Backend:
    if kind not in (None, *BACKENDS):
        raise RequestError(f"backend {kind!r} is unknown; allowed: {', '.join(BACKENDS)}")
    if kind == "tensorrt" or (kind is None and bundle.manifest.target != "cpu"):
        from .backend_tensorrt import TensorRtBackend  # with ctypes and CUDA, which a CPU has no use for

        return TensorRtBackend(bundle, num_threads)
    return OrtBackend(bundle, num_threads, "cuda" if kind == "cuda" else "cpu")


def _num_positions(bundle: Bundle, wanted: int | None) -> int:
    compiled = bundle.manifest.positions
    if wanted is None:
        return compiled or DEFAULT_MAX_POSITIONS
    if wanted < 1:
        raise RequestError(f"max_positions {wanted} is not at least 1")
    if compiled is not None and wanted > compiled:
        raise RequestError(
            f"max_positions {wanted} is more than the {compiled} of this bundle; "
            f"export it with --max-positions {wanted}"
        )
    return wanted


def _native_file(bundle: Bundle, backend: Backend, component: str, kind: str | None) -> Path | None:
    """The weight file of a component that C++ is to run; None where the backend runs its graph.

    Raises:
        RequestError: there is no such form.
    """
    name, file = component.replace("_", " "), bundle.manifest.native.get(component)
    if kind not in (None, *FORMS):
        raise RequestError(f"{name} {kind!r} is unknown; allowed: {', '.join(FORMS)}")
    if kind == "native" and file is None:
        raise RequestError(f"this bundle holds no native {name}; use onnx, or export it again")
    on_cpu = isinstance(backend, OrtBackend) and backend.device == "cpu"
    return bundle.folder / file if file and (kind == "native" or (kind is None and on_cpu)) else None


def _open_backbone(bundle: Bundle, backend: Backend, num_threads: int, capacity: int, kind: str | None) -> DecoderGraph:
    file = _native_file(bundle, backend, "backbone", kind)
    if file is None:
        return backend.decoder("backbone", capacity)
    manifest = bundle.manifest
    return NativeBackbone(file, manifest.model.chat, capacity, num_threads, manifest.cache_dtype)


def _open_speech_head(
    bundle: Bundle, backend: Backend, num_threads: int, capacity: int, kind: str | None, cache: str
) -> SpeechHead:
    file = _native_file(bundle, backend, "speech_head", kind)
    if cache not in SPEECH_CACHES:
        raise RequestError(f"speech cache {cache!r} is unknown; allowed: {', '.join(SPEECH_CACHES)}")
    if file is None:
        if cache != "fp32":
            raise RequestError(f"speech cache {cache!r} needs the native speech head; a graph's is chosen at export")
        return _graph_speech_head(bundle, backend, capacity)
    return NativeSpeechHead(file, bundle.manifest.model.chat, capacity, num_threads, cache)


def _graph_speech_head(bundle: Bundle, backend: Backend, capacity: int) -> SpeechHead:
    """The loop over the exported graph, on the device where the backend keeps it there."""
    table, config = bundle.embedding_table("speech_embedding"), bundle.manifest.model.chat
    if isinstance(backend, OrtBackend):
        return OnnxSpeechHead(backend, table, config, capacity)
    from .trt_speech_head import TensorRtSpeechHead  # as `_open_backend`

    return TensorRtSpeechHead(backend, table, config, capacity)  # type: ignore[arg-type]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine:
    """One bundle in memory. Not thread-safe: one answer at a time."""

    def __init__(
        self,
        bundle: Bundle,
        num_threads: int,
        max_positions: int | None = None,
        backbone: str | None = None,
        speech_head: str | None = None,
        speech_cache: str = "fp32",
        backend_kind: str | None = None,
    ) -> None:
        max_positions = _num_positions(bundle, max_positions)
        config, backend = bundle.manifest.model.chat, _open_backend(bundle, num_threads, backend_kind)
        grouping = bundle.embedding_table("speech_grouping")
        self.bundle = bundle
        self.config = config
        self.hearing = Hearing(backend, grouping, config)
        self.backbone = _open_backbone(bundle, backend, num_threads, max_positions, backbone)
        self.speech_head = _open_speech_head(bundle, backend, num_threads, max_positions, speech_head, speech_cache)
        self.loop = Loop(config, self.backbone, self.speech_head, bundle.embedding_table("text_embedding"), grouping)
        template = bundle.manifest.chat_template
        self.prompter = Prompter(
            bundle.folder / bundle.manifest.tokenizer, bundle.folder / template if template else None, config
        )
        self.detokenizer: Detokenizer | None = None
        flow, vocoder = bundle.manifest.model.flow, bundle.manifest.model.vocoder
        if flow is not None and vocoder is not None:
            noise = bundle.array("flow_noise")
            self.detokenizer = Detokenizer(backend, flow, vocoder, noise, config.num_codes)
        voice = bundle.manifest.model.speech_tokenizer
        self._voice_tokenizer = VoiceTokenizer(backend, voice) if voice is not None else None

    @property
    def has_audio(self) -> bool:
        """Whether the bundle can turn speech ids into sound."""
        return self.detokenizer is not None

    def system_prompt(self, speech: bool) -> str:
        """What conversations begin with: the bundle's, else the checkpoint's for speech or for text."""
        stored = self.bundle.manifest.system
        return (SPEECH_SYSTEM_PROMPT if speech else TEXT_SYSTEM_PROMPT) if stored is None else stored

    def conversation(
        self,
        system: str | None = None,
        speech: bool = True,
        tools: Sequence[Tool] = (),
        max_turns: int | None = None,
    ) -> Conversation:
        """A conversation of several turns.

        Args:
            system: the system prompt; default: `system_prompt`.
            speech: False answers in text only.
            tools: what the model may call.
            max_turns: older turns are forgotten; default: none, until the caches are full.
        """
        return Conversation(self, system, speech, tools, max_turns)

    def respond(
        self,
        audio: AudioInput | None = None,
        *,
        text: str | None = None,
        system: str | None = None,
        speech: bool = True,
        **options: Any,
    ) -> Reply:
        """Answers one question.

        Args:
            audio: a file, or 16 kHz mono samples [N] (float32 or int16).
            text: beside the audio, or instead of it.
            system: the system prompt; default: `system_prompt`.
            speech: False answers in text only.
            options: as in `answer`.

        Raises:
            AudioError, RequestError: the input cannot be used.
        """
        return self.conversation(system, speech).respond(audio, text=text, **options)

    def answer(
        self,
        messages: Sequence[Message],
        *,
        speech: bool = True,
        greedy: bool = False,
        seed: int = 0,
        max_steps: int = 512,
        synthesize: bool = True,
        speaker: str | Array | None = None,
        **sampling: Any,
    ) -> Reply:
        """Answers the last message of a history.

        Args:
            messages: system first, a user's last.
            speech: False answers in text only (S2T).
            greedy: argmax everywhere, text without processors.
            seed: of the sampled mode; the same seed gives the same ids.
            max_steps: backbone steps at most.
            synthesize: False leaves the speech ids silent.
            speaker: a name of the bundle's, or an embedding [speaker_dim].
            sampling: temperature, top_k, top_p, repetition_penalty, text_greedy, force_text_abos, eos_token_id;
                defaults: the bundle's.

        Raises:
            RequestError: a setting out of range, an unknown speaker, a prompt longer than the caches.
        """
        settings = self._settings(messages, speech, greedy, seed, max_steps, sampling)
        speaks = speech and synthesize and self.detokenizer is not None
        voice = self._speaker(speaker) if speaks else None
        started = time.perf_counter()
        prompt_ids, audio_embeds = self._prompt(messages)
        encoded = time.perf_counter()
        turn, timings = self.loop.run(prompt_ids, audio_embeds, settings)
        generated = time.perf_counter()
        audio = None
        if voice is not None:
            audio = self.synthesize(turn.speech_ids, voice)
        finished = time.perf_counter()
        return Reply(
            text=self.prompter.decode(turn.text_ids),
            text_ids=turn.text_ids,
            speech_ids=turn.speech_ids,
            audio=audio,
            sample_rate=self.detokenizer.sample_rate if self.detokenizer else 0,
            timings=Timings(
                encode_ms=(encoded - started) * 1e3,
                prefill_ms=timings.prefill_ms,
                backbone_step_ms=_median(timings.backbone_ms),
                speech_group_ms=_median(timings.speech_head_ms),
                num_steps=len(timings.backbone_ms),
                synthesize_ms=(finished - generated) * 1e3,
                total_ms=(finished - started) * 1e3,
            ),
        )

    def begin(
        self,
        messages: Sequence[Message],
        number: int,
        waterfall: Waterfall,
        *,
        speech: bool = True,
        greedy: bool = False,
        seed: int = 0,
        max_steps: int = 512,
        synthesize: bool = True,
        speaker: str | Array | None = None,
        plan: BlockPlan | None = None,
        **sampling: Any,
    ) -> tuple[Answer, tuple[NDArray[np.int64], Array, GenerationSettings]]:
        """An answer that streams, and the arguments of its `events`; it is the `number`th of its conversation.

        Args:
            plan: in what blocks speech is synthesized; the other arguments as in `answer`.

        Raises:
            RequestError: as `answer`.
        """
        settings = self._settings(messages, speech, greedy, seed, max_steps, sampling)
        stream = None
        if speech and synthesize and self.detokenizer is not None:
            stream = self.detokenizer.stream(self._speaker(speaker), plan)
        rate = self.detokenizer.sample_rate if stream is not None and self.detokenizer is not None else 0
        turn = Turn(self.config, settings)
        answer = Answer(self.loop, self.prompter.decode, turn, number, waterfall, stream, rate)
        return answer, (*self._prompt(messages), settings)

    def listener(self) -> Listener:
        """Hears one user turn in chunks."""
        return Listener(self.hearing, self.config.audio.num_mels)

    def read_ahead(self, messages: Sequence[Message], rows: Array, speech: bool) -> None:
        """Lets backbone and speech head read a spoken turn that is not over yet, as far as the caches lack it.

        Args:
            messages: the history before the turn.
            rows: [P, H], what was heard of the turn so far.
            speech: whether the answer will be spoken.

        Raises:
            RequestError: the conversation is longer than the caches.
        """
        ids = self.prompter.encode_open(messages, len(rows))
        heard = [self.hearing.embed(m) for m in messages if self.prompter.num_slots(m)]
        self.loop.warm(ids, np.concatenate([self.hearing.no_rows, *heard, rows]), speech)

    def _prompt(self, messages: Sequence[Message]) -> tuple[NDArray[np.int64], Array]:
        prompt_ids = self.prompter.encode(messages)
        heard = [self.hearing.embed(m) for m in messages if self.prompter.num_slots(m)]
        return prompt_ids, np.concatenate([self.hearing.no_rows, *heard])

    def synthesize(self, speech_ids: Sequence[int], speaker: str | Array | None = None) -> Array:
        """Speech ids to a waveform, float32 [N] at the detokenizer's rate; empty where no code is left.

        Raises:
            RequestError: the bundle has no detokenizer, or no such speaker.
        """
        if self.detokenizer is None:
            raise RequestError("this bundle has no detokenizer; export it with --detokenizer DIR to hear it")
        return self.detokenizer.synthesize(speech_ids, self._speaker(speaker))

    def encode_voice(self, audio: AudioInput) -> list[int]:
        """A recording to 25 Hz speech ids, as a voice prompt needs them.

        Raises:
            AudioError: the recording cannot be used.
            RequestError: the bundle has no speech tokenizer.
        """
        if self._voice_tokenizer is None:
            raise RequestError("this bundle has no speech tokenizer; export it with --speech-tokenizer DIR")
        return self._voice_tokenizer.encode(self.read(audio))

    def read(self, audio: AudioInput) -> Array:
        """A file or 16 kHz samples as checked 16 kHz float32 [N]."""
        return checked_pcm(audio, 16_000, "the audio") if isinstance(audio, np.ndarray) else read_audio(audio)

    def _speaker(self, speaker: str | Array | None) -> Array:
        names = self.bundle.manifest.speakers
        if isinstance(speaker, str) and speaker not in names:
            raise RequestError(f"speaker {speaker!r} is unknown; allowed: {', '.join(names)}")
        if speaker is None or isinstance(speaker, str):
            row = names[speaker] if isinstance(speaker, str) else 0
            return self.bundle.array("speakers")[row]
        return np.asarray(speaker, np.float32).reshape(-1)

    def _settings(
        self,
        messages: Sequence[Message],
        speech: bool,
        greedy: bool,
        seed: int,
        max_steps: int,
        sampling: dict[str, Any],
    ) -> GenerationSettings:
        if not messages or messages[-1].role != "user":
            raise RequestError("the last message is not the user's: there is nothing to answer")
        defaults = self.bundle.manifest.sampling
        chosen = {**defaults, **{k: v for k, v in sampling.items() if v is not None}}
        if greedy or not speech:
            chosen["text_greedy"] = sampling.get("text_greedy", True)
        chosen.setdefault("force_text_abos", speech)
        try:
            return GenerationSettings(
                max_new_tokens=max_steps, do_sample=not greedy, disable_speech=not speech, seed=seed, **chosen
            )
        except TypeError as error:
            raise RequestError(f"unknown setting: {error}") from None


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
