"""Which numbers and files a re-keyed data set gets, and what is noticed while it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alignrec_recbole.data import rekey as module
from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.rekey import ITEMS, read_mapping_back, read_rows, rekey
from alignrec_recbole.data.split_names import parse_split
from alignrec_recbole.errors import DataError, WriteError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import align, load_features, save_features


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Four users who all have the items 0, 7 and 19."""
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    lines = ["userID\titemID\tx_label"]
    lines += [f"{u}\t{i}\t{label}" for u in range(4) for i, label in ((0, 0), (7, 1), (19, 2))]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    return folder


def test_the_largest_number_is_an_items_with_interactions(shop: Path) -> None:
    """Else a feature file without a manifest would seem to have rows too many."""
    np.save(shop / "text_feat.npy", np.arange(1, 41, dtype=np.float32).reshape(20, 2))
    for seed in range(4):
        folder = rekey(shop, "shop", shop.parent, seed).folder
        numbers = read_rows(folder / f"{folder.name}.inter").cells["itemID"].unique().tolist()
        found = align(load_features(folder / "text_feat.npy"), ["[PAD]", *numbers])
        assert sorted(found.values[1:, 0].tolist()) == [1, 15, 39]


def test_features_of_a_cache_are_made_again(shop: Path) -> None:
    """Their name is that of the items' content, which is other after the re-keying."""
    about = {"name": "x", "modality": "text", "encoder": "e", "source": "s"}
    for name, settings in (("kept", {}), ("cache", {"cached_as": "lsa"})):
        save_features(
            shop / "features" / f"{name}.npy", np.ones((3, 2)), items=["0", "7", "19"],
            settings=settings, **about,
        )  # fmt: skip
    made = rekey(shop, "shop", shop.parent, 1)
    assert [path.name for path in made.folder.rglob("*.npy")] == ["kept.npy"]
    assert "cached ones: cache.npy" in " ".join(made.said)


def test_only_the_mapping_of_its_own_ids_goes_along(shop: Path) -> None:
    """One that numbers fewer items than there are is of another data set."""
    lines = ["item_id\titemID", *(f"B{number}\t{number}" for number in range(20))]
    (shop / "i_id_mapping.csv").write_text("\n".join(lines) + "\n")
    (shop / "u_id_mapping.csv").write_text("user_id\tuserID\nA\t0\n")
    folder = rekey(shop, "shop", shop.parent, 1).folder
    back = read_mapping_back(folder / ITEMS)
    found = read_mapping(folder / "i_id_mapping.csv")
    assert {token: back[str(number)] for token, number in found.items()} == {
        f"B{number}": str(number) for number in range(20)
    }
    assert not (folder / "u_id_mapping.csv").exists()


def test_interactions_that_were_not_written_whole_are_noticed(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = module.write_lines

    def short(path: Path, header: list[str], frame: pd.DataFrame) -> None:
        written(path, header, frame.iloc[:-1] if path.suffix == ".inter" else frame)

    monkeypatch.setattr(module, "write_lines", short)
    with pytest.raises(WriteError, match="was not written as it should be"):
        rekey(shop, "shop", shop.parent, 1)
    assert [path.name for path in shop.parent.iterdir()] == ["shop"]


def test_interactions_that_their_manifest_does_not_describe_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made" / "made.inter"
    pairs = [(f"u{user}", f"i{item}") for user in range(4) for item in range(10)]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    write_dataset(frame, path, parse_split("user-random", 3), numbering="none", source={})
    path.write_text(path.read_text() + "u1\ti999\t2\n")
    with pytest.raises(DataError, match=r"made\.inter is not the file that made\.split\.json"):
        rekey(path.parent, "made", tmp_path, 1)
