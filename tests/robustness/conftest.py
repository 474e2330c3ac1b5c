"""A data set to break, and a finished run that must survive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bad_input import WORLD, Place, arguments

from alignrec_recbole.cli.main import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run on the whole data: what must not be lost."""
    root = tmp_path_factory.mktemp("finished")
    place = Place(WORLD.write(root / "data"), root / "output")
    assert main(arguments(place)) == 0
    return place.output


@pytest.fixture
def place(tmp_path: Path, finished: Path) -> Place:
    """A fresh data set, and the output of an earlier run."""
    shutil.copytree(finished, tmp_path / "output")
    return Place(WORLD.write(tmp_path / "data"), tmp_path / "output")
