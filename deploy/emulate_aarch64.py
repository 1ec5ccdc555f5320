"""Runs facrt's aarch64 wheel on this machine, emulated: a spoken question, the same ids as here.

python deploy/emulate_aarch64.py --bundle out/demo/bundle --question docs/questions/turn-on-the-kitchen-lamp.wav

Takes about four minutes, on Debian with g++-aarch64-linux-gnu and qemu-user, under its own Python 3: an interpreter of
the same version comes from Debian's arm64 packages, what facrt depends on from PyPI, everything into build/emulated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import wheel_aarch64

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "emulated"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = (
    f"python{VERSION}-minimal", f"libpython{VERSION}-minimal", f"libpython{VERSION}-stdlib", "libc6", "libexpat1",
    "zlib1g", "libstdc++6", "libgcc-s1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1",
)  # fmt: skip
GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)  # minor versions that wheels' tags name
# newer ones crash at import under qemu 7.2, where they read the host's description of its caches
ONNX_RUNTIME = "onnxruntime<1.25"


def interpreter() -> list[str]:
    """The command of an aarch64 Python that sees the installed wheels; its system is unpacked where it is missing."""
    system, site = FOLDER / "system", FOLDER / "site"
    python = system / "usr" / "bin" / f"python{VERSION}"
    if not python.exists():
        unpack(system)
    variables = {"PYTHONPATH": site, "PYTHONHOME": system / "usr", "HOME": FOLDER}
    settings = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    return ["qemu-aarch64", "-L", str(system), *settings, str(python)]


def unpack(system: Path) -> None:
    """Debian's packages for arm64, downloaded with lists of their own: this machine's stay as they are."""
    packages = FOLDER / "packages"
    for folder in (packages, FOLDER / "lists" / "partial", FOLDER / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": "arm64", "APT::Architectures::": "arm64", "Dir::State::lists": FOLDER / "lists",
        "Dir::State::status": "/dev/null", "Dir::Cache": FOLDER, "APT::Sandbox::User": "root",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    wheel_aarch64.run(*apt, "update")
    subprocess.run([*apt, "download", *PACKAGES], check=True, cwd=packages, stdout=sys.stderr)
    for package in sorted(packages.glob("*.deb")):
        wheel_aarch64.run("dpkg-deb", "--extract", str(package), str(system))


def install(wheel: Path) -> None:
    """The wheel and what it depends on, as wheels for aarch64."""
    platforms = [word for minor in GLIBC for word in ("--platform", f"manylinux_2_{minor}_aarch64")]
    own = str(ROOT / "build" / f"tools-cp{VERSION.replace('.', '')}" / "bin" / "python")  # made by wheel_aarch64
    wheel_aarch64.run(
        own, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade", "--target", str(FOLDER / "site"),
        *platforms, "--platform", "manylinux2014_aarch64", "--python-version", VERSION, "--implementation", "cp",
        "--abi", f"cp{VERSION.replace('.', '')}", "--abi", "abi3", "--abi", "none", "--only-binary=:all:",
        str(wheel), ONNX_RUNTIME,
    )  # fmt: skip


def answer(python: list[str], bundle: Path, question: Path) -> dict[str, Any]:
    """What `facrt run` says to a question under that Python."""
    sound = FOLDER / f"{Path(python[0]).stem}.wav"
    command = ["-m", "facrt.cli", "run", str(bundle), str(question), "--greedy", "--json", "--out", str(sound)]
    done = subprocess.run([*python, *command], check=True, stdout=subprocess.PIPE, cwd=FOLDER)
    return json.loads(done.stdout.splitlines()[-1])["turns"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--question", type=Path, required=True)
    parser.add_argument("--python", default=str(ROOT / ".venv" / "bin" / "python"), help="one that has facrt installed")
    options = parser.parse_args()
    bundle, question = options.bundle.resolve(), options.question.resolve()
    FOLDER.mkdir(parents=True, exist_ok=True)
    emulated = interpreter()
    install(wheel_aarch64.build(sys.executable, FOLDER))
    wanted = answer([options.python], bundle, question)
    found = answer(emulated, bundle, question)
    print(f"aarch64 says: {found['text']}")
    differing = [name for name in ("text_ids", "speech_ids") if found[name] != wanted[name]]
    if differing:
        raise SystemExit(f"{' and '.join(differing)} differ from this machine's, which says: {wanted['text']}")
    print(f"the same {len(found['text_ids'])} text ids and {len(found['speech_ids'])} speech ids as this machine's")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    main()
