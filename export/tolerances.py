"""How far a bundle may be from the reference, per stage and precision."""

from __future__ import annotations

from collections.abc import Mapping

from ..quant.recipe import FLOATS
from ..runtime.bundle import Manifest

# stage -> the components whose errors meet in it, where they are more than its own
_HEARING = ("audio_encoder", "audio_grouping")
_CHAT = (*_HEARING, "backbone")
FED_BY = {
    "audio_grouping": _HEARING,
    "embeds": _CHAT,
    "hidden": _CHAT,
    "text_logits": _CHAT,
    "speech_logits": (*_CHAT, "speech_upsampling", "speech_head"),
    "flow_mel": ("flow_front", "flow_estimator"),
    "waveform": ("flow_front", "flow_estimator", "vocoder_source", "vocoder"),
}

# relative L2 error, per scheme; None, and a scheme that is not listed: reported, not judged, since what rounding to
# few levels costs depends on the weights
LIMITS: dict[str, dict[str, float | None]] = {
    "log_mel": {"fp32": 1e-4, "fp16": 1e-4},
    "audio_encoder": {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2},
    "audio_grouping": {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2},
    "embeds": {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2},
    "hidden": {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-2, "int8": 1e-1},
    "text_logits": {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-2, "int8": 1e-1},
    "speech_logits": {"fp32": 5e-4, "fp16": 5e-2, "bf16": 5e-2, "int8": 1.5e-1},
    "flow_front": {"fp32": 1e-4, "fp16": 1e-2},
    "flow_speaker": {"fp32": 1e-4, "fp16": 1e-2},
    "flow_estimator": {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2},
    "flow_mel": {"fp32": 1e-4, "fp16": 5e-2, "int8": 1e-1},
    "vocoder_source": {"fp32": 1e-3, "fp16": 1e-3},
    "vocoder": {"fp32": 1e-3, "fp16": 5e-2},
    # a pitch that differs in its last bit shifts the phase of all that follows
    "waveform": {"fp32": 2e-2, "fp16": None},
}


def judged_as(manifest: Manifest) -> dict[str, str]:
    """The recipe; floating-point decoders over INT8 caches may be as far off as INT8 ones."""
    if manifest.cache_dtype != "int8":
        return dict(manifest.recipe)
    decoders = ("backbone", "speech_head")
    return manifest.recipe | {name: "int8" for name in decoders if manifest.recipe[name] in FLOATS}


def find_limit(stage: str, component: str, recipe: Mapping[str, str]) -> float | None:
    """The largest relative error that a bundle of this recipe may have in a stage; None: it is not judged."""
    limits = [LIMITS[stage].get(recipe.get(name, "fp32")) for name in FED_BY.get(stage, (component,))]
    return None if None in limits else max(limit for limit in limits if limit is not None)
