"""From upstream tensors to module parameters: what each parameter is made of, and where the tensors are read from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Part:
    """One upstream tensor; `name` None stands for zeros that upstream does not store."""

    name: str | None
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """One module parameter: the upstream tensors it is made of and how."""

    parts: tuple[Part, ...]
    combine: Callable[[list[Tensor]], Tensor]
    divide: Callable[[Tensor], list[Tensor]]  # the inverse: the parameter to its parts

    def read(self, source: Source) -> Tensor:
        """The parameter, float32, contiguous; only its own parts are read."""
        parts = [torch.zeros(p.shape) if p.name is None else source.read(p.name).float() for p in self.parts]
        return self.combine(parts).contiguous()


Layout = dict[str, Weight]  # parameter name -> how it is made


def plain(name: str, *shape: int) -> Weight:
    """The upstream tensor as it is."""
    return Weight((Part(name, shape),), lambda parts: parts[0], lambda tensor: [tensor])


def fused(*parts: Part) -> Weight:
    """Upstream tensors one under the other (dimension 0): fused QKV, fused gate/up."""
    sizes = [part.shape[0] for part in parts]
    return Weight(parts, lambda tensors: torch.cat(tensors, dim=0), lambda tensor: list(tensor.split(sizes)))


def stacked(*parts: Weight) -> Weight:
    """Weights along a new first dimension: experts."""
    counts = [len(weight.parts) for weight in parts]

    def combine(tensors: list[Tensor]) -> Tensor:
        rows, start = [], 0
        for weight, count in zip(parts, counts, strict=True):
            rows.append(weight.combine(tensors[start : start + count]))
            start += count
        return torch.stack(rows)

    def divide(tensor: Tensor) -> list[Tensor]:
        return [piece for weight, row in zip(parts, tensor, strict=True) for piece in weight.divide(row)]

    return Weight(tuple(part for weight in parts for part in weight.parts), combine, divide)


def weight_norm(prefix: str, *shape: int) -> Weight:
    """`torch.nn.utils.parametrizations.weight_norm` with one norm per output channel (dimension 0)."""
    per_channel = (shape[0],) + (1,) * (len(shape) - 1)
    stem = f"{prefix}.parametrizations.weight.original"
    return Weight(
        (Part(stem + "0", per_channel), Part(stem + "1", shape)),
        lambda parts: torch._weight_norm(parts[1], parts[0], 0),
        lambda tensor: [tensor.flatten(1).norm(dim=1).reshape(per_channel), tensor],
    )


def linear(prefix: str, out_size: int, in_size: int, bias: bool = True) -> Layout:
    """The layout of one `nn.Linear` under upstream's `prefix`."""
    layout = {"weight": plain(f"{prefix}.weight", out_size, in_size)}
    if bias:
        layout["bias"] = plain(f"{prefix}.bias", out_size)
    return layout


def norm(prefix: str, size: int, bias: bool = True) -> Layout:
    """The layout of one LayerNorm (or, without bias, RMSNorm) under upstream's `prefix`."""
    layout = {"weight": plain(f"{prefix}.weight", size)}
    if bias:
        layout["bias"] = plain(f"{prefix}.bias", size)
    return layout


def under(prefix: str, layout: Layout) -> Layout:
    """The same layout for a submodule called `prefix`."""
    return {f"{prefix}.{name}": weight for name, weight in layout.items()}


class Source(Protocol):
    """Where upstream tensors come from; nothing is read before it is asked for."""

    where: str

    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Tensor: ...


