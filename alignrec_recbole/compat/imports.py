"""Modules that RecBole imports and current environments lack."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

from alignrec_recbole.compat.checkpoint_patches import _QUICK_START
from alignrec_recbole.compat.patching import _hook, _works
from alignrec_recbole.errors import MissingDependencyError

INSTALL_COMMAND = "pip install --no-deps recbole==1.2.1 thop"


def require_recbole() -> None:
    """Say how to install RecBole if it is not there.

    Raises:
        MissingDependencyError: with the one command.
    """
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("recbole")
    if spec is None:
        raise MissingDependencyError(
            "RecBole 1.2.1 is not installed.",
            found=f"Python {sys.version_info.major}.{sys.version_info.minor} without recbole",
            expected="recbole 1.2.1 (pip cannot resolve its ray pin on Python 3.12 and later)",
            hint=INSTALL_COMMAND,
        )


_METRICS = "recbole.evaluator.metrics"


def patch_ray() -> bool:
    """recbole.quick_start imports ray.tune at once; ray ≤ 2.6.3 cannot be imported today.

    ray 2.6.3 needs pkg_resources (gone from setuptools 81) and np.bool8 (gone from numpy 2), and
    has no wheel for Python 3.12. Stubs stand in only if the real one fails. RecBole #1518, #1820.
    """
    if _QUICK_START in sys.modules:
        return False
    return _hook(_QUICK_START, "ray", before=_stand_in_for_ray)


def _stand_in_for_ray() -> None:
    if _works(lambda: importlib.import_module("ray.tune")):
        return
    for name in [n for n in sys.modules if n == "ray" or n.startswith("ray.")]:
        del sys.modules[name]
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    tune.report = lambda **metrics: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    ray.__path__ = []  # type: ignore[attr-defined]
    sys.modules.update({"ray": ray, "ray.tune": tune})


def patch_sklearn() -> bool:
    """recbole.evaluator imports scikit-learn at once, 0.7 s and 67 MB, for AUC, MAE and RMSE.

    Its three functions are looked up when one of these metrics calls them.
    """
    if _METRICS in sys.modules or "sklearn" in sys.modules:
        return False
    return _hook(_METRICS, "sklearn", before=_stand_in_for_sklearn, after=_remove_sklearn)


def _stand_in_for_sklearn() -> None:
    if "sklearn" in sys.modules:
        return
    sklearn, metrics = types.ModuleType("sklearn"), types.ModuleType("sklearn.metrics")
    for name in ("auc", "mean_absolute_error", "mean_squared_error"):
        setattr(metrics, name, _called_later("sklearn.metrics", name))
    sklearn.stand_in = True  # type: ignore[attr-defined]
    sys.modules.update({"sklearn": sklearn, "sklearn.metrics": metrics})


def _remove_sklearn(module: Any) -> None:
    if hasattr(sys.modules["sklearn"], "stand_in"):
        del sys.modules["sklearn"], sys.modules["sklearn.metrics"]


def _called_later(module: str, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **keywords)

    return call
