"""A component's module -> its ONNX graph, with inputs, axes and states as the table says."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set

import onnx_ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.export import Dim

from ..model.backbone import Backbone
from ..model.components import Component, TensorSpec
from ..model.decoder import Mix, MixtureOfExperts, run_all_experts
from ..model.speech_head import SpeechHead
from .attention import FORMS, INT8_FORMS
from .targets import Target

EXAMPLE_LENGTHS = {"past": 9, "capacity": 32, "new": 3, "windows": 2, "frames": 24, "tokens": 12, "samples": 24}


class DecoderGraph(nn.Module):
    """The backbone, or the speech head, as a function of its caches."""

    def __init__(self, module: Backbone | SpeechHead, target: Target, cache_steps: Sequence[Tensor] = ()) -> None:
        # cache_steps: of an INT8 cache's key, value per layer, each [num_kv_heads * head_dim]
        super().__init__()
        self.module = module
        self.target = target
        self.cache_steps = [f"cache_step_{i}" for i in range(len(cache_steps))]
        for name, step in zip(self.cache_steps, cache_steps, strict=True):
            self.register_buffer(name, step, persistent=False)

    def forward(self, x: Tensor, *rest: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # rest: position where the cache layout has one, then the caches
        *position, caches = rest
        steps = [self.get_buffer(name) for name in self.cache_steps]
        form, scales = (INT8_FORMS, (steps,)) if steps else (FORMS, ())
        attend = form[self.target.attention](self.module.decoder.config, x.shape[0], caches, *position, *scales)
        y = self.module(x, attend)
        return (*(y if isinstance(y, tuple) else (y,)), *attend.outputs)


class StepGraph(nn.Module):
    """A streaming module's `step` as a function of its state."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.module.step(*inputs)  # type: ignore[operator]


def trace(
    module: nn.Module,
    component: Component,
    target: Target,
    example: Mapping[str, int],
    placeholders: Set[str] = frozenset(),
    mix: Mix = run_all_experts,
) -> onnx_ir.Model:
    """Traces one component.

    Args:
        module: its forward takes the component's inputs in order, then one tuple with the states' inputs.
        component: the row of the table.
        target: opset and attention form.
        example: lengths of varying axes that `EXAMPLE_LENGTHS` does not know or this model needs otherwise.
        placeholders: names of parameters whose values are not there yet, so that nothing may be computed from them.
        mix: how the experts of a mixture run.

    Returns:
        The graph. Initializers are named after the parameters of `module`.
    """
    for part in module.modules():
        if isinstance(part, MixtureOfExperts):
            part.mix = mix
    lengths = EXAMPLE_LENGTHS | dict(example)
    args: list[object] = [_example(spec, lengths) for spec in component.inputs]
    shapes: list[object] = [_varying(spec) for spec in component.inputs]
    if component.states:
        args.append(tuple(_example(pair.input, lengths) for pair in component.states))
        shapes.append(tuple(_varying(pair.input) for pair in component.states))
    inputs = [spec.name for spec in component.inputs] + [pair.input.name for pair in component.states]
    outputs = [spec.name for spec in component.outputs] + [pair.output.name for pair in component.states]
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(args),
            dynamo=True,
            opset_version=target.opset,
            dynamic_shapes=_for_signature(module, shapes),
            input_names=inputs,
            output_names=outputs,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        graph = program.model
        onnxscript.optimizer.optimize_ir(graph, should_fold=lambda node: _leave(node, placeholders))
    assert [v.name for v in graph.graph.inputs] == inputs, f"{component.name}: an input was dropped or renamed"
    return graph


def _leave(node: onnx_ir.Node, placeholders: Set[str]) -> bool | None:
    """False keeps the optimizer from folding a node; None leaves it the choice."""
    return False if any(value is not None and value.name in placeholders for value in node.inputs) else None


def _for_signature(module: nn.Module, shapes: list[object]) -> tuple[object, ...]:
    if isinstance(module, DecoderGraph):  # x, *rest
        return (shapes[0], tuple(shapes[1:]))
    if isinstance(module, StepGraph):  # *inputs
        return (tuple(shapes),)
    return tuple(shapes)


def _example(spec: TensorSpec, lengths: Mapping[str, int]) -> Tensor:
    shape = [axis if isinstance(axis, int) else lengths[axis] for axis in spec.axes]
    if spec.dtype == "int64":
        return torch.full(shape, 4, dtype=torch.int64)
    if spec.dtype == "int8":
        return torch.zeros(shape, dtype=torch.int8)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=getattr(torch, spec.dtype))


def _varying(spec: TensorSpec) -> dict[int, object]:
    return {i: Dim.DYNAMIC for i, axis in enumerate(spec.axes) if isinstance(axis, str)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of packages that facrt does not use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
