"""Conversations -> what the chat model is taught: ids, groups of speech tokens, and what each position must answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model import geometry
from ..model.config import ChatConfig
from ..model.settings import SPEECH_SYSTEM_PROMPT, TEXT_SYSTEM_PROMPT
from ..runtime.prompt import Message, Prompter
from .dataset import Conversation, SpokenMessage
from .intent import MARK

IGNORED = -100
PAUSE_SHARES = torch.tensor([0.45, 0.35, 0.15, 0.05])  # of 0, 1, 2, 3 rows after an id
REPEATED_SHARE = 0.15
Speech = Mapping[str, Tensor]  # the path of an answer's WAV, or the words that one voice always says alike -> ids [n]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer and all that stands before it.

    The answer's ids begin at position `len(prompt)` - 1, the one that predicts the first of them.
    """

    prompt: Tensor  # [T] int64, placeholders repeated
    audios: tuple[Path, ...]  # in prompt order
    text: Tensor  # [A] int64: the answer as the generation loop returns it
    groups: Tensor | None  # [A, group_size] int64: the head's tokens of the step that gives each id; None: text only
    is_fed: Tensor | None  # [A] bool: the step's group is averaged into the next step's input
    taught: Tensor | None = None  # [T] bool: ids of the prompt that are taught as well, those of earlier answers


