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
from .audios import AudioBatch, encode, lay_out, means_of_groups
from .batches import moved
from .compute import device_of, full_precision
from .ctc import ctc_loss
from .dataset import SpokenMessage
from .labels import classes_of_rows, groups_of_ids, label_path, read_labels
from .loop import Figures
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


@dataclass(frozen=True, slots=True)
class Said:
    """What is said in some audios of a batch, beside their groups; questions one after another."""

    rows: Tensor  # [N] int64: their groups' places among the batch's
    question: Tensor  # [N] int64: which question, counted from 0
    place: Tensor  # [N] int64: which group of it
    ids: Tensor  # [N] int64: the text id that is over in each group, or the pause
    labels: Tensor  # [L] int64: the ids without pauses
    num_groups: tuple[int, ...]  # of each question
    num_labels: tuple[int, ...]
    pause_id: int


def said_in(spoken: Sequence[Spoken | None], num_groups: Sequence[int]) -> Said | None:
    """What is known to be said in a batch's audios; None where nothing is.

    Args:
        spoken: per audio, None where its ids are not known.
        num_groups: of each audio.
    """
    starts = torch.tensor([0, *num_groups]).cumsum(0).tolist()
    known = [(item, start, n) for item, start, n in zip(spoken, starts, num_groups, strict=False) if item is not None]
    if not known:
        return None
    sizes = torch.tensor([n for _, _, n in known])
    question = torch.repeat_interleave(torch.arange(len(known)), sizes)
    place = torch.cat([torch.arange(n) for _, _, n in known])
    labels = [item.said for item, _, _ in known]
    return Said(
        torch.tensor([start for _, start, _ in known])[question] + place, question, place,
        torch.cat([item.ids for item, _, _ in known]), torch.cat(labels), tuple(sizes.tolist()),
        tuple(len(label) for label in labels), known[0][0].pause_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dictation:
    """What is said in questions, taught beside their answers: answers alone say too little about what was misheard."""

    spoken: Mapping[Path, Spoken]
    table: Tensor  # [V, H], the base model's embeddings

    def said_in(self, audios: Sequence[Path], num_groups: Sequence[int]) -> Said | None:
        """What is known to be said in a batch's audios."""
        return said_in([self.spoken.get(path) for path in audios], num_groups)

    def loss(self, rows: Tensor, said: Said) -> tuple[Tensor, Figures]:
        """The loss [] over a batch's grouped rows [G, H], float32."""
        return reading(rows.float(), said, self.table.to(rows.device))


def reading(rows: Tensor, said: Said, table: Tensor) -> tuple[Tensor, Figures]:
    """The loss [] of reading the ids off in order, wherever (CTC).

    Args:
        rows: [G, H] float32, the grouped rows of a batch.
        said: what is said in them, on their device.
        table: the base model's embeddings [V, H].
    """
    rows = rows[said.rows]
    scores = id_scores(rows, table)
    padded = scores.new_zeros(max(said.num_groups), len(said.num_groups), scores.shape[1])
    padded = padded.index_put((said.place, said.question), scores)
    ids = ctc_loss(padded, said.labels, said.num_groups, said.num_labels, said.pause_id)
    return _near(ids, rows, scores, said, table)


def placed_reading(rows: Tensor, said: Said, table: Tensor) -> tuple[Tensor, Figures]:
    """The loss [] of reading each id off the group where its word is over; arguments as of `reading`."""
    rows = rows[said.rows]
    scores = id_scores(rows, table)
    return _near(F.cross_entropy(scores, said.ids), rows, scores, said, table)


def _near(ids: Tensor, rows: Tensor, scores: Tensor, said: Said, table: Tensor) -> tuple[Tensor, Figures]:
    """Adds how far the rows lie from the embeddings that they are read as: the scores alone leave that open."""
    read_as = scores.detach().softmax(-1) @ table
    distance = (rows - read_as).square().sum(-1).mean()
    return ids + distance, {"ids": ids.detach(), "ids_right": _share_near(scores, said), "distance": distance.detach()}


def _share_near(scores: Tensor, said: Said) -> Tensor:
    """Of the ids that are said, those that are read off their group or one beside it."""
    best, found = scores.argmax(-1), torch.zeros_like(said.ids, dtype=torch.bool)
    for away in (-1, 0, 1):
        found |= (best.roll(away) == said.ids) & (said.question.roll(away) == said.question)
    is_said = said.ids != said.pause_id
    return (found & is_said).sum() / is_said.sum()


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


@dataclass(frozen=True, slots=True)
class EncoderBatch:
    """Some questions as they are taught."""

    audios: AudioBatch
    sounds: Tensor  # [P] int64: the class of each row at 25 Hz
    said: Said
    is_placed: bool  # each id is wanted where its word is over


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
        self._window_frames, self._group_size = model.config.audio.window_frames, model.config.group_size
        self._questions, self._spoken, self._sound_names = questions, spoken, sound_names
        self._batch_size, self._placed_steps = batch_size, placed_steps

    def prepare(self, step: int, draw: torch.Generator) -> EncoderBatch:
        picks = torch.randint(len(self._spoken), (self._batch_size,), generator=draw).tolist()
        items = [self._spoken[i] for i in picks]
        mels = [disturbed(self._questions.mel(item.audio), draw) for item in items]
        slots = [self._questions.num_slots(item.audio) for item in items]
        audios = lay_out(mels, slots, self._window_frames, self._group_size)
        sounds = [
            classes_of_rows(item.sounds, self._sound_names, n) for item, n in zip(items, audios.counts, strict=True)
        ]
        said = said_in(items, audios.num_groups)
        assert said is not None
        return EncoderBatch(audios, torch.cat(sounds), said, step < self._placed_steps)

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Figures]:
        return self.loss_of(self.prepare(step, draw))

    def loss_of(self, batch: EncoderBatch) -> tuple[Tensor, Figures]:
        device, module = device_of(self.module), self.module
        batch = moved(batch, device)
        normed = module.encoder.post_norm(encode(module.encoder, batch.audios))
        grouped = means_of_groups(module.encoder.projection(normed), batch.audios)
        read_off = module.continuous(grouped)
        with full_precision(device):
            read = placed_reading if batch.is_placed else reading
            ids, figures = read(read_off.float(), batch.said, module.table)
            logits = module.sounds(normed).float()
            sounds = F.cross_entropy(logits, batch.sounds)
        right = _share_right(logits, batch.sounds)
        return sounds + ids, {"sounds": sounds.detach(), "sounds_right": right, **figures}


def _share_right(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(-1) == labels).float().mean()
