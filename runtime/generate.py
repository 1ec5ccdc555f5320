"""One answer: prompt and audio in, text and speech ids out (SEMANTICS.md 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
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

    embeds: Array  # [S, H]
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

    def run(
        self,
        prompt_ids: NDArray[np.int64],
        audio_embeds: Array,
        settings: GenerationSettings,
        observe: Callable[[Step], None] | None = None,
    ) -> tuple[Turn, LoopTimings]:
        """Generates one answer from nothing cached.

        Args:
            prompt_ids: [T].
            audio_embeds: [P, H], one row per `<|AUDIO|>` of the prompt, in order.
            settings: how to choose tokens.
            observe: called after each step.

        Raises:
            RequestError: the prompt leaves no room in the caches, or placeholders and audio rows differ in number.
        """
        room = self._backbone.capacity - len(prompt_ids)
        if room < 1:
            raise RequestError(
                f"the prompt has {len(prompt_ids)} positions and the caches {self._backbone.capacity}; "
                "shorten it or load the bundle with a larger max_positions"
            )
        self._backbone.truncate(0)
        self._speech_head.reset()
        config, timings, turn = self._config, LoopTimings(), Turn(self._config, settings)
        text_sampler, speech_sampling = _native.Sampler(settings.seed), SpeechSampling(settings)
        text_sampler.remember(prompt_ids)
        options = pick_options(settings)
        text_rows = self._text_embedding.gather(prompt_ids)
        embeds = merge(prompt_ids, text_rows, audio_embeds, config.audio_token_id)
        started = time.perf_counter()
        while not turn.done:
            first = not turn.text_ids
            hidden, logits = self._backbone(embeds)
            backbone_done = time.perf_counter()
            group = None
            if not settings.disable_speech:
                u = hidden + text_rows
                head = self._speech_head
                group = head.prefill(u, speech_sampling) if first else head.group(u[0], speech_sampling)
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
            started = finished
        return turn, timings


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
