"""How long a model takes on a device: bytes over bandwidth, products over their rate (docs/PLANNING.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.geometry import SLOTS_PER_SECOND, vocoder_reach_frames
from ..quant.schemes import SCHEMES
from ..runtime.flow_stream import BlockPlan
from . import sizes
from .footprint import FRAMES_PER_SECOND, Setup

TALK_POSITIONS = 500  # in the backbone's cache while it speaks: 100 s of conversation
UNREAD_POSITIONS = 16  # of the prompt when the question ends: its last window of 2 s, and the marks behind it
MACS_SHARE = 0.5  # of the peak rate: published prefills on Orin reach 0.48 and 0.65
GPU_BANDWIDTH_SHARE = 0.85  # fitted, with the next, to four published decode rates on Orin
GPU_LAYER_US = 50.0  # what a layer costs beside its bytes
# ONNX Runtime's graphs, and the C++ decoders, on a CPU: fitted to what bench/plan.py measured on two AVX2 cores
CPU_BANDWIDTH_SHARE = {"graph": 1.0, "native": 0.85}  # of what was measured
CPU_MACS_SHARE = {"graph": (0.33, 0.18), "native": (0.7, 0.6)}  # of the float rate, of the int8 rate
CPU_LAYER_US = {"graph": 100.0, "native": 60.0}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work takes of a device."""

    num_bytes: float  # read from memory
    macs: float  # multiply-adds
    layers: float  # one after the other

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.num_bytes + other.num_bytes, self.macs + other.macs, self.layers + other.layers)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.num_bytes * times, self.macs * times, self.layers * times)


def milliseconds(setup: Setup, component: str, cost: Cost) -> float:
    """Bytes and products one after the other, since kernels that unpack integers overlap them little.

    But for the C++ decoders, which read ahead: the longer of the two.
    """
    device = setup.device
    if not device.is_cpu:
        read = cost.num_bytes / (GPU_BANDWIDTH_SHARE * device.bandwidth)
        multiply = cost.macs / (MACS_SHARE * device.macs)
        return (read + multiply) * 1e3 + cost.layers * GPU_LAYER_US * 1e-3
    integers, native = SCHEMES[setup.recipe[component]].quantize is not None, setup.is_native(component)
    kind = "native" if native else "graph"
    read = cost.num_bytes / (CPU_BANDWIDTH_SHARE[kind] * device.bandwidth)
    rates = zip(CPU_MACS_SHARE[kind], (device.macs, device.integer_macs), strict=True)
    multiply = cost.macs / [share * rate for share, rate in rates][integers]
    return (max(read, multiply) if native else read + multiply) * 1e3 + cost.layers * CPU_LAYER_US[kind] * 1e-3


def speech_costs(setup: Setup) -> dict[str, Cost]:
    """Component -> what a second of speech takes of it."""
    chat, plan = setup.config.chat, BlockPlan()
    steps = SLOTS_PER_SECOND / chat.group_size
    costs = {"backbone": step_cost(setup) * steps}
    costs |= {name: cost * steps for name, cost in group_costs(setup).items()}
    blocks = SLOTS_PER_SECOND / plan.chunk_tokens
    return costs | _sound_costs(setup, FRAMES_PER_SECOND / blocks, plan.left_frames, blocks)


