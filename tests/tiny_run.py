"""A recipe whose every stage takes a moment, and a few conversations for it: what tests of training share."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import soundfile
from facrt.train.labels import label_path, write_labels
from facrt.train.recipe import RECIPES, Recipe, read_recipe
from facrt.train.timing import Sound
from facrt.train.write import write_configs, write_text_tokenizer

SIZES = {
    "n_audio_state": 32, "n_audio_head": 1, "n_audio_layer": 1, "dim": 32, "depth": 1, "heads": 1, "dim_head": 32,
    "pre_channels": 16, "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocabulary": 300, "base_channels": 16, "f0_channels": 8,
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]], "source_resblock_kernel_sizes": [3, 3, 3],
    "source_resblock_dilation_sizes": [[1], [1], [1]], "decoder_layers": 1, "steps": 3, "batch_size": 4, "warmup": 1,
    "frames": 12, "train": 4, "n_window": 100, "placed_steps": 2,
}  # fmt: skip
TURNS = (("What time is it?", "It is noon."), ("Turn on the lamp.", "The lamp is on."), ("Hello.", "Hello there."))
SOUNDS = [Sound(0.0, "sil"), Sound(0.1, "a", 0), Sound(0.3, "sil")]
ANSWER_SAMPLES, QUESTION_SAMPLES = 960 * 11, 52_000


def recipe_text(**settings: object) -> str:
    """The shipped recipe with tiny sizes; `settings` are keys of any table, over `SIZES`."""
    text = (RECIPES / "nano.toml").read_text(encoding="utf-8")
    for key, value in {**SIZES, **settings}.items():
        text = re.sub(rf"^{key} = [^#\n]*", f"{key} = {value} ", text, flags=re.MULTILINE)
    return text


def recipe(folder: Path, compute: str = "", **settings: object) -> Recipe:
    """`recipe_text` read; `compute` is the table's content."""
    path = folder / "tiny.toml"
    table = f"\n[compute]\n{compute}\n" if compute else ""
    path.write_text(recipe_text(**settings) + table, encoding="utf-8")
    return read_recipe(path)


def write_run_configs(folder: Path, made: Recipe) -> None:
    """A run's `configs`, so that its text tokenizer is not learned from the whole generator."""
    (folder / "configs").mkdir(parents=True)
    write_text_tokenizer(folder / "configs", [words for turn in TURNS for words in turn] * 20, 300)
    write_configs(folder / "configs", made.shapes)


def write_dataset(folder: Path, rate_hz: int = 24_000, num_samples: int = ANSWER_SAMPLES) -> Path:
    """Three conversations, the last with a tool call; the answers buzz at 100 Hz."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    time = np.arange(num_samples) / rate_hz
    buzz = 0.1 * sum(np.sin(2 * np.pi * 100 * k * time) for k in range(1, 20)) * np.exp(-time)
    rows = []
    for i, (question, answer) in enumerate(TURNS):
        noise = 0.1 * draw.standard_normal(QUESTION_SAMPLES + 1_000 * i)
        soundfile.write(folder / f"q{i}.wav", noise, 16_000)
        write_labels(label_path(folder / f"q{i}.wav"), SOUNDS, 0.5)
        soundfile.write(folder / f"a{i}.wav", np.clip(buzz + 1e-3 * draw.standard_normal(num_samples), -1, 1), rate_hz)
        said = {"role": "assistant", "text": answer, "audio": f"a{i}.wav"}
        if i == 2:
            said["tool_call"] = {"name": "wave", "arguments": {}}
        asked = {"role": "user", "text": question, "audio": f"q{i}.wav"}
        rows.append(json.dumps({"id": str(i), "messages": [asked, said]}))
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
