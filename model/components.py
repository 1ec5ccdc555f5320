"""THE TABLE: every exported component's tensors (name, axes, dtype), its state pairs and its rate; no torch.

The only place where these are written. Readers: export (inputs, dynamic axes), runtime (bindings), bundle checks,
parity, tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .config import ChatConfig, DecoderConfig, FlowConfig, SpeechTokenizerConfig, VocoderConfig

Axis = int | str  # a str names an axis whose length varies from call to call
CacheLayout = Literal["prefix", "static"]


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


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The configurations of everything a bundle holds; None where it does not hold it."""

    chat: ChatConfig
    flow: FlowConfig | None = None
    vocoder: VocoderConfig | None = None
    speech_tokenizer: SpeechTokenizerConfig | None = None

    def __post_init__(self) -> None:
        assert (self.flow is None) == (self.vocoder is None)


def components(config: ModelConfig, cache: CacheLayout) -> dict[str, Component]:
    """Every component of a bundle with these configurations, by name, in the order a turn runs them."""
    table = _chat_components(config.chat, cache)
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


def _chat_components(c: ChatConfig, cache: CacheLayout) -> list[Component]:
    hidden = c.text.hidden_size
    return [
        Component(
            "audio_encoder",
            "log-mel windows -> features",
            25,
            (_f32("mel", "windows", c.audio.num_mels, c.audio.window_frames), _i64("num_frames", "windows")),
            (_f32("features", "rows", hidden),),
        ),
        Component(
            "audio_grouping",
            "mean of group_size features, projected",
            5,
            (_f32("features", "groups", c.group_size, hidden),),
            (_f32("embeds", "groups", hidden),),
        ),
        Component(
            "backbone",
            "shared text model: one text token per step",
            5,
            (_f32("embeds", "new", hidden), *position_inputs(cache)),
            (_f32("hidden", "new", hidden), _f32("logits", c.text.vocab_size)),
            cache_states(c.text, cache),
        ),
        Component(
            "speech_upsampling",
            "hidden state -> group_size sub-vectors",
            5,
            (_f32("u", "positions", hidden),),
            (_f32("sub_vectors", "positions", c.group_size * hidden),),
        ),
        Component(
            "speech_head",
            "one sub-step: one speech token",
            25,
            (_f32("z", "new", hidden), *position_inputs(cache)),
            (_f32("logits", c.codebook_size),),
            cache_states(c.speech, cache),
        ),
    ]


def position_inputs(cache: CacheLayout) -> tuple[TensorSpec, ...]:
    """What a decoder takes beside its rows and caches."""
    return (_i64("position", 1),) if cache == "static" else ()


def cache_states(c: DecoderConfig, cache: CacheLayout) -> tuple[StatePair, ...]:
    """Key and value caches of every layer."""
    names = [f"{kind}_{layer}" for layer in range(c.num_layers) for kind in ("key", "value")]
    if cache == "static":
        axes: tuple[Axis, ...] = (1, c.num_kv_heads, "capacity", c.head_dim)
        return tuple(StatePair(_f32(f"past_{n}", *axes), _f32(f"new_{n}", *axes)) for n in names)
    return tuple(
        StatePair(
            _f32(f"past_{n}", "past", c.num_kv_heads, c.head_dim), _f32(f"new_{n}", "new", c.num_kv_heads, c.head_dim)
        )
        for n in names
    )


def _flow_components(c: FlowConfig) -> list[Component]:
    mel: tuple[Axis, ...] = (2, c.num_mels, "frames")
    return [
        Component(
            "flow_front",
            "speech tokens -> conditioning",
            50,
            (_i64("tokens", 1, "tokens"), _f32("speaker", 1, c.speaker_dim)),
            (_f32("mu", 1, c.num_mels, "frames"), _f32("spk", 1, c.num_mels)),
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
        ),
        Component("vocoder", "mel and source -> waveform", c.sample_rate, (mel, source), (_f32("wav", 1, "samples"),)),
    ]


def _speech_tokenizer_components(c: SpeechTokenizerConfig) -> list[Component]:
    return [
        Component(
            "speech_tokenizer",
            "log-mel -> speech ids, for voice prompts",
            25,
            (_f32("mel", 1, c.num_mels, "frames"),),
            (_i64("ids", 1, "slots"),),
        )
    ]
