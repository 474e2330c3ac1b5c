"""Committed records are still found by the commands that made them."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import pytest
from records import spec_of

from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.registry import components
from alignrec_recbole.runs import prepare
from alignrec_recbole.runs.config_hash import ADDED_SETTINGS, complete, config_hashes
from alignrec_recbole.runs.record import Run, read_runs

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
