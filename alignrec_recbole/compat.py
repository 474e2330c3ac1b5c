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
import secrets
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignrec_recbole import checkpoints
from alignrec_recbole.errors import MissingDependencyError, UnknownNameError

INSTALL_COMMAND = "pip install --no-deps recbole==1.2.1 thop"


def require_recbole() -> None:
    """Say how to install RecBole if it is not there.

    Raises:
        MissingDependencyError: with the one command.
    """
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("recbole")
    if spec is None:
        raise MissingDependencyError(
            "RecBole 1.2.1 is not installed.",
            came=f"Python {sys.version_info.major}.{sys.version_info.minor} without recbole",
            expected="recbole 1.2.1 (pip cannot resolve its ray pin on Python 3.12 and later)",
            next=INSTALL_COMMAND,
        )


class View:
    """A module as one module of RecBole sees it: some names replaced, all others the real ones."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


# Imports ----------------------------------------------------------------------------------------

_QUICK_START = "recbole.quick_start.quick_start"
_METRICS = "recbole.evaluator.metrics"


def patch_ray() -> bool:
    """recbole.quick_start imports ray.tune at once; ray ≤ 2.6.3 cannot be imported today.

    ray 2.6.3 needs pkg_resources (gone from setuptools 81) and np.bool8 (gone from numpy 2), and
    has no wheel for Python 3.12. Stubs stand in only if the real one fails. RecBole #1518, #1820.
    """
    if _QUICK_START in sys.modules:
        return False
    return _hook(_QUICK_START, "ray", before=_stand_in_for_ray)


def _stand_in_for_ray() -> None:
    if _works(lambda: importlib.import_module("ray.tune")):
        return
    for name in [n for n in sys.modules if n == "ray" or n.startswith("ray.")]:
        del sys.modules[name]
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    tune.report = lambda **metrics: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    ray.__path__ = []  # type: ignore[attr-defined]
    sys.modules.update({"ray": ray, "ray.tune": tune})


def patch_sklearn() -> bool:
    """recbole.evaluator imports scikit-learn at once, 0.7 s and 67 MB, for AUC, MAE and RMSE.

    Its three functions are looked up when one of these metrics calls them.
    """
    if _METRICS in sys.modules or "sklearn" in sys.modules:
        return False
    return _hook(_METRICS, "sklearn", before=_stand_in_for_sklearn, after=_remove_sklearn)


def _stand_in_for_sklearn() -> None:
    if "sklearn" in sys.modules:
        return
    sklearn, metrics = types.ModuleType("sklearn"), types.ModuleType("sklearn.metrics")
    for name in ("auc", "mean_absolute_error", "mean_squared_error"):
        setattr(metrics, name, _called_later("sklearn.metrics", name))
    sklearn.stand_in = True  # type: ignore[attr-defined]
    sys.modules.update({"sklearn": sklearn, "sklearn.metrics": metrics})


def _remove_sklearn(module: Any) -> None:
    if hasattr(sys.modules["sklearn"], "stand_in"):
        del sys.modules["sklearn"], sys.modules["sklearn.metrics"]


def _called_later(module: str, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **keywords)

    return call


def _hook(
    module: str,
    label: str,
    before: Callable[[], None] = lambda: None,
    after: Callable[[Any], None] = lambda module: None,
) -> bool:
    """Run functions right before and after the code of a module, once it is imported."""
    if any(isinstance(f, _ImportHook) and f.label == label for f in sys.meta_path):
        return False
    sys.meta_path.insert(0, _ImportHook(module, label, before, after))
    return True


class _ImportHook(importlib.abc.MetaPathFinder):
    def __init__(
        self, module: str, label: str, before: Callable[[], None], after: Callable[[Any], None]
    ) -> None:
        self.module, self.label, self.before, self.after = module, label, before, after
        self.searching = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.module or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _HookedLoader(spec.loader, self)
        return spec


class _HookedLoader(importlib.abc.Loader):
    def __init__(self, inner: Any, hook: _ImportHook) -> None:
        self.inner, self.hook = inner, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def create_module(self, spec: Any) -> Any:
        return self.inner.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.hook.before()
        self.inner.exec_module(module)
        self.hook.after(module)


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


def patch_agg_len() -> bool:
    """pandas 3 lets `Series.agg(len)` reduce to one number; RecBole wants a length a row.

    Every loaded token_seq column fails with "Length of values (1) does not match". The meaning of
    agg changes for `len`, called from RecBole's own modules, alone. No upstream report known.
    """
    import pandas as pd

    original = pd.Series.agg
    if getattr(original, "of_alignrec", False):
        return False
    with contextlib.suppress(TypeError, ValueError):
        if list(pd.Series([[1], [1, 2]]).agg(len)) == [1, 2]:
            return False

    def agg(self: Any, func: Any = None, *arguments: Any, **keywords: Any) -> Any:
        if func is len and sys._getframe(1).f_globals.get("__name__", "").startswith("recbole"):
            return self.map(len)
        return original(self, func, *arguments, **keywords)

    agg.of_alignrec = True  # type: ignore[attr-defined]
    pd.Series.agg = agg
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

    if isinstance(module.pd, View):
        return False
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

    def read_csv(*arguments: Any, **keywords: Any) -> Any:
        frame = pd.read_csv(*arguments, **keywords)
        for column in frame.columns:
            if str(column).endswith("_seq"):  # the header's "name:token_seq"
                frame[column] = frame[column].fillna("")
        return frame

    Dataset._fill_nan = _fill_nan
    module.pd = View(module.pd, read_csv=read_csv)
    return True


_NO_NUMBER = ["", "nan", "NaN", "NA", "N/A", "null", "None"]


@contextlib.contextmanager
def plain_cells() -> Iterator[None]:
    """RecBole reads atomic files as they are: "NA" is a token, a quotation mark a character.

    pandas' defaults would take some names for absent values and join lines between two marks.
    """
    from recbole.data.dataset import dataset as module

    from alignrec_recbole.data.interactions import AS_WRITTEN

    outer = module.pd

    def read_csv(*arguments: Any, **keywords: Any) -> Any:
        types = keywords.get("dtype") or {}
        absent = {name: [""] if kind is str else _NO_NUMBER for name, kind in types.items()}
        return outer.read_csv(*arguments, **keywords, **AS_WRITTEN, na_values=absent)

    module.pd = View(outer, read_csv=read_csv)
    try:
        yield
    finally:
        module.pd = outer


# Checkpoints ------------------------------------------------------------------------------------


def patch_checkpoints() -> bool:
    """torch ≥ 2.6 refuses RecBole's checkpoints: pickle protocol 4 and a Config object inside.

    Trainers write and read them through `checkpoints.save` and `checkpoints.load`: written whole,
    tensors and plain data only, read with weights_only. RecBole #2212.
    """
    import torch
    from recbole.trainer import trainer as module

    if isinstance(module.torch, View):
        return False
    module.torch = View(torch, save=checkpoints.save, load=checkpoints.load)
    return True


def patch_load_data_and_model() -> bool:
    """`load_data_and_model` un-pickles whatever file it is given; it reads it safely instead.

    The Config comes back as a single process's, also after distributed training. RecBole #2063.
    """

    def replace(module: Any) -> None:
        def load_data_and_model(model_file: Any) -> tuple[Any, ...]:
            checkpoint = checkpoints.load(model_file)
            config = checkpoint["config"]
            module.init_seed(config["seed"], config["reproducibility"])
            module.init_logger(config)
            dataset = module.create_dataset(config)
            splits = module.data_preparation(config, dataset)
            module.init_seed(config["seed"], config["reproducibility"])
            model = module.get_model(config["model"])(config, splits[0]._dataset)
            model = model.to(config["device"])
            model.load_state_dict(checkpoint["state_dict"])
            model.load_other_parameter(checkpoint.get("other_parameter"))
            return (config, model, dataset, *splits)

        module.load_data_and_model = load_data_and_model
        package = sys.modules["recbole.quick_start"]
        if hasattr(package, "load_data_and_model"):
            package.load_data_and_model = load_data_and_model  # type: ignore[attr-defined]

    present = sys.modules.get(_QUICK_START)
    if present is None:
        return _hook(_QUICK_START, "load_data_and_model", after=replace)
    if present.load_data_and_model.__module__ == __name__:
        return False
    replace(present)
    return True


def patch_checkpoint_names() -> bool:
    """Two trainers made in the same second write the same file: saved/<Model>-<time>.pth."""
    from recbole.trainer import trainer as module

    original = module.Trainer.__init__
    if getattr(original, "of_alignrec", False):
        return False

    def __init__(self: Any, config: Any, model: Any) -> None:
        original(self, config, model)
        stem, suffix = os.path.splitext(self.saved_model_file)
        self.saved_model_file = f"{stem}-{secrets.token_hex(4)}{suffix}"

    __init__.of_alignrec = True  # type: ignore[attr-defined]
    module.Trainer.__init__ = __init__
    return True


# Configuration ----------------------------------------------------------------------------------


def patch_config_strings() -> bool:
    """Config runs `eval` on every string of config_dict and of the command line.

    Strings become values through ast.literal_eval, and the caller's dict stays as it was.
    """
    from recbole.config import Config

    if Config._convert_config_dict(None, {"probe": "1 + 1"})["probe"] == "1 + 1":
        return False

    def _convert_config_dict(self: Any, config_dict: dict) -> dict:
        return {key: _literal(value) for key, value in config_dict.items()}

    Config._convert_config_dict = _convert_config_dict
    return True


def _literal(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(text)
        if value is None or isinstance(value, (str, int, float, list, tuple, dict)):
            return value
    return {"true": True, "false": False}.get(text.lower(), text)


@contextlib.contextmanager
def clean_argv() -> Iterator[None]:
    """Hide the command line from RecBole's Config, which takes every `--key=value` from it."""
    arguments, sys.argv = sys.argv, sys.argv[:1] or ["alignrec"]
    try:
        yield
    finally:
        sys.argv = arguments


