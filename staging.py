"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import FacrtError


@contextlib.contextmanager
def staged(out: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place in the end, or is removed.

    Args:
        out: what stands there is replaced in one move; the caller has decided that it may be.
        needed_bytes: refused at once where less is free.

    Raises:
        FacrtError: no space, no permission.
    """
    partial, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise FacrtError(
            f"{out} needs {needed_bytes >> 20} MiB, {free >> 20} are free: make room or choose another --out"
        )
    try:
        if old.exists() and not out.exists():  # an earlier call was stopped between its last two moves
            old.rename(out)
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        free = shutil.disk_usage(parent).free
        raise FacrtError(
            f"{out} cannot be written ({os.strerror(error.errno) if error.errno else error}); "
            f"{free >> 20} MiB are free there: make room or choose another --out"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
