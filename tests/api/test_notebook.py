"""The whole way in one notebook: train, tabulate, load, recommend; and a notebook's manners."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole import export_model, load_model
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.record import Run, read_record

LINES = """\
import logging
from alignrec_recbole import load_model, load_results, run
before = list(logging.getLogger().handlers)
(record,) = run(model={model!r}, dataset={dataset!r}, features={features!r}, epochs={epochs},
                data_path={data!r}, output={output!r})
table = load_results({output!r})
model = load_model(record)
lists = model.recommend(k=50)
assert logging.getLogger().handlers == before
lists.to_json({output!r} + "/lists.json", orient="values"); table.loc[0, "Recall@20"], record, model
"""
USERS = 1000


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    """Execute the notebook in an empty folder and compare its lists with the run's own."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    here, output = tmp_path / "here", tmp_path / "output"
    here.mkdir()
    code = LINES.format(output=str(output), **given)
    assert len(code.splitlines()) == 10
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(here)}}
    ).execute()

    (cell,) = notebook.cells
    printed = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    states = [state for state in re.split(r"[\r\n]", printed) if state.strip()]
    assert states == [state for state in states if "of at most 5" in state], "no more than a bar"
    assert list(here.iterdir()) == [], "nothing in the working directory"
    (shown,) = [out for out in cell.outputs if out.output_type == "execute_result"]
    assert "TrainedModel(" in shown.data["text/plain"]

    (path,) = (output / "runs").rglob("*.json")
    model = load_model(path)
    lists = {}
    for user, rank, item, _ in json.loads((output / "lists.json").read_text("utf-8")):
        lists.setdefault(user, []).append(item)
        assert rank == len(lists[user])
    values = read_user_values(Run(path, read_record(path)))
    assert values is not None
    wanted = min(USERS, len(values.users))
    assert wanted > 900
    for user, top in zip(values.users[:wanted], values.top, strict=False):
        assert lists[user] == [values.items[item] for item in top if item >= 0]
    check_index(model, values.users[:wanted], tmp_path / "exported")


def check_index(model: object, users: np.ndarray, folder: Path) -> None:
    """The exported index, searched as far as needed and without what is excluded, gives the lists.

    Products in another order of additions differ in the last bits, so a pair of items whose scores
    are that close may change places.
    """
    faiss = pytest.importorskip("faiss")
    export_model(model, folder, index=True)  # type: ignore[arg-type]
    saved = model.tables()  # type: ignore[attr-defined]
    index = faiss.read_index(str(folder / "items.faiss"))
    items = json.loads((folder / "items.json").read_text("utf-8"))
    tokens = json.loads((folder / "users.json").read_text("utf-8"))
    place = {token: row for row, token in enumerate(tokens)}
    rows = np.array([place[user] for user in users])
    seen = saved.train if saved.card.setting == "mmrec" else saved.train + saved.valid
    longest = int(np.diff(seen.indptr).max())
    scores, found = index.search(np.load(folder / "users.npy")[rows], min(len(items), 50 + longest))
    lists = model.recommend(users, 50)  # type: ignore[attr-defined]
    wanted = lists.groupby("user", sort=False)[["item", "score"]]
    swapped = 0
    for user, row, listed, values in zip(users, rows, found, scores, strict=True):
        excluded = set(seen[row + 1].indices - 1)
        pairs = zip(listed, values, strict=True)
        kept = [(items[n], score) for n, score in pairs if n not in excluded][:50]
        expected = wanted.get_group(user)
        ours = [item for item, _ in kept]
        if ours != list(expected["item"]):
            swapped += 1
            largest = float(np.abs(expected["score"]).max())
            np.testing.assert_allclose(
                [score for _, score in kept], expected["score"], atol=1e-6 * largest, rtol=1e-6
            )
    assert swapped <= 0.02 * len(users), f"{swapped} lists differ"


@pytest.mark.slow
def test_ten_lines_of_a_notebook_on_movielens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(
        tmp_path,
        monkeypatch,
        model="AlignRec",
        dataset="ml-100k",
        features="lsa",
        epochs=5,
        data=None,
    )


@pytest.mark.slow
@pytest.mark.data
def test_ten_lines_of_a_notebook_on_lastfm(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.isdir(shared_data / "lfm2k"):
        pytest.skip("no lfm2k")
    check(
        tmp_path,
        monkeypatch,
        model="AlignRec",
        dataset="lfm2k",
        features="all-MiniLM-L6-v2",
        epochs=5,
        data=str(shared_data),
    )
