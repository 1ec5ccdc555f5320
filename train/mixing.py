"""What the batches of the chat stages are made of: questions by their shares, conversations by how they are held."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .dataset import Conversation, SpokenMessage
from .facts import fact_turns
from .intents import Split, Turn, example_at
from .loose import loose_example
from .practice import renamed_example, wider_example
from .samples import Sample, SampleMaker, num_answers

READ_ALOUD = "read_aloud"
HEARD_SHARE = 0.5  # of the questions in text, written as the encoder will give them


@dataclass(frozen=True, slots=True)
class TextMix:
    """Of the base model: conversations and facts one after another, as people come to a kiosk."""

    maker: SampleMaker
    questions: int  # at most, in a sample
    shares: Mapping[str, float]  # of facts, wider, renamed, loose and the generator's own conversations
    practice: Sequence[str]  # the intents that are asked more widely

    def batch(self, size: int, draw: torch.Generator) -> list[Sample]:
        """`size` samples."""
        return [self._sample(draw) for _ in range(size)]

    def _sample(self, draw: torch.Generator) -> Sample:
        chance = _chance(draw)
        turns: list[Turn] = []
        for _ in range(chance.randint(1, self.questions)):
            seed = chance.getrandbits(40)
            match chance.choices(tuple(self.shares), tuple(self.shares.values()))[0]:
                case "facts":
                    turns.append(next(fact_turns(Split.TRAIN, seed)))
                case "wider":
                    turns += wider_example(chance.choice(self.practice), seed).turns
                case "loose":
                    turns += loose_example(seed).turns
                case "renamed":
                    turns += renamed_example(seed).turns
                case _:
                    turns += example_at(Split.TRAIN, seed, 0).turns
        return _sometimes_as_heard(self.maker.make_written(written(tuple(turns))), self.maker, draw)


@dataclass(frozen=True, slots=True)
class SpokenMix:
    """Of the stages that hear and speak; a message without audio is read, an answer without it is written."""

    maker: SampleMaker
    conversations: Sequence[Conversation]
    mix: Mapping[str, float]  # of speech_to_speech, text_to_speech and so on, and of read_aloud
    read_aloud: Sequence[Conversation] = ()  # typed, with spoken answers; where there are none: text_to_speech

    def batch(self, size: int, draw: torch.Generator) -> list[Sample]:
        """`size` samples."""
        chance = _chance(draw)
        kinds = chance.choices(tuple(self.mix), tuple(self.mix.values()), k=size)
        return [self._sample(kind, chance, draw) for kind in kinds]

    def _sample(self, kind: str, chance: random.Random, draw: torch.Generator) -> Sample:
        is_aloud = kind == READ_ALOUD
        asked, _, answered = ("text_to_speech" if is_aloud else kind).partition("_to_")
        conversation = chance.choice(self.read_aloud if is_aloud and self.read_aloud else self.conversations)
        turn = chance.randrange(num_answers(conversation))
        sample = self.maker.make(conversation, turn, asked == "speech", answered == "speech")
        return sample if asked == "speech" else _sometimes_as_heard(sample, self.maker, draw)


def written(turns: tuple[Turn, ...]) -> Conversation:
    """Turns as a conversation in text."""
    messages: list[SpokenMessage] = []
    for turn in turns:
        call = json.loads(turn.tool_call[len("<tool_call>") : -len("</tool_call>")]) if turn.tool_call else None
        messages += [SpokenMessage("user", turn.user_text), SpokenMessage("assistant", turn.answer_text, None, call)]
    return Conversation("", tuple(messages))


def _chance(draw: torch.Generator) -> random.Random:
    return random.Random(int(torch.randint(2**40, (1,), generator=draw)))


def _sometimes_as_heard(sample: Sample, maker: SampleMaker, draw: torch.Generator) -> Sample:
    return maker.as_heard(sample, draw) if float(torch.rand((), generator=draw)) < HEARD_SHARE else sample
