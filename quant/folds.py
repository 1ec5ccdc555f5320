"""Rewrites that leave a model's function as it is and move magnitude from a product's input into its weight.

`y = x @ W.T` equals `(x / s) @ (W * s).T`; the division is done where x is made: in the norm before it, in the rows of
the matrix before it. What is left to choose is `s`, per input channel (`search`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..model.audio_encoder import AudioEncoder, EncoderLayer
from ..model.backbone import Backbone
from ..model.decoder import Decoder, DecoderLayer, Mlp
from ..model.flow import EstimatorBlock, FlowEstimator
from ..model.speech_head import SpeechHead

Reader = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Producer:
    """Rows of parameters whose output becomes the input of a product: they are divided by `s`."""

    parameter: str
    rows: slice | None = None  # None: all
    offset: float = 0.0  # the model adds it to what the parameter yields: (p + offset) / s - offset


@dataclass(frozen=True, slots=True)
class Fold:
    """One product whose input channels can be scaled."""

    linear: str  # the weight [rows, cols] whose columns are multiplied by `s`
    producers: tuple[Producer, ...]
    heads: tuple[int, int] | None = None  # (KV heads, queries per KV head): columns that share a producer's row

    def shared(self, statistic: Tensor) -> Tensor:
        """A statistic of the columns [cols] -> per producer row, the largest of the columns that share it."""
        if self.heads is None:
            return statistic
        return statistic.unflatten(0, (*self.heads, -1)).amax(1).flatten()

    def per_column(self, scale: Tensor) -> Tensor:
        """A scale per producer row -> [cols]."""
        if self.heads is None:
            return scale
        kv_heads, queries = self.heads
        return scale.unflatten(0, (kv_heads, 1, -1)).expand(-1, queries, -1).flatten()


def find_folds(module: nn.Module) -> list[Fold]:
    """Every fold of a component's module; the order does not matter, since each touches other rows and columns."""
    if isinstance(module, Backbone):  # the final norm's output goes to the speech head too
        return list(_decoder(module.decoder))
    if isinstance(module, SpeechHead):
        return [*_decoder(module.decoder), Fold("output.weight", (Producer("decoder.norm.weight"),))]
    if isinstance(module, AudioEncoder):
        layers = (fold for i, layer in enumerate(module.layers) for fold in _encoder_layer(layer, f"layers.{i}"))
        return [*layers, Fold("projection.weight", _affine("post_norm"))]
    if isinstance(module, FlowEstimator):
        return [fold for i, block in enumerate(module.blocks) for fold in _estimator_block(block, f"blocks.{i}")]
    return []


def _decoder(decoder: Decoder) -> Iterator[Fold]:
    config = decoder.config
    num_values = config.num_kv_heads * config.head_dim
    heads = (config.num_kv_heads, config.num_heads // config.num_kv_heads)
    for i, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        at = f"decoder.layers.{i}"
        values = [Producer(f"{at}.qkv.{kind}", slice(-num_values, None)) for kind in _kinds(layer.qkv)]
        yield Fold(f"{at}.qkv.weight", (Producer(f"{at}.attention_norm.weight"),))
        yield Fold(f"{at}.out.weight", tuple(values), heads)
        if isinstance(layer.mlp, Mlp):
            up = slice(config.intermediate_size, None)
            yield Fold(f"{at}.mlp.gate_up.weight", (Producer(f"{at}.mlp_norm.weight"),))
            yield Fold(f"{at}.mlp.down.weight", (Producer(f"{at}.mlp.gate_up.weight", up),))


def _encoder_layer(layer: nn.Module, at: str) -> Iterator[Fold]:
    assert isinstance(layer, EncoderLayer)
    values = slice(2 * layer.out.in_features, None)
    yield Fold(f"{at}.qkv.weight", _affine(f"{at}.attention_norm"))
    yield Fold(f"{at}.out.weight", tuple(Producer(f"{at}.qkv.{kind}", values) for kind in _kinds(layer.qkv)))
    yield Fold(f"{at}.fc1.weight", _affine(f"{at}.ffn_norm"))


def _estimator_block(block: nn.Module, at: str) -> Iterator[Fold]:
    # modulation yields shift_a, scale_a, gate_a, shift_m, scale_m, gate_m; a norm's output is * (1 + scale) + shift
    assert isinstance(block, EstimatorBlock)
    dim, inner = block.fc1.in_features, block.out.in_features
    for linear, first in (("qkv", 0), ("fc1", 3)):
        shift, scale = (slice(k * dim, (k + 1) * dim) for k in (first, first + 1))
        weight, bias = f"{at}.modulation.weight", f"{at}.modulation.bias"
        shifts = (Producer(weight, shift), Producer(bias, shift))
        yield Fold(f"{at}.{linear}.weight", (*shifts, Producer(weight, scale), Producer(bias, scale, offset=1.0)))
    values = slice(2 * inner, None)
    yield Fold(f"{at}.out.weight", tuple(Producer(f"{at}.qkv.{kind}", values) for kind in _kinds(block.qkv)))


def _affine(norm: str) -> tuple[Producer, ...]:
    return (Producer(f"{norm}.weight"), Producer(f"{norm}.bias"))


def _kinds(linear: nn.Linear) -> tuple[str, ...]:
    return ("weight",) if linear.bias is None else ("weight", "bias")


def apply(module: nn.Module, readers: dict[int, Reader], scales: dict[str, Tensor]) -> dict[int, Reader]:
    """Rewrites a module: parameters in memory at once, those on disk when they are read.

    Args:
        module: of one component.
        readers: id of a parameter that is on disk -> what reads it.
        scales: `Fold.linear` -> s, per producer row.

    Returns:
        The readers, those of the changed parameters wrapped.
    """
    changed = dict(readers)
    for fold in find_folds(module):
        if fold.linear not in scales:
            continue
        scale = scales[fold.linear]
        columns = fold.per_column(scale)
        _rewrite(module, changed, fold.linear, partial(torch.mul, columns))
        for producer in fold.producers:
            _rewrite(module, changed, producer.parameter, partial(_divided, producer, scale))
    return changed


def _divided(producer: Producer, scale: Tensor, values: Tensor) -> Tensor:
    values = values.clone()
    per_row = scale.reshape(-1, *(1 for _ in values.shape[1:]))
    rows = producer.rows or slice(None)
    values[rows] = (values[rows] + producer.offset) / per_row - producer.offset
    return values


def _rewrite(module: nn.Module, readers: dict[int, Reader], name: str, change: Callable[[Tensor], Tensor]) -> None:
    parameter = module.get_parameter(name)
    read = readers.get(id(parameter))
    if read is None:
        with torch.no_grad():
            parameter.copy_(change(parameter))
    else:
        readers[id(parameter)] = lambda: change(read())
