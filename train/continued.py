"""Training that starts from a chat checkpoint: what it reads there, and the checkpoint that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import RequestError
from ..model import audio_encoder, grouping, speech_head
from ..model.checkpoint import chat_layout, existing, load_chat, load_speech_tokenizer
from ..model.config_files import read_chat_config
from ..model.generate import ChatModel
from ..model.weights import SafetensorsSource, Weight
from ..runtime.audio import read_audio
from ..staging import staged
from . import parallel
from .chat_stage import tie
from .merge import DTYPES, INDEX, SHARD_BYTES, copy_rest, shard_paths
from .pack import pack
from .recipe import CHAT_STAGES, STAGES, Recipe
from .run import Run, Show
from .samples import Speech
from .speech_ids import cached_ids
from .write import keep_absent_zero

Owners = Mapping[str, tuple[Weight, Tensor, int]]  # upstream's tensor -> what it is a part of, and which part


@dataclass(frozen=True)
class ContinuedRun(Run):
    """The chat stages alone, on other people's data: base text model and encoder are the checkpoint's.

    Answers may have any voice, rate and length: their speech ids are the S3 tokenizer's of their 16 kHz signal. The
    flow and the vocoder, which make the voice, stay as they are.
    """

    source: Path = Path()  # a chat checkpoint folder
    speech_tokenizer: Path | None = None  # default: `s3tokenizer` in it

    @property
    def stages(self) -> tuple[str, ...]:
        return CHAT_STAGES

    @cached_property
    def configs(self) -> Path:
        return self.source

    def base(self) -> ChatModel:
        model = load_chat(self.source).requires_grad_(True)
        tie(model)
        keep_absent_zero(model, chat_layout(model.config))
        return model

    def before_alignment(self) -> ChatModel:
        return self.base()

    @property
    def dictation(self) -> None:
        return None

    def new_chat(self) -> ChatModel:
        return self.base()

    @cached_property
    def speech(self) -> Speech:
        """Every answer's WAV -> its speech ids."""
        paths = list(
            dict.fromkeys(
                str(m.audio) for c in self.conversations for m in c.messages if m.role == "assistant" and m.audio
            )
        )
        if not paths:
            raise RequestError("no answer of the dataset has audio; spoken answers are needed to train the speech head")
        device = self.recipe.compute.torch_device()
        tokenizer = load_speech_tokenizer(self._tokenizer_folder()).to(device)
        with parallel.one_after_the_first():
            ids = cached_ids(
                paths, lambda path: tokenizer.encode(read_audio(path)), self.folder / "speech_ids.pt",
                lambda done, whole: self.show("speech ids", done, whole),
            )  # fmt: skip
        return dict(zip(paths, ids, strict=True))

    @property
    def splices(self) -> Speech:
        """None: other voices' words do not begin on the grid of the speech tokens."""
        return {}

    def _tokenizer_folder(self) -> Path:
        folder = self.speech_tokenizer or self.source / "s3tokenizer"
        if not folder.is_dir():
            raise RequestError(f"{folder} is no folder; the S3 tokenizer's is needed: name it with --speech-tokenizer")
        return folder


def open_run(
    recipe: Recipe, out: Path, data: Path | None, source: Path | None, speech_tokenizer: Path | None, show: Show
) -> Run:
    """The run that is asked for: from nothing, or with `source` from a chat checkpoint.

    Raises:
        RequestError: what is named does not go together.
        CheckpointError: `source` is no checkpoint folder.
    """
    if source is None:
        if not recipe.shapes:
            raise RequestError("this recipe has no model shapes, it trains a checkpoint: name its folder with --from")
        if speech_tokenizer is not None:
            raise RequestError("--speech-tokenizer belongs to --from; without it the speech tokenizer is trained")
        return Run(recipe, out, data, show)
    if data is None:
        raise RequestError("--from trains a checkpoint on a dataset of yours: name its folder with --data")
    read_chat_config(existing(source))
    if out.resolve().is_relative_to(source.resolve()):
        raise RequestError(f"{out} lies in {source}, which is read; choose another --out")
    return ContinuedRun(recipe, out, data, show, source, speech_tokenizer)


def write_result(run: Run) -> tuple[Path, int]:
    """The checkpoint folder that comes of a whole run, and its bytes.

    Raises:
        RequestError: a stage has not been run.
        FacrtError: the folder cannot be written.
    """
    if isinstance(run, ContinuedRun):
        out = run.folder / "checkpoint"
        return out, write_chat_checkpoint(run.trained_chat(CHAT_STAGES[-1]), run.source, out)
    return run.folder / "nano", pack(run, STAGES[-1], run.folder / "nano")


def write_chat_checkpoint(model: ChatModel, source: Path, out: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes a trained chat model as a folder like the one it came from; it appears whole or not at all.

    Tensors keep the names and types of the source's; what training does not touch (configuration, tokenizers,
    detokenizer) is copied.

    Returns:
        The bytes of the weights.

    Raises:
        FacrtError: the folder cannot be written.
    """
    stored = SafetensorsSource(source)
    total = sum(_size_bytes(stored, name) for name in stored.shapes())
    shards = _shards(stored, shard_bytes)
    owners = _owners(model)
    with staged(out, total) as staging:
        copy_rest(source, stored, staging)
        weight_map = {}
        for path, names in zip(shard_paths(staging, len(shards)), shards, strict=True):
            tensors = {name: _tensor(owners, stored, name) for name in names}
            save_file(tensors, path, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(names, path.name))
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (staging / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return total


def _owners(model: ChatModel) -> Owners:
    return {
        part.name: (weight, model.get_parameter(parameter).detach(), place)
        for parameter, weight in chat_layout(model.config).items()
        for place, part in enumerate(weight.parts)
        if part.name is not None
    }


def _tensor(owners: Owners, stored: SafetensorsSource, name: str) -> Tensor:
    """A tensor as trained, in the source's type; one that the model does not use is the source's."""
    if name in audio_encoder.IGNORED:
        return stored.read(name)
    is_tied = name in speech_head.IGNORED  # the speech table once more
    weight, parameter, place = owners[f"{grouping.UPSTREAM}.embed_tokens.weight" if is_tied else name]
    piece = weight.divide(parameter)[place]
    return piece.to("cpu", DTYPES[stored.dtypes()[name]], copy=True).contiguous()


def _size_bytes(stored: SafetensorsSource, name: str) -> int:
    return torch.Size(stored.shapes()[name]).numel() * DTYPES[stored.dtypes()[name]].itemsize


def _shards(stored: SafetensorsSource, shard_bytes: int) -> list[list[str]]:
    """Names by shard, at most `shard_bytes` each unless one alone is larger."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(stored.shapes()):
        if shards[-1] and size + _size_bytes(stored, name) > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += _size_bytes(stored, name)
    return shards
