"""The check that keeps a wheel off a Jetson that could not load it: deploy/wheel_aarch64.py."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
COMPILER = "aarch64-linux-gnu-gcc"
MODULE = "facrt/runtime/_native.cpython-310-aarch64-linux-gnu.so"
WHEEL = "facrt-0.1.0-cp310-cp310-manylinux_2_35_aarch64.whl"
pytestmark = pytest.mark.skipif(not shutil.which(COMPILER), reason=f"{COMPILER} is not installed")


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_aarch64", ROOT / "deploy" / "wheel_aarch64.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(folder: Path, code: str, *options: str, compiler: str = COMPILER) -> Path:
    source, module = folder / "module.c", folder / "module.so"
    source.write_text(code)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(module), str(source), *options], check=True)
    return module


def packed(folder: Path, module: Path, wheel: str = WHEEL, inside: str = MODULE) -> Path:
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.write(module, inside)
    return folder / wheel


INIT = "#include <math.h>\nvoid *PyInit__native(void) { return 0; }\ndouble f(double x) { return exp(x); }\n"


def test_a_module_for_the_board_passes(wheels: ModuleType, tmp_path: Path) -> None:
    assert wheels.check(packed(tmp_path, compiled(tmp_path, INIT, "-lm"))) == []


@pytest.mark.parametrize(
    ("wheel", "inside", "word"),
    [
        ("facrt-0.1.0-cp310-cp310-linux_x86_64.whl", MODULE, "tags"),
        ("facrt-0.1.0-cp310-none-manylinux_2_35_aarch64.whl", MODULE, "tags"),
        (WHEEL, "facrt/runtime/_native.cpython-310-x86_64-linux-gnu.so", "would not find"),
        (WHEEL, "facrt/_native.cpython-310-aarch64-linux-gnu.so", "holds"),
    ],
)
def test_a_wheel_that_is_named_wrong_is_refused(
    wheels: ModuleType, tmp_path: Path, wheel: str, inside: str, word: str
) -> None:
    (fault,) = wheels.check(packed(tmp_path, compiled(tmp_path, INIT, "-lm"), wheel, inside))
    assert word in fault


def test_a_module_that_would_not_load_is_refused(wheels: ModuleType, tmp_path: Path) -> None:
    assert wheels.check_module(compiled(tmp_path, "int x;")) == ["it has no PyInit__native"]
    assert "it is not for aarch64" in wheels.check_module(compiled(tmp_path, INIT, "-lm", compiler="gcc"))
    strange = compiled(tmp_path, INIT, "-Wl,--no-as-needed", "-lresolv", "-lm")
    assert wheels.check_module(strange) == ["it needs libresolv.so.2"]


def test_symbols_newer_than_the_board_has_are_refused(
    wheels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = compiled(tmp_path, INIT, "-lm")  # exp is of glibc 2.29
    monkeypatch.setitem(wheels.NEWEST, "GLIBC", (2, 28))
    assert wheels.check_module(module) == ["it needs GLIBC_2.29"]
