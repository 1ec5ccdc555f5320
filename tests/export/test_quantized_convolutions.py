"""Convolutions in INT8: stored as integers, dequantized before the convolution, an error within half a step."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
from facrt.export.passes import store_as_float16
from facrt.export.quantized import quantize_convolutions
from facrt.quant.schemes import SCHEMES
from onnx import TensorProto, helper, numpy_helper

CHANNELS, WIDTH, KERNEL = 32, 24, 7


def convolution(weight: np.ndarray) -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None]) for name in ("x", "y")]
    node = helper.make_node("Conv", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "conv", tensors[:1], tensors[1:], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_convolutions() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((CHANNELS, WIDTH, KERNEL)).astype(np.float32)
    weight *= np.logspace(-2, 2, CHANNELS, dtype=np.float32)[:, None, None]
    x = random.standard_normal((1, WIDTH, 40)).astype(np.float32)
    plain = convolution(weight)
    model = onnx_ir.serde.deserialize_model(plain)
    quantize_convolutions(model, SCHEMES["int8"])
    store_as_float16(model)
    stored = {name: value.const_value for name, value in model.graph.initializers.items() if value.const_value}
    assert {name: tensor.dtype.name for name, tensor in stored.items()} == {
        "weight.int8": "INT8", "weight.scales": "FLOAT", "weight.zeros": "INT8",
    }  # fmt: skip
    step = np.abs(weight).max((1, 2)) / 127
    back = stored["weight.int8"].numpy() * step[:, None, None]
    assert (np.abs(back - weight) <= step[:, None, None] * 0.501).all()
    wanted, found = (
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (plain, onnx_ir.serde.serialize_model(model))
    )
    error = np.linalg.norm(found - wanted, axis=2) / np.linalg.norm(wanted, axis=2)
    assert 0 < error.max() < 0.02
