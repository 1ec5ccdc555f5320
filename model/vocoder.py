"""The HiFT vocoder: 50 Hz log-mel -> 24 kHz waveform (SEMANTICS.md 8)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VocoderConfig
from .geometry import F0_KERNELS, F0_LOOK_RIGHT, VOCODER_POST_KERNEL
from .noise import vocoder_noise
from .weights import Layout, linear, plain, under, weight_norm

IGNORED: tuple[str, ...] = ()
GAIN, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
UNVOICED_NOISE_SHARE = 1 / 3  # of sine_amplitude
POST_LEAKY_SLOPE = 0.01
MAX_MAGNITUDE = 100.0
SNAKE_EPS = 1e-9


class Vocoder(nn.Module):
    """The whole vocoder: harmonic source, then decoder."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.source = VocoderSource(config)
        self.decoder = VocoderDecoder(config)

    @torch.inference_mode()
    def forward(self, mel: Any, noise: Any = None, finalize: bool = True) -> Tensor:
        """Log-mel to samples; arrays may be numpy's or torch's.

        Args:
            mel: [1, num_mels, F] float32.
            noise: [1, >= F * samples_per_frame, num_harmonics + 1] in [0, 1); default: the model's fixed noise.
            finalize: False holds back the last `num_held_frames` frames, which lack their right context.

        Returns:
            [1, F * samples_per_frame] float32 at `sample_rate`; fewer frames if held back.
        """
        mel = torch.as_tensor(mel).float()
        num_samples = mel.shape[2] * self.config.samples_per_frame
        if noise is None:
            noise = vocoder_noise(num_samples, self.config.num_harmonics + 1)
        wav = self.decoder(mel, self.source(mel, torch.as_tensor(noise)[:, :num_samples]))
        held = 0 if finalize else self.num_held_frames
        return wav[:, : max(0, mel.shape[2] - held) * self.config.samples_per_frame]

    @property
    def num_held_frames(self) -> int:
        """Mel frames at the end whose samples change when more frames follow, as upstream counts them."""
        return F0_LOOK_RIGHT + self.config.look_right + 1


