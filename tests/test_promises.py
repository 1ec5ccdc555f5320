"""What facrt promises about itself: light imports, a whole wheel, the documented commands, one table, one direction."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import facrt as package
import onnxruntime as ort
import pytest
import typer
from facrt.cli import app
from facrt.model.components import Cache, Component, TensorSpec, components
from facrt.runtime.bundle import open_bundle

ROOT = Path(__file__).parent.parent
FOLDERS = ("model", "quant", "export", "runtime", "server")
HEAVY = ("torch", "onnx", "onnxscript", "onnx_ir", "transformers")


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_runtime_imports_nothing_heavy() -> None:
    loaded = fresh("import facrt.runtime.engine, sys; print(*sys.modules)").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_planning_needs_no_torch() -> None:
    imports = "import facrt.export.plan as p, facrt.export.devices as d, sys"
    loaded = fresh(f"{imports}; p.plan(p.read_source('8b'), d.DEVICES['h100']); print(*sys.modules)").split()
    assert "facrt.quant.schemes" in loaded
    assert not set(HEAVY) & set(loaded)


def test_the_package_itself_imports_next_to_nothing() -> None:
    loaded = fresh("import facrt, sys; print(*sys.modules)").split()
    assert not {*HEAVY, "numpy", "onnxruntime", "facrt.runtime", "facrt.errors"} & set(loaded)


def test_the_command_line_waits_for_its_verb() -> None:
    loaded = fresh("import facrt.cli, sys; print(*sys.modules)").split()
    assert not {*HEAVY, "numpy", "onnxruntime", "starlette", "pydantic", "uvicorn"} & set(loaded)


def test_the_public_names() -> None:
    code = "import facrt; print(*(getattr(facrt, n).__name__ for n in facrt.__all__ if n != '__version__'))"
    assert fresh(code).split() == ["Engine", "FacrtError", "Reply", "load"]
    assert package.__version__ == importlib.metadata.version("facrt")
    with pytest.raises(AttributeError, match="has no attribute 'nose'"):
        _ = package.nose


def tracked(*patterns: str) -> set[str]:
    """Files of the repository; without git, all that match."""
    try:
        listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(listed.stdout.split())
    except (OSError, subprocess.CalledProcessError):
        return {str(path.relative_to(ROOT).as_posix()) for pattern in patterns for path in ROOT.glob(pattern)}


def test_the_wheel_is_whole() -> None:
    where = Path(package.__file__ or "").resolve()
    if "site-packages" not in where.parts:
        pytest.skip(f"facrt is imported from {where.parent}, not from an installed wheel")
    held = {str(PurePosixPath(file)) for file in importlib.metadata.files("facrt") or []}
    wanted = {name for folder in FOLDERS for name in tracked(f"{folder}/*.py", f"{folder}/**/*.py")}
    wanted |= {name for name in tracked("*.py") if "/" not in name}
    wanted |= {"py.typed", "runtime/_native.pyi", "server/page.html"}
    assert {"__init__.py", "cli.py", "errors.py", "report.py", "runtime/engine.py"} <= wanted
    assert sorted(name for name in wanted if f"facrt/{name}" not in held) == []
    assert [name for name in held if re.fullmatch(r"facrt/runtime/_native\.\S+\.(so|pyd|dylib)", name)]
    assert "optimum/commands/register/facrt_export.py" in held
    assert not [name for name in held if name.startswith(("facrt/tests", "facrt/bench", "facrt/docs"))]


def test_every_script_starts() -> None:
    section = (ROOT / "pyproject.toml").read_text().split("[project.scripts]\n")[1].split("\n\n")[0]
    names = re.findall(r"^([\w-]+) = ", section, re.MULTILINE)
    assert names == ["facrt"]
    for name in names:
        script = Path(sys.executable).parent / name
        result = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr
        assert "export" in result.stdout


def options(verb: str) -> set[str]:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {name for parameter in commands[verb].params for name in (*parameter.opts, *parameter.secondary_opts)}


def documented() -> dict[str, set[str]]:
    """Verb -> options, as ARCHITECTURE.md lists them."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text().split("## Public face")[1].split("```")[1]
    parts = re.split(r"\bfacrt (?=[a-z]+\b)", text)[1:]
    return {part.split()[0]: set(re.findall(r"--[a-z][a-z-]*", part)) for part in parts}


