"""What every Linear layer sees on spoken questions, through the reference, one layer in memory at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import __version__, quant
from ..errors import AudioError
from ..model import checkpoint
from ..model.config import DecoderConfig
from ..model.decoder import attention, rotary_angles, rotate
from ..model.flow import Flow
from ..model.generate import ChatModel, Step
from ..model.settings import SPEECH_SYSTEM_PROMPT
from ..quant import folds
from ..quant.schemes import INT8_LIMIT, SCHEMES
from ..quant.search import Statistics, search_awq, smooth
from ..runtime.audio import read_audio
from ..runtime.backend import Array
from ..runtime.bundle import hash_files
from ..runtime.prompt import Message, Prompter
from .memory import available_bytes, reference_bytes

if TYPE_CHECKING:
    from .pipeline import OpenModel

SAMPLED_ROWS = 128  # inputs kept of each layer
ANSWER_STEPS = 24  # of the reference's own answers, where it fits the memory
FLOW_TOKENS = 60
SILENCE_RMS = 1e-4
CACHES = {"backbone": "backbone_cache", "speech_head": "speech_head_cache"}  # decoder -> where its cache's rows are
SUFFIXES = (".wav", ".flac", ".ogg")
SHIPPED = Path(quant.__file__).parent / "questions"  # spoken by espeak-ng


def read_questions(path: Path | None) -> list[Array]:
    """The calibration set: 16 kHz mono samples [N] each.

    Args:
        path: a folder of WAV, FLAC or Ogg files, one such file, or a text file that lists some, one a line; default:
            the questions that ship with facrt.

    Raises:
        AudioError: the set is empty, or a file is unreadable or silent.
    """
    path = path or SHIPPED
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    elif path.suffix.lower() in SUFFIXES or not path.is_file():
        files = [path]
    else:
        files = _listed(path)
    if not files:
        raise AudioError(f"{path} lists no WAV, FLAC or Ogg file: calibration needs spoken questions, 8 or more")
    questions = [read_audio(file) for file in files]
    for file, pcm in zip(files, questions, strict=True):
        if float(np.sqrt(np.mean(pcm**2))) < SILENCE_RMS:
            raise AudioError(f"{file} is silent: calibration needs spoken questions; take it out of the set")
    return questions


def _listed(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise AudioError(f"{path} is no text file that lists WAV, FLAC or Ogg files, one a line") from None
    return [path.parent / line.strip() for line in lines if line.strip()]


def calibrate(
    model: OpenModel,
    recipe: Mapping[str, str],
    questions: Sequence[Array],
    progress: Callable[[str, str, int], None],
    has_int8_cache: bool = False,
) -> OpenModel:
    """The model rewritten as the recipe's calibrated schemes ask, with the scales of static activations and caches."""
    wanted = [name for name, scheme in recipe.items() if SCHEMES[scheme].calibration]
    caches = CACHES if has_int8_cache else {}
    if not wanted and not caches:
        return model
    statistics = _statistics(model, [*wanted, *caches.values()], questions, progress)
    readers, input_scales = dict(model.readers), dict(model.input_scales)
    for component in wanted:
        scheme, module = SCHEMES[recipe[component]], model.graphs[component]
        found, kept = statistics[component], statistics.get(caches.get(component, ""), {})
        scales: dict[str, Tensor] = {}
        for fold in folds.find_folds(module):
            progress("calibrating", f"{component} {fold.linear.removesuffix('.weight')}", 0)
            parameter = module.get_parameter(fold.linear)
            weight = readers[id(parameter)]() if id(parameter) in readers else parameter.detach()
            if scheme.calibration == "awq":
                scale = search_awq(fold, weight, found[fold.linear], scheme)
            else:
                scale = smooth(fold, weight, found[fold.linear])
            scales[fold.linear] = scale
            found[fold.linear] = found[fold.linear].divided(fold.per_column(scale))
            values = fold.linear.removesuffix("out.weight") + "values"
            if values in kept:  # the rows that make them were divided
                kept[values] = kept[values].divided(scale)
        readers = folds.apply(module, readers, scales)
        input_scales |= {f"{component}/{name}": one.step for name, one in found.items()}
    cache_steps = {component: _cache_steps(statistics[name]) for component, name in caches.items()}
    return replace(model, readers=readers, input_scales=input_scales, cache_steps=cache_steps)


