"""How many mel frames, speech slots, encoder rows and groups a waveform has (docs/SEMANTICS.md 1 and 2); no torch."""

from __future__ import annotations

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160  # one mel frame
SLOTS_PER_SECOND = 25
MAX_AUDIO_SECONDS = 300


def num_mel_frames(num_samples: int) -> int:
    """Valid 100 Hz mel frames."""
    return -(-num_samples // HOP_SAMPLES)


def num_slots(num_samples: int) -> int:
    """25 Hz speech slots, in upstream's own rounding: for some lengths one fewer than `num_samples // 640`."""
    return int((num_samples / SAMPLE_RATE_HZ) * SLOTS_PER_SECOND)


def num_groups(slots: int, group_size: int) -> int:
    """`<|AUDIO|>` placeholders of an audio with so many slots."""
    return -(-slots // group_size)


def num_encoder_rows(mel_frames: int) -> int:
    """Rows the audio encoder yields: pairs of half-rate frames; a single half-rate frame counts as one."""
    half_rate = -(-mel_frames // 2)
    return max(half_rate // 2, min(half_rate, 1))
