"""Lists that were stored are read by the tokens they name, and only where they belong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from records import record, store

from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.protocols.stored_lists import lists_of, run_about, stored_rankings
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.spec import RunSpec

USERS = {"[PAD]": 0, "ann": 1, "bob": 2, "cid": 3}
ITEMS = {"[PAD]": 0, "cup": 1, "pan": 2, "pot": 3}
CONTEXT: Any = SimpleNamespace(
    dataset=SimpleNamespace(
        uid_field="user", iid_field="item", field2token_id={"user": USERS, "item": ITEMS}
    )
)


@pytest.fixture
def stored(tmp_path: Path) -> Run:
    """Lists of cid and ann, in this order, by positions among items in another order."""
    path = tmp_path / "x.users.npz"
    np.savez(
        path,
        users=np.array(["cid", "ann"]),
        items=np.array(["[PAD]", "pot", "cup", "pan"]),
        top=np.array([[1, -1], [2, 3]], dtype=np.int32),
        **{"Recall@2": np.array([0.25, 0.75])},
    )
    about = {"file": path.name, "sha256": sha256_file(path)}
    return Run(tmp_path / "x.json", record(per_user=about))


def test_lists_and_values_follow_the_tokens_of_users_and_items(stored: Run) -> None:
    targets = np.array([USERS["ann"], USERS["cid"]]), np.array([ITEMS["pan"], ITEMS["pot"]])
    task = EvalTask.from_pairs(targets, [], (4, 4))
    ranking, values = lists_of(CONTEXT, stored, task)
    assert ranking.users.tolist() == [USERS["ann"], USERS["cid"]]
    assert ranking.items.tolist() == [[ITEMS["cup"], ITEMS["pan"]], [ITEMS["pot"], -1]]
    assert ranking.hits.tolist() == [[False, True], [True, False]]
    assert values["Recall@2"].tolist() == [0.75, 0.25]


def test_lists_of_other_users_than_those_with_a_target_are_refused(stored: Run) -> None:
    task = EvalTask.from_pairs((np.array([1, 2]), np.array([1, 1])), [], (4, 4))
    with pytest.raises(RecordError, match="of other users than the test split's"):
        lists_of(CONTEXT, stored, task)


def test_rankings_are_chosen_by_model_features_and_convention(tmp_path: Path) -> None:
    for model, features, setting in (
        ("BPR", "none", "mmrec"), ("BPR", "none", "recbole"),
        ("VBPR", "lsa", "mmrec"), ("VBPR", "clip+lsa", "mmrec"),
    ):  # fmt: skip
        made = record(model, features=features, setting=setting, config={"x": model + setting})
        store(tmp_path, made, np.full(3, 0.5))
    store(tmp_path, record("Pop"))  # without lists
    store(tmp_path, record("BPR", protocol="cold-start"), np.full(3, 0.5))

    def found(models: tuple = (), features: tuple = (), setting: Any = None) -> list[tuple]:
        spec = RunSpec("", "toy", output=tmp_path, setting=setting)
        chosen = (run.record for run in stored_rankings(spec, models, features))
        return sorted((r.model, r.features, r.setting) for r in chosen)

    bpr = [("BPR", "none", "mmrec"), ("BPR", "none", "recbole")]
    lsa, both = ("VBPR", "lsa", "mmrec"), ("VBPR", "clip+lsa", "mmrec")
    assert found() == [*bpr, both, lsa]
    assert found(models=("VBPR",)) == [both, lsa]
    assert found(features=("lsa",)) == [*bpr, lsa], "a model without features is of any"
    assert found(setting="recbole") == [bpr[1]]
    with pytest.raises(DataError, match="no stored rankings"):
        found(models=("Pop",))


def test_a_ranking_of_other_data_is_refused(stored: Run) -> None:
    present = {"split": {"kind": "released"}, "files": {"toy.inter": "0" * 64}}
    context: Any = SimpleNamespace(data=SimpleNamespace(data=present))
    with pytest.raises(DataError, match=r"x\.json was made on other data"):
        run_about(context, stored, {"name": "long-tail"})
