"""How far from the golden fixtures a computation may be: absolute, keyed by (component, precision)."""

from __future__ import annotations

TOLERANCES = {
    ("mel", "fp32"): 1e-4,
    ("audio_encoder", "fp32"): 1e-4,
    ("grouping", "fp32"): 1e-4,
    ("embeds", "fp32"): 1e-4,
    ("hidden", "fp32"): 1e-4,
    ("text_logits", "fp32"): 1e-4,
    ("speech_logits", "fp32"): 5e-4,
    ("flow", "fp32"): 1e-4,
    ("vocoder_given_source", "fp32"): 1e-4,
    ("vocoder_source", "fp32"): 1e-3,
    ("f0", "fp32"): 1e-4,
    ("vocoder", "fp32"): 1e-3,
    ("waveform", "fp32"): 5e-3,
    ("speech_tokenizer", "fp32"): 1e-4,
}
