"""Which precision each component's weights are stored in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import RequestError

HIGH_PRECISION = ("vocoder_source",)  # pitch to phase: rounding there is heard


def make_recipe(
    components: Iterable[str], precision: str, overrides: Mapping[str, str], allowed: tuple[str, ...], target: str
) -> dict[str, str]:
    """Component -> precision.

    Args:
        components: the names that the bundle will hold.
        precision: for all of them, except those that stay in fp32 whatever is asked.
        overrides: component -> precision, stronger than `precision`.
        allowed: the target's precisions.
        target: the target's name, for the messages.

    Raises:
        RequestError: a precision that the target does not take, or an override of no component.
    """
    names = list(components)
    for value in (precision, *overrides.values()):
        if value not in allowed:
            raise RequestError(f"precision {value!r} is not one that target {target} takes: {', '.join(allowed)}")
    unknown = [name for name in overrides if name not in names]
    if unknown:
        raise RequestError(f"--set names no component: {', '.join(unknown)}; there are {', '.join(names)}")
    default = {name: "fp32" if name in HIGH_PRECISION else precision for name in names}
    return default | dict(overrides)
