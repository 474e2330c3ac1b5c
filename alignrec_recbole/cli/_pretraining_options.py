"""Which option is which setting of pre-training."""

from __future__ import annotations

_SETTING_OPTIONS = {"crop": "--min-crop-area", "recompute": "--gradient-checkpointing"}


def setting_option(name: str) -> str:
    """The option of a pre-training setting.

    >>> setting_option("crop"), setting_option("batch_size")
    ('--min-crop-area', '--batch-size')
    """
    return _SETTING_OPTIONS.get(name, f"--{name.replace('_', '-')}")
