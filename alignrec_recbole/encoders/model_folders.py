"""Models of Hugging Face from others: fetched, identified, and checked before they are built.

transformers builds a model from its config.json before it looks at the weights, so that a config
may ask for more memory or time than there is.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.opening import is_regular_file, read_json

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
    "_features": 1 << 16,
    "num_channels": 64,
    "num_mel_bins": 4096,
    "source_positions": 1 << 20,
}
COLOUR = re.compile("\x1b\\[[0-9;]*m")
NEEDED_PACKAGE = re.compile(r"requires the (\w+) library")  # in an ImportError of transformers
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # no pickles, no code
NOT_FETCHED = ("onnx/*", "openvino/*", "original/*")  # the same weights in other formats
SHARED = 64  # parameters per byte of weights: layers may share theirs, as ALBERT's do
SLACK = 1 << 24


def check_model(place: str) -> None:
    """Check a model's folder, or the config of a hub id that is cached.

    Raises:
        FeatureError: a file is no regular file or too large, there are no safetensors weights, or
            the config is no JSON object or asks for a model that is too large, or far larger than
            its weights.
    """
    folder = os.path.isdir(place)
    weights = _check_files(Path(place)) if folder else None
    path = Path(place, "config.json") if folder else _cached_config(place)
    if path is None or not os.path.lexists(path):
        return  # transformers says so
    try:
        config = read_json(path, what="model's config", error=FeatureError, max_bytes=16 << 20)
    except FeatureError as error:
        raise refused(place, f"{error.problem} {error.found}", "a JSON object") from error
    if not isinstance(config, dict):
        raise refused(place, f"config.json holds {type(config).__name__}", "a JSON object")
    parameters = check_sizes(place, config)
    if weights == 0:
        raise FeatureError(
            f"The model {Path(place).name!r} cannot be loaded.",
            found="no weights in .safetensors files",
            expected="safetensors weights; those in pickles are not read",
            hint="convert them: save_pretrained of transformers writes safetensors",
        )
    if weights is not None and parameters > SHARED * weights + SLACK:
        raise refused(
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
            raise refused(str(folder), f"{path.name} is no regular file", "regular files")
        if path.suffix == ".safetensors":
            weights += status.st_size
        elif path.suffix in (".json", ".txt", ".model") and status.st_size > MAX_TEXT_FILE_BYTES:
            raise refused(
                str(folder),
                f"{path.name} has {status.st_size:,} bytes",
                f"at most {MAX_TEXT_FILE_BYTES:,}",
            )
    return weights


def check_sizes(place: str, config: dict[str, Any], depth: int = 0) -> int:
    """About how many parameters a config asks for, those of its parts included."""
    parameters = 0
    for key, value in config.items():
        if isinstance(value, dict) and depth < 4:
            parameters += check_sizes(place, value, depth + 1)
        limit = next((n for end, n in LIMITS.items() if key.endswith(end)), None)
        if limit is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not -math.inf < value <= limit:  # NaN included
            raise refused(place, f"{key} {value!r} in config.json", f"at most {limit:,}")

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


def refused(place: str, found: str, expected: str) -> FeatureError:
    return FeatureError(
        f"The model {Path(place).name!r} cannot be loaded.",
        found=found,
        expected=expected,
        hint="name the folder of the complete model, as its publisher distributes it",
    )


def find_model(model: str, what: str) -> Path:
    """The folder of a model; a hub id is fetched first, unless it is cached.

    Weights in pickles and code are never fetched.

    Args:
        model: a hub id or a folder.
        what: what the model is to be, for the error: "text encoder".

    Raises:
        FeatureError: there is no such folder, and no such model can be reached.
    """
    if os.path.isdir(model):
        folder = Path(model)
        if not any(os.path.lexists(folder / name) for name in ("config.json", "modules.json")):
            raise cannot_be_loaded(what, model, ValueError("no config.json in the folder"))
        return folder
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            model, allow_patterns=list(FETCHED), ignore_patterns=list(NOT_FETCHED)
        )
    except Exception as error:  # not reachable, no such model, no such name
        raise cannot_be_loaded(what, model, error) from error
    return Path(found)


def cannot_be_loaded(what: str, model: str, error: Exception) -> FeatureError:
    """The error that a library cannot load a model."""
    package = NEEDED_PACKAGE.search(str(error)) if isinstance(error, ImportError) else None
    return FeatureError(
        f"The {what} {model!r} cannot be loaded.",
        found=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
        expected="a hub id that can be reached, or a folder with config, tokenizer or processor "
        "and safetensors weights",
        hint=f"pip install {package[1].lower()}" if package else "",
    )


def incomplete(what: str, model: str, missing: list[str]) -> FeatureError:
    """The error that a model's folder has no weights for some of its layers."""
    return FeatureError(
        f"The {what} {model!r} is incomplete.",
        found=f"{len(missing)} weights missing, for example {min(missing)}; they would be random",
        expected="the weights of every layer",
        hint="name the folder of the complete model",
    )


