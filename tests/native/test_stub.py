"""The checked-in stub of the native module is the generated one. Run as a script, this file writes it anew."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

STUB = Path(__file__).parents[2] / "runtime" / "_native.pyi"
HEADER = "# Generated: python tests/native/test_stub.py\n# ruff: noqa\n"


def generate() -> str:
    """The stub of the installed module, as nanobind writes it."""
    import facrt.runtime._native as native
    from nanobind.stubgen import StubGen

    stub = StubGen(native)
    stub.put(native)
    return stub.get()


def test_stub_is_current() -> None:
    pytest.importorskip("nanobind.stubgen", reason="the stub generator comes with nanobind")
    written, generated = (ast.dump(ast.parse(source)) for source in (STUB.read_text(), generate()))
    assert written == generated, "the stub is stale: run python tests/native/test_stub.py"


if __name__ == "__main__":
    STUB.write_text(HEADER + generate())
    subprocess.run(["ruff", "format", str(STUB)], check=True)
