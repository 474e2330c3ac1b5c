"""The table of models, and which models there are besides.

Importing this module, `resolve` and `list_models` import neither torch nor RecBole.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from alignrec_recbole.compat.imports import recbole_folder, require_recbole
from alignrec_recbole.errors import ModelError, UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.registry import recbole_gnn

ENTRY_POINTS = "alignrec_recbole.models"
RECBOLE_MODELS = "recbole.model.general_recommender"
UNSUPPORTED_MODELS = {"RaCT", "RecVAE"}  # of RecBole, with a trainer of their own
_OTHER_KINDS = {  # of RecBole: folder → what its models are
    "sequential_recommender": "sequential",
    "context_aware_recommender": "context-aware",
    "knowledge_aware_recommender": "knowledge-based",
    "exlib_recommender": "decision-tree",
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,79}")
DEFAULT_FEATURES = ("lsa",)  # computed from the items' texts, without a download


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be run by name.

    Attributes:
        name: as on the command line.
        target: "module:Class".
        family: native (this package's), recbole, recbole-gnn or plugin.
        needs_features: it cannot be built without item features.
    """

    name: str
    target: str
    family: str
    needs_features: bool = False

    @property
    def is_native(self) -> bool:
        """Whether the model is this package's."""
        return self.family == "native"

    @property
    def default_features(self) -> tuple[str, ...]:
        """Feature sets of a run that names none."""
        return DEFAULT_FEATURES if self.needs_features else ()


def native(name: str, module: str, needs_features: bool = False) -> ModelEntry:
    """The entry of the class `name` in alignrec_recbole/models/`module`.py."""
    return ModelEntry(name, f"alignrec_recbole.models.{module}:{name}", "native", needs_features)


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        native("AlignRec", "alignrec", needs_features=True),
        native("LightGCN", "lightgcn"),
        native("BPR", "bpr"),
        native("Pop", "pop"),
        native("VBPR", "vbpr", needs_features=True),
        native("BM3", "bm3", needs_features=True),
        native("FREEDOM", "freedom", needs_features=True),
        native("LATTICE", "lattice", needs_features=True),
        native("MGCN", "mgcn", needs_features=True),
        native("ItemKNNCBF", "itemknncbf", needs_features=True),
        native("ItemKNNHybrid", "itemknnhybrid", needs_features=True),
        native("ContentRidge", "contentridge", needs_features=True),
        native("CEASE", "cease", needs_features=True),
        native("AddEASE", "addease", needs_features=True),
        native("MMGF", "mmgf", needs_features=True),
        native("SMORE", "smore", needs_features=True),
        native("LGMRec", "lgmrec", needs_features=True),
        native("PGL", "pgl", needs_features=True),
        native("SLMRec", "slmrec", needs_features=True),
        native("DRAGON", "dragon", needs_features=True),
        native("GUME", "gume", needs_features=True),
        native("MMGCN", "mmgcn", needs_features=True),
        native("GRCN", "grcn", needs_features=True),
        native("DualGNN", "dualgnn", needs_features=True),
        native("DAMRS", "damrs", needs_features=True),
        native("MENTOR", "mentor", needs_features=True),
        native("COHESION", "cohesion", needs_features=True),
        native("MMGCF", "mmgcf", needs_features=True),
        native("SOIL", "soil", needs_features=True),
        native("MSCA", "msca", needs_features=True),
        native("REARM", "rearm", needs_features=True),
        native("MILK", "milk", needs_features=True),
        native("SiBraR", "sibrar", needs_features=True),
        ModelEntry("EASE", f"{RECBOLE_MODELS}.ease:EASE", "recbole"),
        ModelEntry("ItemKNN", f"{RECBOLE_MODELS}.itemknn:ItemKNN", "recbole"),
    )
}


# Models that read what no recommender may, to show that checks notice it; in no list of models.
CANARIES: dict[str, ModelEntry] = {
    entry.name: entry for entry in (native("PositionalCanary", "positional_canary"),)
}


