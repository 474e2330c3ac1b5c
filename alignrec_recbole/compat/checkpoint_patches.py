"""RecBole's checkpoints: written atomically, read without pickle."""

from __future__ import annotations

import os
import secrets
from typing import Any

from alignrec_recbole.compat import checkpoints
from alignrec_recbole.compat.patching import ModuleProxy, replace_function


def patch_checkpoints(trainer: Any) -> bool:
    """torch ≥ 2.6 refuses RecBole's checkpoints: pickle protocol 4 and a Config object inside.

    Trainers write and read them through `checkpoints.save` and `checkpoints.load`: atomically,
    tensors and plain data only, read with weights_only. RecBole #2212.
    """
    trainer.torch = ModuleProxy(trainer.torch, save=checkpoints.save, load=checkpoints.load)
    return True


def patch_load_data_and_model(quick_start: Any) -> bool:
    """`load_data_and_model` un-pickles whatever file it is given; it reads it safely instead.

    The Config is that of a single process, also after distributed training. RecBole #2063.
    """

    def load_data_and_model(model_file: Any) -> tuple[Any, ...]:
        checkpoint = checkpoints.load(model_file)
        config = checkpoint["config"]
        quick_start.init_seed(config["seed"], config["reproducibility"])
        quick_start.init_logger(config)
        dataset = quick_start.create_dataset(config)
        splits = quick_start.data_preparation(config, dataset)
        quick_start.init_seed(config["seed"], config["reproducibility"])
        model = quick_start.get_model(config["model"])(config, splits[0]._dataset)
        model = model.to(config["device"])
        model.load_state_dict(checkpoint["state_dict"])
        model.load_other_parameter(checkpoint.get("other_parameter"))
        return (config, model, dataset, *splits)

    replace_function(quick_start.load_data_and_model, load_data_and_model)
    return True


def patch_checkpoint_names(trainer: Any) -> bool:
    """Two trainers built within a second write the same file: saved/<Model>-<time>.pth."""
    original = trainer.Trainer.__init__

    def __init__(self: Any, config: Any, model: Any) -> None:
        original(self, config, model)
        stem, suffix = os.path.splitext(self.saved_model_file)
        self.saved_model_file = f"{stem}-{secrets.token_hex(4)}{suffix}"

    trainer.Trainer.__init__ = __init__
    return True
