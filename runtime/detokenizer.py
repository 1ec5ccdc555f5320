"""Speech ids -> waveform: flow matching, vocoder; whole or as a stream (SEMANTICS.md 6-8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..model.config import FlowConfig, VocoderConfig
from .backend import Array, Backend
from .flow_stream import WHOLE, BlockPlan, FlowStream
from .vocoder_stream import VocoderStream

SEGMENT_TOKENS = 750  # 30 s
SHORTEST_SEGMENT_TOKENS = 50


class Detokenizer:
    """The flow and the vocoder of one bundle."""

    def __init__(
        self, backend: Backend, flow: FlowConfig, vocoder: VocoderConfig, noise: Array, num_codes: int
    ) -> None:
        # noise: [1, num_mels, N], the flow's fixed start
        self.sample_rate = vocoder.sample_rate
        self.samples_per_token = flow.token_mel_ratio * vocoder.samples_per_frame
        self._flow_config = flow
        self._vocoder_config = vocoder
        self._num_codes = min(num_codes, flow.vocab_size)
        self._noise = noise
        self.front = backend.graph("flow_front")
        self.estimator = backend.graph("flow_estimator")
        self.source = backend.graph("vocoder_source")
        self.vocoder = backend.graph("vocoder")

    def synthesize(self, speech_ids: Sequence[int], speaker: Array) -> Array:
        """Speech ids (specials are dropped) to 24 kHz float32 [N]; empty where no code is left.

        Each segment is one independent call with full attention, as upstream's offline path.

        Args:
            speech_ids: 25 Hz ids.
            speaker: [speaker_dim], not normalized.
        """
        waves = [self.vocode(self.flow(np.array(part), speaker)) for part in segments(self.codes(speech_ids))]
        return np.concatenate(waves) if waves else np.zeros(0, np.float32)

    def stream(self, speaker: Array, plan: BlockPlan | None = None) -> SpeechStream:
        """A waveform that grows with its ids, at constant cost per block of `plan`.

        Args:
            speaker: [speaker_dim], not normalized.
            plan: default: `BlockPlan()`.
        """
        return SpeechStream(self, self._flow_stream(speaker, plan or BlockPlan()), self._vocoder_stream())

    def codes(self, speech_ids: Iterable[int]) -> list[int]:
        """The ids that are spoken."""
        return [i for i in speech_ids if 0 <= i < self._num_codes]

    def flow(self, tokens: NDArray, speaker: Array) -> Array:
        """Tokens [n] to log-mel [1, num_mels, 2 n], with full attention."""
        stream = self._flow_stream(speaker, WHOLE)
        stream.push(tokens.tolist())
        return stream.finish()

    def vocode(self, mel: Array) -> Array:
        """Log-mel [1, num_mels, F] to samples [F * samples_per_frame]."""
        return self._vocoder_stream().finish(mel)

    def _flow_stream(self, speaker: Array, plan: BlockPlan) -> FlowStream:
        return FlowStream(self.front, self.estimator, self._flow_config, self._noise, speaker, plan)

    def _vocoder_stream(self) -> VocoderStream:
        return VocoderStream(self.source, self.vocoder, self._vocoder_config)


class SpeechStream:
    """Speech ids in, samples out, for one answer."""

    def __init__(self, detokenizer: Detokenizer, flow: FlowStream, vocoder: VocoderStream) -> None:
        self._codes = detokenizer.codes
        self._code_ms = detokenizer.samples_per_token / detokenizer.sample_rate * 1e3
        self._flow, self._vocoder = flow, vocoder

    def duration_ms(self, speech_ids: Iterable[int]) -> float:
        """How long ids sound."""
        return len(self._codes(speech_ids)) * self._code_ms

    def push(self, speech_ids: Iterable[int]) -> Array:
        """Takes ids (specials are dropped); returns the samples [N] float32 that they complete, often none."""
        mel = self._flow.push(self._codes(speech_ids))
        return self._vocoder.push(mel) if mel.shape[2] else np.zeros(0, np.float32)

    def finish(self) -> Array:
        """The rest; the stream is done."""
        return self._vocoder.finish(self._flow.finish())


def segments(codes: Sequence[int]) -> list[Sequence[int]]:
    """Pieces of 30 s; a last one under 2 s is merged with the one before and the two are halved."""
    parts = [codes[i : i + SEGMENT_TOKENS] for i in range(0, len(codes), SEGMENT_TOKENS)]
    if len(parts) > 1 and len(parts[-1]) < SHORTEST_SEGMENT_TOKENS:
        joined = [*parts[-2], *parts[-1]]
        half = len(joined) // 2
        parts[-2:] = [joined[:half], joined[half:]]
    return parts