class SafetensorsSource:
    """One `.safetensors` file, or the shards that a `.safetensors.index.json` names; memory-mapped."""

    def __init__(self, folder: Path, stem: str = "model") -> None:
        single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
        if index.exists():
            try:
                files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
            except (ValueError, KeyError, AttributeError, TypeError):
                raise CheckpointError(f"{index} is no index of safetensors shards") from None
        elif single.exists():
            files = [single]
        else:
            raise CheckpointError(f"{folder} has neither {single.name} nor {index.name}")
        self.where = str(index if index.exists() else single)
        self.files = files
        self._owner: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, str] = {}
        for path in files:
            with _open_safetensors(path) as handle:
                for name in handle.keys():  # noqa: SIM118
                    self._owner[name] = path
                    rows = handle.get_slice(name)
                    self._shapes[name] = tuple(rows.get_shape())
                    self._dtypes[name] = rows.get_dtype()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def dtypes(self) -> Mapping[str, str]:
        """Each tensor's type as safetensors calls it: "F32", "BF16"."""
        return self._dtypes

    def read(self, name: str) -> Tensor:
        # opened anew, so that the pages of what was read before do not stay mapped
        with _open_safetensors(self._owner[name]) as handle:
            tensor: Tensor = handle.get_tensor(name).clone()
        return tensor

    @contextlib.contextmanager
    def rows(self, name: str) -> Iterator[Any]:
        """The tensor unread: slicing reads rows, which are valid as long as the context is."""
        with _open_safetensors(self._owner[name]) as handle:
            yield handle.get_slice(name)


class TorchSource:
    """A `.pt` state dict, loaded with `weights_only=True` and memory-mapped."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        if not path.exists():
            raise CheckpointError(f"{path} is missing")
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises many kinds for a broken file
            raise CheckpointError(f"{path} is no readable PyTorch state dict: {_first_line(error)}") from None
        tensors = state.get("state_dict", state) if isinstance(state, dict) else {}
        self._tensors: dict[str, Tensor] = {
            name.removeprefix("generator."): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)
        }

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, though the index names it") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({_first_line(error)}): copy it again") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def check(layout: Layout, source: Source, ignored: Iterable[str] = ()) -> None:
    """Compares what is needed with what is there.

    Raises:
        CheckpointError: one sentence that lists every missing, extra and misshapen tensor.
    """
    needed = {part.name: part.shape for weight in layout.values() for part in weight.parts if part.name is not None}
    found = source.shapes()
    missing = sorted(set(needed) - set(found))
    extra = sorted(set(found) - set(needed) - set(ignored))
    misshapen = sorted(n for n in set(needed) & set(found) if tuple(found[n]) != needed[n])
    faults = []
    if missing:
        faults.append(f"missing: {', '.join(missing)}")
    if extra:
        faults.append(f"extra: {', '.join(extra)}")
    if misshapen:
        shapes = (f"{n} is {list(found[n])}, {list(needed[n])} is needed" for n in misshapen)
        faults.append(f"misshapen: {', '.join(shapes)}")
    if faults:
        raise CheckpointError(f"{source.where} does not fit its configuration ({'; '.join(faults)})")


def load(module: nn.Module, layout: Layout, source: Source) -> None:
    """Fills every parameter of `module` (built on any device) with float32 tensors from `source`."""
    _assign(module, {name: weight.read(source) for name, weight in layout.items()})


def store(module: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The inverse of `load`: a module's parameters as upstream's tensors; what upstream does not store must be zero."""
    tensors: dict[str, Tensor] = {}
    for name, weight in layout.items():
        pieces = weight.divide(module.get_parameter(name).detach())
        for part, piece in zip(weight.parts, pieces, strict=True):
            if part.name is None:
                assert not piece.any(), f"{name}: a part that checkpoints do not store is not zero"
            else:
                tensors[part.name] = piece.clone()
    return tensors


# a parameter with more elements stays on disk until it is written; well above the 1024 up to which the exporter
# merges initializers that look equal
LAZY_ELEMENTS = 1 << 16


def load_lazily(module: nn.Module, layout: Layout, source: Source) -> dict[str, Callable[[], Tensor]]:
    """Fills small parameters, gives large ones their shape only (one shared zero), for tracing.

    Returns:
        For each large parameter, by name, the function that reads it.
    """
    readers: dict[str, Callable[[], Tensor]] = {}
    state = {}
    for name, parameter in module.named_parameters():
        weight = layout[name]
        if parameter.numel() > LAZY_ELEMENTS:
            readers[name] = lambda weight=weight: weight.read(source)  # type: ignore[misc]
            state[name] = torch.zeros(1).expand(parameter.shape)
        else:
            state[name] = weight.read(source)
    _assign(module, state)
    return readers


def _assign(module: nn.Module, state: dict[str, Tensor]) -> None:
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {name: tuple(t.shape) for name, t in state.items()}, "layout and module disagree"
    module.load_state_dict(state, strict=False, assign=True)
    module.requires_grad_(False)
    module.eval()
