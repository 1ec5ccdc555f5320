"""A bundle's graphs -> TensorRT plans in the bundle: ahead of time, or on the device that will run them; no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import FacrtError, RequestError
from ..runtime import cuda
from ..runtime.bundle import Bundle, Manifest, PlanEntry, hash_files, open_bundle
from ..runtime.trt_library import numbers, open_library, sm_names
from .compile import OVERHEAD, OVERHEAD_BYTES, Compiled, Job, compile_apart, graph_bytes, profiles_of
from .memory import available_bytes, compiler_bytes
from .targets import TARGETS, Build

# Pitch is computed in float64, which TensorRT does not have: it stays with ONNX Runtime, on the CPU.
NOT_COMPILED = ("vocoder_source",)
FP8_SM = 89  # the first with E4M3
Progress = Callable[[str, str, int], None]  # stage, component, bytes written (0: begins)


def open_build_library(build: Build) -> Any:
    """The library that a target is compiled with.

    Raises:
        RequestError: it is not installed, or too old.
    """
    trt = open_library(build.library)
    least = ".".join(map(str, build.minimum))
    if numbers(trt.__version__) < build.minimum:
        raise RequestError(f"{build.library} {trt.__version__} is too old for these graphs; {least} or newer is needed")
    return trt


def build_plans(folder: Path, progress: Progress = lambda *_: None) -> Manifest:
    """Compiles every component of a bundle for this machine, or ahead of time where the target allows it.

    Plans of an earlier build are replaced when all new ones are there; where it fails, the bundle stays as it was.

    Raises:
        BundleError: no bundle, or a damaged one.
        CompileError: TensorRT does not take a graph.
        RequestError: the target is not compiled, the library is absent or too old, the GPU is another one.
        FacrtError: too little memory, or the plans cannot be written.
    """
    bundle = open_bundle(folder, check_hashes=False)
    manifest = bundle.manifest
    target = TARGETS.get(manifest.target)
    if target is None or target.build is None:
        raise RequestError(f"{folder} is for {manifest.target}, which nothing is compiled for: it runs as it is")
    build = target.build
    open_build_library(build)
    device = None if build.ahead_of_time else _refuse_other_device(folder, target.name, build)
    names = [name for name in bundle.components if name not in NOT_COMPILED]
    _refuse_little_memory(bundle, names, device)
    capabilities = build.capabilities if device is None else (device.capability,)
    plans: dict[str, PlanEntry] = {}
    written: list[Path] = []
    try:
        for name in names:
            fitting = tuple(sm for sm in capabilities if manifest.recipe[name] != "fp8" or sm >= FP8_SM)
            if not fitting:
                raise RequestError(
                    f"{name} is stored in fp8, which {sm_names(capabilities)} cannot compute: export int8"
                )
            progress("compiling", f"{name} plan", 0)
            path = folder / f"{name}.plan.partial"
            written.append(path)
            done = compile_component(bundle, name, build, path, fitting if device is None else ())
            plans[name] = PlanEntry(f"{name}.plan", build.library, done.version, fitting)
            progress("compiling", f"{name} plan", done.plan_bytes)
        for name in names:
            (folder / f"{name}.plan.partial").replace(folder / f"{name}.plan")
    except OSError as error:
        raise FacrtError(f"the plans cannot be written to {folder} ({os.strerror(error.errno or 0)})") from None
    finally:
        for path in written:
            path.unlink(missing_ok=True)
    files = {**manifest.files, **hash_files(folder, [plan.file for plan in plans.values()])}
    built = replace(manifest, plans=plans, files=files)
    built.write(folder)
    return built


def compile_component(bundle: Bundle, name: str, build: Build, plan: Path, capabilities: tuple[int, ...]) -> Compiled:
    """One component's plan, in a process of its own; `capabilities` empty: for the GPU that is here."""
    component = bundle.components[name]
    job = Job(build.library, str(bundle.graph_path(name)), str(plan), profiles_of(component), list(capabilities))
    return compile_apart(job, component)


def _refuse_other_device(folder: Path, target: str, build: Build) -> cuda.Device:
    device = cuda.device()
    if device.capability not in build.capabilities:
        raise RequestError(
            f"{folder} is for {target} ({sm_names(build.capabilities)}), this GPU is SM{device.capability}; "
            "export it for another target"
        )
    return device


def estimated_bytes(sizes: Mapping[str, int]) -> tuple[str, int]:
    """The component that takes the most memory to compile, and how much; they are compiled one after the other.

    Args:
        sizes: component -> bytes of its graph.
    """
    largest = max(sizes, key=lambda name: sizes[name])
    return largest, compiler_bytes(sizes[largest])


def _refuse_little_memory(bundle: Bundle, names: list[str], device: cuda.Device | None) -> None:
    sizes = {name: graph_bytes(bundle.graph_path(name)) for name in names}
    name, needed = estimated_bytes(sizes)
    places = [("memory", needed, available_bytes())]
    if device is not None and device.is_integrated:
        places.append(("memory", needed, device.free_bytes))
    elif device is not None:
        places.append(("the GPU's memory", int(OVERHEAD * sizes[name]) + OVERHEAD_BYTES, device.free_bytes))
    for place, wanted, free in places:
        if wanted > free:
            raise FacrtError(
                f"compiling {name} needs about {wanted / 2**30:.1f} GiB of {place}, {free / 2**30:.1f} are free: "
                "stop other programs, or export with smaller weights (--precision int4)"
            )
