"""Linear layers of a traced graph -> operators on packed integers, in the forms that ONNX Runtime's CPU runs fast.

Weight-only schemes become `com.microsoft::MatMulNBits`, written directly: packed on disk and in memory, whatever a
session's optimizer does. Schemes with INT8 activations become Q/DQ around MatMul.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
import torch
import torch.nn.functional as F
from onnx_ir import DataType, Node, Value
from torch import Tensor

from ..quant.schemes import SCHEMES, Quantized, Scheme
from .passes import CONTRIB

Reader = Callable[[], Tensor]
ROWS_AT_ONCE = 1024  # of a matrix, while it is quantized
INT8_BLOCKS = (128, 64, 32, 16)  # columns per scale in MatMulNBits, where the scheme has one scale per row
SCALE_BYTES = 4
ACCURACY_LEVEL = 4  # activations rounded to INT8 per block: the only level with fast kernels for 8 bits
NOT_CHOSEN = -1e4  # logit of an expert that a row does not go through


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight to be stored as integers."""

    scheme: Scheme
    read: Reader  # [rows, cols] float32
    activation_scale: float | None = None  # of the input, for schemes that quantize it


# initializer name, matrix, rows, cols, input, bias -> nodes and their initializers; the last node is the product
Product = Callable[[str, Matrix, int, int, Value, Value | None], tuple[list[Node], list[Value]]]


def quantize(graph: onnx_ir.Model, matrices: Mapping[str, Matrix], product: Product) -> None:
    """Replaces every product with one of `matrices` (initializer name -> matrix) and deletes the float initializer.

    Matrices that the graph does not use are left alone.

    Args:
        product: how a product with integers is written.
    """
    for node in list(graph.graph):
        if node.op_type == "Gemm" and _name(node.inputs[1]) in matrices:
            assert node.attributes["transB"].as_int() == 1
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            _replace(graph, node, node.inputs[0], bias, node.inputs[1], matrices, product)
        elif node.op_type == "Transpose" and _name(node.inputs[0]) in matrices:
            for used, _ in list(node.outputs[0].uses()):
                assert used.op_type == "MatMul"
                _replace(graph, used, used.inputs[0], None, node.inputs[0], matrices, product)
            graph.graph.remove(node, safe=True)
    for name in set(matrices) & set(graph.graph.initializers):
        assert not graph.graph.initializers[name].uses(), f"{name} has another use than a product"
        del graph.graph.initializers[name]