class VocoderSource(nn.Module):
    """Log-mel to the excitation: harmonics of the pitch, and noise."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pitch = PitchPredictor(config)
        self.merge = nn.Linear(config.num_harmonics + 1, 1)
        self.harmonics: Tensor  # [num_harmonics + 1], from 1
        harmonics = torch.arange(1, config.num_harmonics + 2, dtype=torch.float32, device="cpu")
        self.register_buffer("harmonics", harmonics, persistent=False)

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """One utterance.

        Args:
            mel: [1, num_mels, F] float32.
            noise: [1, F * samples_per_frame, num_harmonics + 1] in [0, 1).

        Returns:
            [1, 1, F * samples_per_frame].
        """
        return self.excitation(self.f0(mel), noise)

    def excitation(self, f0: Tensor, noise: Tensor) -> Tensor:
        """The source of a given pitch: f0 [B, F] Hz, noise [B, F * samples_per_frame, H] -> [B, 1, F * ...]."""
        phase = f0.new_zeros(f0.shape[0], 1, self.config.num_harmonics + 1, dtype=torch.float64)
        return self._excitation(f0, noise, phase, torch.tensor(0, device=f0.device))[0]

    def step(self, mel: Tensor, noise: Tensor, phase: Tensor, num_context: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` for a piece of an utterance.

        Args:
            mel, noise: of the piece, with left and right context.
            phase: [1, 1, num_harmonics + 1] float64, turns before the piece, context not counted.
            num_context: int64 scalar, frames of left context, whose source is not meant.

        Returns:
            source [1, 1, F * samples_per_frame], and turns after each frame [1, F, num_harmonics + 1] float64.
        """
        return self._excitation(self.f0(mel), noise, phase, num_context)

    def _excitation(self, f0: Tensor, noise: Tensor, phase: Tensor, num_context: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        f0 = f0.unsqueeze(2)  # [B, F, 1]
        voiced = (f0 > c.voiced_threshold_hz).float()
        noise_level = voiced * c.noise_sigma + (1 - voiced) * (c.sine_amplitude * UNVOICED_NOISE_SHARE)
        phases = self._phases(f0, phase, num_context)
        sines = (self._sines(phases) * voiced).unsqueeze(2)  # [B, F, 1, H]: one value per frame
        noise = noise.unflatten(1, (-1, c.samples_per_frame))  # [B, F, samples_per_frame, H]
        merged = torch.tanh(self.merge(sines + noise_level.unsqueeze(2) * noise))
        return merged.flatten(1).unsqueeze(1), phases

    def f0(self, mel: Tensor) -> Tensor:
        """Pitch in Hz: [1, num_mels, F] -> [1, F] float32; the last frames see zeros as right context."""
        return self.pitch(mel).float()

    def _phases(self, f0: Tensor, phase: Tensor, num_context: Tensor) -> Tensor:
        """[1, F, 1] Hz -> turns per sample, summed over frames: [1, F, num_harmonics + 1]."""
        turns = f0 * self.harmonics / self.config.sample_rate  # per sample
        turns = turns - turns.floor()
        turns = turns * (torch.arange(f0.shape[1], device=f0.device) >= num_context).float()[:, None]
        # torch's float32 cumsum accumulates in double on the CPU
        return torch.cat([phase, turns.double()], dim=1).cumsum(1)[:, 1:]

    def _sines(self, phases: Tensor) -> Tensor:  # the order of float32 roundings is upstream's on the CPU
        phase = phases.float() * 2 * math.pi * self.config.samples_per_frame
        return phase.sin() * self.config.sine_amplitude


class PitchPredictor(nn.Module):
    """Log-mel to fundamental frequency, in float64 as upstream: phase sums up its errors."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        widths = (config.num_mels, *(config.f0_channels for _ in F0_KERNELS))
        self.convs = nn.ModuleList(
            PitchConv(in_size, out_size, kernel)
            for in_size, out_size, kernel in zip(widths[:-1], widths[1:], F0_KERNELS, strict=True)
        )
        self.output = nn.Linear(config.f0_channels, 1)

    def forward(self, mel: Tensor) -> Tensor:  # [1, num_mels, F] -> [1, F] float64, Hz
        x = mel.double()
        for i, conv in enumerate(self.convs):
            context = F0_KERNELS[i] - 1
            x = conv(F.pad(x, (context, 0) if i else (0, context)))
            x = torch.where(x > 0, x, x.clamp(max=0).exp() - 1)  # ELU
        f0 = self.output.weight.double() @ x + self.output.bias.double().unsqueeze(1)
        return f0.abs().squeeze(1)


class PitchConv(nn.Module):
    """A weight-normalized Conv1d in float64, as matrix products: ONNX Runtime has no float64 Conv.

    The norm stays apart from the direction, since the folded weight does not fit in float32: rounding it moves the
    pitch by 1e-7 of its value.
    """

    def __init__(self, in_size: int, out_size: int, kernel: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(out_size, in_size, kernel))
        self.gain = nn.Parameter(torch.empty(out_size, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_size))

    def forward(self, x: Tensor) -> Tensor:  # [1, in, F + kernel - 1] -> [1, out, F], float64
        kernel = self.direction.shape[2]
        num_frames = x.shape[2] - (kernel - 1)
        taps = torch.cat([x[:, :, i : i + num_frames] for i in range(kernel)], dim=1)  # [1, kernel * in, F]
        direction = self.direction.double()
        weight = direction * (self.gain.double() / direction.square().sum((1, 2), keepdim=True).sqrt())
        return weight.transpose(1, 2).flatten(1) @ taps + self.bias.double().unsqueeze(1)


class VocoderDecoder(nn.Module):
    """Log-mel and excitation to waveform: upsampling stages in the short-time spectrum, then its inverse."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pre = nn.Conv1d(config.num_mels, config.base_channels, config.look_right + 1)
        self.stages = nn.ModuleList(VocoderStage(config, i) for i in range(len(config.upsample_rates)))
        self.post = CausalConv(_stage_channels(config)[-1], config.istft_size + 2, VOCODER_POST_KERNEL)
        self.analysis: Tensor  # [istft_size + 2, 1, istft_size]
        self.synthesis: Tensor  # [istft_size + 2, 1, istft_size]
        self.squared_window: Tensor  # [1, 1, istft_size]
        analysis, synthesis, squared_window = fourier_bases(config.istft_size)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)
        self.register_buffer("squared_window", squared_window, persistent=False)

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        """One utterance; its last `look_right` frames see zeros as right context.

        Args:
            mel: [1, num_mels, F] float32.
            source: [1, 1, F * samples_per_frame].

        Returns:
            [1, F * samples_per_frame].
        """
        return self.synthesize(self.predict(mel, self.analyze(source)))

    def analyze(self, x: Tensor) -> Tensor:
        """The excitation's short-time spectrum: [1, 1, N] -> [1, real | imaginary, N / istft_hop + 1]."""
        half = self.config.istft_size // 2
        return F.conv1d(F.pad(x, (half, half), mode="reflect"), self.analysis, stride=self.config.istft_hop)

    def predict(self, mel: Tensor, spectrum: Tensor) -> Tensor:
        """Log magnitudes and raw phases, [1, istft_size + 2, F * samples_per_frame / istft_hop + 1]."""
        x = self.pre(F.pad(mel, (0, self.config.look_right)))
        for stage in self.stages:
            x = stage(x, spectrum)
        return self.post(F.leaky_relu(x, POST_LEAKY_SLOPE))

    def synthesize(self, x: Tensor) -> Tensor:
        """What `predict` gives, to the waveform."""
        log_magnitude, phase = x.chunk(2, dim=1)
        magnitude, phase = log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase.sin()
        wav = self._istft(torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1))
        return wav.clamp(-self.config.audio_limit, self.config.audio_limit)

    def _istft(self, spectrum: Tensor) -> Tensor:  # [1, real | imaginary, T] -> [1, (T - 1) * istft_hop]
        hop, half = self.config.istft_hop, self.config.istft_size // 2
        overlapped = F.conv_transpose1d(spectrum, self.synthesis, stride=hop)
        weight = F.conv_transpose1d(torch.ones_like(spectrum[:, :1]), self.squared_window, stride=hop)
        return overlapped[:, 0, half:-half] / weight[:, 0, half:-half]