def plugins() -> dict[str, ModelEntry]:
    """Models that installed packages offer under the entry-point group alignrec_recbole.models.

    `Name = "package.module:Class"`; with `[features]` behind it, the model needs item features.
    """
    from importlib import metadata

    return {
        point.name: ModelEntry(
            point.name,
            point.value.partition("[")[0].strip(),
            "plugin",
            "features" in point.value.partition("[")[2],
        )
        for point in metadata.entry_points(group=ENTRY_POINTS)
    }


def _plugin(entry: ModelEntry) -> ModelEntry:
    """A plug-in's entry, if its name can be an argument and a folder.

    Raises:
        ModelError: it cannot.
    """
    if not _NAME.fullmatch(entry.name):
        raise ModelError(
            f"The plug-in model {entry.name!r} has no usable name.",
            found=f"the entry point {entry.name!r} of {entry.target}",
            expected="letters, digits, _, + and -, the first a letter",
            hint="rename the entry point in the package that offers it",
        )
    return entry


def list_models() -> list[ModelEntry]:
    """Every model that can be run by name here, each name once.

    This package's, then those of plug-ins, of RecBole and of RecBole-GNN, if it can be imported.
    """
    found = {**plugins(), **MODELS}
    for name in sorted(stock_names() - UNSUPPORTED_MODELS):
        found.setdefault(name, _stock(name))
    if recbole_gnn.available():
        for name in recbole_gnn.MODELS:
            found.setdefault(name, _recbole_gnn(name))
    families = ("native", "plugin", "recbole", "recbole-gnn")
    return sorted(found.values(), key=lambda entry: families.index(entry.family))


def resolve(name: str) -> ModelEntry:
    """Find a model by name: this package's, a canary, a plug-in's, RecBole's, RecBole-GNN's.

    Raises:
        UnknownNameError: with the nearest name.
        MissingDependencyError: the name is RecBole-GNN's and no clone of it can be imported, or
            may be RecBole's, which is not installed.
    """
    if name in MODELS:
        return MODELS[name]
    if name in CANARIES:
        return CANARIES[name]
    offered = plugins()
    if name in offered:
        return _plugin(offered[name])
    stock = stock_names()
    if name in UNSUPPORTED_MODELS:
        raise UnknownNameError(
            f"{name} cannot be trained here.",
            found=name,
            expected="a model that learns from one loss per batch",
            hint=f"run it in RecBole itself: its {name}Trainer trains in parts of its own",
        )
    if name in stock:
        return _stock(name)
    if name in recbole_gnn.MODELS:
        return _recbole_gnn(name)
    if not stock:
        require_recbole()  # the name may be one of its models
    if kind := other_stock_names().get(name):
        raise UnknownNameError(
            f"{name} is a {kind} model of RecBole, and only general recommenders run here.",
            found=name,
            expected=f"one of {', '.join(sorted({*MODELS, *offered, *stock}))}",
            hint="run it in RecBole itself",
        )
    names = sorted({*MODELS, *offered, *stock, *recbole_gnn.MODELS} - UNSUPPORTED_MODELS)
    raise UnknownNameError(
        f"Unknown model {name!r}." + suggest(name, names),
        found=name,
        expected=f"one of {', '.join(names)}",
        hint="check the spelling, or install the package that offers it",
    )


def _stock(name: str) -> ModelEntry:
    return ModelEntry(name, f"{RECBOLE_MODELS}.{name.lower()}:{name}", "recbole")


def _recbole_gnn(name: str) -> ModelEntry:
    return ModelEntry(name, recbole_gnn.target(name), "recbole-gnn")


@functools.cache
def stock_names() -> frozenset[str]:
    """Class names of RecBole's general recommenders, read in its files without importing them."""
    return frozenset(_classes("general_recommender"))


@functools.cache
def other_stock_names() -> dict[str, str]:
    """Class name → kind, of RecBole's models that are no general recommenders."""
    return {name: kind for folder, kind in _OTHER_KINDS.items() for name in _classes(folder)}


def _classes(folder: str) -> list[str]:
    """Classes of RecBole's models that are named as their file is."""
    root = recbole_folder()
    return [
        name
        for path in ((root / "model" / folder).glob("*.py") if root else ())
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name.lower() == path.stem
    ]
