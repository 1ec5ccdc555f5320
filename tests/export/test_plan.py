"""`facrt plan`: counts against the modules, times against published rates, the advice, bad input."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Facrt
from facrt.errors import RequestError
from facrt.export import devices, footprint, roofline, sizes
from facrt.export.devices import DEVICES, find_device
from facrt.export.plan import plan
from facrt.export.source import read_config
from facrt.model.audio_encoder import AudioEncoder
from facrt.model.backbone import Backbone
from facrt.model.components import Cache, ModelConfig, components
from facrt.model.config import DecoderConfig
from facrt.model.config_files import read_chat_config
from facrt.model.decoder import CachedAttention, MixtureOfExperts
from facrt.model.flow import Flow
from facrt.model.generate import ChatModel
from facrt.model.published import PUBLISHED
from facrt.model.speech_tokenizer import SpeechTokenizer
from facrt.model.vocoder import Vocoder
from facrt.quant.recipe import HIGH_PRECISION, LIMITED, Wish
from goldens import DETOKENIZER, LM, S3
from published_rates import EDGE_LLM, MLC, QWEN3_8B, Row
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent.parent
GOLDEN = read_config(LM / "model", DETOKENIZER / "model", S3 / "model")
EXPERTS = DecoderConfig(
    32, 64, 3, 4, 2, 16, vocab_size=300, num_experts=6, num_experts_per_token=2, expert_intermediate_size=24,
    attention_bias=True, dense_layers=(1,),
)  # fmt: skip
WITH_EXPERTS = replace(
    GOLDEN, chat=replace(GOLDEN.chat, text=EXPERTS, audio_bos_id=1, audio_eos_id=2, audio_token_id=3)
)
CONFIGS = {"golden": GOLDEN, "8b": PUBLISHED["8b"], "experts": WITH_EXPERTS}


def modules(config: ModelConfig) -> dict[str, list[nn.Module]]:
    """What each component's graph is made of."""
    with torch.device("meta"):
        chat = ChatModel(config.chat)
        assert config.flow is not None
        assert config.vocoder is not None
        flow, vocoder = Flow(config.flow), Vocoder(config.vocoder)
        head = chat.speech_head
        found: dict[str, list[nn.Module]] = {
            "audio_encoder": [chat.audio_encoder],
            "audio_grouping": [chat.grouping.continuous],
            "backbone": [chat.backbone.decoder, chat.backbone.head],
            "speech_upsampling": [head.upsample],
            "speech_head": [head.input, head.decoder, head.output, head.head],
            "flow_front": [flow.front],
            "flow_estimator": [flow.estimator],
            "vocoder_source": [vocoder.source],
            "vocoder": [vocoder.decoder],
        }
        if config.speech_tokenizer is not None:
            found["speech_tokenizer"] = [SpeechTokenizer(config.speech_tokenizer)]
    return found


def quantizable(component: str, module: nn.Module) -> int:
    kept, count = HIGH_PRECISION.get(component, ()), 0
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and not set(name.split(".")) & set(kept):
            count += layer.weight.numel()
        if isinstance(layer, MixtureOfExperts):
            count += layer.gate_up.numel() + layer.down.numel()
    return count


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weights_are_counted_as_the_modules_have_them(config: ModelConfig) -> None:
    counted = sizes.weights(config)
    assert list(counted) == list(components(config, Cache("static")))
    for name, parts in modules(config).items():
        total = sum(p.numel() for part in parts for p in part.parameters())
        assert counted[name].total == total, name
        if name not in LIMITED:
            assert counted[name].matrices == sum(quantizable(name, part) for part in parts), name