class SampleMaker:
    """Turns conversations into samples with the prompts of the runtime itself."""

    def __init__(self, prompter: Prompter, config: ChatConfig, speech: Speech) -> None:
        self._prompter, self._config, self._speech = prompter, config, speech

    def make(self, conversation: Conversation, turn: int, spoken_question: bool, spoken_answer: bool) -> Sample:
        """The sample of a conversation's answer number `turn`.

        Args:
            conversation: its messages up to that answer are used.
            turn: 0 is the first answer.
            spoken_question: the user's messages are heard where they have audio, else read.
            spoken_answer: with speech where it is known, under the system prompt for it.
        """
        turns = [m for m in conversation.messages if m.role != "system"]
        answer = turns[2 * turn + 1]
        speech = self._speech_of(answer) if spoken_answer else None
        system = next((m.text for m in conversation.messages if m.role == "system"), None)
        default = TEXT_SYSTEM_PROMPT if speech is None else SPEECH_SYSTEM_PROMPT
        messages, audios = [Message("system", system or default)], []
        for message in turns[: 2 * turn + 1]:
            heard = message.role == "user" and message.audio is not None and (spoken_question or message.text is None)
            if heard:
                assert message.audio is not None
                audios.append(message.audio)
            messages.append(self._message(message, heard))
        prompt = torch.from_numpy(self._prompter.encode(messages))
        assert answer.text is not None
        words, call = self._ids(answer.text), self._ids(_markup(answer)) if answer.tool_call else []
        if speech is None:
            return Sample(prompt, tuple(audios), torch.tensor([*call, *words, self._end]), None, None)
        return Sample(prompt, tuple(audios), *self._spoken(call, words, speech.tolist()))

    def make_written(self, conversation: Conversation) -> Sample:
        """A whole conversation in text, every answer of it taught."""
        sample = self.make(conversation, num_answers(conversation) - 1, spoken_question=False, spoken_answer=False)
        return replace(sample, taught=torch.tensor(list(self._answers_in(sample.prompt.tolist()))))

    def _answers_in(self, prompt: list[int]) -> Iterator[bool]:
        """For each id of a prompt, whether it belongs to an answer, the end mark with it."""
        header, inside = self._ids("<|im_start|>assistant\n"), False
        for i, token in enumerate(prompt):
            yield inside
            begins = prompt[max(0, i - len(header) + 1) : i + 1] == header
            inside = begins or (inside and token != self._end)

    def _speech_of(self, answer: SpokenMessage) -> Tensor | None:
        return self._speech.get(str(answer.audio), self._speech.get(answer.text or ""))

    @property
    def _end(self) -> int:
        return self._config.eos_ids[0]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._prompter.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _message(self, message: SpokenMessage, heard: bool) -> Message:
        if heard:
            assert message.audio is not None
            return Message("user", audio=_silent_stand_in(message.audio))
        return Message(message.role, f"{_markup(message)}{message.text}" if message.tool_call else message.text)

    def as_heard(self, sample: Sample, draw: torch.Generator) -> Sample:
        """The sample with its questions written as the encoder will give them: one row per 0.2 s.

        Each id stands in one row or two, and rows without one, written `<|audio_pad|>`, lie between them. So the base
        model learns to read what the encoder is then taught to write (`EncoderStage`).
        """
        ids = sample.prompt.tolist()
        taught = [False] * len(ids) if sample.taught is None else sample.taught.tolist()
        rows: list[tuple[int, bool]] = []
        is_question = False
        for i, token in enumerate(ids):
            if token == self._end and is_question:
                rows += _untaught([*self._pauses(draw), self._config.audio_eos_id])
                is_question = False
            rows.append((token, taught[i]))
            if is_question and token != self._config.audio_bos_id:
                again = [token] * (float(torch.rand((), generator=draw)) < REPEATED_SHARE)
                rows += _untaught([*again, *self._pauses(draw)])
            elif ids[max(0, i - 2) : i + 1] == self._user_header:
                rows += _untaught([self._config.audio_bos_id, *self._pauses(draw)])
                is_question = True
        prompt, is_taught = (torch.tensor(column) for column in zip(*rows, strict=True))
        return replace(sample, prompt=prompt, taught=None if sample.taught is None else is_taught)

    def _pauses(self, draw: torch.Generator) -> list[int]:
        return [self.pause_id] * int(torch.multinomial(PAUSE_SHARES, 1, generator=draw))

    @cached_property
    def pause_id(self) -> int:
        """The id that stands for a row in which no text ends."""
        return self._prompter.tokenizer.token_to_id("<|audio_pad|>") or 0

    @property
    def mark_ids(self) -> list[int]:
        """The ids that stand for no words: beginnings and ends of messages, audio and tool calls, silence."""
        return sorted(self._prompter.tokenizer.get_added_tokens_decoder())

    @cached_property
    def _user_header(self) -> list[int]:
        return self._ids("<|im_start|>user\n")

    @property
    def group_size(self) -> int:
        return self._config.group_size

    def question_ids(self, text: str) -> tuple[list[int], list[int], list[bool]]:
        """The ids of a question's text as in a prompt, where each begins in it, and whether it has letters."""
        encoding = self._prompter.tokenizer.encode(text, add_special_tokens=False)
        pieces = [text[start:end] for start, end in encoding.offsets]
        starts = [end - len(piece.lstrip()) for piece, (_, end) in zip(pieces, encoding.offsets, strict=True)]
        return encoding.ids, starts, [any(map(str.isalnum, piece)) for piece in pieces]

    def _spoken(self, call: list[int], words: list[int], speech: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The timeline of an answer, step by step (SEMANTICS.md 5); a tool call is written before speech begins.

        The first token is always `<|audio_bos|>`: what is forced there is what is taught.
        """
        c, g = self._config, self._config.group_size
        idle, ended = [c.speech_pad_id] * g, [c.speech_eos_id] * g
        text, groups, fed = [c.audio_bos_id], [idle], [False]
        if call:  # speech is ended at once, and begun again after the call
            text += [c.audio_eos_id, *call, c.audio_bos_id]
            groups += [ended, *([idle] * (len(call) + 1))]
            fed += [False] * (len(call) + 2)
        speech = speech + speech[-1:] * (-len(speech) % g)  # a group that holds the end of speech is lost whole
        spoken = [speech[i : i + g] for i in range(0, len(speech), g)]
        for i, group in enumerate(spoken):
            text.append(words[i] if i < len(words) else c.sil_id)
            groups.append(group)
            fed.append(True)
        late = words[len(spoken) :]
        text += [c.audio_eos_id, *late, self._end]
        groups += [ended, *([idle] * (len(late) + 1))]
        fed += [False] * (len(late) + 2)
        return torch.tensor(text), torch.tensor(groups), torch.tensor(fed)


def _untaught(ids: list[int]) -> list[tuple[int, bool]]:
    return [(token, False) for token in ids]


def _markup(message: SpokenMessage) -> str:
    open_mark, close_mark = MARK
    return f"{open_mark}{json.dumps(message.tool_call)}{close_mark}"


_STAND_INS: dict[Path, int] = {}


def _silent_stand_in(path: Path) -> np.ndarray:
    """As many zeros as the file has samples at 16 kHz: a prompt depends on an audio's length alone."""
    if path not in _STAND_INS:
        import soundfile

        info = soundfile.info(path)
        _STAND_INS[path] = round(info.frames * geometry.SAMPLE_RATE_HZ / info.samplerate)
    return np.zeros(_STAND_INS[path], np.float32)


def num_answers(conversation: Conversation) -> int:
    """How many samples a conversation gives."""
    return sum(message.role == "assistant" for message in conversation.messages)
