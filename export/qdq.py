"""Linear layers as TensorRT takes them: integers and scales through DequantizeLinear, arithmetic in float16.

Weight-only schemes dequantize the weight before a float16 MatMul; schemes with activations round the input too. A
zero point is written only where ONNX needs one to know a type: TensorRT takes none but zero.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir
import torch
from onnx_ir import DataType, Node, Value

from ..quant.schemes import FP8_LIMIT, INT8_LIMIT, SCHEMES, Scheme
from .quantized import Matrix, _constant, _lazy, _Once, quantized_rows

STORED = {8: (DataType.INT8, np.dtype(np.int8)), 4: (DataType.INT4, np.dtype(ml_dtypes.int4))}
FP8 = (DataType.FLOAT8E4M3FN, np.dtype(ml_dtypes.float8_e4m3fn))


def dequantized_product(
    name: str, matrix: Matrix, rows: int, cols: int, x: Value, bias: Value | None
) -> tuple[list[Node], list[Value]]:
    """The nodes of y = x @ weight.T + bias, x and y float32, and their initializers.

    A matrix whose columns the scheme's blocks do not divide is stored with one scale per row, in INT8.
    """
    scheme = matrix.scheme if cols % (matrix.scheme.block or 1) == 0 else SCHEMES["int8"]
    dtype, _ = stored = FP8 if scheme.name == "fp8" else STORED[scheme.bits]
    parts = _Once(lambda: _columns_first(scheme, matrix.read, stored))
    scale_shape = (cols // scheme.block, rows) if scheme.block else (rows,)
    weight = _lazy(f"{name}.{dtype.name.lower()}", dtype, (cols, rows), lambda: parts(0))
    scales = _lazy(f"{name}.scales", DataType.FLOAT16, scale_shape, lambda: parts(1))
    along = {"axis": 0, "block_size": scheme.block} if scheme.block else {"axis": 1}
    half = onnx_ir.node("Cast", [x], {"to": DataType.FLOAT16})
    dequantize = onnx_ir.node("DequantizeLinear", [weight, scales], along)
    rounding, constants = _rounded(name, matrix, scheme, half.outputs[0]) if scheme.quantizes_activations else ([], [])
    given = rounding[-1].outputs[0] if rounding else half.outputs[0]
    product = onnx_ir.node("MatMul", [given, dequantize.outputs[0]])
    nodes = [half, *rounding, dequantize, product, onnx_ir.node("Cast", [product.outputs[0]], {"to": DataType.FLOAT})]
    if bias is not None:
        nodes.append(onnx_ir.node("Add", [nodes[-1].outputs[0], bias]))
    return nodes, [weight, scales, *constants]


def _rounded(name: str, matrix: Matrix, scheme: Scheme, x: Value) -> tuple[list[Node], list[Value]]:
    assert matrix.activation_scale is not None
    step, kind = (matrix.activation_scale * INT8_LIMIT / FP8_LIMIT, FP8[1]) if scheme.name == "fp8" else (
        matrix.activation_scale, STORED[8][1]
    )  # fmt: skip
    scale = _constant(f"{name}.input_scale", np.float16(max(step, float(np.finfo(np.float16).smallest_subnormal))))
    zero = _constant(f"{name}.input_zero", np.zeros((), kind))
    down = onnx_ir.node("QuantizeLinear", [x, scale, zero])
    return [down, onnx_ir.node("DequantizeLinear", [down.outputs[0], scale, zero])], [scale, zero]


def _nonzero(scales: np.ndarray) -> np.ndarray:
    """Scales in float16; TensorRT refuses zeros, which stand for a row of zeros or for less than float16 can hold."""
    halves, tiny = scales.astype(np.float16), np.finfo(np.float16).smallest_subnormal
    return np.where(halves == 0, np.where(scales < 0, -tiny, tiny), halves).astype(np.float16)


def _columns_first(
    scheme: Scheme, read: Callable[[], torch.Tensor], stored: tuple[DataType, np.dtype]
) -> tuple[np.ndarray, np.ndarray]:
    """The weight [cols, rows] and its scales, [rows] or [blocks, rows], rows quantized a few at a time."""
    parts = list(quantized_rows(scheme, read()))
    values = torch.cat([part.values.view(torch.int8) for part in parts]).T.contiguous().numpy()
    scales = _nonzero(torch.cat([part.scales for part in parts]).T.contiguous().numpy())
    as_stored = values.view(stored[1]) if stored is FP8 else values.astype(stored[1])
    return as_stored, scales if scheme.block else scales[0]
