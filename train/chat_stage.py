"""Stages of the chat model: base text model, pre-alignment, and Core-Cocktail's two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.generate import ChatModel
from .audios import heard_rows
from .batches import moved
from .collate import ChatBatch, Collator, SpeechBatch
from .compute import device_of, full_precision
from .encoder_stage import Dictation
from .loop import Figures
from .packed import PackedAttention, decode
from .questions import QuestionStore
from .samples import IGNORED, Sample

Draw = Callable[[torch.Generator], list[Sample]]  # one batch


@dataclass(frozen=True, slots=True)
class ChatOutput:
    """Predictions of a batch where something is asked of them, float32, on the model's device."""

    text_logits: Tensor  # [positions, V]
    text_labels: Tensor
    speech_logits: Tensor  # [positions * group_size, K]
    speech_labels: Tensor
    heard: Tensor  # [G, H]: the questions' grouped rows


class ChatStage:
    """Text and speech of answers, under the loop's own timing; which parameters learn is the caller's choice."""

    def __init__(
        self,
        name: str,
        module: ChatModel,
        questions: QuestionStore | None,
        draw: Draw,
        disturb: bool = True,
        recompute: bool = False,
        dictation: Dictation | None = None,
    ) -> None:
        """A stage over batches as `draw` gives them.

        Args:
            recompute: gradient checkpointing of the backbone's and the speech head's layers.
            dictation: what is said in the questions, to be taught as well.
        """
        self.name, self.module = name, module
        self.draw, self._dictation, self._recompute = draw, dictation, recompute
        self._collator = Collator(module.config, questions, disturb, dictation)

    def prepare(self, step: int, draw: torch.Generator) -> ChatBatch:
        return self._collator.collate(self.draw(draw), draw)

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        return self.loss_of(self.prepare(step, draw))

    def loss_of(self, batch: ChatBatch) -> tuple[Tensor, Figures]:
        batch = moved(batch, device_of(self.module))
        out = self._predict(batch)
        with full_precision(device_of(self.module)):
            loss, figures = self._loss(out)
            if self._dictation is None or batch.said is None:
                return loss, figures
            heard, more = self._dictation.loss(out.heard, batch.said)
            return loss + DICTATION_WEIGHT * heard, figures | more

    def _loss(self, out: ChatOutput) -> tuple[Tensor, Figures]:
        text = F.cross_entropy(out.text_logits, out.text_labels)
        figures: Figures = {"text": text.detach(), "text_right": _share_right(out.text_logits, out.text_labels)}
        if not len(out.speech_labels):
            return text, figures
        each = F.cross_entropy(out.speech_logits, out.speech_labels, reduction="none")
        weight = torch.where(out.speech_labels == self.module.config.speech_pad_id, IDLE_WEIGHT, 1.0)
        speech = (each * weight).sum() / weight.sum()
        figures |= {
            "speech": speech.detach(), "speech_right": _share_right(out.speech_logits, out.speech_labels),
        }  # fmt: skip
        return text + speech, figures

    def predict(self, samples: list[Sample], draw: torch.Generator | None = None) -> ChatOutput:
        """Teacher-forced predictions at every position of the answers."""
        return self._predict(moved(self._collator.collate(samples, draw), device_of(self.module)))

    def _predict(self, batch: ChatBatch) -> ChatOutput:
        model, c = self.module, self.module.config
        text_rows = model.backbone.embedding(batch.ids)
        rows, heard = text_rows, text_rows[:0]
        if batch.audios is not None:
            heard = heard_rows(model, batch.audios)
            rows = rows.index_copy(0, batch.heard, heard.to(rows.dtype))
        if batch.speech is not None:
            spoken = model.grouping.of_ids(batch.speech.fed_groups)
            rows = rows.index_copy(0, batch.speech.fed, (rows[batch.speech.fed] + spoken.to(rows.dtype)) / 2)
        attend = PackedAttention(c.text, batch.lengths, rows.device)
        hidden = decode(model.backbone.decoder, rows, attend, self._recompute)
        text_logits = model.backbone.head(hidden[batch.asked]).float()
        if batch.speech is None:
            none = batch.labels.new_zeros(0)
            return ChatOutput(text_logits, batch.labels, text_logits.new_zeros(0, c.codebook_size), none, heard)
        speech_logits = self._speech_logits((hidden + text_rows)[batch.speech.positions], batch.speech)
        return ChatOutput(text_logits, batch.labels, speech_logits, batch.speech.labels, heard)

    def _speech_logits(self, u: Tensor, speech: SpeechBatch) -> Tensor:
        """The speech head over whole samples that speak; u [positions, H]."""
        head = self.module.speech_head
        z = head.split(u) + F.embedding(speech.previous, head.head.weight)
        attend = PackedAttention(self.module.config.speech, speech.lengths, u.device)
        y = decode(head.decoder, head.input(z), attend, self._recompute)[speech.asked]
        return head.head(head.output(y)).float()


HEARD_SCALE = 0.05  # of a new grouping's rows: no longer than embeddings
IDLE_WEIGHT = 0.1  # of the head's tokens while nothing is spoken
DICTATION_WEIGHT = 0.5  # of what is said in questions, beside the answers


def _share_right(logits: Tensor, labels: Tensor) -> Tensor:
    kept = labels != IGNORED
    return ((logits.argmax(-1) == labels) & kept).sum() / kept.sum()


def initialize_chat(module: ChatModel) -> None:
    """Normal weights scaled by fan-in; residual branches begin small; tied tables are made one.

    What is fed back of the speech begins at nothing, so that it does not disturb the base model at first, and what is
    heard about as long as an embedding.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            std = part.weight[0].numel() ** -0.5
            small = name.endswith((".out", ".down", ".fc2"))
            nn.init.normal_(part.weight, std=std * (0.3 if small else 1.0))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.05)
    nn.init.zeros_(module.grouping.discrete.weight)
    with torch.no_grad():
        module.grouping.continuous.weight.mul_(HEARD_SCALE)
    tie(module)


def tie(module: ChatModel) -> None:
    """Makes the speech head's output one tensor with the speech table, and the text head with the text table."""
    module.speech_head.head.weight = module.grouping.embedding.weight
    if module.config.text.tie_word_embeddings:
        module.backbone.head.weight = module.backbone.embedding.weight
