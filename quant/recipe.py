"""Which scheme each component's weights are stored in: named recipes, overrides, recipe files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .schemes import SCHEMES

# A recipe: component -> scheme, "*" for all others. The pitch becomes phase, so rounding there is heard: fp32, always.
# Convolutions (flow_front, vocoder) are small; the speech tokenizer serves voice prompts only.
# Choosing a token on a GPU (speech_choice) is fp32 too: it has no weights.
FLOATING = {
    "speech_input": "fp16", "speech_choice": "fp32", "flow_front": "fp16", "vocoder_source": "fp32", "vocoder": "fp16",
    "speech_tokenizer": "fp16",
}  # fmt: skip
RECIPES: dict[str, dict[str, str]] = {
    "fp32": {"*": "fp32"},
    "fp16": {"*": "fp16", "speech_choice": "fp32", "vocoder_source": "fp32"},
    "int8": {"*": "int8", **FLOATING},
    "int4": {
        "*": "int8", "backbone": "awq_32", "speech_upsampling": "awq_32", "speech_head": "awq_32", **FLOATING,
    },
}  # fmt: skip
# component -> layers whose weights stay floating point beside quantized ones. What they would cost in INT8 is in
# docs/QUANTIZATION.md: the estimator's first and last projection alone, 3.7 times what all of its blocks do.
HIGH_PRECISION = {
    "backbone": ("router",),
    "audio_encoder": ("projection",),
    "flow_estimator": ("input", "output", "modulation", "final_modulation", "time1", "time2"),
}
FLOATS = ("fp32", "fp16")
PLAIN = (*FLOATS, *(name for name, scheme in SCHEMES.items() if scheme.quantize and not scheme.calibration))
# component -> schemes it can be stored in, where not all: what has no Linear layers, or no place in calibration
LIMITED = {
    "speech_input": FLOATS,
    "speech_choice": ("fp32",),
    "flow_front": FLOATS,
    "vocoder_source": ("fp32",),
    "vocoder": (*FLOATS, "int8"),
    "speech_tokenizer": PLAIN,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for, before the components are known."""

    precision: str = "fp32"  # a key of RECIPES
    overrides: Mapping[str, str] = field(default_factory=dict)  # component -> scheme, or a recipe's name
    substitutes: Mapping[str, str] = field(default_factory=dict)  # scheme of a recipe -> what the target takes instead

    def refuse_impossible(
        self, allowed: tuple[str, ...], target: str, limited: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """What can be judged without a checkpoint.

        Args:
            allowed: the target's schemes.
            target: its name, for the messages.
            limited: component -> the target's schemes for it, where it does not take all of them there.

        Raises:
            RequestError: an unknown recipe or scheme, or one that the target or the component does not take.
        """
        if self.precision not in RECIPES:
            raise RequestError(f"precision {self.precision!r} is unknown; allowed: {', '.join(RECIPES)}")
        limited = limited or {}
        by_recipe = {component: self._of_recipe(self.precision, component) for component in limited}
        by_name = {component: self._resolve(component, wanted) for component, wanted in self.overrides.items()}
        for component, scheme in {**by_recipe, **by_name}.items():
            if scheme not in SCHEMES:
                names = ", ".join(dict.fromkeys([*allowed, *RECIPES]))
                raise RequestError(f"scheme {scheme!r} of {component} is unknown; allowed: {names}")
            runs = limited.get(component, allowed)
            if scheme not in runs:
                raise RequestError(f"target {target} cannot run {scheme} ({component}); allowed: {', '.join(runs)}")
            fitting = LIMITED.get(component, allowed)
            if scheme not in fitting:
                raise RequestError(f"{component} cannot be stored as {scheme}; allowed: {', '.join(fitting)}")

    def recipe(self, components: Iterable[str]) -> dict[str, str]:
        """Component -> scheme, for the components that the bundle will hold.

        Raises:
            RequestError: an override names none of them.
        """
        names = list(components)
        unknown = [name for name in self.overrides if name not in names]
        if unknown:
            raise RequestError(f"--set names no component: {', '.join(unknown)}; there are {', '.join(names)}")
        default = {name: self._of_recipe(self.precision, name) for name in names}
        return default | {name: self._resolve(name, wanted) for name, wanted in self.overrides.items()}

    def _resolve(self, component: str, wanted: str) -> str:
        """A scheme as it is; a recipe's name is what that recipe gives the component."""
        return self._of_recipe(wanted, component) if wanted in RECIPES and wanted not in SCHEMES else wanted

    def _of_recipe(self, name: str, component: str) -> str:
        scheme = RECIPES[name].get(component, RECIPES[name]["*"])
        return self.substitutes.get(scheme, scheme)


def read_wish(path: Path, default: str = "fp32") -> Wish:
    """A recipe file: `precision = "int8"` and a table `[components]` of component = "scheme".

    Args:
        path: the file.
        default: the precision where it names none.

    Raises:
        RequestError: no TOML, or other keys.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # of the extra `export`; recipes without a file do without

    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}): --recipe names a TOML file") from None
    except ValueError as error:
        raise RequestError(f"{path} is no TOML: {error}") from None
    components = raw.get("components", {})
    strange = sorted(set(raw) - {"precision", "components"})
    if strange or not isinstance(components, dict) or not all(isinstance(v, str) for v in components.values()):
        what = f"has the key {strange[0]}" if strange else "has components that are no texts"
        raise RequestError(f'{path} {what}; allowed: precision = "int8" and [components] with component = "scheme"')
    precision = raw.get("precision", default)
    if not isinstance(precision, str):
        raise RequestError(f"{path}: precision is {precision!r}; allowed: {', '.join(RECIPES)}")
    return Wish(precision, components)