def load_model(
    given: str,
    what: str,
    processor_class: Any,
    model_class: Any,
    *,
    may_miss: str = "",
    **options: Any,
) -> tuple[Any, Any, list[str]]:
    """A model with its processor, from checked files, and the weights that are not in them.

    Args:
        processor_class, model_class: transformers' classes, with `from_pretrained`.
        may_miss: prefix of the weights that need not be in the files.
        options: of the model's `from_pretrained`.

    Raises:
        FeatureError: the model cannot be loaded, or other weights are missing.
    """
    folder = str(find_model(given, what))
    check_model(folder)
    closed = {"trust_remote_code": False}
    try:
        with quiet_transformers():
            processor = processor_class.from_pretrained(folder, **closed)
            model, loading = model_class.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **closed, **options
            )
    except Exception as error:  # each file format has errors of its own
        raise cannot_be_loaded(what, given, error) from error
    missing = sorted(loading["missing_keys"])
    needed = [key for key in missing if not (may_miss and key.startswith(may_miss))]
    if needed:
        raise incomplete(what, given, needed)
    return processor, model, missing


def shown_name(model: str) -> str:
    """The hub id, or the last part of a folder: a record shows nobody's folders."""
    return Path(model).resolve().name if os.path.isdir(model) else model


def folder_identity(place: str) -> dict[str, str]:
    """As earlier versions knew a local model: by its one file of weights, else by all files."""
    file = Path(place) / "model.safetensors"
    if is_regular_file(file):
        return {"weights_sha256": sha256_file(file)}
    if not os.path.isdir(place):
        return {}
    return {"files_sha256": _files_sha256(Path(place), Path(place).iterdir())}


def model_identity(model: str, what: str) -> dict[str, str]:
    """The name of a model and the hash of its files: weights, configs, tokenizer, pooling."""
    folder = find_model(model, what)
    own = (
        path
        for path in (*folder.iterdir(), *folder.glob("*/*"))
        if any(fnmatch(path.name, pattern) for pattern in FETCHED)
    )
    return {"model": shown_name(model), "files_sha256": _files_sha256(folder, own)}


def image_library() -> dict[str, str]:
    """What the processors of transformers scale images with; {} for Pillow.

    They take torchvision where it is installed, and rows then differ in the third digit.
    """
    from transformers.utils import is_torchvision_available

    return {"torchvision": metadata.version("torchvision")} if is_torchvision_available() else {}


def _files_sha256(folder: Path, paths: Iterable[Path]) -> str:
    files = sorted(path for path in paths if is_regular_file(path))
    listed = "\n".join(
        f"{path.relative_to(folder).as_posix()} {sha256_file(path)}" for path in files
    )
    return hashlib.sha256(listed.encode()).hexdigest()


class _Reports(logging.Handler):
    """Collects the names of missing weights from the reports that transformers logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.missing: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take the lines `name | MISSING |` of a report."""
        text = COLOUR.sub("", record.getMessage())
        rows = (line.split("|") for line in text.splitlines())
        self.missing += [row[0].strip() for row in rows if len(row) > 1 and "MISSING" in row[1]]


@contextlib.contextmanager
def missing_weights() -> Iterator[list[str]]:
    """Inside, the list grows by the weights that a model's files do not have.

    For models that another library loads by transformers; elsewhere `from_pretrained` returns them.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    level, passed_on, reports = logger.level, logger.propagate, _Reports()
    logger.addHandler(reports)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield reports.missing
    finally:
        logger.removeHandler(reports)
        logger.setLevel(level)
        logger.propagate = passed_on


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