@pytest.mark.parametrize(
    "verb", ["export", "run", "chat", "serve", "profile", "verify", "build", "inspect", "plan", "doctor"]
)
def test_the_commands_are_as_documented(verb: str) -> None:
    listed = documented()[verb]
    assert listed <= options(verb)
    if verb != "doctor":
        assert "--json" in listed
    assert "--json" in options(verb)


def tensors(component: Component) -> tuple[list[TensorSpec], list[TensorSpec]]:
    inputs = [*component.inputs, *(pair.input for pair in component.states)]
    return inputs, [*component.outputs, *(pair.output for pair in component.states)]


def test_the_table(golden_bundle: Path) -> None:
    manifest = open_bundle(golden_bundle).manifest
    for cache in ("prefix", "static"):
        table = components(manifest.model, Cache(cache))
        assert list(table) == [
            "audio_encoder", "audio_grouping", "backbone", "speech_upsampling", "speech_head", "flow_front",
            "flow_estimator", "vocoder_source", "vocoder", "speech_tokenizer",
        ]  # fmt: skip
        for name, component in table.items():
            assert component.name == name
            for specs in tensors(component):
                assert len({spec.name for spec in specs}) == len(specs)
            assert not {s.name for s in tensors(component)[0]} & {s.name for s in tensors(component)[1]}


TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64"}


def test_every_graph_is_as_the_table_says(golden_bundle: Path) -> None:
    bundle = open_bundle(golden_bundle)
    assert set(bundle.components) == set(bundle.manifest.graphs)
    for name, component in bundle.components.items():
        session = ort.InferenceSession(bundle.graph_path(name), providers=["CPUExecutionProvider"])
        for specs, found in zip(tensors(component), (session.get_inputs(), session.get_outputs()), strict=True):
            assert [tensor.name for tensor in found] == [spec.name for spec in specs]
            assert [TYPES[tensor.type] for tensor in found] == [spec.dtype for spec in specs]
            for tensor, spec in zip(found, specs, strict=True):
                assert len(tensor.shape) == len(spec.axes), spec
                for size, axis in zip(tensor.shape, spec.axes, strict=True):
                    assert size == axis if isinstance(axis, int) else not isinstance(size, int), (name, spec, size)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            yield from ((node.level, prefix + alias.name) for alias in node.names)


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


ALLOWED_MODEL = {"config", "components", "geometry", "settings", "turn", "noise"}


@pytest.mark.parametrize("path", sources("runtime"), ids=lambda path: path.name)
def test_the_runtime_stands_on_little(path: Path) -> None:
    for level, name in imports(path):
        top, *rest = name.split(".")
        if level == 0:
            assert top not in (*HEAVY, "facrt"), name
        elif level == 2:
            assert top == "errors" or (top == "model" and rest[0] in ALLOWED_MODEL), name
        else:
            assert level == 1, name


BELOW = {
    "server": {"errors", "model", "runtime", "server"},
    "model": {"errors", "model"},
    "quant": {"errors", "model", "quant"},
    "export": {"errors", "model", "quant", "runtime", "export", "staging", "__version__"},
    "train": {"errors", "model", "quant", "runtime", "train", "staging", "__version__"},
}


@pytest.mark.parametrize("folder", BELOW)
def test_imports_never_go_upward(folder: str) -> None:
    for path in sources(folder):
        for level, name in imports(path):
            if level == 2:
                assert name.split(".")[0] in BELOW[folder], (path.name, name)
            assert level < 3, (path.name, name)
            assert level or name.split(".")[0] != "facrt", (path.name, name)


def test_torch_free_parts_of_the_model() -> None:
    modules = ", ".join(f"facrt.model.{name}" for name in sorted(ALLOWED_MODEL))
    assert not set(HEAVY) & set(fresh(f"import {modules}, sys; print(*sys.modules)").split())