def fourier_bases(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What makes convolutions out of a windowed Fourier transform and its inverse; periodic Hann window.

    Returns:
        analysis [size + 2, 1, size] for Conv1d and synthesis [size + 2, 1, size] for ConvTranspose1d, the real parts
        of the size / 2 + 1 bins first, then the imaginary ones; squared window [1, 1, size]. float32.
    """
    n = torch.arange(size, dtype=torch.float64, device="cpu")
    window = torch.hann_window(size, dtype=torch.float64, device="cpu")
    num_bins = size // 2 + 1
    angle = 2 * torch.pi / size * ((torch.arange(num_bins, device="cpu").unsqueeze(1) * n) % size)  # [bins, size]
    cos, sin = angle.cos(), angle.sin()
    analysis = torch.cat([cos, -sin]) * window
    times_counted = torch.full((num_bins, 1), 2.0, dtype=torch.float64, device="cpu")  # a bin and its conjugate
    times_counted[0] = times_counted[-1] = 1
    synthesis = torch.cat([cos * times_counted, -sin * times_counted]) * window / size
    return analysis.float().unsqueeze(1), synthesis.float().unsqueeze(1), window.square().float()[None, None]


class VocoderStage(nn.Module):
    """One upsampling: repeat and convolve, add the excitation, mean of residual blocks."""

    def __init__(self, config: VocoderConfig, index: int) -> None:
        super().__init__()
        channels = _stage_channels(config)
        width, stride = channels[index + 1], _source_stride(config, index)
        self.rate, self.leaky_slope = config.upsample_rates[index], config.leaky_slope
        self.is_last = index == len(config.upsample_rates) - 1
        self.up = CausalConv(channels[index], width, config.upsample_kernels[index])
        self.source_padding = stride - 1
        self.source_down = nn.Conv1d(config.istft_size + 2, width, _source_kernel(stride), stride=stride)
        self.source_block = ResidualBlock(
            width, config.source_resblock_kernels[index], config.source_resblock_dilations[index]
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations)
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )

    def forward(self, x: Tensor, spectrum: Tensor) -> Tensor:
        # x [1, C, T], spectrum [1, istft_size + 2, S] -> [1, width, T * rate], one more in the last stage
        x = F.leaky_relu(x, self.leaky_slope)
        x = self.up(x.unsqueeze(3).expand(-1, -1, -1, self.rate).flatten(2))
        if self.is_last:
            x = torch.cat([x[:, :, 1:2], x], dim=2)  # reflected
        x = x + self.source_block(self.source_down(F.pad(spectrum, (self.source_padding, 0))))
        total = self.blocks[0](x)
        for block in self.blocks[1:]:
            total = total + block(x)
        return total / len(self.blocks)


class ResidualBlock(nn.Module):
    """Pairs of Snake and causal convolution, the first of each pair dilated."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.snakes1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.convs1 = nn.ModuleList(CausalConv(channels, channels, kernel, dilation=d) for d in dilations)
        self.snakes2 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.convs2 = nn.ModuleList(CausalConv(channels, channels, kernel) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:  # [1, channels, T] -> the same
        for snake1, conv1, snake2, conv2 in zip(self.snakes1, self.convs1, self.snakes2, self.convs2, strict=True):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # [1, channels, T]
        alpha = self.alpha.unsqueeze(1)
        sine = (x * alpha).sin()
        return x + sine * sine * (1 / (alpha + SNAKE_EPS))


class CausalConv(nn.Conv1d):
    """Conv1d that sees the present and the past; zeros before the beginning."""

    def forward(self, x: Tensor) -> Tensor:  # [1, in, T] -> [1, out, T]
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


def _stage_channels(config: VocoderConfig) -> list[int]:
    """Channels before the first stage and after each."""
    return [config.base_channels >> i for i in range(len(config.upsample_rates) + 1)]


def _source_stride(config: VocoderConfig, index: int) -> int:
    """Spectrum frames per output frame of a stage."""
    return math.prod(config.upsample_rates[index + 1 :])


def _source_kernel(stride: int) -> int:
    return 2 * stride if stride > 1 else 1


def vocoder_layout(config: VocoderConfig) -> Layout:
    """Which upstream tensors make which parameter of `Vocoder`."""
    return {**under("source", _source_layout(config)), **under("decoder", _decoder_layout(config))}


def _source_layout(c: VocoderConfig) -> Layout:
    upstream = "f0_predictor"
    layout: Layout = {
        **under("pitch.output", linear(f"{upstream}.classifier", 1, c.f0_channels)),
        **under("merge", linear("m_source.l_linear", 1, c.num_harmonics + 1)),
    }
    for i, kernel in enumerate(F0_KERNELS):
        conv, width = f"{upstream}.condnet.{2 * i}", c.f0_channels if i else c.num_mels
        layout[f"pitch.convs.{i}.direction"] = plain(f"{conv}.{DIRECTION}", c.f0_channels, width, kernel)
        layout[f"pitch.convs.{i}.gain"] = plain(f"{conv}.{GAIN}", c.f0_channels, 1, 1)
        layout[f"pitch.convs.{i}.bias"] = plain(f"{conv}.bias", c.f0_channels)
    return layout


def _decoder_layout(c: VocoderConfig) -> Layout:
    channels = _stage_channels(c)
    num_bins_twice = c.istft_size + 2
    layout: Layout = {
        **under("pre", _normed_conv("conv_pre", c.base_channels, c.num_mels, c.look_right + 1)),
        **under("post", _normed_conv("conv_post", num_bins_twice, channels[-1], VOCODER_POST_KERNEL)),
    }
    num_blocks = len(c.resblock_kernels)
    for i, width in enumerate(channels[1:]):
        kernel = _source_kernel(_source_stride(c, i))
        stage: Layout = {
            **under("up", _normed_conv(f"ups.{i}", width, channels[i], c.upsample_kernels[i])),
            "source_down.weight": plain(f"source_downs.{i}.weight", width, num_bins_twice, kernel),
            "source_down.bias": plain(f"source_downs.{i}.bias", width),
            **under(
                "source_block",
                _block_layout(
                    f"source_resblocks.{i}", width, c.source_resblock_kernels[i], c.source_resblock_dilations[i]
                ),
            ),
        }
        for j in range(num_blocks):
            block = _block_layout(
                f"resblocks.{i * num_blocks + j}", width, c.resblock_kernels[j], c.resblock_dilations[j]
            )
            stage.update(under(f"blocks.{j}", block))
        layout.update(under(f"stages.{i}", stage))
    return layout


def _block_layout(upstream: str, channels: int, kernel: int, dilations: tuple[int, ...]) -> Layout:
    layout: Layout = {}
    for i in range(len(dilations)):
        for half in ("1", "2"):
            layout[f"snakes{half}.{i}.alpha"] = plain(f"{upstream}.activations{half}.{i}.alpha", channels)
            conv = _normed_conv(f"{upstream}.convs{half}.{i}", channels, channels, kernel)
            layout.update(under(f"convs{half}.{i}", conv))
    return layout


def _normed_conv(upstream: str, out_size: int, in_size: int, kernel: int) -> Layout:
    return {
        "weight": weight_norm(upstream, out_size, in_size, kernel),
        "bias": plain(f"{upstream}.bias", out_size),
    }