def experts_as_operator(x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """A `model.decoder.Mix` that stays one operator in the graph, for `quantize_experts` to fill.

    ONNX Runtime's `QMoE` runs the experts that are chosen and reads no others. It takes the softmax of the k largest
    logits as shares, so the shares' logarithms go in, and what they sum up to is multiplied afterwards.
    """
    num_experts, num_chosen = gate_up.shape[0], chosen.shape[1]
    logits = torch.full((x.shape[0], num_experts), NOT_CHOSEN, dtype=x.dtype).scatter(1, chosen, weights.log())
    attributes: dict[str, Any] = {
        "k": num_chosen, "activation_type": "swiglu", "swiglu_fusion": 1, "normalize_routing_weights": 1,
        "activation_alpha": 1.0, "activation_beta": 0.0,
    }  # fmt: skip
    y = torch.onnx.ops.symbolic(
        f"{CONTRIB}::QMoE", (x, logits, gate_up, down), attributes, dtype=x.dtype, shape=x.shape, version=1
    )
    return y * weights.sum(1, keepdim=True)


def quantize_experts(graph: onnx_ir.Model, scheme: Scheme, read: Callable[[str], Reader]) -> None:
    """Gives every `QMoE` its integers.

    Args:
        graph: traced with `experts_as_operator`.
        scheme: of both matrices of every expert; where blocks do not divide their columns, a scale per row in INT8.
        read: initializer name -> what reads it: gate_up [E, 2 * I, H], down [E, H, I].
    """
    for node in [node for node in graph.graph if node.op_type == "QMoE"]:
        x, logits, *weights = node.inputs
        widths = [int(weight.shape.numpy()[2]) for weight in weights if weight is not None and weight.shape is not None]
        fits = scheme.block and not any(width % scheme.block for width in widths)
        form = scheme if fits else SCHEMES["int8"]
        inputs: list[Value | None] = [x, logits]
        for weight, interleave in zip(weights, (True, False), strict=True):
            assert weight is not None and weight.shape is not None  # noqa: PT018
            sizes = tuple(int(size) for size in weight.shape.numpy())
            values, scales = _expert_parts(_name(weight), form, sizes, read(_name(weight)), interleave)
            graph.graph.initializers.update({_name(value): value for value in (values, scales)})
            inputs += [values, scales, None]
        attributes = {**node.attributes, "expert_weight_bits": onnx_ir.AttrInt64("expert_weight_bits", form.bits)}
        if form.block:
            attributes["block_size"] = onnx_ir.AttrInt64("block_size", form.block)
        filled = onnx_ir.Node(CONTRIB, "QMoE", inputs[:-1], list(attributes.values()), num_outputs=1)
        old, new = node.outputs[0], filled.outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
        graph.graph.insert_before(node, filled)
        onnx_ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.graph.remove(node, safe=True)
        for weight in weights:
            del graph.graph.initializers[_name(weight)]


def _expert_parts(
    name: str, scheme: Scheme, sizes: tuple[int, ...], read: Reader, interleave: bool
) -> tuple[Value, Value]:
    num_experts, rows, cols = sizes
    blocks = (cols // scheme.block,) if scheme.block else ()

    def pack() -> tuple[np.ndarray, np.ndarray]:
        packed, scales = zip(*(_pack_expert(scheme, weight, interleave) for weight in read()), strict=True)
        return np.stack(packed), np.stack(scales).reshape(num_experts, rows, *blocks)

    parts = _Once(pack)
    shape = (num_experts, rows, cols * scheme.bits // 8)
    return (
        _lazy(f"{name}.packed", DataType.UINT8, shape, lambda: parts(0)),
        _lazy(f"{name}.scales", DataType.FLOAT, (num_experts, rows, *blocks), lambda: parts(1)),
    )


def _pack_expert(scheme: Scheme, weight: Tensor, interleave: bool) -> tuple[np.ndarray, np.ndarray]:
    """One expert's matrix; the operator wants rows of gate and up in turn."""
    if interleave:
        weight = weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
    packed, scales = pack_nbits(scheme, weight, scheme.block or weight.shape[1])
    return packed.reshape(len(weight), -1), scales


def _name(value: Value | None) -> str:
    return (value.name if value is not None else None) or ""


def _replace(
    graph: onnx_ir.Model,
    old_product: Node,
    x: Value | None,
    bias: Value | None,
    weight: Value | None,
    matrices: Mapping[str, Matrix],
    product: Product,
) -> None:
    assert x is not None and weight is not None and weight.shape is not None  # noqa: PT018
    matrix, name = matrices[_name(weight)], _name(weight)
    rows, cols = (int(size) for size in weight.shape.numpy())
    nodes, initializers = product(name, matrix, rows, cols, x, bias)
    for value in initializers:
        graph.graph.initializers[_name(value)] = value
    old, new = old_product.outputs[0], nodes[-1].outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    graph.graph.insert_before(old_product, nodes)
    onnx_ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.graph.remove(old_product, safe=True)


def packed_product(
    name: str, matrix: Matrix, rows: int, cols: int, x: Value, bias: Value | None
) -> tuple[list[Node], list[Value]]:
    """A product as ONNX Runtime's CPU runs it fast, in float32 arithmetic."""
    write = _with_activations if matrix.scheme.quantizes_activations else _nbits
    return write(name, matrix, rows, cols, x, bias)


def _nbits(
    name: str, matrix: Matrix, rows: int, cols: int, x: Value, bias: Value | None
) -> tuple[list[Node], list[Value]]:
    bits = matrix.scheme.bits
    block = nbits_block(matrix.scheme, cols)
    blocks = -(-cols // block)
    parts = _Once(lambda: pack_nbits(matrix.scheme, matrix.read(), block))
    packed = _lazy(f"{name}.packed", DataType.UINT8, (rows, blocks, block * bits // 8), lambda: parts(0))
    scales = _lazy(f"{name}.scales", DataType.FLOAT, (rows, blocks), lambda: parts(1))
    inputs = [x, packed, scales] + ([None, None, bias] if bias is not None else [])
    attributes = {"K": cols, "N": rows, "bits": bits, "block_size": block, "accuracy_level": ACCURACY_LEVEL}
    return [onnx_ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB)], [packed, scales]


def nbits_block(scheme: Scheme, cols: int) -> int:
    """Columns per scale as the operator sees them: the scheme's, or what takes the fewest bytes with its padding."""
    return scheme.block or min(INT8_BLOCKS, key=lambda block: -(-cols // block) * (block + SCALE_BYTES))


def pack_nbits(scheme: Scheme, weight: Tensor, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight [rows, cols] -> bytes [rows, blocks, block * bits / 8], low nibble first, and scales [rows, blocks]."""
    parts = [_pack_rows(scheme, quantized, block) for quantized in quantized_rows(scheme, weight)]
    packed, scales = zip(*parts, strict=True)
    return np.concatenate(packed), np.concatenate(scales)


def quantized_rows(scheme: Scheme, weight: Tensor) -> Iterator[Quantized]:
    """The matrix, a few rows at a time."""
    assert scheme.quantize is not None
    for first in range(0, weight.shape[0], ROWS_AT_ONCE):
        yield scheme.quantize(weight[first : first + ROWS_AT_ONCE])


def _pack_rows(scheme: Scheme, quantized: Quantized, block: int) -> tuple[np.ndarray, np.ndarray]:
    cols = quantized.values.shape[1]
    padded = F.pad(quantized.values, (0, -cols % block)).to(torch.int16) + (1 << (scheme.bits - 1))
    codes = padded.to(torch.uint8).unflatten(1, (-1, block))
    if scheme.bits == 4:
        codes = codes[..., 0::2] | codes[..., 1::2] << 4
    scales = quantized.scales.expand(-1, codes.shape[1])
    return codes.numpy(), scales.contiguous().numpy()


def _with_activations(
    name: str, matrix: Matrix, rows: int, cols: int, x: Value, bias: Value | None
) -> tuple[list[Node], list[Value]]:
    assert matrix.activation_scale is not None
    parts = _Once(lambda: _transposed(matrix))
    weight = _lazy(f"{name}.int8", DataType.INT8, (cols, rows), lambda: parts(0))
    scales = _lazy(f"{name}.scales", DataType.FLOAT, (rows,), lambda: parts(1))
    step = _constant(f"{name}.input_scale", np.float32(matrix.activation_scale))
    zero = _constant(f"{name}.input_zero", np.int8(0))
    zeros = _constant(f"{name}.zeros", np.zeros(rows, np.int8))
    rounded = onnx_ir.node("QuantizeLinear", [x, step, zero])
    restored = onnx_ir.node("DequantizeLinear", [rounded.outputs[0], step, zero])
    dequantized = onnx_ir.node("DequantizeLinear", [weight, scales, zeros], {"axis": 1})
    nodes = [rounded, restored, dequantized]
    nodes.append(onnx_ir.node("MatMul", [restored.outputs[0], dequantized.outputs[0]]))
    if bias is not None:
        nodes.append(onnx_ir.node("Add", [nodes[-1].outputs[0], bias]))
    return nodes, [weight, scales, step, zero, zeros]


def _transposed(matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    parts = list(quantized_rows(matrix.scheme, matrix.read()))
    values = torch.cat([part.values for part in parts]).T.contiguous()
    return values.numpy(), torch.cat([part.scales[:, 0] for part in parts]).numpy()


def quantize_convolutions(graph: onnx_ir.Model, scheme: Scheme) -> None:
    """Stores every Conv weight as INT8 with a scale per output channel, dequantized before the convolution."""
    for node in list(graph.graph):
        weight = node.inputs[1] if node.op_type == "Conv" else None
        if weight is None or weight.const_value is None or len(weight.uses()) != 1:
            continue
        assert scheme.quantize is not None
        values = torch.from_numpy(weight.const_value.numpy().copy())
        quantized = scheme.quantize(values.flatten(1))
        stored = _constant(f"{weight.name}.int8", quantized.values.view(values.shape).numpy())
        steps = torch.where(quantized.scales == 0, 1.0, quantized.scales)  # TensorRT refuses zeros
        scales = _constant(f"{weight.name}.scales", steps[:, 0].numpy())
        zeros = _constant(f"{weight.name}.zeros", np.zeros(values.shape[0], np.int8))
        dequantize = onnx_ir.node("DequantizeLinear", [stored, scales, zeros], {"axis": 0})
        dequantize.outputs[0].shape, dequantize.outputs[0].type = weight.shape, weight.type
        for value in (stored, scales, zeros):
            graph.graph.initializers[_name(value)] = value
        del graph.graph.initializers[_name(weight)]
        graph.graph.insert_before(node, dequantize)
        node.replace_input_with(1, dequantize.outputs[0])


class _Once:
    """Parts computed together and asked for one after the other: each is handed out once, then forgotten."""

    def __init__(self, compute: Callable[[], tuple[np.ndarray, ...]]) -> None:
        self._compute = compute
        self._parts: dict[int, np.ndarray] = {}

    def __call__(self, index: int) -> np.ndarray:
        if index not in self._parts:
            self._parts = dict(enumerate(self._compute()))
        return self._parts.pop(index)


def _lazy(name: str, dtype: DataType, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> Value:
    value = Value(name=name, shape=onnx_ir.Shape(shape), type=onnx_ir.TensorType(dtype))
    value.const_value = onnx_ir.LazyTensor(
        lambda: onnx_ir.tensor(read(), name=name), dtype=dtype, shape=onnx_ir.Shape(shape), name=name
    )
    return value


def _constant(name: str, array: np.ndarray | np.generic) -> Value:
    tensor = onnx_ir.tensor(np.asarray(array), name=name)
    shape = onnx_ir.Shape(tensor.shape.numpy())
    return Value(name=name, shape=shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)
