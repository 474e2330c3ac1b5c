"""Tools of the patches: module proxies and hooks that wait for an import."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import Any


class View:
    """A module as one module of RecBole sees it: some names replaced, all others the real ones."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _hook(
    module: str,
    label: str,
    before: Callable[[], None] = lambda: None,
    after: Callable[[Any], None] = lambda module: None,
) -> bool:
    """Run functions right before and after the code of a module, once it is imported."""
    if any(isinstance(f, _ImportHook) and f.label == label for f in sys.meta_path):
        return False
    sys.meta_path.insert(0, _ImportHook(module, label, before, after))
    return True


class _ImportHook(importlib.abc.MetaPathFinder):
    def __init__(
        self, module: str, label: str, before: Callable[[], None], after: Callable[[Any], None]
    ) -> None:
        self.module, self.label, self.before, self.after = module, label, before, after
        self.searching = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.module or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _HookedLoader(spec.loader, self)
        return spec


class _HookedLoader(importlib.abc.Loader):
    def __init__(self, inner: Any, hook: _ImportHook) -> None:
        self.inner, self.hook = inner, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def create_module(self, spec: Any) -> Any:
        return self.inner.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.hook.before()
        self.inner.exec_module(module)
        self.hook.after(module)


def _works(action: Callable[[], Any]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except Exception:
        return False
    return True