def patch_command_line() -> bool:
    """Config takes every `--key=value` of the process, whichever program it was meant for.

    The command lines of pytest and of this package's own program are not RecBole's, and an empty
    sys.argv is not an error. RecBole's own scripts read theirs as before.
    """
    from recbole.config import Config

    original = Config._load_cmd_line
    if getattr(original, "of_alignrec", False):
        return False

    def _load_cmd_line(self: Any) -> dict:
        program = Path(sys.argv[0]) if sys.argv else Path()
        name = program.parent.name if program.name == "__main__.py" else program.name
        if not sys.argv or name.startswith(("pytest", "alignrec-bench", "run_benchmark")):
            return {}
        return original(self)

    _load_cmd_line.of_alignrec = True  # type: ignore[attr-defined]
    Config._load_cmd_line = _load_cmd_line
    return True


def patch_cuda_visible_devices() -> bool:
    """Every Config overwrites CUDA_VISIBLE_DEVICES with gpu_id, "0" by default.

    What a scheduler or the caller has assigned stays, and RecBole uses that. RecBole #925, #1794,
    #1955.
    """
    from recbole.config import Config

    original = Config._init_device
    if getattr(original, "of_alignrec", False):
        return False
    set_by_config: list[str] = []  # the last value, if it was RecBole's

    def _init_device(self: Any) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        assigned = visible is not None and set_by_config != [visible]
        if assigned and self.final_config_dict["gpu_id"] not in ("", ()):
            self.final_config_dict["gpu_id"] = visible
        original(self)
        if assigned:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible or ""
        else:
            set_by_config[:] = [os.environ["CUDA_VISIBLE_DEVICES"]]

    _init_device.of_alignrec = True  # type: ignore[attr-defined]
    Config._init_device = _init_device
    return True


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
            if model_name in known or model_name in ("LightGBM", "XGBoost"):  # need a package
                raise
            by_case = {name.lower(): name for name in known}
            near = [by_case[m] for m in difflib.get_close_matches(model_name.lower(), by_case, n=1)]
            raise UnknownNameError(
                f"There is no model {model_name!r}."
                + (f" Did you mean {near[0]!r}?" if near else ""),
                came=model_name,
                expected=f"one of the {len(known)} models of RecBole, of this package and plug-ins",
                next="check the spelling, capitals included",
            ) from error

    get_model.of_alignrec = True  # type: ignore[attr-defined]
    module.get_model = package.get_model = get_model
    for name in ("recbole.config.configurator", _QUICK_START):
        if hasattr(sys.modules.get(name), "get_model"):
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
    from recbole import utils as package
    from recbole.utils import utils as module

    original = module.get_flops
    if getattr(original, "of_alignrec", False):
        return False

    def get_flops(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        except Exception as error:
            warnings.warn(f"FLOPs could not be counted: {error}", RuntimeWarning, stacklevel=2)
            return 0

    get_flops.of_alignrec = True  # type: ignore[attr-defined]
    module.get_flops = package.get_flops = get_flops
    if hasattr(sys.modules.get(_QUICK_START), "get_flops"):
        sys.modules[_QUICK_START].get_flops = get_flops  # type: ignore[attr-defined]
    return True


def patch_barrier() -> bool:
    """After a download a single process calls torch.distributed.barrier() and dies.

    Without a process group there is nobody to wait for. RecBole #1989.
    """
    import torch
    from recbole.data.dataset import dataset as module

    if isinstance(module.torch, View):
        return False

    def barrier(*arguments: Any, **keywords: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier(*arguments, **keywords)

    module.torch = View(torch, distributed=View(torch.distributed, barrier=barrier))
    return True


def patch_folders() -> bool:
    """RecBole writes log/, log_tensorboard/ and saved/ into the working directory.

    With ALIGNREC_RUN_DIR set, whatever of them is relative lies in that folder instead.
    """
    import logging

    from recbole.config import Config
    from recbole.utils import logger, utils

    if isinstance(logger.logging, View):
        return False
    original_ensure, original_writer = logger.ensure_dir, utils.SummaryWriter
    original_init = Config.__init__

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        original_init(self, *arguments, **keywords)
        self.final_config_dict["checkpoint_dir"] = _in_run_dir(self["checkpoint_dir"])

    Config.__init__ = __init__
    logger.ensure_dir = lambda path: original_ensure(_in_run_dir(path))
    logger.logging = View(logging, FileHandler=lambda p: logging.FileHandler(_in_run_dir(p)))
    utils.SummaryWriter = lambda path: original_writer(_in_run_dir(path))
    return True


def _in_run_dir(path: str) -> str:
    folder = os.environ.get("ALIGNREC_RUN_DIR")
    return os.path.normpath(os.path.join(folder, path)) if folder else path


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
        patch_sklearn,
        patch_numpy_names,
        patch_dok_update,
        patch_agg_len,
        patch_fill_nan,
        patch_config_strings,
        patch_command_line,
        patch_cuda_visible_devices,
        patch_model_names,
        patch_checkpoints,
        patch_load_data_and_model,
        patch_checkpoint_names,
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
