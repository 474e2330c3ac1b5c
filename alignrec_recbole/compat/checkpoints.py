"""RecBole's checkpoints as tensors and plain data, written atomically and read without pickle.

Config           its plain values; a new Config is built from them on reading
numpy, scipy     tensors with the name of their type
everything else  pickled; such a file is read only by the process that wrote it, if unchanged
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import atomic_write, sha256_file

_trusted_files: dict[str, str] = {}  # path → sha256 of the checkpoints of this process
_UNTOUCHED = ("state_dict", "optimizer")
_PROCESS_KEYS = {"device", "local_rank", "single_spec", "MODEL_TYPE", "MODEL_INPUT_TYPE",
                 "eval_type"}  # fmt: skip
_SPARSE_PARTS = ("data", "indices", "indptr")


def save(state: Any, file: Any, **keywords: Any) -> None:
    """Write a checkpoint atomically, in torch's default protocol (torch refuses RecBole's).

    Args:
        state: RecBole's dict: config, state_dict, optimizer, other_parameter, …
        file: path of the file.
        keywords: those of `torch.save`, ignored.
    """
    import torch

    if isinstance(state, dict):
        state = {k: v if k in _UNTOUCHED else _encode(v) for k, v in state.items()}
    path = Path(file)
    with atomic_write(path) as handle:
        torch.save(state, handle)
    _trusted_files[str(path.resolve())] = sha256_file(path)


def load(file: Any, map_location: Any = None, **keywords: Any) -> Any:
    """Read a checkpoint safely, with the Config and arrays that were saved.

    Raises:
        DataError: the file is damaged, or holds more than tensors and plain data and was not
            written by this process.
    """
    import torch

    path = Path(file).resolve()
    trusted = str(path) in _trusted_files and _trusted_files[str(path)] == sha256_file(path)
    try:
        state = torch.load(path, map_location=map_location, weights_only=not trusted)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise DataError(
            f"The checkpoint {path.name} cannot be read safely.",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="tensors and plain data, or a file that this very process wrote",
            hint="train again with this package imported; if you trust the file, rewrite it: "
            "alignrec_recbole.compat.checkpoints.save("
            "torch.load(FILE, weights_only=False), NEW_FILE)",
        ) from error
    if not isinstance(state, dict):
        return state
    return {k: v if k in _UNTOUCHED else _decode(v) for k, v in state.items()}


def _encode(value: Any) -> Any:
    import numpy as np
    import scipy.sparse as sp
    import torch
    from recbole.config import Config

    if isinstance(value, Config):
        return {"__config__": _plain_config(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"__numpy__": torch.from_numpy(np.ascontiguousarray(value))}
    if sp.issparse(value):
        compressed = value.asformat(_compressed(value.format))
        parts = {part: _encode(getattr(compressed, part)) for part in _SPARSE_PARTS}
        return {"__scipy__": type(value).__name__, "shape": list(value.shape), **parts}
    if type(value) is dict:
        return {key: _encode(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_encode, value))
    return value


def _compressed(form: str) -> str:
    return "csc" if form == "csc" else "csr"


def _decode(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(_decode, value))
    if type(value) is not dict:
        return value
    if "__config__" in value:
        return _revive_config(value["__config__"])
    if "__numpy__" in value:
        return value["__numpy__"].cpu().numpy()
    if "__scipy__" in value:
        import scipy.sparse as sp

        form, kind = value["__scipy__"].split("_")  # lil_matrix, csr_array, …
        parts = tuple(_decode(value[part]) for part in _SPARSE_PARTS)
        family = {"matrix": (sp.csr_matrix, sp.csc_matrix), "array": (sp.csr_array, sp.csc_array)}
        compressed = family[kind][_compressed(form) == "csc"]
        return compressed(parts, shape=tuple(value["shape"])).asformat(form)
    return {key: _decode(item) for key, item in value.items()}


def _plain_config(config: Any) -> dict[str, Any]:
    values = {
        key: value
        for key, value in config.final_config_dict.items()
        if key not in _PROCESS_KEYS and _is_plain(value)
    }
    values["model"] = model = str(config.model)  # not a subclass, which cannot be read safely
    return {"model": model, "dataset": config.dataset, "values": values}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or (
        isinstance(value, (str, int, float, bool)) and not isinstance(value, Enum)
    )


def _revive_config(plain: dict[str, Any]) -> Any:
    from recbole.config import Config

    from alignrec_recbole.compat.config import hide_command_line

    values = plain["values"]
    given = {key: value for key, value in values.items() if key not in ("model", "dataset")}
    if (values.get("train_neg_sample_args") or {}).get("distribution") == "none":
        given["train_neg_sample_args"] = None  # as it was before Config filled it in
    with hide_command_line():
        config = Config(model=plain["model"], dataset=plain["dataset"], config_dict=given)
    config.final_config_dict.update(values)
    return config
