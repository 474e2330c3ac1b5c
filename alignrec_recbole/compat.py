"""RecBole 1.2.1, unmodified, on current Python, numpy, pandas, scipy and torch.

Each patch is one function: why, where it is reported, and a probe of the behaviour it repairs. On a
stack that does not need it, the probe says so and nothing is changed. `apply()` runs them all once;
patches of modules that may never be imported wait until they are.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.abc
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import DataError, MissingDependencyError, UnknownNameError
from alignrec_recbole.files import atomic_write, sha256_file

INSTALL_COMMAND = "pip install --no-deps recbole==1.2.1 thop"


def require_recbole() -> None:
    """Say how to install RecBole if it is not there.

    Raises:
        MissingDependencyError: with the one command.
    """
    if importlib.util.find_spec("recbole") is None:
        raise MissingDependencyError(
            "RecBole 1.2.1 is not installed.",
            came=f"Python {sys.version_info.major}.{sys.version_info.minor} without recbole",
            expected="recbole 1.2.1 (pip cannot resolve its ray pin on Python 3.12 and later)",
            next=INSTALL_COMMAND,
        )


# Imports ----------------------------------------------------------------------------------------


def patch_ray() -> bool:
    """recbole.quick_start imports ray.tune at once; ray ≤ 2.6.3 cannot be imported today.

    ray 2.6.3 needs pkg_resources (gone from setuptools 81) and np.bool8 (gone from numpy 2), and
    has no wheel for Python 3.12. Stubs stand in only if the real one fails. RecBole #1518, #1820.
    """
    return _before_import("recbole.quick_start", _stand_in_for_ray)


def _stand_in_for_ray() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray.tune
        return
    except Exception:
        for name in [n for n in sys.modules if n == "ray" or n.startswith("ray.")]:
            del sys.modules[name]
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    tune.report = lambda **metrics: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    ray.__path__ = []  # type: ignore[attr-defined]
    sys.modules.update({"ray": ray, "ray.tune": tune})


class _Before(importlib.abc.MetaPathFinder):
    """Runs a function just before a module is looked for, then steps aside."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name, self.action = name, action

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == self.name:
            sys.meta_path.remove(self)
            self.action()


def _before_import(name: str, action: Callable[[], None]) -> bool:
    if name in sys.modules:
        return False
    sys.meta_path.insert(0, _Before(name, action))
    return True


# numpy, scipy, pandas ---------------------------------------------------------------------------


def patch_numpy_names() -> bool:
    """Config() assigns np.float_, np.complex_ and np.unicode_, which numpy 2 has removed.

    RecBole itself reads np.float and np.str only; absent names are set, present ones left alone.
    RecBole #1604, #1714.
    """
    import numpy as np
    from recbole.config import Config

    if _works(lambda: Config.compatibility_settings(None)):
        return False

    def compatibility_settings(self: Any) -> None:
        for name, kind in (("float", np.float64), ("str", np.str_), ("int", np.int64),
                           ("object", np.object_), ("complex", np.complex128)):  # fmt: skip
            if name not in np.__dict__:
                setattr(np, name, kind)

    Config.compatibility_settings = compatibility_settings
    compatibility_settings(None)
    return True


def patch_dok_update() -> bool:
    """LightGCN and six others fill a dok_matrix through `_update`, removed in scipy 1.13.

    RecBole #2034, #2090, #2185.
    """
    import scipy.sparse as sp

    if hasattr(sp.dok_matrix, "_update"):
        return False

    def _update(self: Any, data: dict) -> None:
        self._dict.update(data)

    sp.dok_matrix._update = _update
    return True


def patch_fill_nan() -> bool:
    """pandas 3 makes chained `feat[c].fillna(inplace=True)` do nothing.

    A missing token then becomes the smallest int64 and a missing float stays NaN, silently; an
    empty sequence cell fails in `split`. No upstream report known.
    """
    import numpy as np
    import pandas as pd
    from recbole.data.dataset import Dataset
    from recbole.data.dataset import dataset as module
    from recbole.utils import FeatureType

    frame = pd.DataFrame({"a": [1.0, np.nan]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["a"].fillna(value=0, inplace=True)
    if not frame["a"].isna().any():
        return False

    def _fill_nan(self: Any) -> None:
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].fillna(value=0)
                elif kind == FeatureType.FLOAT:
                    feat[field] = feat[field].fillna(value=feat[field].mean())
                else:
                    dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
                    empty = np.array([], dtype=dtype)
                    feat[field] = feat[field].apply(
                        lambda cell, empty=empty: empty if isinstance(cell, float) else cell
                    )

    Dataset._fill_nan = _fill_nan
    module.pd = _PandasView(module.pd)
    return True


class _PandasView:
    """pandas as recbole.data.dataset.dataset sees it: empty sequence cells are read as ""."""

    def __init__(self, pandas: Any) -> None:
        self._pandas = pandas

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pandas, name)

    def read_csv(self, *arguments: Any, **keywords: Any) -> Any:
        frame = self._pandas.read_csv(*arguments, **keywords)
        for column in frame.columns:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame


def patch_agg_len() -> bool:
    """pandas 3 lets `Series.agg(len)` reduce to one number; RecBole wants a length a row.

    Every loaded token_seq column fails with "Length of values (1) does not match". The meaning of
    agg changes for `len` alone. No upstream report known.
    """
    import pandas as pd

    series = pd.Series([[1], [1, 2]])
    with contextlib.suppress(TypeError, ValueError):
        if list(series.agg(len)) == [1, 2]:
            return False
    original = pd.Series.agg

    def agg(self: Any, func: Any = None, *arguments: Any, **keywords: Any) -> Any:
        if func is len:
            return self.map(len)
        return original(self, func, *arguments, **keywords)

    pd.Series.agg = agg
    return True


# Checkpoints ------------------------------------------------------------------------------------

_written_here: dict[str, str] = {}  # path → sha256 of checkpoints this process wrote


def patch_checkpoints() -> bool:
    """torch ≥ 2.6 refuses RecBole's checkpoints: pickle protocol 4 and a Config object inside.

    Checkpoints are written whole, under names that two runs cannot share, with tensors and plain
    data only, and read with weights_only=True; the Config is made again from its values. State that
    is neither (a scipy matrix of EASE, say) goes into the file as it is; such a file is read back
    only by the process that wrote it, unchanged. RecBole #2212.
    """
    import torch
    from recbole.trainer import trainer as module

    if getattr(module.Trainer._save_checkpoint, "of_alignrec", False):
        return False

    def _save_checkpoint(self: Any, epoch: int, verbose: bool = True, **keywords: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        path = Path(keywords.pop("saved_model_file", self.saved_model_file))
        state = {
            "config": {"plain_config": _plain_config(self.config)},
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_write(path) as handle:
            torch.save(state, handle)
        _written_here[str(path.resolve())] = sha256_file(path)
        if verbose:
            self.logger.info(f"Saving current: {path}")

    _save_checkpoint.of_alignrec = True  # type: ignore[attr-defined]
    module.Trainer._save_checkpoint = _save_checkpoint
    original_init = module.Trainer.__init__

    def __init__(self: Any, config: Any, model: Any) -> None:
        original_init(self, config, model)
        stem, suffix = os.path.splitext(self.saved_model_file)
        self.saved_model_file = f"{stem}-{os.getpid()}-{id(self):x}{suffix}"

    module.Trainer.__init__ = __init__
    module.torch = _TorchView(torch)
    _after_import("recbole.quick_start.quick_start", _patch_load_data_and_model)
    return True


class _TorchView:
    """torch as RecBole's trainer sees it: `load` is safe and revives the Config."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None, **keywords: Any) -> Any:
        return load_checkpoint(file, map_location)


def load_checkpoint(file: Any, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint safely, its Config revived.

    Raises:
        DataError: the file holds more than tensors and plain data and was not written by this
            process, or is damaged.
    """
    import torch

    path = str(Path(file).resolve())
    trusted = _written_here.get(path) is not None and _written_here[path] == sha256_file(Path(path))
    try:
        state = torch.load(path, map_location=map_location, weights_only=not trusted)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise DataError(
            f"The checkpoint {Path(path).name} cannot be read safely.",
            came=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            expected="tensors and plain data, or a file that this very process wrote",
            next="train and save again; convert a trusted old file with torch.load(..., "
            "weights_only=False) yourself",
        ) from error
    config = state.get("config") if isinstance(state, dict) else None
    if isinstance(config, dict) and "plain_config" in config:
        state["config"] = _revive_config(config["plain_config"])
    return state


def _plain_config(config: Any) -> dict[str, Any]:
    skipped = {"device", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type"}
    values = {
        key: value
        for key, value in config.final_config_dict.items()
        if key not in skipped and _is_plain(value)
    }
    return {"model": config.model, "dataset": config.dataset, "values": values}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_plain, value))
    return value is None or (
        isinstance(value, (str, int, float, bool)) and not isinstance(value, Enum)
    )


def _revive_config(plain: dict[str, Any]) -> Any:
    from recbole.config import Config

    with clean_argv():
        config = Config(model=plain["model"], dataset=plain["dataset"])
    config.final_config_dict.update(plain["values"])
    return config


def _patch_load_data_and_model(module: Any) -> None:
    """`load_data_and_model` imports torch itself: hand it the safe loader."""
    original = module.load_data_and_model

    def load_data_and_model(model_file: Any) -> Any:
        import torch

        real, torch.load = torch.load, _TorchView.load
        try:
            return original(model_file)
        finally:
            torch.load = real

    module.load_data_and_model = load_data_and_model
    package = sys.modules.get("recbole.quick_start")
    if package is not None and hasattr(package, "load_data_and_model"):
        package.load_data_and_model = load_data_and_model


class _AfterLoader(importlib.abc.Loader):
    def __init__(self, inner: Any, action: Callable[[Any], None]) -> None:
        self.inner, self.action = inner, action

    def create_module(self, spec: Any) -> Any:
        return self.inner.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.inner.exec_module(module)
        self.action(module)


class _After(importlib.abc.MetaPathFinder):
    """Lets a module load as usual, then runs a function on it."""

    def __init__(self, name: str, action: Callable[[Any], None]) -> None:
        self.name, self.action = name, action

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _AfterLoader(spec.loader, self.action)
        return spec


def _after_import(name: str, action: Callable[[Any], None]) -> None:
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _After(name, action))