def macs(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return counter.get_total_flops() / 2


def test_multiply_adds_are_counted_as_torch_counts_them() -> None:
    chat, flow, vocoder = GOLDEN.chat, GOLDEN.flow, GOLDEN.vocoder
    assert flow is not None
    assert vocoder is not None
    audio = AudioEncoder(chat.audio, chat.text.hidden_size)
    mel = torch.zeros(1, chat.audio.num_mels, chat.audio.window_frames)
    assert macs(lambda: audio(mel, torch.tensor([chat.audio.window_frames]))) == pytest.approx(
        sizes.audio_window_macs(chat.audio, chat.text.hidden_size)
    )
    for config in (chat.text, EXPERTS):
        backbone, rows = Backbone(config), 7
        head = config.vocab_size * config.hidden_size
        cache = CachedAttention(config)
        backbone(torch.zeros(rows, config.hidden_size), cache)
        found = macs(lambda b=backbone, c=config, k=cache: b(torch.zeros(1, c.hidden_size), k))  # type: ignore[misc]
        assert found == pytest.approx(sizes.decoder_macs(config, 0, rows + 1) + head)
    frames = 40
    whole = Flow(flow)
    estimate = macs(lambda: whole(torch.zeros(1, frames // 2, dtype=torch.int64), torch.ones(1, flow.speaker_dim)))
    modulation = flow.num_steps * 2 * sizes.weights(GOLDEN)["flow_estimator"].kept
    assert estimate == pytest.approx(frames * sizes.flow_frame_macs(flow, frames) + modulation, rel=0.05)
    sound = Vocoder(vocoder)
    heard = macs(lambda: sound(torch.zeros(1, vocoder.num_mels, frames)))
    assert heard == pytest.approx(frames * sizes.vocoder_frame_macs(vocoder), rel=0.05)


def test_the_published_model_is_the_one_that_the_benchmarks_write(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_checkpoint", ROOT / "bench" / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    raw = written.config(36, 28, 32)
    names = ("audio_bos", "audio_eos", "sil")
    ids = {f"{name}_index": value for name, value in zip(names, (151_670, 151_671, 151_673), strict=True)}
    raw["audio_token_index"], raw["text_config"] = 151_669, raw["text_config"] | ids | {"eos_token_id": 151_645}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_chat_config(tmp_path) == PUBLISHED["8b"].chat


@pytest.mark.parametrize("row", EDGE_LLM + MLC, ids=lambda row: f"{row.device}-{row.model.hidden_size}-{row.past}")
def test_published_decode_rates_are_predicted(row: Row) -> None:
    assert row.predicted == pytest.approx(row.tokens_per_second, rel=0.12 if row.fitted else 0.2)


# the same page: milliseconds of a prompt of 61 and of 2048 tokens
@pytest.mark.parametrize(
    ("device", "tokens", "ms"),
    [
        ("agx-orin-64", 61, 74.7), ("agx-orin-64", 2048, 1384), ("orin-nx-16", 61, 134.5), ("orin-nx-16", 2048, 2944),
    ],
)  # fmt: skip
def test_published_prefills_are_predicted(device: str, tokens: int, ms: float) -> None:
    config = ModelConfig(replace(GOLDEN.chat, text=QWEN3_8B))
    setup = footprint.Setup(config, DEVICES[device], {"backbone": "int4_128"})
    cost = roofline.step_cost(setup, tokens, tokens // 2)
    assert roofline.milliseconds(setup, "backbone", cost) == pytest.approx(ms, rel=0.4)


def test_every_row_has_its_sources() -> None:
    assert len(DEVICES) == 14
    for name, row in DEVICES.items():
        assert row.name == name
        assert row.memory_source
        assert row.macs_source
        assert row.runs("fp8") == (row.sm is not None and row.sm >= 89)


def test_a_plan_adds_up() -> None:
    made = plan(PUBLISHED["8b"], DEVICES["agx-orin-64"], Wish("int4"))
    memory = made["memory"]
    parts = [*memory["weights"].values(), *memory["caches"].values(), memory["tables"], memory["workspace"]]
    assert made["total_bytes"] == sum(parts) + memory["runtime"]
    assert made["real_time_factor"] == pytest.approx(sum(made["speech_ms_per_second"].values()) / 1e3)
    assert made["first_audio_ms"] == pytest.approx(sum(made["first_audio_parts_ms"].values()))
    assert made["recipe"] == Wish("int4").recipe(components(PUBLISHED["8b"], Cache("static")))
    json.dumps(made)


def test_more_of_anything_costs_more() -> None:
    def of(device: str, precision: str = "int4", positions: int = 1024) -> dict[str, Any]:
        return plan(PUBLISHED["8b"], DEVICES[device], Wish(precision), positions)

    base = of("agx-orin-64")
    assert of("agx-orin-64", "int8")["total_bytes"] > base["total_bytes"]
    assert of("agx-orin-64", "int8")["real_time_factor"] > base["real_time_factor"]
    assert of("agx-orin-64", positions=2048)["total_bytes"] > base["total_bytes"]
    assert of("orin-nx-16")["real_time_factor"] > base["real_time_factor"] > of("h100")["real_time_factor"]
    assert of("rtx-4090")["memory"]["host"] > 0 == of("rtx-4090")["memory"]["tables"]


def test_experts_that_are_not_chosen_are_held_but_not_read() -> None:
    setup = footprint.Setup(WITH_EXPERTS, DEVICES["agx-orin-64"], {"backbone": "int8"})
    unread = sizes.weights(WITH_EXPERTS)["backbone"].unread
    assert unread == 2 * (6 - 2) * 3 * 32 * 24
    read = roofline.step_cost(setup, 1, 0).num_bytes
    assert setup.weight_bytes("backbone") - read == unread
    assert roofline.step_cost(setup, 2, 0).num_bytes == setup.weight_bytes("backbone")


@pytest.mark.parametrize(
    ("device", "advised", "words"),
    [
        ("rtx-4090", "fp16", "take fp16"),
        ("orin-nano-8", None, "nothing fits"),
        ("orin-nx-16", None, "building it needs"),
    ],
)
def test_the_advice(device: str, advised: str | None, words: str) -> None:
    made = plan(PUBLISHED["8b"], DEVICES[device])
    assert made["advised"] == advised
    assert words in made["advice"]


def test_this_machine_is_measured() -> None:
    row = find_device("this")
    assert row.is_cpu
    assert 1e9 < row.bandwidth < 1e12
    assert 1e9 < row.macs < 1e14
    assert 1e9 < row.integer_macs < 1e15
    assert 0 < row.reserved_bytes < row.memory_bytes
    assert not row.runs("fp8")


def test_what_a_device_cannot_run_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot run fp8"):
        plan(GOLDEN, DEVICES["agx-orin-64"], Wish("int8", {"backbone": "fp8"}))
    assert plan(GOLDEN, DEVICES["rtx-4090"], Wish("int8", {"backbone": "fp8"}))["recipe"]["backbone"] == "fp8"


def test_the_command_needs_no_weights(facrt: Facrt, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        shutil.copy(LM / "model" / name, tmp_path / name)
    report = facrt.json("plan", tmp_path, "--device", "orin-nx-16", "--precision", "int8", "--set", "backbone=int4_32")
    assert report["recipe"]["backbone"] == "int4_32"
    assert report["fits"] is True
    assert "flow_estimator" not in report["memory"]["weights"]
    shown = facrt("plan", tmp_path, "--device", "orin-nx-16")
    assert shown.returncode == 0
    assert "without a detokenizer" in shown.stdout


def test_the_table_of_all_devices(facrt: Facrt) -> None:
    report = facrt.json("plan", "8b", "--device", "all")
    assert [one["device"]["name"] for one in report["plans"]] == list(DEVICES)
    shown = facrt("plan", "8b", "--device", "all").stdout
    assert all(name in shown for name in DEVICES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("8b", "--device", "tx2"), ("'tx2' is unknown", "agx-orin-64", "this")),
        (("nowhere", "--device", "h100"), ("nowhere is no folder",)),
        (("8b", "--device", "h100", "--precision", "int3"), ("'int3' is unknown",)),
        (("8b", "--device", "h100", "--set", "backbone"), ("COMPONENT=SCHEME",)),
        (("8b", "--device", "h100", "--set", "spine=int8"), ("--set names no component",)),
        (("8b", "--device", "h100", "--positions", "0"), ("positions is 0",)),
    ],
)
def test_mistakes_end_in_one_line(facrt: Facrt, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    line = facrt.refusal("plan", *arguments)
    assert all(word in line for word in words)


def test_a_missing_library_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cosyvoice3.yaml").write_text("flow: 1\n")
    arguments = ["facrt", "plan", str(LM / "model"), "--device", "h100", "--detokenizer", str(tmp_path)]
    code = f"import sys; sys.modules['yaml'] = None; sys.argv = {arguments}; from facrt.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stderr == "facrt: yaml is not installed; reading this needs: pip install 'facrt[export]'\n"


def test_the_rows_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs" / "PLANNING.md").read_text(encoding="utf-8")
    for row in devices.DEVICES.values():
        assert (
            f"| `{row.name}` | {row.memory_bytes >> 30} | {row.bandwidth / 1e9:g} | {2 * row.macs / 1e12:.4g} |" in text
        )
