"""A length in frames, slots and groups, and the reach of convolutions (SEMANTICS.md 1, 2, 7, 8); no torch."""

from __future__ import annotations

from .config import VocoderConfig

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160  # one mel frame
SLOTS_PER_SECOND = 25
MAX_AUDIO_SECONDS = 300

FLOW_LOOK_BACK_TOKENS = 2  # of the flow's front, beside its look-ahead
F0_KERNELS = (4, 3, 3, 3, 3)  # of the pitch predictor; the first looks right, the others left
F0_LOOK_RIGHT = F0_KERNELS[0] - 1  # mel frames
F0_LOOK_LEFT = sum(F0_KERNELS[1:]) - len(F0_KERNELS[1:])  # mel frames
VOCODER_POST_KERNEL = 7


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


def vocoder_reach_frames(c: VocoderConfig) -> int:
    """Mel frames before a frame that its samples depend on, through mel or source (SEMANTICS.md 8, decode).

    From the last stage to the first, in frames of each stage's rate, rounded up.
    """
    window = -(-c.istft_size // c.istft_hop)  # of the transform and of its inverse
    reach, reach_of_source = VOCODER_POST_KERNEL - 1 + window, 0
    stride = 1  # spectrum frames per frame of the stage
    rows = zip(
        c.upsample_rates, c.upsample_kernels, c.source_resblock_kernels, c.source_resblock_dilations, strict=True
    )
    for rate, up_kernel, source_kernel, source_dilations in reversed(list(rows)):
        reach += 1 + max(map(_block_reach, c.resblock_kernels, c.resblock_dilations))
        source = reach + _block_reach(source_kernel, source_dilations)
        reach_of_source = max(reach_of_source, (source + 2) * stride + window)
        reach = -(-(reach + up_kernel - 1) // rate)
        stride *= rate
    return max(reach, -(-reach_of_source // stride))


def _block_reach(kernel: int, dilations: tuple[int, ...]) -> int:
    return (kernel - 1) * sum(dilation + 1 for dilation in dilations)
