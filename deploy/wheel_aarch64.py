"""Cross-builds facrt's wheel for aarch64 and checks that a Jetson's system libraries can load its native module.

python deploy/wheel_aarch64.py --out dist --python python3.10 python3.12

Needs Debian's or Ubuntu's g++-aarch64-linux-gnu; each Python is one of this machine, of which the headers are used.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / "cpp_ext" / "cmake" / "aarch64-linux-gnu.cmake"
PLATFORM = "manylinux_2_35_aarch64"
# JetPack 6 is Ubuntu 22.04: glibc 2.35, and the libstdc++ of GCC 12
NEWEST = {"GLIBC": (2, 35), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13), "GCC": (12, 0, 0)}
LIBRARIES = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1"}
TOOLS = ("scikit-build-core>=1.0", "nanobind>=2.9", "cmake>=3.26", "ninja", "wheel")
MODULE = re.compile(r"facrt/runtime/_native\..*so")
ABI = re.compile(r"-(cp3(?P<minor>\d+)-cp3(?P=minor)|cp312-abi3)-")


def build(python: str, out: Path) -> Path:
    """Builds one wheel with that Python's headers; returns its path."""
    version = output(python, "-c", "import sys; print('%d%d' % sys.version_info[:2])")
    tools = ROOT / "build" / f"tools-cp{version}"  # kept, so that a second build compiles only what changed
    own = str(tools / "bin" / "python")
    if not (tools / "bin" / "ninja").exists():
        run(python, "-m", "venv", str(tools))
        run(own, "-m", "pip", "install", "-q", "--disable-pip-version-check", *TOOLS)
    # the build backend alone may see these: pip would take the machine for a Jetson
    names = {
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{version}-aarch64-linux-gnu.so",
        "CMAKE_TOOLCHAIN_FILE": str(TOOLCHAIN),
        "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    with tempfile.TemporaryDirectory() as folder:
        run(own, "-c", f"import scikit_build_core.build as b; b.build_wheel({folder!r})", names=names)
        (built,) = Path(folder).glob("*.whl")
        run(own, "-m", "wheel", "tags", "--remove", "--platform-tag", PLATFORM, str(built))
        (wheel,) = Path(folder).glob("*.whl")
        faults = check(wheel)
        if faults:
            raise SystemExit(f"{wheel.name} would not load on a Jetson: {'; '.join(faults)}")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(wheel, out / wheel.name))


def run(*command: str, names: dict[str, str] | None = None) -> None:
    """Runs a command in the repository's root; what it says goes to stderr."""
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, env=os.environ | (names or {}))


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def check(wheel: Path) -> list[str]:
    """What is wrong with a wheel; empty where nothing is."""
    faults = [] if wheel.name.endswith(f"-{PLATFORM}.whl") and ABI.search(wheel.name) else ["its tags are not right"]
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
        if len(modules) != 1 or not MODULE.fullmatch(modules[0]):
            return [*faults, f"it holds {modules or 'no native module'}"]
        if "aarch64" not in modules[0] and ".abi3." not in modules[0]:
            faults.append(f"Python would not find {modules[0]}")
        with tempfile.TemporaryDirectory() as folder:
            return faults + check_module(Path(archive.extract(modules[0], folder)))


def check_module(module: Path) -> list[str]:
    """What is wrong with a shared object: machine, libraries, versions of symbols, entry point."""
    read = output("readelf", "--wide", "--file-header", "--dynamic", "--version-info", "--dyn-syms", str(module))
    faults = [] if re.search(r"Machine:\s+AArch64", read) else ["it is not for aarch64"]
    strange = sorted(set(re.findall(r"\(NEEDED\).*\[(.+)\]", read)) - LIBRARIES)
    faults += [f"it needs {', '.join(strange)}"] if strange else []
    for family, newest in NEWEST.items():
        found = {tuple(map(int, v.split("."))) for v in re.findall(rf"\b{family}_(\d[\d.]*)", read)}
        if found and max(found) > newest:
            faults.append(f"it needs {family}_{'.'.join(map(str, max(found)))}")
    return faults if re.search(r"\bPyInit__native\b", read) else [*faults, "it has no PyInit__native"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="3.10 for JetPack 6, 3.12 for JetPack 7")
    options = parser.parse_args()
    for python in options.python:
        print(build(python, options.out))


if __name__ == "__main__":
    main()