def first_audio_costs(setup: Setup) -> dict[str, Cost]:
    """Component -> what lies between the end of the question and the first sample.

    The audio encoder's last window; what of the prompt was not read while the user spoke; the steps and groups that
    the flow's first block waits for; that block, and the vocoder on it.
    """
    chat, flow, plan = setup.config.chat, setup.config.flow, BlockPlan()
    window = sizes.audio_window_macs(chat.audio, chat.text.hidden_size)
    tokens = plan.first_ends[0] + (flow.pre_lookahead if flow else 0)
    steps = -(-tokens // chat.group_size)
    prompt, group = _prompt_group_costs(setup), group_costs(setup)
    frames = plan.first_ends[0] * (flow.token_mel_ratio if flow else 2)
    return {
        "audio_encoder": Cost(setup.weight_bytes("audio_encoder"), window, chat.audio.num_layers),
        "backbone": step_cost(setup, UNREAD_POSITIONS) + step_cost(setup) * steps,
        **{name: prompt[name] + group[name] * steps for name in group},
        **_sound_costs(setup, frames, 0, 1),
    }


def step_cost(setup: Setup, rows: int = 1, past: int = TALK_POSITIONS) -> Cost:
    """A call of the backbone over `rows` new positions that see `past`; the text head reads one of them."""
    text = setup.config.chat.text
    macs = rows * sizes.decoder_macs(text, 0, past) + text.vocab_size * text.hidden_size
    cached = sizes.cache_elements_per_position(text) * past * setup.item_bytes
    return Cost(_read_bytes(setup, "backbone", rows) + cached, macs, text.num_layers)


def group_costs(setup: Setup, past: int = TALK_POSITIONS) -> dict[str, Cost]:
    """A group of speech tokens: the upsampling once, the head `group_size` times."""
    return {
        "speech_upsampling": _upsampling_cost(setup, 1),
        "speech_head": _head_cost(setup, 1, past) * setup.config.chat.group_size,
    }


def _prompt_group_costs(setup: Setup) -> dict[str, Cost]:
    """The unread prompt through the head: all sub-positions but the last ones at once, those one by one."""
    alone = setup.config.chat.group_size - 1
    rows = UNREAD_POSITIONS * (alone + 1) - alone
    return {
        "speech_upsampling": _upsampling_cost(setup, UNREAD_POSITIONS),
        "speech_head": _head_cost(setup, rows, TALK_POSITIONS) + _head_cost(setup, 1, TALK_POSITIONS) * alone,
    }


def _upsampling_cost(setup: Setup, rows: int) -> Cost:
    macs = rows * sizes.weights(setup.config)["speech_upsampling"].matrices
    return Cost(_read_bytes(setup, "speech_upsampling", rows), macs, 1)


def _head_cost(setup: Setup, rows: int, past: int) -> Cost:
    """A call of the speech head that sees `past` backbone positions; logits of one row."""
    chat, speech = setup.config.chat, setup.config.chat.speech
    seen, inward = past * chat.group_size, chat.text.hidden_size * speech.hidden_size
    outward = inward + chat.codebook_size * chat.text.hidden_size
    macs = rows * sizes.decoder_macs(speech, inward, seen) + outward
    cached = sizes.cache_elements_per_position(speech) * seen * setup.item_bytes
    return Cost(_read_bytes(setup, "speech_head", rows) + cached, macs, speech.num_layers)


def _read_bytes(setup: Setup, component: str, rows: int) -> float:
    """Of the weights that a call reads: one row meets its experts only, but for floating-point graphs on a CPU."""
    runs_all = setup.device.is_cpu and not SCHEMES[setup.recipe[component]].quantize
    unread = sizes.weights(setup.config)[component].unread if rows == 1 and not runs_all else 0
    return setup.weight_bytes(component, unread)


def _sound_costs(setup: Setup, frames: float, left: int, blocks: float) -> dict[str, Cost]:
    """Flow and vocoder over `blocks` blocks of so many mel frames, with so many before them."""
    flow, vocoder = setup.config.flow, setup.config.vocoder
    if flow is None or vocoder is None:
        return {}
    passes = blocks * flow.num_steps
    read = passes * setup.weight_bytes("flow_estimator")
    read += blocks * sizes.flow_cache_elements(flow, left) * setup.item_bytes
    once_a_pass = passes * sizes.weights(setup.config)["flow_estimator"].kept  # the modulations, most of all
    macs = blocks * frames * sizes.flow_frame_macs(flow, left + frames) + once_a_pass
    again = vocoder_reach_frames(vocoder) if left else 0
    both = setup.weight_bytes("vocoder") + setup.weight_bytes("vocoder_source")
    heard = blocks * (frames + again) * sizes.vocoder_frame_macs(vocoder)
    return {
        "flow_estimator": Cost(read, macs, passes * flow.depth),
        "vocoder": Cost(blocks * both, heard, blocks * 3 * len(vocoder.upsample_rates)),
    }
