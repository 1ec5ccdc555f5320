"""Stage: flow matching from the answers' speech tokens to their mel frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..model.flow import Flow, visible_in_chunks
from .answers import Answer
from .batches import EqualLengthBatches, stacked
from .compute import device_of, full_precision
from .loop import Figures

UNGUIDED_SHARE = 0.2  # of items that lose their conditioning, for classifier-free guidance
PROMPTED_SHARE, LONGEST_PROMPT = 0.5, 0.3  # items that see a beginning of their mel, and how much of it
STREAMED_SHARE = 0.5  # of batches under the streaming mask


class FlowStage:
    """The velocity from noise to mel at a random time, as it is integrated later: CosyVoice's objective."""

    name = "flow"

    def __init__(
        self, module: Flow, answers: list[Answer], ids: list[Tensor], speaker: Tensor, batch_size: int
    ) -> None:
        self.module = module
        self._answers, self._ids, self._speaker, self._batch_size = answers, ids, speaker, batch_size
        self._batches = EqualLengthBatches([answer.num_tokens for answer in answers])

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        device = device_of(self.module)
        picks = self._batches.draw(self._batch_size, draw)
        mel = stacked([self._answers[i].mel for i in picks]).to(device)  # [B, 80, F]
        tokens = torch.stack([self._ids[i] for i in picks]).to(device)
        size, _, num_frames = mel.shape
        mu, spk = self.module.front(tokens, self._speaker.to(device).expand(size, -1))
        cond = mel * self._prompt_mask(size, num_frames, draw).to(device)
        guided = (torch.rand(size, generator=draw) >= UNGUIDED_SHARE).float()[:, None].to(device)
        mu, spk, cond = mu * guided[:, :, None], spk * guided, cond * guided[:, :, None]
        t = (1 - torch.cos(torch.rand(size, generator=draw) * math.pi / 2)).to(device)
        noise = torch.randn(mel.shape, generator=draw).to(device)
        x = noise + t[:, None, None] * (mel - noise)
        streamed = float(torch.rand((), generator=draw)) < STREAMED_SHARE
        chunk = self.module.config.chunk_frames if streamed else num_frames
        velocity = self.module.estimator(x, mu, t, spk, cond, visible_in_chunks(num_frames, chunk).to(device))
        with full_precision(device):
            return (velocity.float() - (mel - noise)).square().mean(), {}

    def _prompt_mask(self, size: int, num_frames: int, draw: torch.Generator) -> Tensor:
        """[B, 1, F], ones over the frames that are given."""
        share = torch.rand(size, 2, generator=draw)
        length = share[:, 0] * LONGEST_PROMPT * num_frames * (share[:, 1] < PROMPTED_SHARE)
        return (torch.arange(num_frames) < length.long()[:, None]).float().unsqueeze(1)


def initialize_flow(module: Flow) -> None:
    """Normal weights scaled by fan-in; modulations and the output begin at zero, so that blocks begin as identities."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            nn.init.trunc_normal_(part.weight, std=part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight)
    estimator = module.estimator
    modulations = [part for name, part in estimator.named_modules() if name.endswith("modulation")]
    for last in (*modulations, estimator.output):
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
