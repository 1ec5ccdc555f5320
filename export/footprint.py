"""What a model weighs on a device: memory by part, and the memory of its build (docs/PLANNING.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..model.components import PREFILL_ROWS, ModelConfig
from ..model.geometry import vocoder_reach_frames
from ..quant.schemes import SCHEMES
from ..runtime.flow_stream import BlockPlan
from . import sizes
from .devices import Device
from .memory import compiler_bytes

FRAMES_PER_SECOND = 50
GRAPH_INT8_BLOCK = 128  # export/quantized.py: MatMulNBits repeats a row's scale
CPU_RUNTIME_BYTES = 200 << 20  # Python, numpy, ONNX Runtime; measured, rounded up
GPU_RUNTIME_BYTES = 800 << 20  # the same, and a CUDA context with TensorRT's libraries: an assumption
EXPORT_FACTOR, EXPORT_BYTES = 2.0, 500 << 20  # an export: peak per byte of its largest tensor in float32, and beside it


@dataclass(frozen=True, slots=True)
class Setup:
    """A model on a device in a recipe."""

    config: ModelConfig
    device: Device
    recipe: Mapping[str, str]  # component -> scheme

    @property
    def item_bytes(self) -> int:
        """Of an activation, and of a number in a cache."""
        return 4 if self.device.is_cpu else 2

    def is_native(self, component: str) -> bool:
        """Whether the C++ decoders run it: on a CPU, where it has no experts."""
        chat = self.config.chat
        decoders = {"backbone": chat.text, "speech_upsampling": chat.speech, "speech_head": chat.speech}
        return self.device.is_cpu and component in decoders and not decoders[component].num_experts

    def bytes_per_weight(self, component: str) -> float:
        """Of a matrix in memory, its scales included.

        A GPU and the native decoders have float16 scales; graphs on a CPU have float32 ones, and unfold fp16.
        The native decoders keep 16-bit numbers, which released weights are, in 16 bits under fp32 too.
        """
        scheme = SCHEMES[self.recipe[component]]
        in_graph = self.device.is_cpu and not self.is_native(component)
        if not scheme.quantize:
            return 2.0 if self.is_native(component) or (scheme.name == "fp16" and not in_graph) else 4.0
        block = scheme.block or (GRAPH_INT8_BLOCK if in_graph else 0)
        return scheme.bits / 8 + ((4 if in_graph else 2) / block if block else 0.0)

    def kept_bytes(self, component: str) -> int:
        """Of a weight that no scheme turns into an integer."""
        return 4 if self.device.is_cpu or self.recipe[component] == "fp32" else 2

    def weight_bytes(self, component: str, unread: int = 0) -> float:
        """Of a component in memory, less `unread` of its matrices' weights."""
        held = sizes.weights(self.config)[component]
        return (held.matrices - unread) * self.bytes_per_weight(component) + held.kept * self.kept_bytes(component)


def memory(setup: Setup, positions: int) -> dict[str, Any]:
    """Bytes by part, ready for JSON.

    Returns:
        "weights" and "caches" (by component), "tables", "workspace", "runtime", and "host": tables that lie in the
        computer's memory beside a card's.
    """
    chat, item, unified = setup.config.chat, setup.item_bytes, setup.device.unified
    table_bytes = sum(sizes.table_elements(chat).values()) * (4 if setup.recipe["backbone"] == "fp32" else 2)
    caches = {
        "backbone": sizes.cache_elements_per_position(chat.text) * positions * item,
        "speech_head": sizes.cache_elements_per_position(chat.speech) * chat.group_size * positions * item,
    }
    if setup.config.flow is not None:
        caches["flow_estimator"] = 2 * sizes.flow_cache_elements(setup.config.flow, BlockPlan().left_frames) * item
    return {
        "weights": {name: int(setup.weight_bytes(name)) for name in sizes.weights(setup.config)},
        "caches": caches,
        "tables": table_bytes if unified else 0,
        "workspace": _workspace_elements(setup.config, positions) * item,
        "runtime": CPU_RUNTIME_BYTES if setup.device.is_cpu else GPU_RUNTIME_BYTES,
        "host": 0 if unified else table_bytes,
    }


def total(parts: Mapping[str, Any]) -> int:
    """The bytes of `memory` that the device's own memory must hold."""
    sums = sum(parts["weights"].values()) + sum(parts["caches"].values())
    return int(sums + parts["tables"] + parts["workspace"] + parts["runtime"])


def _workspace_elements(config: ModelConfig, positions: int) -> int:
    """Activations of the two largest pieces of work: a chunk of the prompt, and a block of the vocoder."""
    text = config.chat.text
    inner = max(text.intermediate_size, text.expert_intermediate_size * text.num_experts_per_token)
    row = 4 * text.hidden_size + 3 * inner + (text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    elements = PREFILL_ROWS * (row + text.num_heads * positions) + 2 * text.vocab_size
    if config.vocoder is not None:
        frames = FRAMES_PER_SECOND + vocoder_reach_frames(config.vocoder)
        width, rate, widest = config.vocoder.base_channels, 1, 0
        for up in config.vocoder.upsample_rates:
            width, rate = width // 2, rate * up
            widest = max(widest, width * rate)
        elements += 6 * frames * widest
    return elements


def build(setup: Setup, usable_bytes: int) -> dict[str, Any]:
    """Peak memory of compiling: where, for which part, and whether it fits where the device itself compiles.

    A TensorRT build holds a graph several times; an export to the CPU holds one tensor in float32 twice.
    """
    on_device = setup.device.target not in ("cpu", "rtx")
    found = {"where": "on the device" if on_device else "on the machine that exports"}
    if setup.device.is_cpu:
        text = setup.config.chat.text
        needed, part = EXPORT_BYTES + int(EXPORT_FACTOR * 4 * text.vocab_size * text.hidden_size), "text table"
    else:
        names = sizes.weights(setup.config)
        part = max(names, key=setup.weight_bytes)
        needed = compiler_bytes(setup.weight_bytes(part))
    fits = needed <= usable_bytes if on_device and setup.device.unified else None
    return {**found, "part": part, "bytes": needed, "fits": fits}
