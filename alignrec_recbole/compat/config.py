"""RecBole's configuration: strings, command line, devices and folders."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignrec_recbole.compat.patching import ModuleProxy


def patch_config_strings(configurator: Any) -> bool:
    """Config runs `eval` on every string of config_dict and of the command line.

    Strings become values through ast.literal_eval, and the caller's dict stays as it was.
    """
    config_class = configurator.Config
    if config_class._convert_config_dict(None, {"probe": "1 + 1"})["probe"] == "1 + 1":
        return False

    def _convert_config_dict(self: Any, config_dict: dict) -> dict:
        return {key: _literal(value) for key, value in config_dict.items()}

    config_class._convert_config_dict = _convert_config_dict
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
def hide_command_line() -> Iterator[None]:
    """Hide the command line from RecBole's Config, which takes every `--key=value` from it."""
    arguments, sys.argv = sys.argv, sys.argv[:1] or ["alignrec"]
    try:
        yield
    finally:
        sys.argv = arguments


def patch_command_line(configurator: Any) -> bool:
    """Config takes every `--key=value` of the process, whichever program it was meant for.

    The command lines of pytest and of this package's own program are not RecBole's, and an empty
    sys.argv is not an error. RecBole's own scripts read theirs as before.
    """
    original = configurator.Config._load_cmd_line

    def _load_cmd_line(self: Any) -> dict:
        program = Path(sys.argv[0]) if sys.argv else Path()
        name = program.parent.name if program.name == "__main__.py" else program.name
        if not sys.argv or name.startswith(("pytest", "alignrec", "run_benchmark")):
            return {}
        return original(self)

    configurator.Config._load_cmd_line = _load_cmd_line
    return True


def patch_cuda_visible_devices(configurator: Any) -> bool:
    """Every Config overwrites CUDA_VISIBLE_DEVICES with gpu_id, "0" by default.

    What a scheduler or the caller has assigned stays, and RecBole uses that. RecBole #925, #1794,
    #1955.
    """
    original = configurator.Config._init_device
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

    configurator.Config._init_device = _init_device
    return True


def patch_folders(configurator: Any) -> bool:
    """RecBole writes log/, log_tensorboard/ and saved/ into the working directory.

    With ALIGNREC_RUN_DIR set, those whose paths are relative are created in that folder instead.
    """
    original = configurator.Config.__init__

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        self.final_config_dict["checkpoint_dir"] = _in_run_dir(self["checkpoint_dir"])

    configurator.Config.__init__ = __init__
    return True


def logs_in_run_dir(logger: Any) -> bool:
    """The part of `patch_folders` that moves log/."""
    logging, ensure_dir = logger.logging, logger.ensure_dir
    logger.logging = ModuleProxy(
        logging, FileHandler=lambda path: logging.FileHandler(_in_run_dir(path))
    )
    logger.ensure_dir = lambda path: ensure_dir(_in_run_dir(path))
    return True


def tensorboard_in_run_dir(utils: Any) -> bool:
    """The part of `patch_folders` that moves log_tensorboard/."""
    writer = utils.SummaryWriter
    utils.SummaryWriter = lambda path: writer(_in_run_dir(path))
    return True


def _in_run_dir(path: str) -> str:
    folder = os.environ.get("ALIGNREC_RUN_DIR")
    return os.path.normpath(os.path.join(folder, path)) if folder else path
