"""Models of Hugging Face from others: what is checked before transformers reads them.

transformers builds a model from its config.json before it looks at the weights, so that a config
may ask for more memory or time than there is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.opening import read_json

MAX_TEXT_FILE_BYTES = 512 << 20  # of tokenizers and configs
LIMITS = {  # largest value of a size, by the end of its key
    "layers": 256,
    "layer": 256,
    "heads": 1024,
    "head": 1024,
    "hidden_size": 1 << 15,
    "embed_dim": 1 << 15,
    "intermediate_size": 1 << 18,
    "d_model": 1 << 15,
    "d_ff": 1 << 18,
    "dim": 1 << 18,
    "n_embd": 1 << 15,
    "vocab_size": 1 << 22,
    "position_embeddings": 1 << 22,
    "n_positions": 1 << 22,
    "image_size": 4096,
    "patch_size": 4096,
    "experts": 1024,
}
SHARED = 64  # parameters per byte of weights: layers may share theirs, as ALBERT's do
SLACK = 1 << 24


def check_model(place: str) -> None:
    """Check a model's folder, or the config of a hub id that is cached.

    Raises:
        FeatureError: a file is no regular file or too large, or the config is no JSON object or
            asks for a model that is too large, or far larger than its weights.
    """
    folder = os.path.isdir(place)
    weights = _check_files(Path(place)) if folder else None
    path = Path(place, "config.json") if folder else _cached_config(place)
    if path is None or not os.path.lexists(path):
        return  # transformers says so
    try:
        config = read_json(path, what="model's config", error=FeatureError, max_bytes=16 << 20)
    except FeatureError as error:
        raise _refused(place, f"{error.problem} {error.found}", "a JSON object") from error
    if not isinstance(config, dict):
        raise _refused(place, f"config.json holds {type(config).__name__}", "a JSON object")
    parameters = _check_sizes(place, config)
    if weights is not None and parameters > SHARED * weights + SLACK:
        raise _refused(
            place,
            f"config.json asks for about {parameters:,} parameters",
            f"a config that belongs to {weights:,} bytes of weights",
        )


def _check_files(folder: Path) -> int:
    """Bytes of the weights, after all files were found to be readable."""
    weights = 0
    for path in sorted(folder.iterdir()):
        try:
            status = path.stat()
        except OSError:
            continue  # a link to nothing: transformers says what is missing
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise _refused(str(folder), f"{path.name} is no regular file", "regular files")
        if path.suffix == ".safetensors":
            weights += status.st_size
        elif path.suffix in (".json", ".txt", ".model") and status.st_size > MAX_TEXT_FILE_BYTES:
            raise _refused(
                str(folder),
                f"{path.name} has {status.st_size:,} bytes",
                f"at most {MAX_TEXT_FILE_BYTES:,}",
            )
    return weights


def _check_sizes(place: str, config: dict[str, Any], depth: int = 0) -> int:
    """About how many parameters a config asks for, those of its parts included."""
    parameters = 0
    for key, value in config.items():
        if isinstance(value, dict) and depth < 4:
            parameters += _check_sizes(place, value, depth + 1)
        limit = next((n for end, n in LIMITS.items() if key.endswith(end)), None)
        if limit is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not value <= limit:  # NaN included
            raise _refused(place, f"{key} {value!r} in config.json", f"at most {limit:,}")

    def size(*keys: str) -> int:
        found = (config.get(key) for key in keys)
        return next((max(0, int(v)) for v in found if isinstance(v, int | float)), 0)

    width = size("hidden_size", "d_model", "dim", "n_embd")
    inner = size("intermediate_size", "d_ff", "hidden_dim") or 4 * width
    layers = size("num_hidden_layers", "num_layers", "n_layers", "n_layer")
    positions = size("max_position_embeddings", "n_positions")
    rows = size("vocab_size") + positions
    return parameters + width * rows + layers * (4 * width**2 + 2 * width * inner)


def _cached_config(place: str) -> Path | None:
    from transformers.utils import cached_file

    try:
        found = cached_file(place, "config.json")
    except Exception:  # not reachable, no such model: from_pretrained says so
        return None
    return Path(found) if found else None


def _refused(place: str, found: str, expected: str) -> FeatureError:
    return FeatureError(
        f"The model {Path(place).name!r} cannot be loaded.",
        found=found,
        expected=expected,
        hint="name the folder of the complete model, as its publisher distributes it",
    )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers shows no bars (there is one, of the items) and no reports in colour."""
    from transformers.utils import logging as messages

    with_bars, level = messages.is_progress_bar_enabled(), messages.get_verbosity()
    messages.disable_progress_bar()
    messages.set_verbosity_error()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if with_bars:
            messages.enable_progress_bar()
