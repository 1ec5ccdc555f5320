"""Stages of the chat model: base text model, pre-alignment, and Core-Cocktail's two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.generate import ChatModel
from .compute import device_of, full_precision
from .encoder_stage import Dictation, Heard
from .loop import Figures
from .packed import PackedAttention, decode, encode_audios
from .questions import QuestionStore, disturbed
from .samples import IGNORED, Sample

Draw = Callable[[torch.Generator], list[Sample]]  # one batch
FedBack = Sequence[Tensor | None]  # per sample that speaks, its groups as they are fed back [groups, group_size] int64


@dataclass(frozen=True, slots=True)
class ChatOutput:
    """Predictions of a batch where something is asked of them, float32, on the model's device."""

    text_logits: Tensor  # [positions, V]
    text_labels: Tensor
    speech_logits: Tensor  # [positions * group_size, K]
    speech_labels: Tensor
    heard: Heard  # the questions' grouped rows


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
        self.draw, self._dictation = draw, dictation
        self._questions, self._disturb, self._recompute = questions, disturb, recompute

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        batch = self.draw(draw)
        out = self.predict(batch, draw)
        with full_precision(device_of(self.module)):
            loss, figures = self._loss(out)
            if self._dictation is None:
                return loss, figures
            heard, more = self._dictation.loss(out.heard)
            return loss + DICTATION_WEIGHT * heard.to(loss.device), figures | more

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

    def predict(self, batch: list[Sample], draw: torch.Generator | None = None) -> ChatOutput:
        """Teacher-forced predictions at every position of the answers."""
        model, c, device = self.module, self.module.config, device_of(self.module)
        ids = [torch.cat([s.prompt, s.text[:-1]]) for s in batch]
        lengths = [len(i) for i in ids]
        text_rows = model.backbone.embedding(torch.cat(ids).to(device))
        heard = self._audio_rows(batch, draw)
        spoken = [s.groups if draw is None or not self._disturb else self._misspoken(s.groups, draw) for s in batch]
        rows = self._inputs(batch, spoken, ids, text_rows, [rows for _, rows in heard])
        hidden = decode(model.backbone.decoder, rows, PackedAttention(c.text, lengths, device), self._recompute)
        ends = torch.tensor(lengths).cumsum(0).tolist()
        asked = torch.cat([_asked(s, e - n) for s, e, n in zip(batch, ends, lengths, strict=True)])
        text_logits = model.backbone.head(hidden[asked.to(device)]).float()
        text_labels = torch.cat([_labels(s) for s in batch]).to(device)
        speaking = [i for i, s in enumerate(batch) if s.groups is not None]
        if not speaking:
            none = text_labels.new_zeros(0)
            return ChatOutput(text_logits, text_labels, text_logits.new_zeros(0, c.codebook_size), none, heard)
        spans = torch.cat([torch.arange(ends[i] - lengths[i], ends[i]) for i in speaking])
        fed, given = [spoken[i] for i in speaking], [batch[i] for i in speaking]
        logits, labels = self._speech(given, fed, (hidden + text_rows)[spans.to(device)])
        return ChatOutput(text_logits, text_labels, logits, labels, heard)

    def _misspoken(self, groups: Tensor | None, draw: torch.Generator) -> Tensor | None:
        """Speech ids [groups, group_size] as a model that errs feeds them back: some codes are others of the answer."""
        if groups is None:
            return None
        said = groups.flatten()
        (places,) = (said < self.module.config.num_codes).nonzero(as_tuple=True)
        wrong = places[torch.rand(len(places), generator=draw) < MISSPOKEN_SHARE]
        others = torch.randint(max(1, len(places)), (len(wrong),), generator=draw)
        return said.index_copy(0, wrong, said[places[others]]).view_as(groups)

    def _inputs(
        self, batch: list[Sample], spoken: FedBack, ids: list[Tensor], text_rows: Tensor, audios: list[Tensor]
    ) -> Tensor:
        """The backbone's input rows: text, audio groups at their places, and the speech that is fed back."""
        model, device = self.module, text_rows.device
        rows = text_rows
        heard = torch.cat(ids) == model.config.audio_token_id
        if audios:
            rows = rows.masked_scatter(heard.to(device)[:, None], torch.cat(audios).to(rows.dtype))
        starts = torch.tensor([0, *(len(i) for i in ids)]).cumsum(0).tolist()
        places, groups = [], []
        for start, sample, said in zip(starts, batch, spoken, strict=False):
            if said is None:
                continue
            assert sample.is_fed is not None
            fed = sample.is_fed[:-1].nonzero().flatten()
            places.append(start + len(sample.prompt) + fed)
            groups.append(said[fed].flatten())
        if places:
            place = torch.cat(places).to(device)
            average = (rows[place] + model.grouping.of_ids(torch.cat(groups).to(device))) / 2
            rows = rows.index_copy(0, place, average)
        return rows

    def _audio_rows(self, batch: list[Sample], draw: torch.Generator | None) -> Heard:
        paths = [path for sample in batch for path in sample.audios]
        if not paths:
            return []
        assert self._questions is not None
        model = self.module
        mels = [self._questions.mel(path) for path in paths]
        if draw is not None and self._disturb:
            mels = [disturbed(mel, draw) for mel in mels]
        device = device_of(model)
        rows = encode_audios(model.audio_encoder, [mel.to(device) for mel in mels])
        counts = [len(r) for r in rows]
        encoded = model.audio_encoder.projection(model.audio_encoder.post_norm(torch.cat(rows))).split(counts)
        return [
            (path, model.grouping(model._padded_rows(r, self._questions.num_slots(path))))
            for r, path in zip(encoded, paths, strict=True)
        ]

    def _speech(self, batch: list[Sample], spoken: FedBack, u: Tensor) -> tuple[Tensor, Tensor]:
        """The speech head over whole samples that speak, and its labels; u [positions, H]."""
        c, head = self.module.config, self.module.speech_head
        g = c.group_size
        previous, asked, labels, lengths = [], [], [], []
        start = 0
        for sample, said in zip(batch, spoken, strict=True):
            assert sample.groups is not None
            assert said is not None
            given, fed = sample.groups.flatten(), said.flatten()
            size = g * (len(sample.prompt) + len(sample.text) - 1)
            first = size - len(given)  # the prefill's last sub-vectors are the first group's
            previous.append(torch.cat([fed.new_full((first + 1,), c.speech_bos_id), fed[:-1]]))
            asked.append(torch.arange(start + first, start + size))
            labels.append(given)
            lengths.append(size)
            start += size
        z = head.split(u) + F.embedding(torch.cat(previous).to(u.device), head.head.weight)
        attend = PackedAttention(c.speech, lengths, u.device)
        y = decode(head.decoder, head.input(z), attend, self._recompute)[torch.cat(asked).to(u.device)]
        return head.head(head.output(y)).float(), torch.cat(labels).to(u.device)


def _asked(sample: Sample, start: int) -> Tensor:
    """The positions that must predict `_labels`, in a packed sequence where the sample begins at `start`."""
    first = len(sample.prompt) - 1
    last_answer = torch.arange(first, first + len(sample.text))
    earlier = last_answer[:0] if sample.taught is None else sample.taught.nonzero().flatten() - 1
    return start + torch.cat([earlier, last_answer])


def _labels(sample: Sample) -> Tensor:
    return sample.text if sample.taught is None else torch.cat([sample.prompt[sample.taught], sample.text])


MISSPOKEN_SHARE = 0.08  # of the codes fed back in training
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
