"""How far a result may be from upstream's: largest absolute error per (component, precision) (SEMANTICS.md 10)."""

from __future__ import annotations

TOLERANCES: dict[tuple[str, str], float] = {
    ("mel", "fp32"): 1e-4,
    ("audio_encoder", "fp32"): 1e-4,
    ("grouping", "fp32"): 1e-4,
    ("embeds", "fp32"): 1e-4,
    ("hidden", "fp32"): 1e-4,
    ("text_logits", "fp32"): 1e-4,
    ("hidden", "fp16"): 2e-2,  # float16 arithmetic
    ("text_logits", "fp16"): 2e-2,
    ("speech_logits", "fp32"): 5e-4,
    ("flow", "fp32"): 1e-4,  # front, and one evaluation of the estimator
    ("flow_mel", "fp32"): 1e-4,
    ("f0", "fp32"): 1.6e-5,  # Hz; one float32 step at 128 .. 256 Hz, since upstream computes in float64
    ("vocoder_source", "fp32"): 1e-4,  # given the mel
    ("vocoder_given_source", "fp32"): 1e-4,
    ("vocoder", "fp32"): 1e-3,  # given the mel
    ("waveform", "fp32"): 5e-3,  # given the tokens: pitch amplifies the mel's rounding
    ("speech_tokenizer", "fp32"): 1e-4,
}