# Configuration ----------------------------------------------------------------------------------


@contextlib.contextmanager
def clean_argv() -> Iterator[None]:
    """Hide the command line from RecBole's Config, which takes every `--key=value` from it."""
    arguments, sys.argv = sys.argv, sys.argv[:1] or ["alignrec"]
    try:
        yield
    finally:
        sys.argv = arguments


def patch_config() -> bool:
    """Config evaluates strings as code, reads a foreign command line, and overwrites CUDA's.

    Strings become values through ast.literal_eval. The command line of pytest and of this package's
    own console command is not RecBole's. An assignment in CUDA_VISIBLE_DEVICES is kept. RecBole
    #925, #1794, #1955.
    """
    from recbole.config import Config

    if getattr(Config._convert_config_dict, "of_alignrec", False):
        return False

    def _convert_config_dict(self: Any, config_dict: dict) -> dict:
        return {key: _literal(value) for key, value in config_dict.items()}

    _convert_config_dict.of_alignrec = True  # type: ignore[attr-defined]
    Config._convert_config_dict = _convert_config_dict
    original_line, original_device = Config._load_cmd_line, Config._init_device

    def _load_cmd_line(self: Any) -> dict:
        program = Path(sys.argv[0]).name if sys.argv else ""
        if not sys.argv or program.startswith(("pytest", "alignrec-bench", "run_benchmark")):
            return {}
        if program == "__main__.py" and "pytest" in sys.argv[0]:
            return {}
        return original_line(self)

    def _init_device(self: Any) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        original_device(self)
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible

    Config._load_cmd_line, Config._init_device = _load_cmd_line, _init_device
    return True


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(value.lower(), value)


def patch_model_names() -> bool:
    """An unknown model ends in `No module named 'lightgbm'`; say what is known instead."""
    from recbole import utils as package
    from recbole.utils import utils as module

    original = module.get_model
    if getattr(original, "of_alignrec", False):
        return False

    def get_model(model_name: str) -> Any:
        try:
            return original(model_name)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            known = _model_names()
            if model_name in known:
                raise
            by_case = {name.lower(): name for name in known}
            near = [by_case[m] for m in difflib.get_close_matches(model_name.lower(), by_case, n=1)]
            raise UnknownNameError(
                f"There is no model {model_name!r}."
                + (f" Did you mean {near[0]!r}?" if near else ""),
                came=model_name,
                expected=f"one of RecBole's {len(known)} models or a registered one",
            ) from error

    get_model.of_alignrec = True  # type: ignore[attr-defined]
    module.get_model = package.get_model = get_model
    for name in ("recbole.config.configurator", "recbole.quick_start.quick_start"):
        if name in sys.modules and hasattr(sys.modules[name], "get_model"):
            sys.modules[name].get_model = get_model  # type: ignore[attr-defined]
    return True


