"""Samples of the chat stages -> one batch of tensors: everything that needs no model, so that any process can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model.config import ChatConfig
from .audios import AudioBatch, lay_out
from .encoder_stage import Dictation, Said
from .questions import QuestionStore, disturbed
from .samples import Sample

MISSPOKEN_SHARE = 0.08  # of the codes fed back in training


@dataclass(frozen=True, slots=True)
class SpeechBatch:
    """What the speech head is asked over those samples that speak."""

    positions: Tensor  # [P] int64: theirs among the batch's
    lengths: tuple[int, ...]  # sub-steps of each, group_size times its positions
    previous: Tensor  # [P * group_size] int64: the code before each sub-step
    asked: Tensor  # [L] int64: which sub-steps must answer
    labels: Tensor  # [L] int64
    fed: Tensor  # [F] int64: the batch's positions whose input has speech in it
    fed_groups: Tensor  # [F * group_size] int64


@dataclass(frozen=True, slots=True)
class ChatBatch:
    """Samples laid end to end."""

    ids: Tensor  # [S] int64
    lengths: tuple[int, ...]  # positions of each sample
    asked: Tensor  # [A] int64: which positions must predict a text id
    labels: Tensor  # [A] int64
    heard: Tensor  # [G] int64: the positions of the audios' groups, in order
    audios: AudioBatch | None
    said: Said | None  # in the audios, where it is taught
    speech: SpeechBatch | None


class Collator:
    """Makes batches for one model."""

    def __init__(
        self, config: ChatConfig, questions: QuestionStore | None, disturb: bool, dictation: Dictation | None
    ) -> None:
        """How.

        Args:
            questions: the audios' log-mels; None where nothing is heard.
            disturb: other voices and levels, and codes that are fed back wrong.
            dictation: what is said in the questions; None: not taught.
        """
        self._config, self._questions, self._disturb, self._dictation = config, questions, disturb, dictation

    def collate(self, samples: Sequence[Sample], draw: torch.Generator | None) -> ChatBatch:
        """A batch, undisturbed without `draw`."""
        ids = [torch.cat([s.prompt, s.text[:-1]]) for s in samples]
        lengths = [len(i) for i in ids]
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()[:-1]
        every = torch.cat(ids)
        audios, said = self._audios([path for s in samples for path in s.audios], draw)
        return ChatBatch(
            every, tuple(lengths),
            torch.cat([_asked(s, start) for s, start in zip(samples, starts, strict=True)]),
            torch.cat([_labels(s) for s in samples]),
            (every == self._config.audio_token_id).nonzero().flatten(), audios, said,
            self._speech(samples, starts, draw),
        )  # fmt: skip

    def _audios(self, paths: list[Path], draw: torch.Generator | None) -> tuple[AudioBatch | None, Said | None]:
        if not paths:
            return None, None
        assert self._questions is not None
        mels = [self._questions.mel(path) for path in paths]
        if draw is not None and self._disturb:
            mels = [disturbed(mel, draw) for mel in mels]
        slots = [self._questions.num_slots(path) for path in paths]
        audios = lay_out(mels, slots, self._config.audio.window_frames, self._config.group_size)
        said = None if self._dictation is None else self._dictation.said_in(paths, audios.num_groups)
        return audios, said

    def _speech(
        self, samples: Sequence[Sample], starts: Sequence[int], draw: torch.Generator | None
    ) -> SpeechBatch | None:
        c, g = self._config, self._config.group_size
        lengths: list[int] = []
        positions, previous, asked, labels, fed, fed_groups = [], [], [], [], [], []
        for sample, start in zip(samples, starts, strict=True):
            if sample.groups is None:
                continue
            assert sample.is_fed is not None
            spoken = sample.groups if draw is None or not self._disturb else self._misspoken(sample.groups, draw)
            length = len(sample.prompt) + len(sample.text) - 1
            given, repeated = sample.groups.flatten(), spoken.flatten()
            first = g * length - len(given)  # the prefill's last sub-vectors are the first group's
            asked.append(torch.arange(first, g * length) + sum(lengths))
            positions.append(torch.arange(start, start + length))
            lengths.append(g * length)
            previous.append(torch.cat([repeated.new_full((first + 1,), c.speech_bos_id), repeated[:-1]]))
            labels.append(given)
            places = sample.is_fed[:-1].nonzero().flatten()
            fed.append(start + len(sample.prompt) + places)
            fed_groups.append(spoken[places].flatten())
        if not lengths:
            return None
        return SpeechBatch(
            torch.cat(positions), tuple(lengths), torch.cat(previous), torch.cat(asked), torch.cat(labels),
            torch.cat(fed), torch.cat(fed_groups),
        )  # fmt: skip

    def _misspoken(self, groups: Tensor, draw: torch.Generator) -> Tensor:
        """Speech ids [groups, group_size] as a model that errs feeds them back: some codes are others of the answer."""
        said = groups.flatten()
        (places,) = (said < self._config.num_codes).nonzero(as_tuple=True)
        wrong = places[torch.rand(len(places), generator=draw) < MISSPOKEN_SHARE]
        others = torch.randint(max(1, len(places)), (len(wrong),), generator=draw)
        return said.index_copy(0, wrong, said[places[others]]).view_as(groups)


def _asked(sample: Sample, start: int) -> Tensor:
    """The positions that must predict `_labels`, in a batch where the sample begins at `start`."""
    first = len(sample.prompt) - 1
    last_answer = torch.arange(first, first + len(sample.text))
    earlier = last_answer[:0] if sample.taught is None else sample.taught.nonzero().flatten() - 1
    return start + torch.cat([earlier, last_answer])


def _labels(sample: Sample) -> Tensor:
    return sample.text if sample.taught is None else torch.cat([sample.prompt[sample.taught], sample.text])
