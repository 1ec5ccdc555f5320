"""How a graph's attention sees the past: one form per kind of backend (docs/SEMANTICS.md 4 for what they compute).

Each form is a `model.decoder.Attend` over a graph's cache inputs; after the pass, `outputs` holds the cache outputs.
Two cache layouts exist: "prefix" (past rows in, new rows out, the caller's buffer grows) and "static" (the whole
buffer in and out, at the same address, and `position` says where the new rows go). Queries, keys and values take the
caches' type, unless that is INT8, whose forms know the scales; what goes in and comes out is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.config import DecoderConfig
from ..model.decoder import Attend, attention, rotary_angles, rotate

MASKED = -1e4  # finite in float16 too


class GraphAttention(Attend, Protocol):
    """A form of attention and, after the pass, the caches that the graph returns."""

    outputs: list[Tensor]


class PrefixAttention:
    """Past rows concatenated with the new ones; subclasses differ in the operator."""

    def __init__(self, config: DecoderConfig, num_new: int, caches: Sequence[Tensor]) -> None:
        # caches: key, value per layer, each [P, num_kv_heads, head_dim]
        self.config = config
        self.caches = caches
        self.outputs: list[Tensor] = []  # new key, value rows per layer, each [S, num_kv_heads, head_dim]
        num_past = caches[0].shape[0]
        positions = torch.arange(num_new) + num_past
        self.angles = rotary_angles(positions, config)
        self.mask = torch.where(torch.arange(num_past + num_new)[None] <= positions[:, None], 0.0, MASKED)  # [S, P + S]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past_k, past_v = self.caches[2 * layer : 2 * layer + 2]
        dtype = past_k.dtype
        q, k, v = rotate(q, *self.angles).to(dtype), rotate(k, *self.angles).to(dtype), v.to(dtype)
        self.outputs += [k, v]
        return self.attend(q, torch.cat([past_k, k]), torch.cat([past_v, v])).float()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError


class Decomposed(PrefixAttention):
    """MatMul and Softmax: opset 18, every backend (JetPack 6's TensorRT 10.3)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, self.mask)


class DecomposedInt8(Decomposed):
    """The same over INT8 caches: one scale for a layer's keys and one for its values, as TensorRT takes them."""

    def __init__(self, config: DecoderConfig, num_new: int, caches: Sequence[Tensor], steps: Sequence[Tensor]) -> None:
        # steps: of key, value per layer, each [num_kv_heads * head_dim]
        super().__init__(config, num_new, caches)
        self.scales = [step.max() for step in steps]
        self.zero = torch.zeros((), dtype=torch.int8)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pasts, scales = self.caches[2 * layer : 2 * layer + 2], self.scales[2 * layer : 2 * layer + 2]
        whole = []
        for past, new, scale in zip(pasts, (rotate(k, *self.angles), v), scales, strict=True):
            integers = self._convert("QuantizeLinear", new, scale, torch.int8)
            self.outputs.append(integers)
            both = torch.cat([past, integers])
            whole.append(self._convert("DequantizeLinear", both, scale, torch.float32).half())
        return self.attend(rotate(q, *self.angles).half(), *whole).float()

    def _convert(self, operator: str, x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.onnx.ops.symbolic(operator, (x, scale, self.zero), dtype=dtype, shape=x.shape, version=13)


class Sdpa(PrefixAttention):
    """The ONNX `Attention` operator: opset 23."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, rows, head_dim]
        mask = self.mask[None, None].to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return y[0].transpose(0, 1).flatten(1)


class StaticAttention:
    """New rows written into a buffer of fixed length; subclasses differ in the operator."""

    def __init__(self, config: DecoderConfig, num_new: int, caches: Sequence[Tensor], position: Tensor) -> None:
        # caches: key, value per layer, each [1, num_kv_heads, T, head_dim]; position: [1] int64, rows already there
        self.config = config
        self.caches = caches
        self.position = position
        self.outputs: list[Tensor] = []  # the same buffers, updated
        self.positions = torch.arange(num_new) + position  # [S]
        self.angles = rotary_angles(self.positions, config)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past_k, past_v = self.caches[2 * layer : 2 * layer + 2]
        q, k, v = (x.to(past_k.dtype) for x in (rotate(q, *self.angles), rotate(k, *self.angles), v))
        y, new_k, new_v = self.attend(q, k, v, past_k, past_v)
        self.outputs += [new_k, new_v]
        return y.float()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


class Scatter(StaticAttention):
    """`TensorScatter` and `Attention` with an explicit mask: opset 24 (TensorRT-RTX ignores nonpad_kv_seqlen)."""

    def __init__(self, config: DecoderConfig, num_new: int, caches: Sequence[Tensor], position: Tensor) -> None:
        super().__init__(config, num_new, caches, position)
        visible = torch.arange(caches[0].shape[2])[None] <= self.positions[:, None]
        self.mask = torch.where(visible, 0.0, MASKED).to(caches[0].dtype)[None, None]  # [1, 1, S, T]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, S, head_dim]
        new_k, new_v = (
            torch.onnx.ops.symbolic(
                "TensorScatter", (past, new, self.position), {"axis": -2, "mode": "linear"},
                dtype=past.dtype, shape=past.shape, version=24,
            )
            for past, new in ((past_k, k), (past_v, v))
        )  # fmt: skip
        y = torch.onnx.ops.symbolic(
            "Attention", (q, new_k, new_v, self.mask), {}, dtype=q.dtype, shape=q.shape, version=24
        )
        return y[0].transpose(0, 1).flatten(1), new_k, new_v


class GroupQuery(StaticAttention):
    """ONNX Runtime's `GroupQueryAttention`, which updates a shared buffer in place."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, ...]:
        return self.run((q, k, v), (past_k, past_v))

    def run(
        self, new: Sequence[Tensor], past: Sequence[Tensor], more: Sequence[Tensor | None] = (), **attributes: str | int
    ) -> tuple[Tensor, ...]:
        total = (self.positions[-1:] + 1).to(torch.int32)
        flat = [x.flatten(1)[None] for x in new]  # q, k, v: [1, S, heads * head_dim]
        y, new_k, new_v = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (*flat, *past, total - 1, total[0], *more),
            {"num_heads": self.config.num_heads, "kv_num_heads": self.config.num_kv_heads, **attributes},
            dtypes=(flat[0].dtype, past[0].dtype, past[1].dtype),
            shapes=(flat[0].shape, past[0].shape, past[1].shape),
            version=1,
        )
        return y[0], new_k, new_v


class GroupQueryInt8(GroupQuery):
    """The same over INT8 caches with a scale per channel of each head; queries stay float32."""

    def __init__(
        self,
        config: DecoderConfig,
        num_new: int,
        caches: Sequence[Tensor],
        position: Tensor,
        steps: Sequence[Tensor],
    ) -> None:
        # steps: of key, value per layer, each [num_kv_heads * head_dim]
        super().__init__(config, num_new, caches, position)
        self.scales = [step.reshape(1, config.num_kv_heads, 1, config.head_dim) for step in steps]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past, scales = (of[2 * layer : 2 * layer + 2] for of in (self.caches, self.scales))
        y, *new_caches = self.run(
            (rotate(q, *self.angles), rotate(k, *self.angles), v),
            past,
            (*(None,) * 5, *scales),  # k_scale and v_scale are the 13th and 14th input
            k_quant_type="PER_CHANNEL",
            v_quant_type="PER_CHANNEL",
            kv_cache_bit_width=8,
        )
        self.outputs += new_caches
        return y


FORMS: dict[str, Callable[..., GraphAttention]] = {
    form.__name__: form for form in (Decomposed, Sdpa, Scatter, GroupQuery)
}
# name of a form -> that form over INT8 caches, where there is one
INT8_FORMS: dict[str, Callable[..., GraphAttention]] = {"Decomposed": DecomposedInt8, "GroupQuery": GroupQueryInt8}
