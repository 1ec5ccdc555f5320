"""THE TABLE: every exported component's tensors (name, axes, dtype), its state pairs and its rate; no torch.

The only place where these are written. Readers: export (inputs, dynamic axes), runtime (bindings), bundle checks,
parity, tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from . import geometry
from .config import ChatConfig, DecoderConfig, FlowConfig, SpeechTokenizerConfig, VocoderConfig

Axis = int | str  # a str names an axis whose length varies from call to call
CacheLayout = Literal["prefix", "static"]
Lengths = tuple[int, int, int]  # of an axis: the least, the usual, the most
Profile = Mapping[str, Lengths]  # varying axis of an input -> its lengths

PREFILL_ROWS = 512  # of a decoder in one call, which bounds the scratch memory of a long prompt
STEP_ROWS = 8  # the most that a decoder's first profile takes: a profile of one row alone would store weights twice
MAX_CANDIDATES = 64  # of a speech token that is chosen on a GPU
FLOW_FRAMES = 1500  # of a block: 30 s, the longest that is synthesized whole
FLOW_PAST_FRAMES = 400  # cached, at most
FLOW_CONTEXT_TOKENS = 8  # before and after a block, at most


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    dtype: str  # numpy's name
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class StatePair:
    """A cache tensor: what goes in and what comes out.

    "static": both are the same buffer, [1, num_kv_heads, capacity, head_dim], updated in place.
    "prefix": the rows so far go in, [past, num_kv_heads, head_dim], and only the new rows come out.
    The flow's convolutions: what they saw last, the same shape in and out.
    """

    input: TensorSpec
    output: TensorSpec


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    caption: str
    rate_hz: int  # output rows per second of audio; 0: text steps
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StatePair, ...] = ()
    profiles: tuple[Profile, ...] = ()  # for compilers that want lengths: one for each kind of call

    @property
    def all_inputs(self) -> tuple[TensorSpec, ...]:
        return (*self.inputs, *(pair.input for pair in self.states))

    @property
    def all_outputs(self) -> tuple[TensorSpec, ...]:
        return (*self.outputs, *(pair.output for pair in self.states))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The configurations of everything a bundle holds; None where it does not hold it."""

    chat: ChatConfig
    flow: FlowConfig | None = None
    vocoder: VocoderConfig | None = None
    speech_tokenizer: SpeechTokenizerConfig | None = None

    def __post_init__(self) -> None:
        assert (self.flow is None) == (self.vocoder is None)


@dataclass(frozen=True, slots=True)
class Cache:
    """How the decoders of a bundle keep keys and values."""

    layout: CacheLayout
    dtype: str = "float32"  # numpy's name
    positions: int | None = None  # backbone positions, where compiled graphs bound them; a static cache has just these


def components(config: ModelConfig, cache: Cache) -> dict[str, Component]:
    """Every component of a bundle with these configurations, by name, in the order a turn runs them."""
    table = _chat_components(config.chat, cache)
    if cache.positions is not None:
        table += _device_loop_components(config.chat)
    if config.flow is not None and config.vocoder is not None:
        table += _flow_components(config.flow) + _vocoder_components(config.vocoder)
    if config.speech_tokenizer is not None:
        table += _speech_tokenizer_components(config.speech_tokenizer)
    return {component.name: component for component in table}


def _f32(name: str, *axes: Axis) -> TensorSpec:
    return TensorSpec(name, "float32", axes)


def _f64(name: str, *axes: Axis) -> TensorSpec:
    return TensorSpec(name, "float64", axes)


def _i64(name: str, *axes: Axis) -> TensorSpec:
    return TensorSpec(name, "int64", axes)


