"""What a model's components weigh and compute, from its configuration alone: counts of weights and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.components import ModelConfig
from ..model.config import (
    AudioEncoderConfig,
    ChatConfig,
    DecoderConfig,
    FlowConfig,
    SpeechTokenizerConfig,
    VocoderConfig,
)
from ..model.geometry import F0_KERNELS, FLOW_LOOK_BACK_TOKENS, VOCODER_POST_KERNEL
from ..quant.recipe import HIGH_PRECISION

SPEECH_TOKENIZER_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a component."""

    matrices: int  # of Linear layers and experts: what a scheme turns into integers
    kept: int  # norms, biases, convolutions, layers that `quant.recipe.HIGH_PRECISION` names
    unread: int = 0  # of the matrices: experts that one position does not go through

    @property
    def total(self) -> int:
        return self.matrices + self.kept


def weights(config: ModelConfig) -> dict[str, Weights]:
    """Component -> its weights, for every component that has a graph."""
    chat = config.chat
    wide, speech = chat.text.hidden_size, chat.speech
    head = wide * speech.hidden_size * 2 + chat.codebook_size * wide
    table = {
        "audio_encoder": _audio_encoder(chat.audio, wide),
        "audio_grouping": Weights(wide * wide, 0),
        "backbone": _decoder(chat.text, chat.text.vocab_size * wide),
        "speech_upsampling": Weights(chat.group_size * wide * wide, chat.group_size * wide),
        "speech_head": _decoder(speech, head),
    }
    if config.flow is not None and config.vocoder is not None:
        table |= {
            "flow_front": Weights(0, _flow_front(config.flow)),
            "flow_estimator": _flow_estimator(config.flow),
            "vocoder_source": Weights(0, _vocoder_source(config.vocoder)),
            "vocoder": Weights(0, _vocoder(config.vocoder)),
        }
    if config.speech_tokenizer is not None:
        table["speech_tokenizer"] = _speech_tokenizer(config.speech_tokenizer)
    return table


def table_elements(chat: ChatConfig) -> dict[str, int]:
    """Elements of the embedding tables beside the graphs."""
    wide = chat.text.hidden_size
    speech = chat.codebook_size * wide
    return {"text_embedding": chat.text.vocab_size * wide, "speech_embedding": speech, "speech_grouping": speech}


def cache_elements_per_position(c: DecoderConfig) -> int:
    """Keys and values of one position, all layers."""
    return 2 * c.num_layers * c.num_kv_heads * c.head_dim


def flow_cache_elements(c: FlowConfig, frames: int) -> int:
    """Keys and values of so many mel frames, both rows and all Euler steps."""
    return c.num_steps * 2 * c.depth * frames * 2 * c.num_heads * c.head_dim


def _decoder(c: DecoderConfig, head: int) -> Weights:
    matrices, kept, unread = head, c.hidden_size, 0
    for layer in range(c.num_layers):
        attention, biases = _attention(c)
        matrices += attention
        kept += biases + 2 * c.hidden_size + 2 * c.head_dim
        if c.is_sparse(layer):
            expert = 3 * c.hidden_size * c.expert_intermediate_size
            matrices += c.num_experts * expert
            unread += (c.num_experts - c.num_experts_per_token) * expert
            router = c.num_experts * c.hidden_size
            assert "router" in HIGH_PRECISION["backbone"]
            kept += router
        else:
            matrices += 3 * c.hidden_size * c.intermediate_size
    return Weights(matrices, kept, unread)


def _attention(c: DecoderConfig) -> tuple[int, int]:
    """Weights of the projections, and of their biases."""
    queries = c.num_heads * c.head_dim
    projected = queries + 2 * c.num_kv_heads * c.head_dim
    biases = projected + c.hidden_size if c.attention_bias else 0
    return c.hidden_size * (projected + queries), biases


def _audio_encoder(c: AudioEncoderConfig, wide: int) -> Weights:
    d = c.d_model
    convolutions = d * c.num_mels * 3 + d + d * d * 3 + d
    biases_and_norms = c.num_layers * (3 * d + d + c.ffn_size + d + 4 * d) + 2 * d + wide
    return Weights(c.num_layers * _encoder_layer(c), convolutions + biases_and_norms + d * wide)


def _encoder_layer(c: AudioEncoderConfig) -> int:
    return 4 * c.d_model * c.d_model + 2 * c.d_model * c.ffn_size


def _flow_front(c: FlowConfig) -> int:
    look_ahead = c.num_mels * c.pre_channels * (c.pre_lookahead + 1) + c.pre_channels
    look_back = c.pre_channels * c.num_mels * (FLOW_LOOK_BACK_TOKENS + 1) + c.num_mels
    return c.vocab_size * c.num_mels + look_ahead + look_back + c.speaker_dim * c.num_mels + c.num_mels


def _flow_estimator(c: FlowConfig) -> Weights:
    d, inner = c.dim, c.num_heads * c.head_dim
    positions = 2 * _flow_position(c) + 2 * d
    ends = 4 * c.num_mels * d + d + d * c.num_mels + c.num_mels + 2 * (d * d + d)  # input, output, final modulation
    times = c.time_embedding_dim * d + d + d * d + d
    modulations = c.depth * (6 * d * d + 6 * d)
    biases = c.depth * (3 * inner + d + c.ff_mult * d + d)
    return Weights(c.depth * _flow_block(c), positions + ends + times + modulations + biases)


