"""Checkpoint folders -> modules: the entry points of the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from . import audio_encoder, flow, grouping, speech_head, speech_tokenizer, vocoder, weights
from .backbone import backbone_layout
from .config import ChatConfig
from .config_files import existing, read_chat_config, read_detokenizer_config, read_speech_tokenizer_config
from .flow import Flow
from .generate import ChatModel
from .speech_tokenizer import SpeechTokenizer
from .vocoder import Vocoder
from .weights import Layout, SafetensorsSource, Source, TorchSource, under


def load_chat(folder: Path | str) -> ChatModel:
    """Loads a Fun-Audio-Chat checkpoint (config.json, safetensors) as float32.

    Raises:
        CheckpointError: a file is missing or broken, or tensors are missing, extra or misshapen (all are listed).
    """
    return _load(*_chat(existing(folder)))


def load_flow(folder: Path | str) -> Flow:
    """Loads the flow of a CosyVoice3 folder (`flow.pt` + `cosyvoice3.yaml`, or `flow.safetensors` + `config.json`).

    Raises:
        CheckpointError: as in `load_chat`.
    """
    return _load(*_flow(existing(folder)))


def load_vocoder(folder: Path | str) -> Vocoder:
    """Loads the HiFT vocoder of a CosyVoice3 folder (`hift.pt` or `hift.safetensors`).

    Raises:
        CheckpointError: as in `load_chat`.
    """
    return _load(*_vocoder(existing(folder)))


def load_speech_tokenizer(folder: Path | str) -> SpeechTokenizer:
    """Loads an S3 tokenizer v3 folder (config.json, safetensors).

    Raises:
        CheckpointError: as in `load_chat`.
    """
    return _load(*_speech_tokenizer(existing(folder)))


Readers = dict[int, Callable[[], Tensor]]  # id of a parameter that is still on disk -> what reads it


def open_chat(folder: Path | str) -> tuple[ChatModel, Readers]:
    """Like `load_chat`, but large parameters stay on disk: what export needs. The same errors."""
    return _open(*_chat(existing(folder)))


def open_flow(folder: Path | str) -> tuple[Flow, Readers]:
    """Like `load_flow`, but large parameters stay on disk. The same errors."""
    return _open(*_flow(existing(folder)))


def open_vocoder(folder: Path | str) -> tuple[Vocoder, Readers]:
    """Like `load_vocoder`, but large parameters stay on disk. The same errors."""
    return _open(*_vocoder(existing(folder)))


def open_speech_tokenizer(folder: Path | str) -> tuple[SpeechTokenizer, Readers]:
    """Like `load_speech_tokenizer`, but large parameters stay on disk. The same errors."""
    return _open(*_speech_tokenizer(existing(folder)))


Module = TypeVar("Module", bound=nn.Module)


def _load(module: Module, layout: Layout, source: Source) -> Module:
    weights.load(module, layout, source)
    return module


def _open(module: Module, layout: Layout, source: Source) -> tuple[Module, Readers]:
    readers = weights.load_lazily(module, layout, source)
    return module, {id(module.get_parameter(name)): read for name, read in readers.items()}


def _chat(folder: Path) -> tuple[ChatModel, Layout, Source]:
    config = read_chat_config(folder)
    layout, source = chat_layout(config), SafetensorsSource(folder)
    weights.check(layout, source, (*audio_encoder.IGNORED, *speech_head.IGNORED))
    with torch.device("meta"):
        return ChatModel(config), layout, source


def chat_layout(config: ChatConfig) -> Layout:
    """Which upstream tensors make which parameter of `ChatModel`."""
    table = f"{grouping.UPSTREAM}.embed_tokens.weight"
    hidden = config.text.hidden_size
    return {
        **under("audio_encoder", audio_encoder.audio_encoder_layout(config.audio, hidden)),
        **under("grouping", grouping.grouping_layout(config.codebook_size, hidden)),
        **under("backbone", backbone_layout(config.text)),
        **under("speech_head", speech_head.speech_head_layout(config, table)),
    }


def _flow(folder: Path) -> tuple[Flow, Layout, Source]:
    config = read_detokenizer_config(folder)[0]
    layout, source = flow.flow_layout(config), _detokenizer_source(folder, "flow")
    weights.check(layout, source, flow.IGNORED)
    with torch.device("meta"):
        return Flow(config), layout, source


def _vocoder(folder: Path) -> tuple[Vocoder, Layout, Source]:
    config = read_detokenizer_config(folder)[1]
    layout, source = vocoder.vocoder_layout(config), _detokenizer_source(folder, "hift")
    weights.check(layout, source, vocoder.IGNORED)
    with torch.device("meta"):
        return Vocoder(config), layout, source


def _speech_tokenizer(folder: Path) -> tuple[SpeechTokenizer, Layout, Source]:
    config = read_speech_tokenizer_config(folder)
    layout, source = speech_tokenizer.speech_tokenizer_layout(config), SafetensorsSource(folder)
    weights.check(layout, source, speech_tokenizer.IGNORED)
    with torch.device("meta"):
        return SpeechTokenizer(config), layout, source


def _detokenizer_source(folder: Path, stem: str) -> Source:
    """`flow` or `hift` in either of the two forms."""
    return TorchSource(folder / f"{stem}.pt") if (folder / f"{stem}.pt").exists() else SafetensorsSource(folder, stem)


def load_speakers(folder: Path | str) -> Mapping[str, Tensor]:
    """Speaker embeddings, name -> [speaker_dim] float32, the default one first; empty where the folder has none.

    Read from `speakers.safetensors`, or from upstream's `spk2info.pt` (name -> {"embedding": [1, 192], ...}).

    Raises:
        CheckpointError: a file is there but cannot be read.
    """
    folder = Path(folder)
    if (folder / "speakers.safetensors").exists():
        source = SafetensorsSource(folder, "speakers")
        return {name: source.read(name).float().flatten() for name in sorted(source.shapes())}
    path = folder / "spk2info.pt"
    if not path.exists():
        return {}
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
        return {name: torch.as_tensor(info["embedding"]).float().flatten() for name, info in raw.items()}
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path} holds no speaker embeddings: {str(error).strip().splitlines()[0]}") from None
