"""What a model's configuration says, as frozen dataclasses; no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..errors import CheckpointError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Qwen3 (dense or mixture-of-experts) decoder: the backbone, or the speech head's inner transformer."""

    hidden_size: int
    intermediate_size: int  # of the dense MLP layers
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    attention_bias: bool = False
    vocab_size: int = 0  # 0: no text embedding of its own (speech head)
    tie_word_embeddings: bool = False
    num_experts: int = 0  # 0: dense
    num_experts_per_token: int = 0
    expert_intermediate_size: int = 0
    norm_expert_weights: bool = True  # routing weights renormalized over the chosen experts
    sparse_step: int = 1  # every sparse_step-th layer is a mixture of experts
    dense_layers: tuple[int, ...] = ()  # layers that stay dense all the same

    def __post_init__(self) -> None:
        faults = [
            f"{f} is {getattr(self, f)}"
            for f in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
            if getattr(self, f) < 1
        ]
        if self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads:
            faults.append(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            faults.append(f"head_dim {self.head_dim} is odd")
        if self.num_experts and not 0 < self.num_experts_per_token <= self.num_experts:
            faults.append(f"num_experts_per_token is {self.num_experts_per_token} of {self.num_experts} experts")
        if self.num_experts and self.expert_intermediate_size < 1:
            faults.append(f"expert_intermediate_size is {self.expert_intermediate_size}")
        refuse(faults, "decoder configuration")

    def is_sparse(self, layer: int) -> bool:
        """Whether this layer's MLP is a mixture of experts (transformers' Qwen3MoeDecoderLayer)."""
        return self.num_experts > 0 and layer not in self.dense_layers and (layer + 1) % self.sparse_step == 0


@dataclass(frozen=True, slots=True)
class AudioEncoderConfig:
    """The Whisper-like encoder ("continuous_audio_tower")."""

    d_model: int
    num_layers: int
    num_heads: int
    ffn_size: int
    num_mels: int = 128
    half_window_frames: int = 100  # config key n_window; a window is twice as many mel frames (2 s)

    def __post_init__(self) -> None:
        faults = [f"{f.name} is {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) < 1]
        if self.num_heads > 0 and self.d_model % self.num_heads:
            faults.append(f"d_model {self.d_model} is no multiple of num_heads {self.num_heads}")
        if self.d_model % 2 or self.d_model < 4:
            faults.append(f"d_model {self.d_model} leaves no room for [sin | cos] positions")
        refuse(faults, "audio encoder configuration")

    @property
    def window_frames(self) -> int:
        return 2 * self.half_window_frames


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """A Fun-Audio-Chat checkpoint: audio encoder, backbone, speech head, and the ids that steer the loop."""

    text: DecoderConfig
    speech: DecoderConfig
    audio: AudioEncoderConfig
    group_size: int
    codebook_size: int
    speech_bos_id: int
    speech_eos_id: int
    speech_pad_id: int
    audio_token_id: int  # <|AUDIO|>
    audio_bos_id: int
    audio_eos_id: int
    sil_id: int
    eos_ids: tuple[int, ...]  # text ids that end an answer

    num_codes: int = 6561  # ids below are speech codes; the rest of the codebook is special

    def __post_init__(self) -> None:
        faults = []
        if self.group_size < 1:
            faults.append(f"group_size is {self.group_size}")
        for name in ("speech_bos_id", "speech_eos_id", "speech_pad_id"):
            if not 0 <= getattr(self, name) < self.codebook_size:
                faults.append(f"{name} {getattr(self, name)} is outside the codebook of {self.codebook_size}")
        for name in ("audio_token_id", "audio_bos_id", "audio_eos_id"):
            if not 0 <= getattr(self, name) < self.text.vocab_size:
                faults.append(f"{name} {getattr(self, name)} is outside the vocabulary of {self.text.vocab_size}")
        if not self.eos_ids:
            faults.append("no text eos id is given")
        refuse(faults, "chat configuration")


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Flow matching: speech tokens (25 Hz) -> log-mel (50 Hz, 80 bins)."""

    vocab_size: int
    dim: int
    depth: int
    num_heads: int
    head_dim: int
    ff_mult: int
    pre_channels: int
    pre_lookahead: int = 3  # tokens
    chunk_frames: int = 50  # attention chunk of the streaming mask, in mel frames
    num_mels: int = 80
    speaker_dim: int = 192
    token_mel_ratio: int = 2
    num_steps: int = 10
    guidance_rate: float = 0.7
    position_kernel: int = 31
    position_groups: int = 16
    time_embedding_dim: int = 256

    def __post_init__(self) -> None:
        faults = [f"{f.name} is {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) <= 0]
        if self.position_groups > 0 and self.dim % self.position_groups:
            faults.append(f"dim {self.dim} is no multiple of {self.position_groups} position groups")
        if self.head_dim % 2:
            faults.append(f"head_dim {self.head_dim} is odd")
        refuse(faults, "flow configuration")


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """HiFT: log-mel (50 Hz) -> 24 kHz waveform."""

    base_channels: int
    f0_channels: int
    num_mels: int = 80
    num_harmonics: int = 8  # above the fundamental
    sample_rate: int = 24000
    sine_amplitude: float = 0.1
    noise_sigma: float = 0.003
    voiced_threshold_hz: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    istft_size: int = 16
    istft_hop: int = 4
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernels: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    leaky_slope: float = 0.1
    audio_limit: float = 0.99
    look_right: int = 4  # mel frames of right context of the first convolution

    def __post_init__(self) -> None:
        faults = []
        if len(self.upsample_rates) != len(self.upsample_kernels):
            faults.append("upsample_rates and upsample_kernels differ in length")
        if len(self.source_resblock_kernels) != len(self.upsample_rates):
            faults.append("source_resblock_kernels and upsample_rates differ in length")
        if self.base_channels < 1 or self.base_channels % 2 ** len(self.upsample_rates):
            faults.append(f"base_channels {self.base_channels} cannot be halved {len(self.upsample_rates)} times")
        refuse(faults, "vocoder configuration")

    @property
    def samples_per_frame(self) -> int:
        total = self.istft_hop
        for rate in self.upsample_rates:
            total *= rate
        return total


@dataclass(frozen=True, slots=True)
class SpeechTokenizerConfig:
    """S3 tokenizer v3: 16 kHz waveform -> 25 Hz speech ids."""

    d_model: int
    num_heads: int
    num_layers: int
    num_mels: int = 128
    fsmn_kernel: int = 31
    num_codes: int = 6561


def from_dict(kind: type[T], raw: dict[str, Any]) -> T:
    """Builds a configuration dataclass from plain data (lists become tuples, nested dicts dataclasses).

    Raises:
        CheckpointError: a key is unknown or missing.
    """
    nested = {"text": DecoderConfig, "speech": DecoderConfig, "audio": AudioEncoderConfig}
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = set(raw) - known
    if unknown:
        raise CheckpointError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    values = {k: from_dict(nested[k], v) if k in nested and isinstance(v, dict) else _tuples(v) for k, v in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise CheckpointError(f"{kind.__name__}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def refuse(faults: list[str], what: str) -> None:
    """Raises one CheckpointError for all faults, if there are any."""
    if faults:
        raise CheckpointError(f"impossible {what}: {'; '.join(faults)}")
