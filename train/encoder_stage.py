"""The stage of the audio encoder: which sound is heard when, and what is said, as the base model's ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.generate import ChatModel
from ..model.geometry import num_groups
from .compute import device_of, full_precision
from .ctc import ctc_loss
from .dataset import SpokenMessage
from .labels import classes_of_rows, groups_of_ids, label_path, read_labels
from .loop import Figures
from .packed import encode_audios
from .questions import QuestionStore, disturbed
from .samples import SampleMaker
from .timing import Sound

SHARPNESS = 8.0  # of ids' scores; a row at an embedding of length 1 then tells it from most others by 8 to 16


class EncoderTraining(nn.Module):
    """The audio encoder and its grouping, and what only training needs to read sounds and ids off them."""

    def __init__(self, model: ChatModel, num_sounds: int) -> None:
        super().__init__()
        self.encoder, self.continuous = model.audio_encoder, model.grouping.continuous
        self.sounds = nn.Linear(model.config.audio.d_model, num_sounds)
        self.table: Tensor  # [V, H], the base model's, fixed
        self.register_buffer("table", model.backbone.embedding.weight.detach().clone())

    def dictation(self, spoken: Iterable[Spoken]) -> Dictation:
        """What the stages after this one go on to teach; what reads the ids stays as it is."""
        return Dictation({item.audio: item for item in spoken}, self.table)


def id_scores(rows: Tensor, table: Tensor) -> Tensor:
    """Grouped rows [..., H], embeddings [V, H] -> [..., V] before softmax: the nearer its embedding, the likelier."""
    return SHARPNESS * (2 * rows @ table.T - table.square().sum(1))


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question as it is heard."""

    audio: Path
    sounds: tuple[Sound, ...]
    ids: Tensor  # [num_groups] int64: the text id that is over in each group, or the pause
    pause_id: int

    @property
    def said(self) -> Tensor:
        """The ids without their places, [count] int64."""
        return self.ids[self.ids != self.pause_id]


Heard = Sequence[tuple[Path, Tensor]]  # audios and their grouped rows [num_groups, H]


@dataclass(frozen=True, slots=True)
class Dictation:
    """What is said in questions, taught beside their answers: answers alone say too little about what was misheard."""

    spoken: Mapping[Path, Spoken]
    table: Tensor  # [V, H], the base model's embeddings

    def loss(self, heard: Heard) -> tuple[Tensor, Figures]:
        """The mean [] over those audios whose ids are known, float32; 0 where none is."""
        known = [(self.spoken[path], rows.float()) for path, rows in heard if path in self.spoken]
        if not known:
            return torch.zeros(()), {}
        items, rows = zip(*known, strict=True)
        return reading(rows, items, self.table.to(rows[0].device))


def reading(rows: Sequence[Tensor], spoken: Sequence[Spoken], table: Tensor) -> tuple[Tensor, Figures]:
    """The loss [] of reading the ids off in order, wherever (CTC).

    Args:
        rows: per question, [num_groups, H] float32.
        spoken: the questions.
        table: the base model's embeddings [V, H].
    """
    scores = [id_scores(row, table) for row in rows]
    ids = ctc_loss(scores, [item.said for item in spoken], spoken[0].pause_id)
    return _near(ids, rows, scores, spoken, table)


def placed_reading(rows: Sequence[Tensor], spoken: Sequence[Spoken], table: Tensor) -> tuple[Tensor, Figures]:
    """The loss [] of reading each id off the group where its word is over; arguments as of `reading`."""
    scores = [id_scores(row, table) for row in rows]
    ids = F.cross_entropy(torch.cat(scores), torch.cat([item.ids for item in spoken]).to(table.device))
    return _near(ids, rows, scores, spoken, table)


def _near(
    ids: Tensor, rows: Sequence[Tensor], scores: Sequence[Tensor], spoken: Sequence[Spoken], table: Tensor
) -> tuple[Tensor, Figures]:
    """Adds how far the rows lie from the embeddings that they are read as: the scores alone leave that open."""
    read_as = torch.cat(list(scores)).detach().softmax(-1) @ table
    distance = (torch.cat(list(rows)) - read_as).square().sum(-1).mean()
    right = _share_near(scores, spoken)
    return ids + distance, {"ids": ids.detach(), "ids_right": right, "distance": distance.detach()}


def _share_near(scores: Sequence[Tensor], spoken: Sequence[Spoken]) -> Tensor:
    """Of the ids that are said, those that are read off their group or one beside it."""
    found, said = [], []
    for rows, item in zip(scores, spoken, strict=True):
        ids, best = item.ids.to(rows.device), F.pad(rows.argmax(-1), (1, 1), value=item.pause_id)
        said.append(ids != item.pause_id)
        found.append((best.unfold(0, 3, 1) == ids[:, None]).any(1) & said[-1])
    return torch.cat(found).sum() / torch.cat(said).sum()


def labelled_questions(messages: Iterable[SpokenMessage], maker: SampleMaker, questions: QuestionStore) -> list[Spoken]:
    """Those of the users' messages that have text, audio and a label file, and no more ids than groups."""
    found = (
        _labelled(message.text, message.audio, maker, questions)
        for message in messages
        if message.text and message.audio and label_path(message.audio).exists()
    )
    return [item for item in found if item is not None]


def _labelled(text: str, audio: Path, maker: SampleMaker, questions: QuestionStore) -> Spoken | None:
    ids, starts, is_word = maker.question_ids(text)
    sounds = tuple(read_labels(label_path(audio)))
    said = torch.full((num_groups(questions.num_slots(audio), maker.group_size),), maker.pause_id)
    groups = groups_of_ids(sounds, starts, is_word, len(said), maker.group_size)
    if groups is None:
        return None
    said[groups] = torch.tensor(ids)
    return Spoken(audio, sounds, said, maker.pause_id)


class EncoderStage:
    """What Whisper's training is to the real encoder.

    The sounds are read at 25 Hz, each where the synthesizer said it; the ids at 5 Hz, off the rows that the backbone
    will get: a row comes to lie near the base model's own embedding of what was said, or of the pause. At first each
    id is wanted where its word is over: by CTC alone, which does not say where, so small an encoder hears nothing for
    most of its training. Then by CTC: a word that is over near the border of two groups belongs to either.
    """

    name = "encoder"

    def __init__(
        self, module: EncoderTraining, model: ChatModel, questions: QuestionStore, spoken: Sequence[Spoken],
        sound_names: Sequence[str], batch_size: int, placed_steps: int,
    ) -> None:  # fmt: skip
        self.module = module
        self._padded_rows, self._sound_names = model._padded_rows, sound_names
        self._questions, self._spoken = questions, spoken
        self._batch_size, self._placed_steps = batch_size, placed_steps

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
        read_off = module.continuous(torch.cat(grouped))
        with full_precision(device):
            read = placed_reading if step < self._placed_steps else reading
            ids, figures = read(read_off.float().split([len(group) for group in grouped]), batch, module.table)
            logits, heard = module.sounds(normed).float(), heard.to(device)
            sounds = F.cross_entropy(logits, heard)
        return sounds + ids, {"sounds": sounds.detach(), "sounds_right": _share_right(logits, heard), **figures}


def _share_right(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(-1) == labels).float().mean()
