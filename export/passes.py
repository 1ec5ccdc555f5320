"""Rewrites of a traced graph before it is written."""

from __future__ import annotations

import numpy as np
import onnx_ir

SMALL_ELEMENTS = 1024  # biases and norms stay as they are


def store_as_float16(graph: onnx_ir.Model) -> None:
    """Stores float32 matrices as float16 with a Cast behind them; the arithmetic stays float32."""
    for value in list(graph.graph.initializers.values()):
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size <= SMALL_ELEMENTS:
            continue
        name = value.name
        assert name is not None
        stored = onnx_ir.Value(
            name=f"{name}.float16", shape=value.shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
        )
        stored.const_value = onnx_ir.LazyTensor(
            lambda tensor=tensor, name=name: onnx_ir.tensor(tensor.numpy().astype(np.float16), name=f"{name}.float16"),
            dtype=onnx_ir.DataType.FLOAT16,
            shape=tensor.shape,
            name=f"{name}.float16",
        )
        cast = onnx_ir.node("Cast", [stored], {"to": onnx_ir.DataType.FLOAT})
        cast.outputs[0].shape = value.shape
        onnx_ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.graph.initializers[name]
        graph.graph.initializers[stored.name] = stored
        graph.graph.insert_before(graph.graph[0], cast)
