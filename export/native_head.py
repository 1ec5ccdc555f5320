"""The speech head's weight file for the native loop (layout: speech_head_file.hpp)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ..model.config import ChatConfig
from ..model.speech_head import SpeechHead
from ..quant.packing import Packing
from .native_file import Entry, decoder_entries, find_packing, linear, write_file
from .tables import Reader

FILE = "speech_head.bin"
MAGIC = b"FACRTSH\0"
VERSION = 2
EMBEDDING_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}  # by precision; else bfloat16


def write_native_head(
    head: SpeechHead, config: ChatConfig, readers: Mapping[int, Reader], precision: str, path: Path
) -> int:
    """Writes the file; returns its size.

    Args:
        head: dense; its large parameters may still be on disk, then `readers` has them.
        config: the sizes.
        readers: id of a parameter -> what reads it.
        precision: of the matrices, a key of `PACKINGS`.
        path: the file.

    Raises:
        RequestError: there is no such precision.
    """
    packing = find_packing(precision)
    return write_file(_header(config, packing), list(_entries(head, packing)), readers, path)


def _entries(head: SpeechHead, packing: Packing) -> Iterator[Entry]:
    yield from linear(head, "upsample", packing)
    yield from linear(head, "input", packing)
    yield from decoder_entries(head.decoder, packing)
    yield from linear(head, "output", packing)
    yield from linear(head, "head", packing)
    yield Entry(head.head.weight, None, dtype=EMBEDDING_DTYPES.get(packing.name, torch.bfloat16))


def _header(config: ChatConfig, packing: Packing) -> bytes:
    speech = config.speech
    dims = (
        config.text.hidden_size, speech.hidden_size, speech.intermediate_size, speech.num_layers, speech.num_heads,
        speech.num_kv_heads, speech.head_dim, config.group_size, config.codebook_size, config.speech_bos_id,
        int(speech.attention_bias),
    )  # fmt: skip
    return struct.pack("<8s13Ifd", MAGIC, VERSION, packing.code, *dims, speech.rms_norm_eps, speech.rope_theta)