def _cache_steps(found: Mapping[str, Statistics]) -> list[Tensor]:
    """Of a decoder's keys and values per layer: the distance of neighbouring integers, per channel."""
    layers = range(len(found) // 2)
    kept = [found[f"decoder.layers.{i}.{part}"] for i in layers for part in ("keys", "values")]
    return [one.largest.clamp(min=1e-6) / INT8_LIMIT for one in kept]


Found = dict[str, dict[str, Statistics]]  # component -> Linear weight's name -> its input


def _statistics(
    model: OpenModel, wanted: Sequence[str], questions: Sequence[Array], progress: Callable[[str, str, int], None]
) -> Found:
    """From the cache where this model has met these questions before."""
    progress("calibrating", "hash of the checkpoint", 0)
    path = _cache_folder() / f"{_key(model, questions)}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        return _unflatten(load_file(path), wanted)
    found = _Observer(model, progress).observe(questions, "flow_estimator" in wanted)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file(_flatten(found), partial)
        partial.rename(path)
    return found


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "facrt" / "calibration"


def _key(model: OpenModel, questions: Sequence[Array]) -> str:
    digest = hashlib.sha256(f"{__version__} {SAMPLED_ROWS} {ANSWER_STEPS} {CACHES}".encode())
    for folder in (model.folder, model.detokenizer):
        names = [] if folder is None else [p.name for p in folder.iterdir() if p.is_file()]
        for name, entry in hash_files(folder, names).items() if folder is not None else ():
            digest.update(f"{name} {entry.sha256}".encode())
    for pcm in questions:
        digest.update(pcm.tobytes())
    return digest.hexdigest()[:32]


def _flatten(found: Found) -> dict[str, Tensor]:
    return {
        f"{component}/{name}/{part}": getattr(one, part).contiguous()
        for component, layers in found.items()
        for name, one in layers.items()
        for part in ("rows", "largest", "mean")
    }


def _unflatten(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> Found:
    parts: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        component, name, part = key.split("/")
        parts.setdefault(component, {}).setdefault(name, {})[part] = tensor
    return {c: {name: Statistics(**one) for name, one in parts[c].items()} for c in wanted}


@contextlib.contextmanager
def loaded_on_demand(module: nn.Module, readers: Mapping[int, Callable[[], Tensor]]) -> Iterator[None]:
    """While the context lasts, a layer's parameters that are on disk are in memory just while the layer runs."""
    handles = []
    for layer in module.modules():
        on_disk = [p for p in layer.parameters(recurse=False) if id(p) in readers]
        if not on_disk:
            continue

        def load(*_: Any, on_disk: list[nn.Parameter] = on_disk) -> None:
            for parameter in on_disk:
                parameter.data = readers[id(parameter)]()

        def drop(*_: Any, on_disk: list[nn.Parameter] = on_disk) -> None:
            for parameter in on_disk:
                parameter.data = torch.zeros(1).expand(parameter.shape)

        handles += [layer.register_forward_pre_hook(load), layer.register_forward_hook(drop)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Packed:
    """Causal attention over several sequences that lie behind one another in one batch of rows.

    What a cache would keep is shown to `see(name, rows [S, num_kv_heads * head_dim])`.
    """

    def __init__(
        self, config: DecoderConfig, lengths: Sequence[int], see: Callable[[str, Tensor], None] = lambda *_: None
    ) -> None:
        self.config = config
        self.lengths = list(lengths)
        self.see = see

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(q.split(self.lengths), k.split(self.lengths), v.split(self.lengths), strict=True)
        return torch.cat([self._one(layer, *part) for part in parts])

    def _one(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        positions = torch.arange(len(q))
        angles = rotary_angles(positions, self.config)
        mask = torch.where(positions[None] <= positions[:, None], 0.0, float("-inf"))
        k = rotate(k, *angles)
        self.see(f"decoder.layers.{layer}.keys", k.flatten(1))
        self.see(f"decoder.layers.{layer}.values", v.flatten(1))
        return attention(rotate(q, *angles), k, v, mask)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One question and, where there is one, its answer: what the backbone and the speech head see."""

    ids: Tensor  # [S] text ids of every position
    embeds: Tensor  # [S, H] backbone input
    num_prompt: int
    speech: list[int]  # raw tokens of the last prompt position and all after it, flat


def open_prompter(model: OpenModel) -> Prompter:
    """The checkpoint's own prompts."""
    with tempfile.TemporaryDirectory() as folder:
        template = None
        if model.chat_template is not None:
            template = Path(folder) / "chat_template.jinja"
            template.write_text(model.chat_template, encoding="utf-8")
        return Prompter(model.folder / "tokenizer.json", template, model.config.chat)


def speak(chat: ChatModel, prompt: np.ndarray, pcm: Array, num_steps: int) -> Spoken:
    """A question and the first steps of the reference's own greedy answer."""
    steps: list[Step] = []
    options: dict[str, Any] = {"text_greedy": True, "force_text_abos": True, "eos_token_id": -1}
    turn = chat.generate(prompt, [pcm], observe=steps.append, max_new_tokens=num_steps, **options)
    ids = torch.cat([torch.from_numpy(prompt), torch.tensor(turn.text_ids[: len(steps) - 1], dtype=torch.int64)])
    speech = [token for step in steps for token in step.speech_tokens]
    return Spoken(ids, torch.cat([step.embeds for step in steps]), len(prompt), speech)


def head_inputs(chat: ChatModel, spoken: Spoken, u: Tensor) -> Tensor:
    """Teacher-forced rows of the speech head, [S * group_size, H], for u [S, H]: hidden state plus text embedding."""
    sub, group = chat.speech_head.split(u), chat.config.group_size
    condition = torch.full((len(sub),), chat.config.speech_bos_id)
    first = spoken.num_prompt * group - (group - 1)
    tokens = torch.tensor(spoken.speech[: len(sub) - first], dtype=torch.int64)
    condition[first : first + len(tokens)] = tokens
    return sub + chat.grouping.embedding(condition)


class _Observer:
    """Runs the reference and records what each Linear layer sees."""

    def __init__(self, model: OpenModel, progress: Callable[[str, str, int], None]) -> None:
        self._model = model
        self._progress = progress
        self._sums: dict[str, dict[str, _Sum]] = {}

    def observe(self, questions: Sequence[Array], with_flow: bool) -> Found:
        with torch.no_grad(), contextlib.ExitStack() as stack:
            modules = [self._model.chat, *([self._model.flow] if self._model.flow else [])]
            for module in modules:
                stack.enter_context(loaded_on_demand(module, self._model.readers))
            for component, module in self._model.graphs.items():
                self._watch(stack, component, module)
            codes = self._run_chat(questions)
            if self._model.flow is not None and with_flow:
                self._run_flow(self._model.flow, codes)
        return {c: {name: one.finish() for name, one in sums.items()} for c, sums in self._sums.items()}

    def _watch(self, stack: contextlib.ExitStack, component: str, module: nn.Module) -> None:
        sums = self._sums.setdefault(component, {})
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                key, shown = f"{name}.weight" if name else "weight", f"{component} {name}"

                def record(_: nn.Module, inputs: tuple[Tensor], key: str = key, shown: str = shown) -> None:
                    self._progress("calibrating", shown, 0)
                    sums.setdefault(key, _Sum()).add(inputs[0].flatten(0, -2))

                handle = layer.register_forward_pre_hook(record)
                stack.callback(handle.remove)

    def _seen_by(self, component: str) -> Callable[[str, Tensor], None]:
        sums = self._sums.setdefault(CACHES[component], {})
        return lambda name, rows: sums.setdefault(name, _Sum()).add(rows)

    def _run_chat(self, questions: Sequence[Array]) -> list[int]:
        """Backbone and speech head over all questions in one pass; returns the speech tokens spoken."""
        chat = self._model.chat
        spoken = self._spoken(questions)
        lengths = [len(one.ids) for one in spoken]
        attend = Packed(chat.config.text, lengths, self._seen_by("backbone"))
        hidden = chat.backbone.decoder(torch.cat([one.embeds for one in spoken]), attend)
        chat.backbone.head(hidden)
        rows = chat.backbone.embedding(torch.cat([one.ids for one in spoken]))
        parts = zip(spoken, (hidden + rows).split(lengths), strict=True)
        z = torch.cat([head_inputs(chat, one, u) for one, u in parts])
        head, group = chat.speech_head, chat.config.group_size
        attend = Packed(chat.config.speech, [length * group for length in lengths], self._seen_by("speech_head"))
        head.head(head.output(head.decoder(head.input(z), attend)))
        return [token for one in spoken for token in one.speech[group:]]

    def _spoken(self, questions: Sequence[Array]) -> list[Spoken]:
        """Questions with answers, where the whole reference fits the memory; else the questions alone."""
        folder = self._model.folder
        prompter = open_prompter(self._model)
        prompts = [
            prompter.encode([Message("system", SPEECH_SYSTEM_PROMPT), Message("user", None, pcm)]) for pcm in questions
        ]
        alone = [self._question(prompt, pcm) for prompt, pcm in zip(prompts, questions, strict=True)]
        if reference_bytes(folder) > available_bytes():
            return alone
        whole = checkpoint.load_chat(folder)
        return [speak(whole, prompt, pcm, ANSWER_STEPS) for prompt, pcm in zip(prompts, questions, strict=True)]

    def _question(self, prompt: np.ndarray, pcm: Array) -> Spoken:
        chat, ids = self._model.chat, torch.from_numpy(prompt)
        embeds = chat.merge(ids, chat.backbone.embedding(ids), chat.audio_rows([pcm]))
        return Spoken(ids, embeds, len(ids), [])

    def _run_flow(self, flow: Flow, codes: Sequence[int]) -> None:
        spoken = [code for code in codes if code < flow.config.vocab_size][:FLOW_TOKENS]
        if len(spoken) < FLOW_TOKENS:
            generator = torch.Generator().manual_seed(0)
            spoken = torch.randint(0, flow.config.vocab_size, (FLOW_TOKENS,), generator=generator).tolist()
        speaker = torch.zeros(1, flow.config.speaker_dim)
        assert self._model.detokenizer is not None
        for first in checkpoint.load_speakers(self._model.detokenizer).values():
            speaker = first[None]
            break
        flow(torch.tensor(spoken), speaker)


class _Sum:
    """Statistics of one layer's input, added up over calls."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._largest: Tensor | None = None
        self._total: Tensor | None = None
        self._count = 0

    def add(self, x: Tensor) -> None:  # [n, cols]
        largest, total = x.abs().amax(0), x.abs().sum(0)
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        self._total = total if self._total is None else self._total + total
        self._count += len(x)
        self._rows.append(_evenly(x).clone())

    def finish(self) -> Statistics:
        assert self._largest is not None and self._total is not None  # noqa: PT018
        return Statistics(_evenly(torch.cat(self._rows)).clone(), self._largest.clone(), self._total / self._count)


def _evenly(rows: Tensor) -> Tensor:
    """At most SAMPLED_ROWS rows, evenly spaced."""
    return rows[:: -(-len(rows) // SAMPLED_ROWS)]
