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
    from alignrec_recbole.api.dataset import Dataset
    from alignrec_recbole.api.export import export_features, export_model
    from alignrec_recbole.api.leaderboards import load_leaderboard
    from alignrec_recbole.api.results import load_records, load_results
    from alignrec_recbole.api.running import run, run_protocol
    from alignrec_recbole.api.trained_model import TrainedModel, load_model
    from alignrec_recbole.dataset import MultimodalDataset
    from alignrec_recbole.features.table import load_features, save_features
    from alignrec_recbole.models._base import PairwiseRecommender
    from alignrec_recbole.models._content import ContentRecommender
    from alignrec_recbole.registry.models import list_models
    from alignrec_recbole.runs.record import RunRecord
    from alignrec_recbole.runs.spec import RunSpec

__all__ = [
    "ContentRecommender",
    "Dataset",
    "MultimodalDataset",
    "PairwiseRecommender",
    "RunRecord",
    "RunSpec",
    "TrainedModel",
    "__version__",
    "export_features",
    "export_model",
    "list_models",
    "load_features",
    "load_leaderboard",
    "load_model",
    "load_records",
    "load_results",
    "run",
    "run_protocol",
    "save_features",
]

_DEFINED_IN = {
    "ContentRecommender": "models._content",
    "Dataset": "api.dataset",
    "MultimodalDataset": "dataset",
    "PairwiseRecommender": "models._base",
    "RunRecord": "runs.record",
    "RunSpec": "runs.spec",
    "TrainedModel": "api.trained_model",
    "export_features": "api.export",
    "export_model": "api.export",
    "list_models": "registry.models",
    "load_features": "features.table",
    "load_leaderboard": "api.leaderboards",
    "load_model": "api.trained_model",
    "load_records": "api.results",
    "load_results": "api.results",
    "run": "api.running",
    "run_protocol": "api.running",
    "save_features": "features.table",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
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
