"""AlignRec and multimodal baselines as RecBole models.

Importing this package imports neither torch nor RecBole. When RecBole is imported, it is patched
for the installed packages (alignrec_recbole/compat) and finds the models of this package
(alignrec_recbole/registry); where it is not installed, the error of the import says how to install
it. The names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alignrec_recbole._version import __version__
from alignrec_recbole.compat.patching import before_import

if TYPE_CHECKING:
    from pathlib import Path

    from alignrec_recbole.dataset import MultimodalDataset
    from alignrec_recbole.features.table import load_features, save_features
    from alignrec_recbole.models._base import PairwiseRecommender
    from alignrec_recbole.models._content import ContentRecommender
    from alignrec_recbole.registry.models import list_models
    from alignrec_recbole.runs.record import RunRecord
    from alignrec_recbole.runs.run import run_one as run
    from alignrec_recbole.runs.spec import RunSpec

__all__ = [
    "ContentRecommender",
    "MultimodalDataset",
    "PairwiseRecommender",
    "RunRecord",
    "RunSpec",
    "__version__",
    "list_models",
    "load_features",
    "load_results",
    "run",
    "save_features",
]

_DEFINED_IN = {
    "ContentRecommender": "models._content:ContentRecommender",
    "MultimodalDataset": "dataset:MultimodalDataset",
    "PairwiseRecommender": "models._base:PairwiseRecommender",
    "RunRecord": "runs.record:RunRecord",
    "RunSpec": "runs.spec:RunSpec",
    "list_models": "registry.models:list_models",
    "load_features": "features.table:load_features",
    "run": "runs.run:run_one",
    "save_features": "features.table:save_features",
}


def load_results(folder: str | Path) -> list[RunRecord]:
    """The records of finished runs in an output folder, in the order of their paths.

    Raises:
        RecordError: one of them is damaged.
    """
    from pathlib import Path

    from alignrec_recbole.runs.record import read_runs

    return [run.record for run in read_runs(Path(folder) / "runs")]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _DEFINED_IN[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _extend_recbole() -> None:
    from alignrec_recbole.compat import patches
    from alignrec_recbole.compat.imports import require_recbole
    from alignrec_recbole.registry import stock_recbole

    require_recbole()
    patches.register()
    stock_recbole.register()


before_import("recbole", _extend_recbole)
