"""The whole chat model and its generation loop in PyTorch: the truth that everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RequestError
from . import geometry, sampling
from .audio_encoder import AudioEncoder
from .backbone import Backbone
from .config import ChatConfig
from .decoder import CachedAttention
from .grouping import Grouping
from .mel import whisper_log_mel
from .settings import GenerationSettings
from .speech_head import RefinementLoop, SpeechHead
from .turn import Turn


class Generation(NamedTuple):
    """What one answer consists of, as the loop returns it (SEMANTICS.md 5)."""

    text_ids: list[int]  # without the prompt
    speech_ids: list[int]  # flat, a multiple of group_size


@dataclass(frozen=True, slots=True)
class Step:
    """One backbone step's tensors, for whoever observes the loop; step 0 is the prefill."""

    embeds: Tensor  # [S, H] backbone input
    hidden: Tensor  # [S, H] after the final norm
    text_logits: Tensor  # [V] of the last position
    speech_input: Tensor  # [S, H] hidden plus text embeddings
    speech_tokens: list[int]  # the head's raw tokens; empty with disable_speech
    speech_logits: list[Tensor]  # group_size x [K], before any processor


class ChatModel(nn.Module):
    """Fun-Audio-Chat without the detokenizer."""

    def __init__(self, config: ChatConfig) -> None:
        super().__init__()
        self.config = config
        hidden_size = config.text.hidden_size
        self.audio_encoder = AudioEncoder(config.audio, hidden_size)
        self.grouping = Grouping(config.codebook_size, hidden_size, config.group_size)
        self.backbone = Backbone(config.text)
        self.speech_head = SpeechHead(config)

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Any,
        waveforms: Sequence[Any] = (),
        *,
        speech_ids: Any = None,
        speech_attention_mask: Any = None,
        feature_exist_mask: Any = None,
        observe: Callable[[Step], None] | None = None,
        **settings: Any,
    ) -> Generation:
        """Answers one prompt.

        Args:
            input_ids: [T] or [1, T] int, placeholders already repeated (`num_groups` each).
            waveforms: 16 kHz mono, float32 (or int16, taken as float / 32768), in prompt order.
            speech_ids: [A, P] int, 25 Hz ids per audio; needed only for audios without a waveform.
            speech_attention_mask: [A, P], ones for the real slots of each audio.
            feature_exist_mask: [A] bool, False for audios that are given by `speech_ids` alone.
            observe: called after each step.
            settings: the fields of `GenerationSettings`.

        Raises:
            RequestError: settings out of range, or audios and placeholders do not match.
        """
        chosen = GenerationSettings(**settings)
        ids = torch.as_tensor(input_ids).long().flatten()
        audios = self.audio_rows(waveforms, speech_ids, speech_attention_mask, feature_exist_mask)
        generator = torch.Generator().manual_seed(chosen.seed)
        turn = Turn(self.config, chosen)
        cache = CachedAttention(self.config.text)
        loop = RefinementLoop(self.speech_head, self.config)

        def pick_speech(logits: Tensor, group: list[int]) -> int:
            return sampling.pick(logits, [*turn.speech_ids, *group], chosen, generator)

        text_rows = self.backbone.embedding(ids)
        embeds = self.merge(ids, text_rows, audios)
        while not turn.done:
            hidden, logits = self.backbone(embeds, cache)
            u = hidden + text_rows
            group = None
            if not chosen.disable_speech:
                group = loop.group(u, pick_speech) if turn.text_ids else loop.prefill(u, pick_speech)
            if chosen.text_greedy:
                token = int(logits.argmax())
            else:
                token = sampling.pick(logits, [*ids.tolist(), *turn.text_ids], chosen, generator)
            turn.advance(token, group)
            if observe:
                observe(Step(embeds, hidden, logits, u, group or [], loop.last_logits))
            text_rows = self.backbone.embedding(torch.tensor(turn.text_ids[-1:]))
            embeds = text_rows
            if turn.feedback is not None:
                embeds = (text_rows + self.grouping.of_ids(torch.tensor(turn.feedback))) / 2
        return Generation(turn.text_ids, turn.speech_ids)

    def encode_audio(self, waveform: Any) -> Tensor:
        """A 16 kHz waveform to encoder rows [num_encoder_rows, H]; what lies beyond 300 s is not heard."""
        pcm = as_float_pcm(waveform)[: geometry.MAX_AUDIO_SECONDS * geometry.SAMPLE_RATE_HZ]
        mel = whisper_log_mel(pcm, self.config.audio.num_mels)  # [num_mels, L]
        window = self.config.audio.window_frames
        num_windows = -(-mel.shape[1] // window)
        padded = F.pad(mel, (0, num_windows * window - mel.shape[1]))
        num_frames = torch.full((num_windows,), window)
        num_frames[-1] = mel.shape[1] - (num_windows - 1) * window
        rows = self.audio_encoder(padded.unflatten(1, (num_windows, window)).transpose(0, 1), num_frames)
        return rows[: geometry.num_encoder_rows(mel.shape[1])]

    def audio_rows(
        self, waveforms: Sequence[Any], speech_ids: Any = None, mask: Any = None, exists: Any = None
    ) -> list[Tensor]:
        """Each audio's grouped rows [num_groups, H], in prompt order; arguments as in `generate`."""
        if exists is None:
            exists = [True] * len(waveforms)
        remaining = iter(waveforms)
        audios = []
        for i, has_waveform in enumerate(torch.as_tensor(exists).flatten().tolist()):
            slots = None if mask is None else int(torch.as_tensor(mask)[i].sum())
            if has_waveform:
                waveform = next(remaining, None)
                if waveform is None:
                    raise RequestError(f"audio {i} is said to have a waveform, but only {len(waveforms)} were given")
                slots = geometry.num_slots(len(waveform)) if slots is None else slots
                audios.append(self.grouping(self._padded_rows(self.encode_audio(waveform), slots)))
            else:
                slots = torch.as_tensor(speech_ids[i]).numel() if slots is None else slots
                audios.append(self.grouping.of_ids(self._padded_ids(speech_ids[i], slots)))
        return audios

    def _padded_rows(self, rows: Tensor, slots: int) -> Tensor:
        groups = geometry.num_groups(slots, self.config.group_size)
        size = groups * self.config.group_size
        padded = F.pad(rows[:size], (0, 0, 0, max(0, size - len(rows))))
        return padded.unflatten(0, (groups, self.config.group_size))

    def _padded_ids(self, ids: Any, slots: int) -> Tensor:
        kept = torch.as_tensor(ids).long()[:slots]
        return F.pad(kept, (0, -slots % self.config.group_size), value=self.config.speech_pad_id)

    def merge(self, ids: Tensor, text_rows: Tensor, audios: Iterable[Tensor]) -> Tensor:
        """Text rows [T, H] with the audios' grouped rows at the placeholders' positions."""
        places = ids == self.config.audio_token_id
        rows = [row for audio in audios for row in audio]
        if int(places.sum()) != len(rows):
            raise RequestError(f"{int(places.sum())} audio placeholders in the prompt, {len(rows)} audio groups given")
        merged = text_rows.clone()
        if rows:
            merged[places] = torch.stack(rows)
        return merged


def as_float_pcm(waveform: Any) -> Tensor:
    """A mono waveform [N] as float32; int16 is divided by 32768."""
    pcm = torch.as_tensor(waveform).flatten()
    return pcm.float() / 32768 if pcm.dtype == torch.int16 else pcm.float()
