"""ONNX Runtime's own form of integer matrices, MatMulNBits, with the integers of the native file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir
import torch
from facrt.export.passes import Reader
from facrt.quant.packing import quantize_int4, quantize_int8
from torch import Tensor

CONTRIB = "com.microsoft"
SCHEMES = {"int8": (8, 128), "int4_32": (4, 32), "int4_128": (4, 128)}  # bits, columns per scale


def quantize_matmuls(graph: onnx_ir.Model, readers: Mapping[str, Reader], precision: str) -> None:
    """Replaces the product with each transposed placeholder; activations are rounded to int8 (accuracy level 4)."""
    bits, block = SCHEMES[precision]
    packed: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}  # equal shapes are equal weights here
    for transpose in [node for node in graph.graph if node.op_type == "Transpose"]:
        weight = transpose.inputs[0]
        if weight is None or weight.name not in readers:
            continue
        assert weight.shape is not None
        rows, cols = weight.shape.numpy()
        if (rows, cols) not in packed:
            packed[rows, cols] = _pack(readers[weight.name](), precision, block)
        constants = [
            _constant(graph, f"{weight.name}.{part}", array)
            for part, array in zip(("packed", "scales"), packed[rows, cols], strict=True)
        ]
        attributes = {"K": cols, "N": rows, "bits": bits, "block_size": block, "accuracy_level": 4}
        for use in list(transpose.outputs[0].uses()):
            assert use.node.op_type == "MatMul", f"{weight.name} goes into {use.node.op_type}"
            product = onnx_ir.node("MatMulNBits", [use.node.inputs[0], *constants], attributes, domain=CONTRIB)
            old = use.node.outputs[0]
            product.outputs[0].shape, product.outputs[0].type = old.shape, old.type
            graph.graph.insert_before(use.node, product)
            onnx_ir.convenience.replace_all_uses_with(old, product.outputs[0])
            graph.graph.remove(use.node, safe=True)
        graph.graph.remove(transpose, safe=True)
    graph.graph.opset_imports[CONTRIB] = 1


def _constant(graph: onnx_ir.Model, name: str, array: np.ndarray) -> onnx_ir.Value:
    value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name))
    value.shape, value.type = onnx_ir.Shape(array.shape), onnx_ir.TensorType(onnx_ir.DataType.from_numpy(array.dtype))
    graph.graph.initializers.add(value)
    return value


def _pack(weight: Tensor, precision: str, block: int) -> tuple[np.ndarray, np.ndarray]:
    """weight [rows, cols] -> bytes [rows, blocks, bytes of a block], scales [rows, blocks]."""
    if precision == "int8":
        integers, scale = quantize_int8(weight)
        biased = (integers + 128).to(torch.uint8).unflatten(1, (-1, block))
        return biased.numpy(), scale.expand(-1, weight.shape[1] // block).contiguous().numpy()
    integers, scale = quantize_int4(weight, block)
    low, high = (integers + 8).to(torch.uint8).unflatten(1, (-1, block // 2, 2)).unbind(-1)
    return (low | high << 4).contiguous().numpy(), scale.contiguous().numpy()
