"""Rewrites of a traced graph before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

Reader = Callable[[], Tensor]

SMALL_ELEMENTS = 1024  # biases and norms stay as they are
CONTRIB = "com.microsoft"
DEQUANTIZE_OPSET = 21


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


def compute_in_float16(graph: onnx_ir.Model) -> None:
    """Products and convolutions with a stored weight take float16 and give float32; tables are float16.

    What lies between them stays float32: norms, softmax, residual sums, attention over activations. Routers of experts
    too, since rounding there chooses another expert.
    """
    for node in list(graph.graph):
        data = 0 if node.op_type == "Gather" else 1
        if node.op_type not in ("MatMul", "Gemm", "Conv", "Gather") or len(node.inputs) <= data:
            continue
        weight = node.inputs[data]
        tensor = weight.const_value if weight is not None else None
        if weight is None or tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size <= SMALL_ELEMENTS:
            continue
        if ".router." in (weight.name or ""):
            continue
        bias = node.inputs[2] if node.op_type in ("Gemm", "Conv") and len(node.inputs) > 2 else None
        for i, value in enumerate(node.inputs):
            if value is not None and (i == data or value is bias):
                node.replace_input_with(i, _stored_as_float16(graph, value))
            elif value is not None and node.op_type != "Gather":
                node.replace_input_with(i, _cast_before(graph, node, value))
        _cast_behind(graph, node)


def _stored_as_float16(graph: onnx_ir.Model, value: onnx_ir.Value) -> onnx_ir.Value:
    """The initializer in float16; the float32 one goes when nothing uses it any more."""
    initializers = graph.graph.initializers
    assert value.name is not None and value.const_value is not None  # noqa: PT018
    name = f"{value.name}.float16"
    if name not in initializers:
        initializers.add(_as_float16(name, value.const_value))
    return initializers[name]


def _cast_before(graph: onnx_ir.Model, node: onnx_ir.Node, value: onnx_ir.Value) -> onnx_ir.Value:
    producer = value.producer()
    if producer is not None and producer.op_type == "Cast":
        source = producer.inputs[0]
        if source is not None and source.dtype == onnx_ir.DataType.FLOAT16:
            return source
    cast = onnx_ir.node("Cast", [value], {"to": onnx_ir.DataType.FLOAT16})
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
    graph.graph.insert_before(node, cast)
    return cast.outputs[0]


def _cast_behind(graph: onnx_ir.Model, node: onnx_ir.Node) -> None:
    half = node.outputs[0]
    cast = onnx_ir.node("Cast", [half], {"to": onnx_ir.DataType.FLOAT})
    full = cast.outputs[0]
    full.name, full.shape, full.type = half.name, half.shape, half.type
    half.name, half.type = f"{half.name}.half", onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
    onnx_ir.convenience.replace_all_uses_with(half, full, replace_graph_outputs=True)
    cast.replace_input_with(0, half)
    graph.graph.insert_after(node, cast)


def drop_unused(graph: onnx_ir.Model) -> None:
    """Removes nodes and initializers that nothing reads any more."""
    RemoveUnusedNodesPass()(graph)


def declare_opsets(graph: onnx_ir.Model) -> None:
    """Names what the rewrites brought in: ONNX Runtime's own operators; the opset with float16 scales, INT4, blocks."""
    if any(node.domain == CONTRIB for node in graph.graph):
        graph.graph.opset_imports.setdefault(CONTRIB, 1)
    if any(node.op_type == "DequantizeLinear" for node in graph.graph):
        graph.graph.opset_imports[""] = max(graph.graph.opset_imports[""], DEQUANTIZE_OPSET)
