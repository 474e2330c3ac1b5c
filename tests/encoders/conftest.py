"""What several tests of encoders start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_tiny_bert

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.testing.encoder_checks import sample_items


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    return sample_items(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")