def _chat_components(c: ChatConfig, cache: Cache) -> list[Component]:
    hidden = c.text.hidden_size
    longest = geometry.MAX_AUDIO_SECONDS * geometry.SAMPLE_RATE_HZ
    windows = -(-geometry.num_mel_frames(longest) // c.audio.window_frames)
    groups = geometry.num_groups(geometry.num_slots(longest), c.group_size)
    positions = cache.positions or 1
    return [
        Component(
            "audio_encoder",
            "log-mel windows -> features",
            25,
            (_f32("mel", "windows", c.audio.num_mels, c.audio.window_frames), _i64("num_frames", "windows")),
            (_f32("features", "rows", hidden),),
            profiles=({"windows": (1, 1, windows)},),
        ),
        Component(
            "audio_grouping",
            "mean of group_size features, projected",
            5,
            (_f32("features", "groups", c.group_size, hidden),),
            (_f32("embeds", "groups", hidden),),
            profiles=({"groups": (1, min(10, groups), groups)},),
        ),
        Component(
            "backbone",
            "shared text model: one text token per step",
            5,
            (_f32("embeds", "new", hidden), *position_inputs(cache.layout)),
            (_f32("hidden", "new", hidden), _f32("logits", c.text.vocab_size)),
            cache_states(c.text, cache, 1),
            decoder_profiles(cache, 1),
        ),
        Component(
            "speech_upsampling",
            "hidden state -> group_size sub-vectors",
            5,
            (_f32("u", "positions", hidden),),
            (_f32("sub_vectors", "positions", c.group_size * hidden),),
            profiles=({"positions": (1, 1, positions)},),
        ),
        Component(
            "speech_head",
            "one sub-step: one speech token",
            25,
            (_f32("z", "new", hidden), *position_inputs(cache.layout)),
            (_f32("logits", c.codebook_size),),
            cache_states(c.speech, cache, c.group_size),
            decoder_profiles(cache, c.group_size),
        ),
    ]


def _device_loop_components(c: ChatConfig) -> list[Component]:
    """What keeps the refinement loop of compiled graphs on the device."""
    hidden, codes = c.text.hidden_size, c.codebook_size
    return [
        Component(
            "speech_input",
            "sub-vector and newest token -> the head's input",
            25,
            (_f32("sub_vectors", 1, c.group_size * hidden), _i64("index", 1), _i64("token", 1)),
            (_f32("z", 1, hidden),),
        ),
        Component(
            "speech_choice",
            "logits -> one speech token",
            25,
            (
                _f32("logits", codes),
                _f32("seen", codes),
                _f32("penalty", 1),
                _f32("temperature", 1),
                _i64("top_k", 1),
                _f32("top_p", 1),
                _f32("noise", MAX_CANDIDATES),
            ),
            (_i64("chosen", 1), _f32("seen_too", codes)),
        ),
    ]


def position_inputs(layout: CacheLayout) -> tuple[TensorSpec, ...]:
    """What a decoder takes beside its rows and caches."""
    return (_i64("position", 1),) if layout == "static" else ()


def cache_states(c: DecoderConfig, cache: Cache, per_position: int = 1) -> tuple[StatePair, ...]:
    """Key and value caches of every layer, `per_position` rows for each backbone position."""
    names = [f"{kind}_{layer}" for layer in range(c.num_layers) for kind in ("key", "value")]
    if cache.layout == "static":
        capacity: Axis = "capacity" if cache.positions is None else cache.positions * per_position
        axes: tuple[Axis, ...] = (1, c.num_kv_heads, capacity, c.head_dim)
        return tuple(_pair(n, cache.dtype, axes, axes) for n in names)
    heads = (c.num_kv_heads, c.head_dim)
    return tuple(_pair(n, cache.dtype, ("past", *heads), ("new", *heads)) for n in names)


def decoder_profiles(cache: Cache, per_position: int = 1) -> tuple[Profile, ...]:
    """Steps and prefill: overlapping ranges of rows, so that weights are stored once."""
    if cache.positions is None:
        return ()
    rows = cache.positions * per_position
    past: Profile = {"past": (0, min(512, rows), rows)} if cache.layout == "prefix" else {}
    most = min(PREFILL_ROWS, rows)
    return {"new": (1, 1, min(STEP_ROWS, rows)), **past}, {"new": (1, max(1, most // 2), most), **past}


def _pair(name: str, dtype: str, past: tuple[Axis, ...], new: tuple[Axis, ...]) -> StatePair:
    return StatePair(TensorSpec(f"past_{name}", dtype, past), TensorSpec(f"new_{name}", dtype, new))


def _flow_components(c: FlowConfig) -> list[Component]:
    mel: tuple[Axis, ...] = (2, c.num_mels, "frames")
    return [
        Component(
            "flow_front",
            "speech tokens -> conditioning",
            50,
            (_i64("tokens", 1, "tokens"), _f32("speaker", 1, c.speaker_dim)),
            (_f32("mu", 1, c.num_mels, "frames"), _f32("spk", 1, c.num_mels)),
            profiles=({"tokens": (1, 30, FLOW_FRAMES // c.token_mel_ratio + FLOW_CONTEXT_TOKENS)},),
        ),
        Component(
            "flow_estimator",
            "one Euler step's velocity of a block, guided and unguided row",
            50,
            (
                _f32("x", *mel),
                _f32("mu", *mel),
                _f32("t", 2),
                _f32("spk", 2, c.num_mels),
                _f32("cond", *mel),
                _i64("position", 1),
            ),
            (_f32("velocity", *mel),),
            _flow_states(c),
            ({"frames": (1, 50, FLOW_FRAMES), "past": (0, 200, FLOW_PAST_FRAMES)},),
        ),
    ]


def _flow_states(c: FlowConfig) -> tuple[StatePair, ...]:
    """What the two position convolutions saw last; keys and values of both rows, [frames, 2 * num_heads, head_dim]."""
    heads = (2 * c.num_heads, c.head_dim)
    tails = [f"position{i}" for i in (1, 2)]
    rows = [f"{kind}_{layer}" for layer in range(c.depth) for kind in ("key", "value")]
    tail: tuple[Axis, ...] = (2, c.dim, c.position_kernel - 1)
    return (
        *(StatePair(_f32(f"past_{n}", *tail), _f32(f"new_{n}", *tail)) for n in tails),
        *(StatePair(_f32(f"past_{n}", "past", *heads), _f32(f"new_{n}", "frames", *heads)) for n in rows),
    )


def _vocoder_components(c: VocoderConfig) -> list[Component]:
    mel = _f32("mel", 1, c.num_mels, "frames")
    source = _f32("source", 1, 1, "samples")
    frames = (1, 80, FLOW_FRAMES)
    least, usual, most = (n * c.samples_per_frame for n in frames)
    profiles = ({"frames": frames, "samples": (least, usual, most)},)
    return [
        Component(
            "vocoder_source",
            "mel -> pitch -> harmonic source (high precision)",
            c.sample_rate,
            (
                mel,
                _f32("noise", 1, "samples", c.num_harmonics + 1),
                _f64("phase", 1, 1, c.num_harmonics + 1),
                _i64("num_context"),
            ),
            (source, _f64("phases", 1, "frames", c.num_harmonics + 1)),
            profiles=profiles,
        ),
        Component(
            "vocoder",
            "mel and source -> waveform",
            c.sample_rate,
            (mel, source),
            (_f32("wav", 1, "samples"),),
            profiles=profiles,
        ),
    ]


def _speech_tokenizer_components(c: SpeechTokenizerConfig) -> list[Component]:
    return [
        Component(
            "speech_tokenizer",
            "log-mel -> speech ids, for voice prompts",
            25,
            (_f32("mel", 1, c.num_mels, "frames"),),
            (_i64("ids", 1, "slots"),),
            profiles=({"frames": (8, 500, 3000)},),
        )
    ]
