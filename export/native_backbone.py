"""The backbone's weight file for the native decoder (layout: backbone_file.hpp)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from ..model.backbone import Backbone
from .native_file import decoder_entries, find_packing, linear, write_file
from .tables import Reader

FILE = "backbone.bin"
MAGIC = b"FACRTBB\0"
VERSION = 1


def write_native_backbone(backbone: Backbone, readers: Mapping[int, Reader], precision: str, path: Path) -> int:
    """Writes the file; returns its size.

    Args:
        backbone: dense; its large parameters may still be on disk, then `readers` has them.
        readers: id of a parameter -> what reads it.
        precision: of the matrices, a key of `PACKINGS`.
        path: the file.

    Raises:
        RequestError: there is no such precision.
    """
    packing, c = find_packing(precision), backbone.config
    dims = (
        c.hidden_size, c.intermediate_size, c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim,
        int(c.attention_bias),
    )  # fmt: skip
    head = struct.pack("<8s9IfdI", MAGIC, VERSION, packing.code, *dims, c.rms_norm_eps, c.rope_theta, c.vocab_size)
    entries = [*decoder_entries(backbone.decoder, packing), *linear(backbone, "head", packing)]
    return write_file(head, entries, readers, path)
