"""Recipes: named defaults, overrides, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from facrt.errors import RequestError
from facrt.export.targets import TARGETS
from facrt.quant.recipe import RECIPES, Wish, read_wish
from facrt.quant.schemes import SCHEMES

COMPONENTS = ("audio_encoder", "backbone", "speech_head", "flow_front", "vocoder_source", "vocoder")


def test_every_default_is_one_that_its_target_runs() -> None:
    for name, recipe in RECIPES.items():
        wish = Wish(name, recipe | {"*": "fp32"})
        wish.refuse_impossible(TARGETS["cpu"].schemes, "cpu")
        assert set(recipe.values()) <= set(SCHEMES)


def test_defaults_and_overrides() -> None:
    recipe = Wish("int8", {"backbone": "int4", "vocoder": "int8", "audio_encoder": "fp16"}).recipe(COMPONENTS)
    assert recipe == {
        "audio_encoder": "fp16", "backbone": "awq_32", "speech_head": "int8", "flow_front": "fp16",
        "vocoder_source": "fp32", "vocoder": "int8",
    }  # fmt: skip


REFUSED = {
    "unknown recipe": (Wish("int2"), r"precision 'int2' is unknown; allowed: fp32, fp16, int8, int4$"),
    "unknown scheme": (Wish("int8", {"backbone": "int3"}), r"scheme 'int3' of backbone is unknown; allowed: .*int8"),
    "not on this target": (Wish("int8", {"backbone": "fp8"}), r"target cpu cannot run fp8 \(backbone\); allowed: fp32"),
    "not this component": (Wish("int8", {"vocoder": "awq_32"}), r"vocoder cannot be stored as awq_32; allowed: fp32"),
    "pitch in integers": (Wish("fp32", {"vocoder_source": "int8"}), r"vocoder_source cannot be stored as int8"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused(fault: str) -> None:
    wish, words = REFUSED[fault]
    with pytest.raises(RequestError, match=words):
        wish.refuse_impossible(TARGETS["cpu"].schemes, "cpu")


def test_a_component_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"--set names no component: lungs; there are audio_encoder, "):
        Wish("int8", {"lungs": "int8"}).recipe(COMPONENTS)


def test_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "robot.toml"
    path.write_text('precision = "int8"\n[components]\nbackbone = "awq_128"\n')
    assert read_wish(path) == Wish("int8", {"backbone": "awq_128"})
    path.write_text("")
    assert read_wish(path) == Wish()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("precision = ", r"robot\.toml is no TOML"),
        ('precison = "int8"', r"robot\.toml has the key precison; allowed: precision = "),
        ("[components]\nbackbone = 8", r"robot\.toml has components that are no texts"),
        ("precision = 8", r"precision is 8; allowed: fp32"),
        (None, r"robot\.toml cannot be read \(No such file or directory\)"),
    ],
)
def test_a_broken_recipe_file(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "robot.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RequestError, match=words):
        read_wish(path)
