"""The modules of a sentence-transformers model, as its files name them: checked before use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignrec_recbole.encoders.model_folders import check_sizes, refused
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file, read_json

MAX_CONFIG_BYTES = 16 << 20
PICKLE = "pytorch_model.bin"
OWN = "sentence_transformers."  # classes of the library itself
TRANSFORMERS = ("Transformer", "CLIPModel")
ALLOWED = (
    *TRANSFORMERS,
    "Dense",
    "Dropout",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "StaticEmbedding",
    "WeightedLayerPooling",
)


def check_modules(folder: Path) -> Path | None:
    """Check the modules of a model's folder; the folder of its transformer, None if it has none.

    Raises:
        FeatureError: a module is of another library, needs code of the model, is too large or has
            its weights in a pickle alone, or the list of modules is damaged.
    """
    transformer = None
    for kind, place in _modules(folder):
        if kind in TRANSFORMERS:
            transformer = place
            continue
        _check_weights(folder, kind, place)
        path = place / "config.json"
        if is_regular_file(path):
            config = _read(folder, path)
            if not isinstance(config, dict):
                raise refused(str(folder), f"{kind}'s config.json holds no object", "a JSON object")
            check_sizes(str(folder), config)
    return transformer


def _check_weights(folder: Path, kind: str, place: Path) -> None:
    """Refuse a module whose weights the library would take from a pickle.

    A model is known by the hash of its files without pickles: other weights would go unnoticed.
    """
    if (place / PICKLE).exists() and not is_regular_file(place / "model.safetensors"):
        raise refused(
            str(folder),
            f"the weights of its module {kind} in {PICKLE} alone",
            "model.safetensors, from which all weights are read",
        )


def is_normalised_mean(folder: Path) -> bool:
    """Whether the files say: transformer, mean over the tokens, unit length, and no prompt."""
    if not is_regular_file(folder / "modules.json"):
        return False
    modules = _modules(folder)
    if [kind for kind, _ in modules] != ["Transformer", "Pooling", "Normalize"]:
        return False
    pooling = _read(folder, modules[1][1] / "config.json")
    modes = {key for key, value in pooling.items() if key.startswith("pooling_mode_") and value}
    if modes != {"pooling_mode_mean_tokens"} and pooling.get("pooling_mode") != "mean":
        return False
    return not any(own_prompts(folder).values())


def own_prompts(folder: Path) -> dict[str, str]:
    """The prompts that the model's files name."""
    path = folder / "config_sentence_transformers.json"
    own = _read(folder, path) if is_regular_file(path) else {}
    prompts = own.get("prompts") if isinstance(own, dict) else None
    if not isinstance(prompts or {}, dict):
        raise refused(str(folder), "prompts that are no object", "texts by name")
    return {str(name): str(text) for name, text in (prompts or {}).items()}


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The class of each module without its package, and its folder."""
    path = folder / "modules.json"
    if not is_regular_file(path):
        return [("Transformer", folder)]  # the library adds the mean over the tokens
    entries = _read(folder, path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise refused(str(folder), "modules.json is no list of objects", "a list of modules")
    found = []
    for entry in entries:
        kind, place = entry.get("type"), entry.get("path")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise refused(str(folder), "a module without a type or a path", "both, as strings")
        name = kind.rpartition(".")[2]
        if not kind.startswith(OWN) or name not in ALLOWED:
            raise refused(str(folder), f"a module {kind}", f"one of {', '.join(ALLOWED)}")
        found.append((name, inside(folder, place) if place else folder))
    return found


def _read(folder: Path, path: Path) -> Any:
    try:
        return read_json(path, what="config", error=FeatureError, max_bytes=MAX_CONFIG_BYTES)
    except FeatureError as error:
        raise refused(str(folder), f"{error.problem} {error.found}", "JSON") from error
