"""The stage of the audio encoder: which sound is heard when, and what is said, as the base model's ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.generate import ChatModel
from .compute import device_of, full_precision
from .ctc import ctc_loss
from .labels import Sounds, classes_of_rows
from .loop import Figures
from .packed import encode_audios
from .questions import QuestionStore, disturbed


class EncoderTraining(nn.Module):
    """The audio encoder and its grouping, and what only training needs to read sounds and ids off them."""

    def __init__(self, model: ChatModel, num_sounds: int) -> None:
        super().__init__()
        self.encoder, self.continuous = model.audio_encoder, model.grouping.continuous
        self.sounds = nn.Linear(model.config.audio.d_model, num_sounds)
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.table: Tensor  # [V, H], the base model's, fixed
        self.register_buffer("table", model.backbone.embedding.weight.detach().clone())

    def id_scores(self, rows: Tensor) -> Tensor:
        """Grouped rows [..., H] -> scores of text ids before softmax: the nearer its embedding, the likelier an id."""
        nearness = 2 * rows @ self.table.T - self.table.square().sum(1)
        return nearness * self.log_sharpness.exp()


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question's ids, its WAV, and the sounds in it."""

    ids: tuple[int, ...]
    audio: Path
    sounds: Sounds


class EncoderStage:
    """What Whisper's training is to the real encoder.

    The sounds are read at 25 Hz, each where the synthesizer said it: without knowing where, so small an encoder
    spends most of its training before it hears anything. The ids are read at 5 Hz by CTC, off the rows that the
    backbone will get: a row comes to lie near the base model's own embedding of what was said, or of the pause.
    """

    name = "encoder"

    def __init__(
        self, module: EncoderTraining, model: ChatModel, pause_id: int, questions: QuestionStore,
        spoken: Sequence[Spoken], sound_names: Sequence[str], batch_size: int,
    ) -> None:  # fmt: skip
        self.module = module
        self._padded_rows, self._pause_id = model._padded_rows, pause_id
        self._questions, self._spoken, self._batch_size = questions, spoken, batch_size
        self._sound_names = sound_names

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        device = device_of(self.module)
        picks = torch.randint(len(self._spoken), (self._batch_size,), generator=draw).tolist()
        batch = [self._spoken[i] for i in picks]
        module = self.module
        mels = [disturbed(self._questions.mel(item.audio), draw).to(device) for item in batch]
        rows = encode_audios(module.encoder, mels)
        counts = [len(r) for r in rows]
        normed = module.encoder.post_norm(torch.cat(rows))
        heard = torch.cat([classes_of_rows(b.sounds, self._sound_names, n) for b, n in zip(batch, counts, strict=True)])
        encoded = module.encoder.projection(normed).split(counts)
        slots = [self._questions.num_slots(item.audio) for item in batch]
        grouped = [self._padded_rows(e, n).mean(1) for e, n in zip(encoded, slots, strict=True)]
        scores = module.id_scores(module.continuous(torch.cat(grouped))).split([len(g) for g in grouped])
        with full_precision(device):
            logits, heard = module.sounds(normed).float(), heard.to(device)
            sounds = F.cross_entropy(logits, heard)
            ids = ctc_loss(scores, [torch.tensor(item.ids) for item in batch], self._pause_id)
        right = (logits.argmax(-1) == heard).float().mean()
        return sounds + ids, {"sounds": sounds.detach(), "sounds_right": right, "ids": ids.detach()}
