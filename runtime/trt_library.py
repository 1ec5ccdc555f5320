"""The two Python modules of TensorRT, opened and judged alike by the builder and by the backend."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, RequestError
from . import cuda
from .bundle import PlanEntry

MODULES = {"tensorrt_rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}
HOW_TO_INSTALL = {
    "tensorrt_rtx": "pip install 'facrt[rtx]'",
    "tensorrt": "apt install python3-libnvinfer on a Jetson, elsewhere: pip install 'facrt[gpu]'",
}


def open_library(name: str) -> Any:
    """The module of that library.

    Args:
        name: "tensorrt_rtx" or "tensorrt".

    Raises:
        RequestError: it is not installed, or does not load; the message says how to get it.
    """
    try:
        if name == "tensorrt_rtx":
            cuda.library()  # it must be there before the module is
        return importlib.import_module(MODULES[name])
    except (ImportError, OSError, cuda.CudaError, RuntimeError) as error:
        absent = isinstance(error, ModuleNotFoundError)
        fault = "is not installed" if absent else f"does not load ({' '.join(str(error).split())})"
        raise RequestError(f"{name} {fault}: {HOW_TO_INSTALL[name]}") from None


def dtype_names(trt: Any) -> dict[Any, str]:
    """The library's types that a table's tensors have -> numpy's names."""
    names = ("float32", "float16", "int8", "int64", "int32")
    return {getattr(trt, name): name for name in names}


def numbers(version: str) -> tuple[int, ...]:
    """ "10.3.0.26" -> (10, 3, 0, 26)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


class Log:
    """What TensorRT says; made into its logger by `logger_of`."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def last_error(self) -> str:
        return " ".join(self.errors[-1].split()) if self.errors else "it does not say why"


def logger_of(trt: Any, log: Log) -> Any:
    """A logger of that module which fills `log` and prints nothing."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                log.warnings.append(message)

    return Logger()


def refuse_foreign(path: Path, plan: PlanEntry, version: str, capability: int | None) -> None:
    """Judges a plan before it is loaded.

    Args:
        path: the plan, for the message.
        plan: its entry in the manifest.
        version: of the library at hand.
        capability: the GPU's SM number; None: there is none to judge by.

    Raises:
        BundleError: it was made by another version, or for other GPUs.
    """
    if version != plan.version:
        raise BundleError(
            f"{path} was compiled by {plan.library} {plan.version}, {version} is installed; "
            f"run facrt build {path.parent}"
        )
    if capability is not None and capability not in plan.capabilities:
        raise BundleError(
            f"{path} was compiled for {sm_names(plan.capabilities)}, this GPU is SM{capability}; "
            f"run facrt build {path.parent} here, or export for a target that has it"
        )


def sm_names(capabilities: Sequence[int]) -> str:
    return ", ".join(f"SM{number}" for number in capabilities)


def deserialize(trt: Any, path: Path) -> Any:
    """The engine in a file.

    Raises:
        BundleError: TensorRT does not take it.
    """
    log = Log()
    runtime = trt.Runtime(logger_of(trt, log))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BundleError(
            f"{path} is no plan that TensorRT {trt.__version__} takes: {log.last_error()}; facrt build makes it anew"
        )
    return engine
