"""The installed C and C++ library: its examples, built against the installed package, give the Python runtime's ids."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from facrt.runtime import _native

ROOT = Path(__file__).parents[2]
NUM_PROMPT = 5


def find_tool(name: str) -> str:
    beside_python = Path(sys.executable).with_name(name)
    tool = str(beside_python) if beside_python.exists() else shutil.which(name)
    assert tool is not None, f"{name} is missing; pip install '.[test]' brings it"
    return tool


def run(*command: object) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


def configure(source: Path, build: Path, *settings: str) -> None:
    ninja = f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}"
    run(find_tool("cmake"), "-S", source, "-B", build, "-G", "Ninja", ninja, *settings)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cmake --install` puts where a user says; the build is that of `make test` where there is one."""
    out = tmp_path_factory.mktemp("installed")
    build = ROOT / "build/tests"
    if not (build / "CMakeCache.txt").exists():
        build = tmp_path_factory.mktemp("build")
        configure(ROOT, build)
    run(find_tool("cmake"), "--build", build, "--target", "facrt_static", "facrt_shared")
    run(find_tool("cmake"), "--install", build, "--component", "development", "--prefix", out)
    return out


@pytest.fixture(scope="module")
def examples(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(shutil.copytree(ROOT / "cpp_ext/examples", tmp_path_factory.mktemp("user") / "examples"))
    build = tmp_path_factory.mktemp("examples")
    configure(source, build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Werror")
    run(find_tool("cmake"), "--build", build)
    return build


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hidden") / "hidden.f32"
    np.random.default_rng(4).standard_normal((NUM_PROMPT + 6, 64)).astype("<f4").tofile(path)
    return path


@pytest.mark.parametrize("example", ["speech_ids_c", "speech_ids_cpp"])
def test_the_examples_ids_are_the_runtimes(examples: Path, example: str, golden_bundle: Path, hidden: Path) -> None:
    head = golden_bundle / "speech_head.bin"
    lines = run(examples / example, head, hidden, NUM_PROMPT).splitlines()
    found = [[int(token) for token in line.split()] for line in lines]

    u = np.fromfile(hidden, np.float32).reshape(-1, 64)
    loop, sampler = _native.SpeechHeadLoop(head), _native.Sampler(0)
    loop.prefill(u[:NUM_PROMPT], sampler, greedy=True, repetition_penalty=1.2)
    wanted = []
    for row in u[NUM_PROMPT:]:
        wanted.append(loop.group(row, sampler, greedy=True, repetition_penalty=1.2))
        sampler.remember(np.array(wanted[-1], np.int64))
    assert found == wanted
    assert len(found) == 6


@pytest.mark.parametrize("example", ["speech_ids_c", "speech_ids_cpp"])
def test_an_examples_mistakes_end_in_one_line(
    examples: Path, example: str, golden_bundle: Path, hidden: Path, tmp_path: Path
) -> None:
    head = golden_bundle / "speech_head.bin"
    cut = tmp_path / "speech_head.bin"
    cut.write_bytes(head.read_bytes()[:1000])
    for arguments, part in (
        ([], "usage"),
        (["/nonexistent", hidden, 5], "/nonexistent"),
        ([cut, hidden, 5], "export the bundle again"),
        ([head, hidden, 12], "NUM_PROMPT must be"),
    ):
        command = [examples / example, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert part in result.stderr


def test_the_shared_library_shows_facrts_names_only(prefix: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    (library,) = {path.resolve() for path in prefix.glob("lib*/**/libfacrt.so*")}
    listed = run(nm, "--dynamic", "--demangle", "--defined-only", library).splitlines()
    names = [line.split(maxsplit=2)[2] for line in listed]
    assert [name for name in names if "facrt" not in name.split("(")[0]] == []
    assert {"facrt_speech_head_open", "facrt_speech_head_group", "facrt_last_error"} <= set(names)
    assert any(name.startswith("facrt::SpeechHeadLoop::prefill(") for name in names)
