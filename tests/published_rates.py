"""Decode rates that others published for boards of the table: what the plan's two fitted numbers are held against."""

from __future__ import annotations

from dataclasses import dataclass

from facrt.export.devices import DEVICES
from facrt.export.footprint import Setup
from facrt.export.roofline import Cost, milliseconds, step_cost
from facrt.model.components import ModelConfig
from facrt.model.config import AudioEncoderConfig, ChatConfig, DecoderConfig

# all at batch 1; the text head is fp16 in the first family, INT4 like the layers in the second
QWEN3_8B = DecoderConfig(4096, 12288, 36, 32, 8, 128, vocab_size=151_936)
QWEN3_06B = DecoderConfig(1024, 3072, 28, 16, 8, 128, vocab_size=151_936)
LLAMA31_8B = DecoderConfig(4096, 14336, 32, 32, 8, 128, vocab_size=128_256)
LLAMA32_3B = DecoderConfig(3072, 8192, 28, 24, 8, 128, vocab_size=128_256)
QWEN25_7B = DecoderConfig(3584, 18944, 28, 28, 4, 128, vocab_size=152_064)


@dataclass(frozen=True, slots=True)
class Row:
    """One published rate."""

    device: str
    model: DecoderConfig
    scheme: str
    float_head: bool
    past: int  # positions in the cache
    tokens_per_second: float
    fitted: bool = False  # the plan's numbers come from it

    @property
    def predicted(self) -> float:
        audio = AudioEncoderConfig(8, 1, 1, 8)
        chat = ChatConfig(self.model, self.model, audio, 5, 6565, 6561, 6562, 6563, 0, 1, 2, 3, (4,))
        setup = Setup(ModelConfig(chat), DEVICES[self.device], {"backbone": self.scheme})
        cost = step_cost(setup, 1, self.past)
        head = self.model.vocab_size * self.model.hidden_size
        if self.float_head:
            cost += Cost(head * (2 - setup.bytes_per_weight("backbone")), 0, 0)
        return 1e3 / milliseconds(setup, "backbone", cost)


# TensorRT Edge-LLM 0.10.0, TensorRT 10.16, performance-benchmarks.md: INT4 AWQ
EDGE_LLM = [
    Row("agx-orin-64", QWEN3_8B, "int4_128", True, 61, 32.2, fitted=True),
    Row("agx-orin-64", QWEN3_8B, "int4_128", True, 2048, 30.6),
    Row("orin-nx-16", QWEN3_8B, "int4_128", True, 61, 18.4, fitted=True),
    Row("orin-nx-16", QWEN3_8B, "int4_128", True, 2048, 17.5),
    Row("agx-orin-64", QWEN3_06B, "int4_128", True, 61, 200.5, fitted=True),
    Row("agx-orin-64", QWEN3_06B, "int4_128", True, 2048, 162.5),
    Row("orin-nx-16", QWEN3_06B, "int4_128", True, 61, 124.9, fitted=True),
    Row("orin-nx-16", QWEN3_06B, "int4_128", True, 2048, 98.9),
    Row("orin-nano-8", QWEN3_06B, "int4_128", True, 61, 77.0),
    Row("orin-nano-8", QWEN3_06B, "int4_128", True, 2048, 61.0),
    Row("agx-thor", QWEN3_8B, "int4_128", True, 61, 49.0),
    Row("agx-thor", QWEN3_8B, "int4_128", True, 2048, 46.4),
    Row("agx-thor", QWEN3_06B, "int4_128", True, 2048, 253.1),
    Row("gb10", QWEN3_8B, "int4_128", True, 2048, 43.5),
    Row("gb10", QWEN3_06B, "int4_128", True, 2048, 251.4),
]
# NVIDIA developer blog, Jetson Orin Nano Developer Kit gets a Super boost (2024-12): MLC, INT4 in groups of 32
MLC = [
    Row("orin-nano-8", LLAMA31_8B, "int4_32", False, 256, 14.0),
    Row("orin-nano-8-super", LLAMA31_8B, "int4_32", False, 256, 19.14),
    Row("orin-nano-8", QWEN25_7B, "int4_32", False, 256, 14.2),
    Row("orin-nano-8-super", QWEN25_7B, "int4_32", False, 256, 21.75),
    Row("orin-nano-8", LLAMA32_3B, "int4_32", False, 256, 27.7),
    Row("orin-nano-8-super", LLAMA32_3B, "int4_32", False, 256, 43.07),
]
