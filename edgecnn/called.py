"""Lets a module be called like the function of the public interface that has its name.

`edgecnn.export`, `edgecnn.bench` and `edgecnn.verify` are functions to whoever uses edgecnn, and modules to edgecnn
itself. Importing such a module, at any time, sets the name `edgecnn.export` to it: whoever calls that must not notice.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    """A module, and also the function of its name."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        return _function_of(self)(*given, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function_of(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """A function can be pickled by its name, so this can too."""
        return importlib.import_module, (self.__name__,)


def let_call(module: str) -> None:
    """Make the module of that name, such as edgecnn.export, callable as `edgecnn.api.export`."""
    sys.modules[module].__class__ = _Called


def _function_of(module: ModuleType) -> Any:
    return getattr(importlib.import_module("edgecnn.api"), module.__name__.rpartition(".")[2])
