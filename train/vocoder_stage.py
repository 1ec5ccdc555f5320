"""Stages: the vocoder's decoder on crops of the answers, and its pitch predictor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.geometry import F0_KERNELS
from ..model.noise import vocoder_noise
from ..model.vocoder import PitchConv, PitchPredictor, Vocoder
from .answers import Answer
from .batches import stacked
from .compute import device_of, full_precision
from .loop import Figures
from .speak import ANSWER_PITCH_HZ

STFT_SIZES = (2048, 1024, 512, 256)
STFT_FLOOR = 1e-5
PITCH_JITTER_HZ, PITCH_DROPOUT = 3.0, 0.2
MEL_MEAN, MEL_STD = -4.6, 2.4  # of answers; folded into the first convolution
CONTEXT_FRAMES = 2  # at a crop's left edge, unheard
QUIET_LOG_MAGNITUDE = -3.5
RESIDUAL_SCALE, UP_SCALE = 0.3, 1.7


class VocoderStage:
    """Spectral convergence and log magnitudes at four resolutions, and the waveform itself where it is voiced.

    The answers' constant pitch puts every frame at the same phase, so the waveform is a function of the mel alone
    and its plain distance can be learned; see docs/TRAINING.md.
    """

    name = "vocoder"

    def __init__(
        self, module: Vocoder, answers: list[Answer], batch_size: int, frames: int, wave_weight: float
    ) -> None:
        self.module = module
        module.source.pitch.requires_grad_(False)  # a stage of its own
        self._frames, self._batch_size, self._wave_weight = frames, batch_size, wave_weight
        self._answers = [answer for answer in answers if answer.mel.shape[1] >= frames]
        self._weights = torch.tensor([a.mel.shape[1] - frames + 1 for a in self._answers], dtype=torch.float64)
        self._hop = module.config.samples_per_frame
        self._noise = torch.from_numpy(vocoder_noise(256 * self._hop, module.config.num_harmonics + 1))

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        device = device_of(self.module)
        mel, wave, voiced = self._crops(draw)
        jitter = torch.randn(len(mel), 1, generator=draw) * PITCH_JITTER_HZ
        sounding = voiced & (torch.rand(len(mel), 1, generator=draw) >= PITCH_DROPOUT)
        start = int(torch.randint(256 - self._frames, (1,), generator=draw)) * self._hop
        noise = self._noise[:, start : start + self._frames * self._hop].expand(len(mel), -1, -1)
        mel, wave, voiced = mel.to(device), wave.to(device), voiced.to(device)
        pitch, decoder = ((ANSWER_PITCH_HZ + jitter) * sounding).to(device), self.module.decoder
        with full_precision(device):
            spectrum = decoder.analyze(self.module.source.excitation(pitch, noise.to(device)))
        predicted = decoder.predict(mel, spectrum)
        with full_precision(device):
            return self._distance(decoder.synthesize(predicted.float()), wave, voiced)

    def _distance(self, made: Tensor, wave: Tensor, voiced: Tensor) -> tuple[Tensor, Figures]:
        kept = slice(CONTEXT_FRAMES * self._hop, (self._frames - self.module.config.look_right) * self._hop)
        made, wave = made[:, kept], wave[:, kept]
        spectral = multi_resolution_stft(made, wave)
        weight = voiced.repeat_interleave(self._hop, dim=1)[:, kept]
        distance = ((made - wave).abs() * weight).sum() / ((wave.abs() * weight).sum() + 1.0)
        total = spectral + self._wave_weight * distance
        return total, {"spectral": spectral.detach(), "wave": distance.detach()}

    def _crops(self, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        picks = torch.multinomial(self._weights, self._batch_size, replacement=True, generator=draw)
        mels, waves, voiced = [], [], []
        for i in picks.tolist():
            answer = self._answers[i]
            start = int(torch.randint(answer.mel.shape[1] - self._frames + 1, (1,), generator=draw))
            stop = start + self._frames
            mels.append(answer.mel[:, start:stop])
            waves.append(answer.pcm[start * self._hop : stop * self._hop])
            voiced.append(answer.voiced[start:stop])
        return stacked(mels), stacked(waves) / 32768, torch.stack(voiced)


def multi_resolution_stft(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean over sizes of spectral convergence plus the mean distance of log magnitudes; [B, N] each."""
    total = torch.zeros((), device=made.device)
    for size in STFT_SIZES:
        window = torch.hann_window(size, device=made.device)
        a, b = (
            torch.stft(x, size, size // 4, window=window, return_complex=True).abs().clamp(min=STFT_FLOOR)
            for x in (made, wanted)
        )
        total = total + (a - b).norm() / b.norm().clamp(min=1e-3) + (a.log() - b.log()).abs().mean()
    return total / len(STFT_SIZES)


class PitchStage:
    """The pitch predictor learns the constant pitch where an answer is voiced, and 0 elsewhere."""

    name = "pitch"

    def __init__(self, module: PitchPredictor, answers: list[Answer], batch_size: int, frames: int) -> None:
        self.module = module
        self._frames, self._batch_size = frames, batch_size
        self._answers = [answer for answer in answers if answer.mel.shape[1] >= frames]

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        device = device_of(self.module)
        picks = torch.randint(len(self._answers), (self._batch_size,), generator=draw).tolist()
        starts = [
            int(torch.randint(self._answers[i].mel.shape[1] - self._frames + 1, (1,), generator=draw)) for i in picks
        ]
        crops = [(self._answers[i], slice(s, s + self._frames)) for i, s in zip(picks, starts, strict=True)]
        mel = stacked([answer.mel[:, span] for answer, span in crops]).to(device)
        wanted = stacked([answer.voiced[span] for answer, span in crops]).to(device) * ANSWER_PITCH_HZ
        inner = slice(sum(F0_KERNELS[1:]) - len(F0_KERNELS) + 1, self._frames - F0_KERNELS[0] + 1)
        error = (self.module(mel)[:, inner].float() - wanted[:, inner]).abs()
        wrong = (error > ANSWER_PITCH_HZ / 2).float().mean()
        return error.mean() / ANSWER_PITCH_HZ, {"wrong": wrong}


def initialize_vocoder(module: Vocoder) -> None:
    """Weights that neither vanish nor explode through the exponential at the end."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            scale = RESIDUAL_SCALE if ".convs2." in name else UP_SCALE if name.endswith(".up") else 1.0
            nn.init.normal_(part.weight, std=scale * part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, PitchConv):
            nn.init.normal_(part.direction, std=part.direction[0].numel() ** -0.5)
            nn.init.zeros_(part.bias)
    decoder, pitch = module.decoder, module.source.pitch
    first = pitch.convs[0]
    assert isinstance(first, PitchConv)
    assert decoder.pre.bias is not None
    assert decoder.post.bias is not None
    with torch.no_grad():  # what the first convolutions see is (mel - mean) / deviation, with raw zeros as padding
        decoder.pre.weight.mul_(UP_SCALE / MEL_STD)
        decoder.pre.bias.sub_(MEL_MEAN * decoder.pre.weight.sum((1, 2)))
        first.direction.div_(MEL_STD)
        first.bias.sub_(MEL_MEAN * first.direction.sum((1, 2)))
        for conv in pitch.convs:
            assert isinstance(conv, PitchConv)
            conv.gain.copy_(conv.direction.square().sum((1, 2), keepdim=True).sqrt())
        decoder.post.bias[: module.config.istft_size // 2 + 1].fill_(QUIET_LOG_MAGNITUDE)
        pitch.output.bias.fill_(ANSWER_PITCH_HZ / 2)
