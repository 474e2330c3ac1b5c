"""Saved models from anyone: changed files end in a model or in one error that names them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from trials import check_answered, run_verb, trial

from alignrec_recbole import load_model
from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.saved_model import ModelCard, SavedModel, write_model

CHANGES = 300
ODD = (None, 0, -1, 2**70, 1e308, "", "a" * 10**5, "\x1b[31m", "../../x", [], {}, True, "\ud800")


def make(folder: Path, kind: str) -> Path:
    """A small model of a kind."""
    random = np.random.default_rng(3)
    tables = {
        "vectors": {"users": random.normal(size=(7, 3)), "items": random.normal(size=(6, 3))},
        "similarity": {"similarity": sp.random(6, 6, 0.4, "csr", np.float32, 3)},
        "scores": {"scores": random.normal(size=(7, 6))},
    }[kind]
    card = ModelCard(
        kind=kind,  # type: ignore[arg-type]
        model="BPR",
        dataset="toy",
        features="none",
        setting="mmrec",
        seed=1,
        users=6,
        items=5,
        list_length=4,
        metrics={"Recall@20": 0.5},
        config={"seed": 1},
        config_sha256="0" * 64,
        package_version="0",
        sha256="0" * 64,
    )
    rows = sp.csr_matrix((np.ones(6, bool), ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 1])), shape=(7, 6))
    model = SavedModel(
        card,
        users=np.array([f"ü{n}" for n in range(6)], dtype=object),
        items=np.array([f"i {n}" for n in range(5)], dtype=object),
        train=rows,
        valid=sp.csr_matrix((7, 6), dtype=bool),
        ranked=np.array([1, 3]),
        tables=tables,
    )
    write_model(folder / "m.safetensors", folder / "m.json", model)
    return folder / "m.safetensors"


def refusal(path: Path) -> str:
    """Load a model and rank with it; the error's text, or "" if it is usable."""
    try:
        model = load_model(path)
    except RecordError as error:
        text = str(error)
    else:
        assert set(model.recommend(k=3)["item"]) <= set(model.items)
        return ""
    assert "m.json" in text or "m.safetensors" in text
    assert len(text) < 3000
    return text


@pytest.mark.parametrize("kind", ["vectors", "similarity", "scores"])
def test_changed_bytes(kind: str, tmp_path: Path) -> None:
    """Changed by someone who gives the card the new hash."""
    path = make(tmp_path, kind)
    whole, card = path.read_bytes(), json.loads((tmp_path / "m.json").read_text("utf-8"))
    assert len(load_model(path).recommend(k=2)) == 12
    random = np.random.default_rng(11)
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for number in range(CHANGES):
        changed = bytearray(whole)
        end = header if number % 3 else len(whole)
        for place in random.integers(0, end, 1 + number % 4):
            changed[place] = random.integers(0, 256)
        if number % 7 == 0:
            changed = changed[: random.integers(0, len(whole))]
        path.write_bytes(bytes(changed))
        (tmp_path / "m.json").write_text(json.dumps({**card, "sha256": sha256_file(path)}))
        with trial("saved models"):
            refused += bool(refusal(path))
    assert refused > CHANGES / 3


def test_odd_values_in_a_card(tmp_path: Path) -> None:
    path = make(tmp_path, "vectors")
    whole = json.loads((tmp_path / "m.json").read_text("utf-8"))
    for key in (*whole, "more"):
        for value in ODD:
            (tmp_path / "m.json").write_text(json.dumps({**whole, key: value}))
            with trial("saved models", f"{key} = {value!r:.20}"):
                refusal(path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.json"])
@pytest.mark.parametrize("verb", ["recommend", "export"])
def test_what_is_no_file(name: str, verb: str, tmp_path: Path) -> None:
    path = make(tmp_path, "vectors")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    given = ("--to", tmp_path / "out") if verb == "export" else ()
    with trial("saved models"):
        answer = run_verb(verb, "--run", path, *given)
        check_answered(answer)
        assert answer.status == 2
        assert "FIFO" in answer.errors
