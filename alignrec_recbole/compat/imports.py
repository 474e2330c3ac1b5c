"""RecBole itself, and modules it imports that are missing today or costly."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignrec_recbole.compat.patching import package_spec, works
from alignrec_recbole.errors import MissingDependencyError

INSTALL_COMMAND = "pip install --no-deps recbole==1.2.1 thop"


def recbole_folder() -> Path | None:
    """Folder of the installed RecBole, found without importing it; None if it is missing."""
    spec = package_spec("recbole")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0]) if folders else None


def require_recbole() -> None:
    """Say how to install RecBole if it is missing.

    Raises:
        MissingDependencyError: with the one command.
    """
    if recbole_folder() is None:
        raise MissingDependencyError(
            "RecBole 1.2.1 is not installed.",
            found=f"Python {sys.version_info.major}.{sys.version_info.minor} without recbole",
            expected="recbole 1.2.1 (pip cannot resolve its ray pin on Python 3.12 and later)",
            hint=INSTALL_COMMAND,
        )


def patch_ray(recbole: Any) -> bool:
    """recbole.quick_start imports ray.tune; ray ≤ 2.6.3 cannot be imported on current packages.

    ray 2.6.3 needs pkg_resources (not in setuptools 81) and np.bool8 (not in numpy 2), and has no
    wheel for Python 3.12. Stubs replace it only if it cannot be imported. RecBole #1518, #1820.

    A ray that the program has started stays: where it has no ray.tune, which needs more packages
    than ray itself, only ray.tune is a stub.
    """
    if "recbole.quick_start.quick_start" in sys.modules:
        return False
    if works(lambda: importlib.import_module("ray.tune")):
        return False
    tune = types.ModuleType("ray.tune")
    tune.report = lambda **metrics: None  # type: ignore[attr-defined]
    started = sys.modules.get("ray")
    if started is not None and _is_initialized(started):
        started.tune = tune  # type: ignore[attr-defined]
        sys.modules["ray.tune"] = tune
        return True
    for name in [n for n in sys.modules if n == "ray" or n.startswith("ray.")]:
        del sys.modules[name]
    ray = types.ModuleType("ray")
    ray.tune = tune  # type: ignore[attr-defined]
    ray.__path__ = []  # type: ignore[attr-defined]
    sys.modules.update({"ray": ray, "ray.tune": tune})
    return True


def _is_initialized(ray: Any) -> bool:
    """Whether a program computes with ray; False for what is left of an import that failed."""
    try:
        return bool(ray.is_initialized())
    except Exception:
        return False


METRICS = "recbole.evaluator.metrics"
_DEFERRED = ("auc", "mean_absolute_error", "mean_squared_error")


def defer_sklearn() -> None:
    """Let recbole.evaluator.metrics import sklearn.metrics when one of its functions is called.

    RecBole imports it for AUC, MAE and RMSE in every process, which takes 1 s of CPU and 66 MiB, a
    tenth of the peak of LightGCN on Sports. While the module's first lines run, stubs stand in
    sys.modules; an sklearn that has been imported is used as it is. Call this before the module is
    imported.
    """
    if "sklearn" in sys.modules:
        return
    package, metrics = types.ModuleType("sklearn"), types.ModuleType("sklearn.metrics")
    for name in _DEFERRED:
        setattr(metrics, name, _imported_when_called("sklearn.metrics", name))
    sys.modules.update({"sklearn": package, "sklearn.metrics": metrics})

    def remove(_: object) -> None:
        for name, stub in (("sklearn", package), ("sklearn.metrics", metrics)):
            if sys.modules.get(name) is stub:
                del sys.modules[name]

    import wrapt

    wrapt.register_post_import_hook(remove, METRICS)


def _imported_when_called(module: str, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **keywords)

    return call
