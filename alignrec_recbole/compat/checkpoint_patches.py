"""RecBole's checkpoints: written whole, read without pickle."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

from alignrec_recbole.compat import checkpoints
from alignrec_recbole.compat.patching import View, _hook

# Imports ----------------------------------------------------------------------------------------

_QUICK_START = "recbole.quick_start.quick_start"


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
    if getattr(original, "_alignrec_patched", False):
        return False

    def __init__(self: Any, config: Any, model: Any) -> None:
        original(self, config, model)
        stem, suffix = os.path.splitext(self.saved_model_file)
        self.saved_model_file = f"{stem}-{secrets.token_hex(4)}{suffix}"

    __init__._alignrec_patched = True  # type: ignore[attr-defined]
    module.Trainer.__init__ = __init__
    return True
