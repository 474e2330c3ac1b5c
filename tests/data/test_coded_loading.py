"""Interactions are read into integer codes; ids, splits and errors are those of RecBole's way."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from alignrec_recbole.data.interactions import coded_ids, read_interactions, stripped
from alignrec_recbole.dataset import MultimodalDataset, TokenNumbers
from alignrec_recbole.errors import DataError
from alignrec_recbole.io import tsv
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.spec import DataSpec


class Bare(MultimodalDataset):
    """A data set of given interactions, of which nothing else is read."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.logger = SimpleNamespace(debug=lambda text: None)
        self.inter_feat = Interaction({name: torch.from_numpy(v) for name, v in columns.items()})

    def _drop_unused_col(self) -> None:
        pass


def parts(splits: list) -> list[dict[str, list]]:
    return [
        {name: values.tolist() for name, values in split.inter_feat.interaction.items()}
        for split in splits
    ]


RATIOS = [[0.8, 0.1, 0.1], [7, 2, 1], [0.5, 0.5], [1, 1, 1], [0.98, 0.01, 0.01], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("ratios", RATIOS)
@pytest.mark.parametrize("seed", range(8))
def test_a_split_per_user_is_recboles_row_by_row(ratios: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 900))
    users = rng.zipf(1.6, rows).clip(max=60)
    data = Bare({"user": users, "item": rng.integers(50, size=rows), "time": rng.random(rows)})
    expected = Dataset.split_by_ratio(data, ratios, group_by="user")
    assert parts(data.split_by_ratio(ratios, group_by="user")) == parts(expected)
    assert parts(data.split_by_ratio(ratios)) == parts(Dataset.split_by_ratio(data, ratios))


@pytest.mark.parametrize("seed", [0, 2024])
def test_ml_100k_is_split_and_numbered_as_by_recbole(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec("ml-100k", output=tmp_path, overrides={"split_seed": seed}, device="cpu")
    ours = prepare_data(spec).splits
    monkeypatch.setattr(MultimodalDataset, "split_by_ratio", Dataset.split_by_ratio)

    def remap(self, remap_list):
        for feat, field, _ in remap_list:
            feat[field] = feat[field].astype(object)
        Dataset._remap(self, remap_list)

    monkeypatch.setattr(MultimodalDataset, "_remap", remap)
    theirs = prepare_data(spec).splits
    assert parts(ours) == parts(theirs)
    for field in ("user_id", "item_id"):
        tokens = ours[0].field2id_token[field]
        assert tokens.dtype == theirs[0].field2id_token[field].dtype
        assert (tokens == theirs[0].field2id_token[field]).all()
        assert ours[0].field2token_id[field] == theirs[0].field2token_id[field]


@pytest.mark.parametrize("seed", range(12))
def test_numbering_with_columns_of_other_tables(seed: int) -> None:
    """Tokens of .user and .item files come after those of the interactions; none is PAD."""
    rng = np.random.default_rng(seed)

    def frames() -> list:
        tokens = [f"t{n}" for n in rng.integers(40, size=100)]
        first = pd.DataFrame({"id": pd.Categorical(tokens, categories=sorted(set(tokens)))})
        others = rng.integers(80, size=30)
        second = pd.DataFrame({"id": np.array([f"t{n}" for n in others], dtype=object)})
        second.loc[::7, "id"] = None
        return [(first, "id", FeatureType.TOKEN), (second, "id", FeatureType.TOKEN)]

    state = rng.bit_generator.state
    ours, mine = frames(), Bare({})
    rng.bit_generator.state = state
    theirs, plain = frames(), Bare({})
    theirs[0][0]["id"] = theirs[0][0]["id"].astype(object)
    for data in (mine, plain):
        data.field2id_token, data.field2token_id = {}, {}
    mine._remap(ours)
    Dataset._remap(plain, theirs)
    for (one, _, _), (other, _, _) in zip(ours, theirs, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
    assert mine.field2id_token["id"].tolist() == plain.field2id_token["id"].tolist()
    assert mine.field2token_id["id"] == plain.field2token_id["id"]


def test_chunks_share_one_numbering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.permutation(30 * 20)[:300]
    rows = [(f"u{p // 20}", f" i{p % 20}" if p % 3 else f"i{p % 20}") for p in pairs]
    labels = [0, 1, 2, *rng.integers(3, size=297)]
    path = tmp_path / "x.inter"
    lines = [f"{u}\t{i}\t{y}" for (u, i), y in zip(rows, labels, strict=True)]
    path.write_text("\n".join(["userID\titemID\tx_label", *lines]) + "\n\n")
    whole = read_interactions(path)
    monkeypatch.setattr(tsv, "CHUNK_ROWS", 7)
    chunked = read_interactions(path)
    for table in (whole, chunked):
        assert table.users.tolist() == [user for user, _ in rows]
        assert table.items.tolist() == [item.strip() for _, item in rows]
        assert table.labels.tolist() == labels
        assert table.user_ids.categories.tolist() == list(dict.fromkeys(u for u, _ in rows))
        assert table.user_ids.codes.nbytes <= 4 * len(rows)


@pytest.mark.parametrize("row", [0, 3, 6, 7, 20])
@pytest.mark.parametrize("kind", ["empty", "twice", "label", "cells"])
def test_errors_name_the_line_in_every_chunk(
    row: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsv, "CHUNK_ROWS", 7)
    monkeypatch.setattr(tsv, "BLOCK", 64)
    rows = [[f"u{n}", f"i{n}", str(n % 3)] for n in range(30)]
    rows.insert(row, {
        "empty": [" ", "i", "0"], "twice": ["u29", "i29 ", "0"], "label": ["u", "i", "7"],
        "cells": ["u", "i"],
    }[kind])  # fmt: skip
    path = tmp_path / "x.inter"
    text = "\n".join("\t".join(cells) for cells in [["userID", "itemID", "x_label"], *rows])
    path.write_text(text)
    line = 32 if kind == "twice" else row + 2
    with pytest.raises(DataError, match=rf"line {line}\b"):
        read_interactions(path)


@pytest.mark.parametrize("text", ["a\tb\nc\td\n", "a\tb", "\n\na\tb\n \nc\td", "a\tb\r\nc\td\r\n"])
@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_regular_lines_pass(
    text: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsv, "BLOCK", block)
    path = tmp_path / "x.tsv"
    path.write_bytes(text.encode())
    tsv.check_lines(path, 2)
    path.write_bytes((text + "\nx\n").encode())
    with pytest.raises(DataError, match="1 lines with another number of cells"):
        tsv.check_lines(path, 2)


def test_ids_that_differ_in_white_space_are_one() -> None:
    ids = stripped(pd.Categorical(["a", "a ", "b"], categories=["a", "a ", "b"]))
    assert ids.categories.tolist() == ["a", "b"]
    assert coded_ids(Path("x"), "user", ids).codes.tolist() == [0, 0, 1]


def test_the_index_of_tokens_is_that_of_a_dict() -> None:
    numbers = TokenNumbers(np.array(["[PAD]", "b", "a"]))
    assert dict(numbers) == {"[PAD]": 0, "b": 1, "a": 2}
    assert len(numbers) == 3
    assert "c" not in numbers
    with pytest.raises(KeyError):
        numbers["c"]
