"""facrt: export Fun-Audio-Chat to ONNX, compile it for a device, and hold a spoken conversation with the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import FacrtError as FacrtError
    from .runtime.engine import Engine as Engine
    from .runtime.engine import Reply as Reply
    from .runtime.engine import load as load

__version__ = "0.1.0"
__all__ = ["Engine", "FacrtError", "Reply", "__version__", "load"]

_LAZY = {"load": ".runtime.engine", "Engine": ".runtime.engine", "Reply": ".runtime.engine", "FacrtError": ".errors"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name], __name__), name)
