"""`facrt profile`: the waterfall, its files, and the lines of tegrastats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from facrt.runtime.engine import Engine
from facrt.runtime.metrics import PHASES
from facrt.runtime.profile import hummed_question, profile, recording
from facrt.runtime.tegrastats import parse_line, sampled, summarize

# in the form that NVIDIA documents; not recorded on a board
ORIN = (
    "11-02-2026 10:15:31 RAM 6712/30697MB (lfb 2x4MB) SWAP 0/15348MB (cached 0MB) "
    "CPU [12%@1728,3%@1728,0%@729,off,off,off] EMC_FREQ 14%@2133 GR3D_FREQ 67%@[1007,1007] NVDEC off NVJPG off "
    "VIC off OFA off APE 174 cpu@52.562C tboard@41.25C soc2@48.9C tdiode@43.25C gpu@49.718C tj@52.5C "
    "VDD_GPU_SOC 9123mW/7410mW VDD_CPU_CV 1594mW/1200mW VIN_SYS_5V0 5238mW/4900mW"
)
NANO = (
    "RAM 1903/3956MB (lfb 128x4MB) SWAP 0/1978MB (cached 0MB) CPU [25%,18%,20%,22%]@1479 EMC_FREQ 0% GR3D_FREQ 99% "
    "PLL@37.5C CPU@40C PMIC@100C GPU@38C AO@45.5C thermal@39C POM_5V_IN 4912/4100 POM_5V_GPU 1650/900 "
    "POM_5V_CPU 780/700"
)


def test_lines_of_tegrastats() -> None:
    orin = parse_line(ORIN)
    assert (orin["ram_used_mb"], orin["ram_total_mb"]) == (6712, 30697)
    assert orin["cpu_percent"] == [12, 3, 0]
    assert orin["cpu_mhz"] == [1728, 1728, 729]
    assert (orin["gpu_percent"], orin["gpu_mhz"], orin["memory_controller_percent"]) == (67, 1007, 14)
    assert orin["power_mw"] == {"VDD_GPU_SOC": 9123, "VDD_CPU_CV": 1594, "VIN_SYS_5V0": 5238}
    assert orin["temperature_c"]["gpu"] == 49.718
    nano = parse_line(NANO)
    assert nano["cpu_mhz"] == [1479] * 4
    assert nano["power_mw"] == {"POM_5V_IN": 4912, "POM_5V_GPU": 1650, "POM_5V_CPU": 780}
    assert "gpu_mhz" not in nano
    assert parse_line("nonsense") == {}
    summary = summarize([orin, orin | {"power_mw": {"VDD_GPU_SOC": 9125}}])
    assert summary["power_mw"]["VDD_GPU_SOC"] == {"mean": 9124, "peak": 9125}
    assert summarize([]) == {}


def test_tegrastats_is_run_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile true; do echo '{ORIN}'; sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with sampled() as samples:
        for _ in range(200):
            if samples:
                break
            import time

            time.sleep(0.05)
    assert samples[0]["gpu_percent"] == 67


def test_a_profile(talkative_engine: Engine) -> None:
    engine = talkative_engine
    before = (engine.loop._backbone, engine.loop._speech_head, engine.hearing._encoder)
    report = profile(engine, hummed_question(), greedy=True, max_steps=8, eos_token_id=-1)
    assert (engine.loop._backbone, engine.loop._speech_head, engine.hearing._encoder) == before
    assert set(report["phases_ms"]) == set(PHASES)
    components = report["components"]
    assert set(components) == {
        "audio_encoder", "audio_grouping", "backbone", "speech_head", "flow_front", "flow_estimator",
        "vocoder_source", "vocoder",
    }  # fmt: skip
    assert components["flow_estimator"]["calls"] == 10 * components["flow_front"]["calls"]
    assert components["audio_encoder"]["calls"] == 2  # a window while listening, and the rest
    assert report["real_time_factor"] > 0
    assert report["weights_bytes"]["backbone"] > 0


def test_a_broken_turn_leaves_the_engine_as_it_was(golden_engine: Engine) -> None:
    before = golden_engine.loop._backbone
    with pytest.raises(RuntimeError, match="stop"), recording(golden_engine):
        raise RuntimeError("stop")
    assert golden_engine.loop._backbone is before


def test_the_command(facrt: Any, golden_bundle: Path, tmp_path: Path) -> None:
    png, trace = tmp_path / "turn.png", tmp_path / "turn.json"
    report = facrt.json("profile", golden_bundle, "--steps", 12, "--png", png, "--trace", trace)
    assert report["num_spans"] > 20
    assert report["phases_ms"]["done"] > 0
    assert png.read_bytes().startswith(b"\x89PNG")
    events = json.loads(trace.read_text())["traceEvents"]
    assert {"X", "M", "i"} == {event["ph"] for event in events}
    assert sum(event["ph"] == "X" for event in events) == report["num_spans"]
    assert "it is a folder" in facrt.refusal("profile", golden_bundle, "--png", tmp_path)
