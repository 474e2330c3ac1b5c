"""Tools of the patches: module proxies, replaced functions and work before an import."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ModuleProxy:
    """A module as one module of RecBole sees it: some names replaced, all others the real ones."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def replace_function(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    """Put one function in the place of another in every module that has imported it.

    `from recbole.utils import get_model` copies a function into the importing module, RecBole's
    own or a user's. Modules imported later copy the replacement.
    """
    name = original.__name__
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, replacement)


class _BeforeImport:
    """A finder that finds nothing; it calls a function when a module is first looked for."""

    def __init__(self, module: str, action: Callable[[], object]) -> None:
        self.module, self.action, self.pending = module, action, True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == self.module and self.pending:
            self.pending = False  # the action may look for the module itself
            try:
                self.action()
            except BaseException:
                self.pending = True
                raise


def before_import(module: str, action: Callable[[], object]) -> None:
    """Call a function once, before the code of a module runs; now, if it has been imported already.

    An error that the function raises becomes that of the import.

    Post-import hooks (wrapt) are too late for what a module's first lines import, and importing
    wrapt takes longer than all else that `import alignrec_recbole` does.
    """
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _BeforeImport(module, action))


def package_spec(name: str) -> ModuleSpec | None:
    """Where a package is, without the calls that wait for its import; None: nowhere."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    for finder in sys.meta_path:
        if not isinstance(finder, _BeforeImport) and (spec := finder.find_spec(name, None)):
            return spec
    return None


def works(action: Callable[[], Any]) -> bool:
    """Whether a call ends without an exception; its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
        except Exception:
            return False
    return True
