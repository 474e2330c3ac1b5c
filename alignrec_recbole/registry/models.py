"""Names → models, for this package's runner and for stock RecBole.

`install()` makes stock `run_recbole(model="AlignRec", …)` find our models, data set, trainer and
YAML defaults through the import system, without touching the installed wheel. Names that RecBole
has itself keep their stock classes there; our own runner passes classes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import MissingDependencyError, UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.registry import recbole_gnn

ENTRY_POINTS = "alignrec_recbole.models"
_RECBOLE = "recbole.model.general_recommender"
UNSUPPORTED_MODELS = {"RaCT", "RecVAE"}  # of RecBole, with a trainer of their own


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be run by name.

    Attributes:
        name: as on the command line.
        target: "module:Class".
        family: ours, recbole, recbole-gnn or plugin.
        needs_features: it cannot be built without item features.
    """

    name: str
    target: str
    family: str
    needs_features: bool = False


def _ours(name: str, module: str, needs_features: bool = False) -> ModelEntry:
    return ModelEntry(name, f"alignrec_recbole.models.{module}:{name}", "ours", needs_features)


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        _ours("AlignRec", "alignrec", needs_features=True),
        _ours("LightGCN", "lightgcn"),
        _ours("BPR", "bpr"),
        _ours("Pop", "pop"),
        _ours("VBPR", "vbpr", needs_features=True),
        _ours("BM3", "bm3", needs_features=True),
        _ours("FREEDOM", "freedom", needs_features=True),
        _ours("LATTICE", "lattice", needs_features=True),
        _ours("MGCN", "mgcn", needs_features=True),
        _ours("ItemKNNCBF", "itemknncbf", needs_features=True),
        _ours("SMORE", "smore", needs_features=True),
        _ours("LGMRec", "lgmrec", needs_features=True),
        _ours("PGL", "pgl", needs_features=True),
        _ours("SLMRec", "slmrec", needs_features=True),
        _ours("DRAGON", "dragon", needs_features=True),
        _ours("GUME", "gume", needs_features=True),
        _ours("MMGCN", "mmgcn", needs_features=True),
        _ours("GRCN", "grcn", needs_features=True),
        _ours("DualGNN", "dualgnn", needs_features=True),
        ModelEntry("EASE", f"{_RECBOLE}.ease:EASE", "recbole"),
        ModelEntry("ItemKNN", f"{_RECBOLE}.itemknn:ItemKNN", "recbole"),
    )
}


def plugins() -> dict[str, ModelEntry]:
    """Models that installed packages offer under the entry-point group alignrec_recbole.models.

    `Name = "package.module:Class"`; with `[features]` behind it, the model needs item features.
    """
    return {
        point.name: ModelEntry(
            point.name, f"{point.module}:{point.attr}", "plugin", "features" in point.extras
        )
        for point in metadata.entry_points(group=ENTRY_POINTS)
    }


def resolve(name: str) -> ModelEntry:
    """Find a model by name: ours, a plug-in's, RecBole's, RecBole-GNN's.

    Raises:
        UnknownNameError: with the nearest name.
        MissingDependencyError: the name is RecBole-GNN's and no clone of it can be imported.
    """
    for known in (MODELS, plugins()):
        if name in known:
            return known[name]
    stock = _stock_models()
    if name in UNSUPPORTED_MODELS:
        raise UnknownNameError(
            f"{name} cannot be trained here.",
            found=name,
            expected="a model that learns from one loss a batch",
            hint=f"run it in RecBole itself: its {name}Trainer trains in parts of its own",
        )
    if name in stock:
        return ModelEntry(name, f"{_RECBOLE}.{name.lower()}:{name}", "recbole")
    if name in recbole_gnn.MODELS:
        return ModelEntry(name, recbole_gnn.target(name), "recbole-gnn")
    names = sorted({*MODELS, *plugins(), *stock, *recbole_gnn.MODELS} - UNSUPPORTED_MODELS)
    raise UnknownNameError(
        f"Unknown model {name!r}." + suggest(name, names),
        found=name,
        expected=f"one of {', '.join(names)}",
        hint="check the spelling, or install the package that offers it",
    )


@functools.cache
def _stock_models() -> frozenset[str]:
    """Class names of RecBole's general recommenders, read in its files without importing them."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(spec.submodule_search_locations[0]) / "model" / "general_recommender"
    return frozenset(
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name.lower() == path.stem
    )


def load_class(name: str) -> Any:
    """The class of a model.

    Raises:
        MissingDependencyError: a plug-in's module or class cannot be imported.
    """
    entry = resolve(name)
    if entry.family == "recbole-gnn":
        return recbole_gnn.load(name)
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if entry.family != "plugin":
            raise
        raise MissingDependencyError(
            f"The plug-in model {name!r} cannot be imported.",
            found=f"{type(error).__name__}: {error}",
            expected=entry.target,
            hint="repair or uninstall the package that offers it",
        ) from error