def _flow_block(c: FlowConfig) -> int:
    """Weights of a block that every frame meets; its modulation is computed once a call."""
    return 4 * c.num_heads * c.head_dim * c.dim + 2 * c.ff_mult * c.dim * c.dim


def _flow_position(c: FlowConfig) -> int:
    return c.dim * c.dim // c.position_groups * c.position_kernel


def _vocoder_source(c: VocoderConfig) -> int:
    channels = (c.num_mels, *(c.f0_channels for _ in F0_KERNELS))
    pitch = sum(a * b * k + 2 * b for a, b, k in zip(channels, channels[1:], F0_KERNELS, strict=False))
    return pitch + c.f0_channels + 1 + c.num_harmonics + 1 + 1


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution of the vocoder."""

    in_channels: int
    out_channels: int
    kernel: int
    per_frame: float  # output rows per mel frame

    @property
    def weights(self) -> int:
        return self.in_channels * self.out_channels * self.kernel


def _convolutions(c: VocoderConfig) -> list[_Convolution]:
    spectrum = c.istft_size + 2
    found = [_Convolution(c.num_mels, c.base_channels, c.look_right + 1, 1)]
    width, rate = c.base_channels, 1
    stages = zip(
        c.upsample_rates, c.upsample_kernels, c.source_resblock_kernels, c.source_resblock_dilations, strict=True
    )
    for i, (up, kernel, source_kernel, source_dilations) in enumerate(stages):
        rate *= up
        stride = 1
        for later in c.upsample_rates[i + 1 :]:
            stride *= later
        found.append(_Convolution(width, width // 2, kernel, rate))
        width //= 2
        found.append(_Convolution(spectrum, width, 2 * stride if stride > 1 else 1, rate))
        blocks = zip((source_kernel, *c.resblock_kernels), (source_dilations, *c.resblock_dilations), strict=True)
        found += [
            _Convolution(width, width, size, rate) for size, dilations in blocks for _ in range(2 * len(dilations))
        ]
    return [*found, _Convolution(width, spectrum, VOCODER_POST_KERNEL, rate)]


def _vocoder(c: VocoderConfig) -> int:
    snakes = 0
    for stage in range(len(c.upsample_rates)):
        blocks = (c.source_resblock_dilations[stage], *c.resblock_dilations)
        snakes += (c.base_channels >> (stage + 1)) * sum(2 * len(dilations) for dilations in blocks)
    return snakes + sum(conv.weights + conv.out_channels for conv in _convolutions(c))


def _speech_tokenizer(c: SpeechTokenizerConfig) -> Weights:
    d = c.d_model
    convolutions = d * c.num_mels * 3 + d + d * d * 3 + d
    others = c.num_layers * (13 * d + d * c.fsmn_kernel) + SPEECH_TOKENIZER_DIGITS  # norms, biases, memory
    return Weights(c.num_layers * 12 * d * d + d * SPEECH_TOKENIZER_DIGITS, convolutions + others)


def decoder_macs(c: DecoderConfig, head: int, past: float) -> float:
    """Multiply-adds of one position that sees `past` positions; `head`: weights around the layers that it meets."""
    met = _decoder(c, head)
    routers = sum(c.num_experts * c.hidden_size for layer in range(c.num_layers) if c.is_sparse(layer))
    return met.matrices - met.unread + routers + 2 * c.num_layers * c.num_heads * c.head_dim * past


def audio_window_macs(c: AudioEncoderConfig, wide: int) -> float:
    """Multiply-adds of one window of the audio encoder."""
    d, rows = c.d_model, c.half_window_frames
    convolutions = 2 * rows * d * c.num_mels * 3 + rows * d * d * 3
    return convolutions + c.num_layers * (rows * _encoder_layer(c) + 2 * rows * rows * d) + rows // 2 * d * wide


def flow_frame_macs(c: FlowConfig, seen: float) -> float:
    """Multiply-adds of one mel frame that sees `seen` frames: both rows, all Euler steps."""
    ends = 4 * c.num_mels * c.dim + c.dim * c.num_mels + 2 * _flow_position(c)
    row = ends + c.depth * (_flow_block(c) + 2 * c.num_heads * c.head_dim * seen)
    return 2 * c.num_steps * row


def vocoder_frame_macs(c: VocoderConfig) -> float:
    """Multiply-adds of one mel frame: the convolutions, the transform and its inverse, and the pitch."""
    spectra = c.samples_per_frame / c.istft_hop
    transforms = 2 * spectra * (c.istft_size + 2) * c.istft_size
    channels = (c.num_mels, *(c.f0_channels for _ in F0_KERNELS))
    pitch = sum(a * b * k for a, b, k in zip(channels, channels[1:], F0_KERNELS, strict=False))
    return transforms + pitch + sum(conv.weights * conv.per_frame for conv in _convolutions(c))
