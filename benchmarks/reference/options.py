"""Command-line options that several scripts share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add `--steps N`, for `epoch_timer.epoch_seconds`."""

    def steps(text: str) -> int:
        if not text.isdecimal() or int(text) < 2:
            raise argparse.ArgumentTypeError(f"{text}: at least 2 steps are needed to extrapolate")
        return int(text)

    parser.add_argument(
        "--steps", type=steps, help="extrapolate an epoch's seconds from its first N steps"
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache FILE.json` (`--store` is its former name)."""
    parser.add_argument(
        "--cache",
        "--store",
        dest="cache",
        type=Path,
        metavar="FILE",
        help="JSON file of results, which are not computed again; new ones are added to it",
    )
