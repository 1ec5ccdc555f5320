"""Every scheme of every component that a plan can have, compiled for all desktop GPUs; run by `pytest -m matrix`."""

from __future__ import annotations

from pathlib import Path

import pytest
from facrt.errors import RequestError
from facrt.export.build import FP8_SM, NOT_COMPILED
from facrt.export.pipeline import OpenModel
from facrt.export.targets import TARGETS
from facrt.model.components import components
from facrt.quant.recipe import Wish
from facrt.quant.schemes import SCHEMES
from small import POSITIONS, compiled

pytestmark = pytest.mark.matrix
RTX = TARGETS["rtx"]
DISTINCT = [name for name in RTX.schemes if SCHEMES[name].calibration != "awq"]  # its graphs are those of its twin


def is_allowed(component: str, scheme: str) -> bool:
    try:
        Wish("fp16", {component: scheme}).refuse_impossible(RTX.schemes, RTX.name, RTX.limited)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("scheme", DISTINCT)
def test_a_plan_of_every_component(small_model: OpenModel, tmp_path: Path, scheme: str) -> None:
    assert RTX.build is not None
    capabilities = [sm for sm in RTX.build.capabilities if scheme != "fp8" or sm >= FP8_SM]
    table = components(small_model.config, RTX.keep(POSITIONS))
    names = [name for name in table if is_allowed(name, scheme) and name not in NOT_COMPILED]
    assert names
    for name in names:
        done = compiled(small_model, name, scheme, capabilities, tmp_path)  # which refuses unpacked weights
        assert done.plan_bytes == (tmp_path / f"{name}.{scheme}.onnx.plan").stat().st_size