def _model_names() -> set[str]:
    import recbole

    from alignrec_recbole import register

    yamls = (Path(recbole.__file__).parent / "properties" / "model").glob("*.yaml")
    return {path.stem for path in yamls} | set(register.MODELS) | set(register.plugins())


# Side effects -----------------------------------------------------------------------------------


def patch_flops() -> bool:
    """get_flops deep-copies the model, which fails on CSR tensors; the figure is a nicety.

    A failed count is reported as 0 with a warning instead of ending the run before training.
    """
    return _wrap_on_import("get_flops", _safe_flops)


def _safe_flops(original: Callable) -> Callable:
    def get_flops(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        except Exception as error:
            warnings.warn(f"FLOPs could not be counted: {error}", RuntimeWarning, stacklevel=2)
            return 0

    get_flops.of_alignrec = True  # type: ignore[attr-defined]
    return get_flops


def _wrap_on_import(name: str, wrap: Callable[[Callable], Callable]) -> bool:
    from recbole import utils as package
    from recbole.utils import utils as module

    original = getattr(module, name)
    if getattr(original, "of_alignrec", False):
        return False
    wrapped = wrap(original)
    setattr(module, name, wrapped)
    setattr(package, name, wrapped)
    return True


def patch_barrier() -> bool:
    """After a download a single process calls torch.distributed.barrier() and dies.

    RecBole #1989. Without a process group there is nobody to wait for.
    """
    import torch
    from recbole.data.dataset import dataset as module

    if isinstance(module.torch, _QuietBarrier):
        return False
    module.torch = _QuietBarrier(torch)
    return True


class _QuietBarrier:
    """torch as recbole.data.dataset.dataset sees it: a barrier of one process is no barrier."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.distributed = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def barrier(self) -> None:
        distributed = self._torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()


def patch_folders() -> bool:
    """RecBole writes log/ and log_tensorboard/ into the working directory, whatever it is.

    With ALIGNREC_RUN_DIR set they go there.
    """
    run_dir = os.environ.get("ALIGNREC_RUN_DIR")
    if not run_dir:
        return False
    from recbole.trainer import trainer as module
    from recbole.utils import logger as logger_module

    logger_module.ensure_dir = _within(run_dir, logger_module.ensure_dir)
    logger_module.os = _JoinView(os, run_dir)
    original = module.get_tensorboard

    def get_tensorboard(logger: Any) -> Any:
        here = os.getcwd()
        os.makedirs(run_dir, exist_ok=True)
        os.chdir(run_dir)
        try:
            return original(logger)
        finally:
            os.chdir(here)

    module.get_tensorboard = get_tensorboard
    return True


def _within(folder: str, function: Callable[[str], None]) -> Callable[[str], None]:
    return lambda path: function(path if os.path.isabs(path) else os.path.join(folder, path))


class _JoinView:
    def __init__(self, real: Any, folder: str) -> None:
        self._real, self.path = real, types.SimpleNamespace(**vars(real.path))
        self.path.join = lambda first, *rest: real.path.join(
            first if real.path.isabs(first) else real.path.join(folder, first), *rest
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _works(action: Callable[[], Any]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except Exception:
        return False
    return True


PATCHES: dict[str, Callable[[], bool]] = {
    patch.__name__: patch
    for patch in (
        patch_ray,
        patch_numpy_names,
        patch_dok_update,
        patch_agg_len,
        patch_fill_nan,
        patch_config,
        patch_model_names,
        patch_checkpoints,
        patch_flops,
        patch_barrier,
        patch_folders,
    )
}
_applied: dict[str, bool] = {}


def apply() -> dict[str, bool]:
    """Apply every patch that this stack needs, once; returns name → whether it changed anything.

    ALIGNREC_WITHOUT_PATCHES, a comma-separated list of names, leaves some out (tests use it).
    """
    require_recbole()
    left_out = set(filter(None, os.environ.get("ALIGNREC_WITHOUT_PATCHES", "").split(",")))
    for name, patch in PATCHES.items():
        if name not in _applied and name not in left_out:
            _applied[name] = patch()
    return dict(_applied)
