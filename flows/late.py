"""Modules that are imported when they are used: help is there at once, and a command imports its own."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def when_used(*names: str) -> tuple[ModuleType, ...]:
    """Modules that are there at once, and are imported when something of them is asked for.

    The modules must not import Prefect, which reads its settings when it is imported.

    Args:
        names: Their full names.

    Raises:
        ModuleNotFoundError: There is no such module.
    """
    return tuple(map(_when_used, names))


def _when_used(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    package, _, last = name.rpartition(".")
    sys.modules[name] = module
    setattr(sys.modules[package], last, module)
    spec.loader.exec_module(module)
    return module
