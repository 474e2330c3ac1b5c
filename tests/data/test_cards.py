"""Cards of data sets: each has one, it is shown, and its hashes are those of the files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from alignrec_recbole.cli.main import main
from alignrec_recbole.data import cards
from alignrec_recbole.data.cards import read_card, split_sha256
from alignrec_recbole.data.dataset_paths import (
    dataset_defaults,
    recbole_examples,
    registered_datasets,
)
from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.split_names import parse_split
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import sha256_file

ROOT = Path(__file__).resolve().parents[2]
NAMES = registered_datasets()


def page() -> str:
    """The page of data sets as the site has it."""
    path = ROOT / "docs" / "_hooks" / "generated.py"
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.on_page_markdown((ROOT / "docs" / "datasets.md").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_a_card_that_is_shown(name: str, capsys) -> None:
    card = read_card(name)
    assert card is not None
    assert main(["list", "datasets"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} "))
    assert card.leaks_in_short in row
    assert card.licence.partition(":")[0] in row
    text = page()
    section = text[text.index(f"## {name}\n") :].split("\n## ")[0]
    facts = [card.source, card.address, card.licence, card.split, card.numbers]
    facts += [*(card.leaks or {}).values(), *card.sha256.values(), card.split_sha256 or ""]
    expected = dataset_defaults(name)["expected"]
    facts += [f"{count:,}" for count in (expected["users"], expected["items"])]
    facts += [f"{count:,}" for count in expected.get("interactions", [])]
    facts += [file.get("git_blob", "") for file in dataset_defaults(name).get("downloads", [])]
    for fact in facts:
        assert fact in section


@pytest.mark.parametrize(
    "change",
    [{"licence": None}, {"licence": ""}, {"address": "ftp://a"}, {"leaks": ["x"]}, {"other": 1},
     {"sha256": {"a": "b"}}, {"split_sha256": "0"}],
    ids=str,
)  # fmt: skip
def test_a_card_of_another_form_is_refused(change: dict, monkeypatch) -> None:
    known = dataset_defaults("baby")
    broken = {**known, "card": {**known["card"], **change}}
    monkeypatch.setattr(cards, "dataset_defaults", lambda _: broken)
    with pytest.raises(DataError, match="The card of data set 'baby' cannot be used"):
        read_card("baby")


def test_hashes_of_the_files_in_the_recbole_package() -> None:
    folder, card = recbole_examples(), read_card("ml-100k")
    assert folder is not None
    assert card is not None
    assert card.sha256
    for name, sha in card.sha256.items():
        assert sha256_file(folder / "ml-100k" / name) == sha


@pytest.mark.data
@pytest.mark.parametrize("name", ["sports", "baby"])
def test_the_hash_of_a_released_split(name: str, shared_data: Path) -> None:
    frame = pd.read_csv(shared_data / name / f"{name}.inter", sep="\t", dtype=str)
    card = read_card(name)
    assert card is not None
    assert card.split_sha256 == split_sha256(
        zip(frame["userID"], frame["itemID"], frame["x_label"], strict=True)
    )
    assert split_sha256([("0", "0", "0")]) != card.split_sha256


@pytest.mark.parametrize(
    ("numbering", "split", "shown"),
    [("random", "leave-last-out", "none by numbers"), ("released", "released", "not examined"),
     ("appearance", "user-random", "user and item numbers")],
)  # fmt: skip
def test_a_data_set_that_was_made_here_shows_its_split(
    tmp_path: Path, capsys, numbering, split: str, shown: str
) -> None:
    rows = [(f"u{u}", f"i{(u + k) % 7}", k, k % 3) for u in range(6) for k in range(5)]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "split"])
    for column in ("user", "item"):
        frame[column] = frame[column].map(number_ids(list(pd.unique(frame[column]))))
    path = tmp_path / "corner" / "corner.inter"
    write_dataset(frame, path, parse_split(split, 5), numbering=numbering, source={})
    command = ["list", "datasets", "--data-path", str(tmp_path)]
    assert main(command) == 0
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("corner"))
    assert shown in row
    assert split == "released" or f"{parse_split(split).text}, seed 5" in row
    (tmp_path / "corner" / "corner.split.json").write_text("{}")
    assert main(command) == 0
    assert "corner.split.json is not the manifest of a split" in capsys.readouterr().out
