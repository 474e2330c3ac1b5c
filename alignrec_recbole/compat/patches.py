"""RecBole 1.2.1, unmodified, on current Python, numpy, pandas, scipy and torch.

A patch is a function of a RecBole module: its docstring says why it is needed and where that is
reported. It first checks whether this environment needs it, and returns whether it changed
anything. It runs right after the code of its module has run, so that importing this package imports
no module of RecBole; only patch_ray runs earlier, before recbole.quick_start.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from alignrec_recbole.compat import config, libraries
from alignrec_recbole.compat.atomic_files import patch_fill_nan, patch_time_order
from alignrec_recbole.compat.checkpoint_patches import (
    patch_checkpoint_names,
    patch_checkpoints,
    patch_load_data_and_model,
)
from alignrec_recbole.compat.imports import METRICS, defer_sklearn, patch_ray, require_recbole
from alignrec_recbole.compat.patching import before_import
from alignrec_recbole.compat.side_effects import patch_barrier, patch_flops

Patch = Callable[[Any], bool]

CONFIGURATOR = "recbole.config.configurator"
DATASET = "recbole.data.dataset.dataset"
LOGGER = "recbole.utils.logger"
QUICK_START = "recbole.quick_start.quick_start"
TRAINER = "recbole.trainer.trainer"
UTILS = "recbole.utils.utils"

# name → module → its patch; the patches of a module run in this order
PATCHES: dict[str, dict[str, Patch]] = {
    "patch_ray": {"recbole": patch_ray},
    "patch_numpy_names": {
        CONFIGURATOR: libraries.patch_numpy_names,
        **dict.fromkeys(libraries.NUMPY_READERS, libraries.view_numpy),
    },
    "patch_dok_update": dict.fromkeys(libraries.DOK_UPDATERS, libraries.patch_dok_update),
    "patch_agg_len": {DATASET: libraries.patch_agg_len},
    "patch_fill_nan": {DATASET: patch_fill_nan},
    "patch_time_order": {DATASET: patch_time_order},
    "patch_config_strings": {CONFIGURATOR: config.patch_config_strings},
    "patch_command_line": {CONFIGURATOR: config.patch_command_line},
    "patch_cuda_visible_devices": {CONFIGURATOR: config.patch_cuda_visible_devices},
    "patch_checkpoints": {TRAINER: patch_checkpoints},
    "patch_load_data_and_model": {QUICK_START: patch_load_data_and_model},
    "patch_checkpoint_names": {TRAINER: patch_checkpoint_names},
    "patch_flops": {UTILS: patch_flops},
    "patch_barrier": {DATASET: patch_barrier},
    "patch_folders": {
        CONFIGURATOR: config.patch_folders,
        LOGGER: config.logs_in_run_dir,
        UTILS: config.tensorboard_in_run_dir,
    },
}

_RESULTS = "_alignrec_patches"  # attribute of a patched module: name → whether it was needed


def register() -> None:
    """Patch every module of RecBole once it is imported; those that are already, now.

    ALIGNREC_WITHOUT_PATCHES, a comma-separated list of names, excludes some (tests use it).
    """
    import wrapt

    if METRICS not in sys.modules:
        before_import(METRICS, defer_sklearn)
    excluded = set(filter(None, os.environ.get("ALIGNREC_WITHOUT_PATCHES", "").split(",")))
    for name, parts in PATCHES.items():
        if name in excluded:
            continue
        for module, patch in parts.items():
            apply = partial(_apply, name, patch)
            if patch is patch_ray:
                before_import("recbole.quick_start", partial(_apply_to_recbole, apply))
            else:
                wrapt.register_post_import_hook(apply, module)


def _apply_to_recbole(apply: Callable[[Any], None]) -> None:
    apply(sys.modules["recbole"])  # imported before its subpackages


def _apply(name: str, patch: Patch, module: Any) -> None:
    results = vars(module).setdefault(_RESULTS, {})
    if name not in results:
        results[name] = patch(module)


def status() -> dict[str, bool | None]:
    """Name → whether the patch changed anything; None before its modules are imported."""
    return {name: _status(name) for name in PATCHES}


def _status(name: str) -> bool | None:
    modules = [sys.modules[module] for module in PATCHES[name] if module in sys.modules]
    results = [vars(module).get(_RESULTS, {}).get(name) for module in modules]
    known = [result for result in results if result is not None]
    return any(known) if known else None


def check() -> dict[str, bool | None]:
    """Import every module that has a patch; name → whether this environment needs the patch.

    Raises:
        MissingDependencyError: RecBole is not installed.
    """
    require_recbole()
    for module in {QUICK_START, *(module for parts in PATCHES.values() for module in parts)}:
        importlib.import_module(module)
    return status()
