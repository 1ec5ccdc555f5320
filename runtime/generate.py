"""One answer: prompt and audio in, text and speech ids out (SEMANTICS.md 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model.config import ChatConfig
from ..model.settings import GenerationSettings
from ..model.turn import Turn
from . import _native
from .backend import Array, DecoderGraph, SpeechHead
from .sampling import SpeechSampling, pick_options


@dataclass(slots=True)
class LoopTimings:
    """Where the loop's time went."""

    prefill_ms: float = 0.0  # backbone and speech head over the prompt
    backbone_ms: list[float] = field(default_factory=list)  # per step after the prefill
    speech_head_ms: list[float] = field(default_factory=list)  # per group after the prefill


@dataclass(frozen=True, slots=True)
class Step:
    """One backbone step's arrays, for whoever observes the loop; step 0 is the prefill. Views: copy what is kept."""

    embeds: Array  # [S, H]; of the prompt, the positions that were not cached
    hidden: Array  # [S, H]
    text_logits: Array  # [V]
    speech_tokens: list[int]
    speech_logits: list[Array]  # group_size x [K]


class Loop:
    """Runs the backbone and the speech head of one engine, one answer at a time."""

    def __init__(
        self,
        config: ChatConfig,
        backbone: DecoderGraph,
        speech_head: SpeechHead,
        text_embedding: _native.EmbeddingTable,
        speech_grouping: _native.EmbeddingTable,
    ) -> None:
        self._config = config
        self._backbone = backbone
        self._speech_head = speech_head
        self._text_embedding = text_embedding
        self._speech_grouping = speech_grouping
        self.forget()

    def forget(self) -> None:
        """Empties the caches: nothing of an earlier prompt is used again."""
        self._cached_ids = np.zeros(0, np.int64)  # the prompt that the caches hold
        self._cached_audio = np.zeros((0, self._config.text.hidden_size), np.float32)
        self._head_is_cached = True

    def warm(self, prompt_ids: NDArray[np.int64], audio_embeds: Array, speech: bool) -> None:
        """Runs the beginning of a prompt ahead of the answer, as far as the caches do not hold it already.

        Args:
            prompt_ids, audio_embeds: as in `run`.
            speech: whether the answer will be spoken.

        Raises:
            RequestError: as `run`.
        """
        embeds, text_rows = self._new_rows(prompt_ids, audio_embeds, speech, len(prompt_ids))
        if len(embeds):
            hidden, _ = self._backbone(embeds)
            if speech:
                self._speech_head.extend(hidden + text_rows)
        self._keep(prompt_ids, audio_embeds, speech, len(prompt_ids))

    def _new_rows(
        self, prompt_ids: NDArray[np.int64], audio_embeds: Array, speech: bool, most: int
    ) -> tuple[Array, Array]:
        """Truncates the caches to what they share with the prompt, `most` positions at most; the rows that are left.

        Returns:
            Inputs of the backbone and text rows, each [S, H].
        """
        room = self._backbone.capacity - len(prompt_ids)
        if room < 1:
            raise RequestError(
                f"the prompt has {len(prompt_ids)} positions and the caches {self._backbone.capacity}; "
                "shorten it or load the bundle with a larger max_positions"
            )
        shared = min(most, self._num_shared(prompt_ids, audio_embeds)) if self._head_is_cached or not speech else 0
        text_rows = self._text_embedding.gather(prompt_ids)
        embeds = merge(prompt_ids, text_rows, audio_embeds, self._config.audio_token_id)
        self._keep(prompt_ids, audio_embeds, speech, shared)
        self._backbone.truncate(shared)
        self._speech_head.truncate(shared)
        return embeds[shared:], text_rows[shared:]

    def _keep(self, prompt_ids: NDArray[np.int64], audio_embeds: Array, speech: bool, length: int) -> None:
        self._cached_ids = prompt_ids[:length]
        self._cached_audio = audio_embeds[: int((self._cached_ids == self._config.audio_token_id).sum())]
        self._head_is_cached = speech

    def _num_shared(self, prompt_ids: NDArray[np.int64], audio_embeds: Array) -> int:
        """Positions at the beginning that are the same in the prompt and in the caches."""
        size = min(len(prompt_ids), len(self._cached_ids))
        shared = _first_false(prompt_ids[:size] == self._cached_ids[:size])
        places = np.flatnonzero(prompt_ids[:shared] == self._config.audio_token_id)
        same = (audio_embeds[: len(places)] == self._cached_audio[: len(places)]).all(axis=1)
        num_same = _first_false(same)
        return shared if num_same == len(places) else int(places[num_same])

    def run(
        self,
        prompt_ids: NDArray[np.int64],
        audio_embeds: Array,
        settings: GenerationSettings,
        observe: Callable[[Step], None] | None = None,
    ) -> tuple[Turn, LoopTimings]:
        """Generates one answer. What the caches hold of the prompt's beginning is not computed again.

        Args:
            prompt_ids: [T].
            audio_embeds: [P, H], one row per `<|AUDIO|>` of the prompt, in order.
            settings: how to choose tokens.
            observe: called after each step.

        Raises:
            RequestError: the prompt leaves no room in the caches, or placeholders and audio rows differ in number.
        """
        timings, turn = LoopTimings(), Turn(self._config, settings)
        for _ in self.steps(turn, prompt_ids, audio_embeds, settings, timings, observe):
            pass
        return turn, timings

    def steps(
        self,
        turn: Turn,
        prompt_ids: NDArray[np.int64],
        audio_embeds: Array,
        settings: GenerationSettings,
        timings: LoopTimings,
        observe: Callable[[Step], None] | None = None,
    ) -> Iterator[list[int] | None]:
        """`run` step by step: fills `turn` and `timings`, and yields what speech each step stored."""
        speech = not settings.disable_speech
        # the newest position is run again: its logits are needed, and the head's last group chose tokens there
        embeds, text_rows = self._new_rows(prompt_ids, audio_embeds, speech, len(prompt_ids) - 1)
        room = self._backbone.capacity - len(prompt_ids)
        text_sampler, speech_sampling = _native.Sampler(settings.seed), SpeechSampling(settings)
        text_sampler.remember(prompt_ids)
        options = pick_options(settings)
        started = time.perf_counter()
        while not turn.done:
            first = not turn.text_ids
            hidden, logits = self._backbone(embeds)
            backbone_done = time.perf_counter()
            group = None
            if speech:
                u = hidden + text_rows
                head = self._speech_head
                group = head.prefill(u, speech_sampling) if first else head.group(u[0], speech_sampling)
            if first:
                self._keep(prompt_ids, audio_embeds, speech, len(prompt_ids) - 1)
            if settings.text_greedy:
                token = text_sampler.pick(logits, greedy=True)
            else:
                token = text_sampler.pick(logits, **options)
            stored = turn.advance(token, group)
            if len(turn.text_ids) >= room:
                turn.done = True
            if observe:
                speech_logits = [] if group is None else self._speech_head.group_logits()
                observe(Step(embeds, hidden, logits, group or [], speech_logits))
            token_id = np.array(turn.text_ids[-1:], np.int64)
            text_sampler.remember(token_id)
            if stored is not None:
                speech_sampling.remember(stored)
            text_rows = self._text_embedding.gather(token_id)
            embeds = text_rows
            if turn.feedback is not None:
                embeds = self._speech_grouping.group_average(np.array(turn.feedback, np.int64), text_rows[0])[None]
            finished = time.perf_counter()
            if first:
                timings.prefill_ms = (finished - started) * 1e3
            else:
                timings.backbone_ms.append((backbone_done - started) * 1e3)
                timings.speech_head_ms.append((finished - backbone_done) * 1e3)
            yield stored
            started = time.perf_counter()


def _first_false(flags: NDArray[np.bool_]) -> int:
    """The index of the first false value; the length where there is none."""
    return len(flags) if flags.all() else int(flags.argmin())


def merge(prompt_ids: NDArray[np.int64], text_rows: Array, audio_embeds: Array, audio_token_id: int) -> Array:
    """Text rows [T, H] with audio rows [P, H] at the placeholders.

    Raises:
        RequestError: there are not P placeholders.
    """
    places = prompt_ids == audio_token_id
    if int(places.sum()) != len(audio_embeds):
        raise RequestError(
            f"{int(places.sum())} audio placeholders in the prompt, {len(audio_embeds)} audio groups given"
        )
    merged = text_rows.copy()
    merged[places] = audio_embeds
    return merged
