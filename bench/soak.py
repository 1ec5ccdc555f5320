"""A million sub-steps of a tiny native speech head: memory must not grow."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from common import arguments, check, finish
from facrt.export.native_head import write_native_head
from facrt.model.config import AudioEncoderConfig, ChatConfig, DecoderConfig
from facrt.model.speech_head import SpeechHead
from facrt.runtime import _native

GROUP, WIDE, POSITIONS = 5, 32, 40


def tiny_config() -> ChatConfig:
    text = DecoderConfig(WIDE, 64, 1, 2, 2, 8, vocab_size=16)
    speech = DecoderConfig(32, 64, 2, num_heads=4, num_kv_heads=2, head_dim=8)
    return ChatConfig(text, speech, AudioEncoderConfig(8, 1, 1, 8), GROUP, 64, 60, 61, 62, 0, 1, 2, 3, (4,))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def speak(loop: _native.SpeechHeadLoop, sampler: _native.Sampler, u: np.ndarray, num_groups: int) -> None:
    """Prompts, groups up to a full cache, barge-in; then again."""
    for i in range(num_groups):
        position = i % (POSITIONS - 4)
        if position == 0:
            loop.reset()
            sampler.forget()
            loop.extend(u[:2])
            loop.prefill(u[2:4], sampler, greedy=True)
        if i % 50 == 49:
            loop.truncate(loop.num_positions - 1)
        tokens = loop.group(u[position], sampler, temperature=0.8, top_p=0.9, repetition_penalty=1.2)
        sampler.remember(np.array(tokens, np.int64))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sub-steps", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    config = tiny_config()
    u = np.random.default_rng(1).standard_normal((POSITIONS, WIDE)).astype(np.float32)
    checks = []
    num_groups = options.sub_steps // GROUP
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head"
        write_native_head(SpeechHead(config).eval().requires_grad_(False), config, {}, "int8", path)
        loop = _native.SpeechHeadLoop(path, num_threads=options.threads, max_positions=POSITIONS, cache="int8")
        sampler = _native.Sampler(0)
        speak(loop, sampler, u, num_groups // 10)  # what is made once is made here
        before, started = resident_bytes(), time.perf_counter()
        speak(loop, sampler, u, num_groups)
        grown = resident_bytes() - before
        # the kernel counts resident pages in batches per thread, so less than that is nothing
        checks.append(check(f"memory grown by {options.sub_steps} sub-steps", grown, "bytes", 524288))
        checks.append(check("seconds", time.perf_counter() - started, "s"))
    finish({"threads": options.threads, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
