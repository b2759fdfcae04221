"""Calls a function right after a module is executed, however it is imported."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], object]


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find a module, and wraps its loader."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {}
        self._asking = False

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.callbacks or self._asking:
            return None
        self._asking = True
        try:
            spec = _find(name, path, target)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            self._wrap(name, spec.loader)
        return spec

    def _wrap(self, name: str, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for callback in self.callbacks.get(name, ()):
                _call(callback, module)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            return


def _find(name: str, path: Any, target: ModuleType | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and finder is not _finder and (spec := find(name, path, target)):
            return spec  # type: ignore[no-any-return]
    return None


def _call(callback: Callback, module: ModuleType) -> None:
    try:
        callback(module)
    except Exception:
        complain()


def complain() -> None:
    """Print the exception that is being handled."""
    import traceback

    traceback.print_exc()


_finder = _Finder()


def after_import(name: str, callback: Callback) -> None:
    """Call `callback` with the module of this full name after its import, or now if it is loaded.

    An exception of `callback` is printed and not propagated.
    """
    if name in sys.modules:
        _call(callback, sys.modules[name])
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.callbacks.setdefault(name, []).append(callback)
