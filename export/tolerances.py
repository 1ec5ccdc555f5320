"""How far a bundle may be from the reference, per stage and precision."""

from __future__ import annotations

# relative L2 error; None: reported, not judged
LIMITS: dict[str, dict[str, float | None]] = {
    "log_mel": {"fp32": 1e-4, "fp16": 1e-4},
    "audio_encoder": {"fp32": 1e-4, "fp16": 1e-2},
    "audio_grouping": {"fp32": 1e-4, "fp16": 1e-2},
    "embeds": {"fp32": 1e-4, "fp16": 1e-2},
    "hidden": {"fp32": 1e-4, "fp16": 2e-2},
    "text_logits": {"fp32": 1e-4, "fp16": 2e-2},
    "speech_logits": {"fp32": 5e-4, "fp16": 5e-2},
    # int4: what rounding to 16 levels costs depends on the weights
    "native_speech_logits": {
        "fp32": 5e-4,
        "fp16": 5e-2,
        "bf16": 5e-2,
        "int8": 1.5e-1,
        "int4_32": None,
        "int4_128": None,
    },
    "flow_front": {"fp32": 1e-4, "fp16": 1e-2},
    "flow_speaker": {"fp32": 1e-4, "fp16": 1e-2},
    "flow_estimator": {"fp32": 1e-4, "fp16": 1e-2},
    "flow_mel": {"fp32": 1e-4, "fp16": 5e-2},
    "vocoder_source": {"fp32": 1e-3, "fp16": 1e-3},
    "vocoder": {"fp32": 1e-3, "fp16": 5e-2},
    # a pitch that differs in its last bit shifts the phase of all that follows
    "waveform": {"fp32": 2e-2, "fp16": None},
}
