"""Rewrites of a traced graph before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from torch import Tensor

Reader = Callable[[], Tensor]

SMALL_ELEMENTS = 1024  # biases and norms stay as they are


def fill(graph: onnx_ir.Model, readers: Mapping[str, Reader]) -> None:
    """Gives placeholders their content, which is read only when the file is written.

    A transposed placeholder becomes an initializer of its own, so that no session transposes weights when it loads.

    Args:
        graph: from `trace`.
        readers: parameter name -> what reads it; parameters that the graph does not use are left alone.
    """
    initializers = graph.graph.initializers
    for node in list(graph.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        read = readers.get(source.name or "") if source is not None else None
        if source is not None and read is not None:
            perm = tuple(node.attributes["perm"].as_ints())
            name = f"{source.name}.transposed"
            if name not in initializers:
                assert source.shape is not None
                shape = onnx_ir.Shape([source.shape[axis] for axis in perm])
                initializers.add(_lazy(name, shape, _permuted(read, perm)))
            onnx_ir.convenience.replace_all_uses_with(node.outputs[0], initializers[name])
            graph.graph.remove(node, safe=True)
    for name, read in readers.items():
        if name in initializers:
            value = initializers[name]
            if not value.uses():
                del initializers[name]
                continue
            assert value.shape is not None
            value.const_value = _lazy(name, value.shape, read).const_value


def _permuted(read: Reader, perm: tuple[int, ...]) -> Reader:
    return lambda: read().permute(perm).contiguous()


def _lazy(name: str, shape: onnx_ir.Shape, read: Reader) -> onnx_ir.Value:
    value = onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    value.const_value = onnx_ir.LazyTensor(
        lambda: onnx_ir.tensor(read().numpy(), name=name), dtype=onnx_ir.DataType.FLOAT, shape=shape, name=name
    )
    return value


def store_as_float16(graph: onnx_ir.Model) -> None:
    """Stores float32 matrices as float16 with a Cast behind them; the arithmetic stays float32.

    Scales of integers stay as they are: they are part of what the integers mean.
    """
    initializers = graph.graph.initializers
    for name, value in list(initializers.items()):
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype == onnx_ir.DataType.FLOAT and tensor.size > SMALL_ELEMENTS and not name.endswith(".scales"):
            stored = _as_float16(f"{name}.float16", tensor)
            cast = onnx_ir.node("Cast", [stored], {"to": onnx_ir.DataType.FLOAT})
            cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
            onnx_ir.convenience.replace_all_uses_with(value, cast.outputs[0])
            del initializers[name]
            initializers.add(stored)
            graph.graph.insert_before(graph.graph[0], cast)


def _as_float16(name: str, tensor: onnx_ir.TensorProtocol) -> onnx_ir.Value:
    def convert() -> onnx_ir.TensorProtocol:
        return onnx_ir.tensor(tensor.numpy().astype(np.float16), name=name)

    shape = onnx_ir.Shape(tensor.shape.numpy())
    value = onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT16))
    value.const_value = onnx_ir.LazyTensor(convert, dtype=onnx_ir.DataType.FLOAT16, shape=shape, name=name)
    return value
