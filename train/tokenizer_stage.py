"""Stage: the speech tokenizer, learned as the bottleneck between what is heard and what the flow must make."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.config import SpeechTokenizerConfig
from ..model.speech_tokenizer import NUM_DIGITS, TANH_SCALE, SpeechTokenizer, TokenizerBlock
from .answers import FRAMES_PER_TOKEN, Answer
from .batches import EqualLengthBatches, stacked
from .compute import device_of, full_precision
from .ctc import NUM_LETTER_CLASSES, ctc_loss, spell
from .loop import Figures

MEL_FLOOR = -8.0  # quieter is silence all the same
CTC_WEIGHT = 0.1
MEL_MEAN = -4.6  # of answers, natural log
RESIDUAL_SCALE = 0.3


class TokenizerTraining(nn.Module):
    """The tokenizer, and what only training needs: a decoder to mel frames and letters."""

    def __init__(self, config: SpeechTokenizerConfig, decoder_layers: int, num_mels: int) -> None:
        super().__init__()
        d = config.d_model
        self.tokenizer = SpeechTokenizer(config)
        self.input = nn.Linear(NUM_DIGITS, d)
        self.blocks = nn.ModuleList(TokenizerBlock(config) for _ in range(decoder_layers))
        self.mel = nn.Linear(d, FRAMES_PER_TOKEN * num_mels)
        self.letters = nn.Linear(d, NUM_LETTER_CLASSES)

    def forward(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 128, 4 n] -> mel frames [B, 80, 2 n] and scores of letters [B, n, letters + 1]."""
        soft = torch.tanh(self.tokenizer.project_down(self.tokenizer.hidden(heard))) * TANH_SCALE
        digits = soft + (soft.round() - soft).detach()  # rounded forward, straight through backward
        x = self.input(digits)
        angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * self.tokenizer.rotary_frequencies
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        mel = self.mel(x).unflatten(2, (FRAMES_PER_TOKEN, -1)).flatten(1, 2).transpose(1, 2)
        return mel, self.letters(x)


class TokenizerStage:
    """L1 on the mel frames, and CTC on the letters so that codes keep what words need."""

    name = "tokenizer"

    def __init__(self, module: TokenizerTraining, answers: list[Answer], batch_size: int) -> None:
        self.module = module
        self._answers, self._batch_size = answers, batch_size
        self._batches = EqualLengthBatches([answer.num_tokens for answer in answers])

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        device = device_of(self.module)
        batch = [self._answers[i] for i in self._batches.draw(self._batch_size, draw)]
        mel, letters = self.module(stacked([answer.heard for answer in batch]).to(device))
        wanted = stacked([answer.mel for answer in batch]).to(device)
        with full_precision(device):
            distance = (mel.float().clamp(min=MEL_FLOOR) - wanted.clamp(min=MEL_FLOOR)).abs().mean()
            said = [spell(answer.text) for answer in batch]
            rows = [letters.shape[1]] * len(batch)
            ctc = ctc_loss(letters.transpose(0, 1), torch.cat(said), rows, [len(letter) for letter in said])
        return distance + CTC_WEIGHT * ctc, {"mel": distance.detach(), "ctc": ctc.detach()}


def initialize(module: TokenizerTraining) -> None:
    """Normal weights scaled by fan-in; small residual branches, and digits in the straight part of their tanh."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            scale = RESIDUAL_SCALE if name.endswith((".out", ".fc2", ".memory")) else 1.0
            nn.init.trunc_normal_(part.weight, std=scale * part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        module.tokenizer.project_down.weight *= RESIDUAL_SCALE
        module.mel.bias.fill_(MEL_MEAN)
