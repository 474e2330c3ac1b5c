"""Generated trials: reports of records whose texts are meant to break their tables and pages."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_records import DAMAGED, WORDS, hostile
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from records import METRICS, record, store
from report_files import check_csv, check_files, check_latex, check_markdown, check_plain
from trials import run_verb, trial

from alignrec_recbole.errors import RecordError, printable
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.names import is_safe_name
from alignrec_recbole.reports import build, contents
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.formats.html import as_html
from alignrec_recbole.reports.formats.latex import as_latex
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.inputs import Inputs
from alignrec_recbole.reports.site import build as build_site
from alignrec_recbole.reports.table import Cell, Table
from alignrec_recbole.reports.table_files import write_tables
from alignrec_recbole.runs.record import RunRecord, read_runs

WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which takes minutes
MARKUP = tuple(
    r"""
=cmd|' C'!A0
@SUM(A1)
+1+1
-1-1
^^5cinput
a^2~b
& % $ # _ { }
$x$
a|b`c`[d](e)
<b>&lt;
'"><svg onload=1>
[x]
_x_
*x
~~x~~
![i](x)
nan
0
runs
content
{
}
%
--
http:x
a.json
中
""".strip().splitlines()
)
NAMES = st.sampled_from([n for n in MARKUP if is_safe_name(n)]) | st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=60
).filter(lambda text: is_safe_name(text) and len(text.encode()) < 100)
LABELS = st.sampled_from([*MARKUP, "\\input{x}", "$\\frac{", "a/b:c", "\u4e2d\u6587"]) | NAMES
SETS = LABELS.filter(lambda name: "+" not in name)  # of features; joined by + where several
TEXTS = st.sampled_from(WORDS) | st.text(max_size=40)


@st.composite
def runs(draw: st.DrawFn) -> list[RunRecord]:
    """Records of one data set: valid, with texts of anyone wherever a text may be."""
    dataset, metric = draw(NAMES), draw(LABELS)
    protocols = ["full", "zero-shot", "long-tail", "mask-modality", "diagnostics", "other"]
    out = []
    for _ in range(draw(st.integers(1, 4))):
        protocol = draw(st.sampled_from(protocols))
        features = draw(SETS if protocol == "mask-modality" else st.just("none") | SETS)
        metrics = {metric: draw(st.floats(0, 1e99)), **dict.fromkeys(METRICS, 0.1)}
        values: dict[str, Any] = {"metrics": {k: v if v > 1e-99 else 0 for k, v in metrics.items()}}
        values["config"] = {draw(TEXTS): draw(TEXTS), "protocol": {"fill": "zero"}}
        if protocol == "long-tail":
            group = {"Recall@20": 0.1, "exposure@20": 0.2, metric: 0.1}
            values["groups"] = {kind: {draw(LABELS): group} for kind in ("history", "popularity")}
        if protocol == "mask-modality":
            point = {"modality": "text", "mask_seed": 0, "metrics": values["metrics"]}
            values["curve"] = [{**point, "ratio": 0.0}, {**point, "ratio": 0.5}]
        out.append(
            record(
                draw(NAMES),
                draw(st.integers(-(2**63), 2**63 - 1)),
                dataset=dataset,
                features=features,
                protocol=protocol,
                history=[],
                selection={"metric": metric},
                tuned_on=draw(st.none() | TEXTS),
                notes=draw(st.lists(TEXTS, max_size=2)),
                command=draw(TEXTS),
                error=draw(st.none() | TEXTS),
                machine={"device": draw(LABELS)},
                **values,
            )
        )
    return out


@settings(deadline=None, max_examples=60, phases=WITHOUT_SHRINKING)
@given(runs(), hostile())
def test_tables_and_pages_are_whole_whatever_records_say(
    made: list[RunRecord], bad: tuple[RunRecord, dict[str, Any]]
) -> None:
    with trial("reports"), tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        for each in made:
            store(output, each)
        changed, values = bad
        store(output, changed).write_text(json.dumps(values))
        before = {path for path in Path(folder).rglob("*") if path.is_file()}
        skipped: list[RecordError] = []
        found = [
            run
            for run in read_runs(output / "runs", lambda _, error: skipped.append(error))
            if not run.record.history
        ]
        pages = contents.tables(found, skipped=lambda _, error: skipped.append(error))
        for stem, several in pages.items():
            write_tables(several, output / "tables", stem)
            check_plain(as_text(several))
        build_site.write(output, found, pages, [], {}, [], Inputs(output))
        written = [p for p in Path(folder).rglob("*") if p.is_file() and p not in before]
        assert all(path.is_relative_to(output) for path in written)
        assert {p.relative_to(output).parts[0] for p in written} <= {"tables", "site"}
        assert len(list((output / "site" / "runs").glob("*.html"))) == len(found)
        assert check_files(output / "tables") + check_files(output / "site") == len(written)


@settings(deadline=None, max_examples=250, phases=WITHOUT_SHRINKING)
@given(st.lists(st.lists(TEXTS | LABELS, min_size=3, max_size=3), min_size=1, max_size=3), TEXTS)
def test_a_table_of_any_texts_is_a_table(rows: list[list[str]], note: str) -> None:
    cells = [[Cell(text, rank=place % 3) for place, text in enumerate(row)] for row in rows]
    with trial("reports"):
        table = Table(rows[0][0], ["a", rows[0][1], rows[0][2] + " "], cells, note)
        check_plain(as_text([table]))
        check_markdown(as_text([table], "github"))
        check_latex(as_latex([table]))
        if len({"a", rows[0][1], rows[0][2] + " "}) == 3:
            check_csv(as_csv([table]))
        assert as_html(table).count("<tr>") == len(rows) + 1


# Whole reports -----------------------------------------------------------------------------------


def test_one_report_of_good_and_of_every_kind_of_bad_record(tmp_path: Path) -> None:
    """The good ones are reported, each of the others is named, and nothing else is written."""
    output = tmp_path / "output"
    for model in ("BPR", "a^2~b", "=cmd", "_x", "$y$ {", "[x]", "<b>"):
        users = np.linspace(0, 0.1, 30)
        store(output, record(model, features="@SUM(x)", notes=["\x1b[31m"]), users)
    for weight, value in (("1e400", 0.1), ("$x$", 0.2), ("_", 0.3)):
        store(output, record(config={"a_b$": weight}, value=value), kind="tuning")
    bad = []
    for seed, (name, damage) in enumerate(DAMAGED.items()):
        path = store(output, record("BPR", 5000 + seed, features="none"))
        with trial("reports", name):
            damage(path)
        bad.append(path)
    (tmp_path / "victim").mkdir()
    before = {path for path in tmp_path.rglob("*") if not path.is_dir()}
    answer = run_verb("report", "--output", output)
    assert answer.status == 1
    notes = answer.errors.splitlines()
    assert [note for note in notes if "skipped: " in note] == notes
    for path in bad:
        assert sum(f"{path} (" in note for note in notes) == 1
    check_plain(answer.output + answer.errors)
    new = {path for path in tmp_path.rglob("*") if not path.is_dir()} - before
    assert {path.relative_to(output).parts[0] for path in new} == {"tables", "plots", "site"}
    assert len(list((output / "site" / "runs").glob("*.html"))) == 7
    for kind in ("tables", "plots", "site"):
        check_files(output / kind)
    labels = (output / "plots" / "toy-cost.svg").read_text("utf-8")
    assert all(text in labels for text in ("a^2~b", " _x", "$y$ {", "&lt;b&gt;"))
    data = (output / "plots" / "toy-cost.csv").read_text("utf-8")
    assert "'=cmd, @SUM(x)" in data
    again = run_verb("report", "--output", output)
    assert (again.status, again.errors) == (1, answer.errors)  # said every time


USERS = np.array(["a", "b"])
VALUES = np.array([0.1, 0.2])


def npz(path: Path, **arrays: Any) -> None:
    with path.open("wb") as handle:
        np.savez_compressed(handle, **arrays)


def header_of_8_gb(path: Path) -> None:
    """An array of 24 bytes whose header claims a thousand million numbers."""
    npz(path, users=USERS)
    with zipfile.ZipFile(path, "a") as archive:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
        )
        archive.writestr("Recall@20.npy", buffer.getvalue() + bytes(24))


def bomb(path: Path) -> None:
    """A directory that announces three thousand million bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.npy", b"")
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # the length in the directory
    data[place : place + 4] = (3 * 10**9).to_bytes(4, "little")
    path.write_bytes(data)


LISTS: dict[str, Any] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"PK garbage"),
    "pickled objects": lambda path: npz(path, users=np.array([{}, {}])),
    "a header of 8 GB": header_of_8_gb,
    "more than fits": bomb,
    "no users": lambda path: npz(path, **{"Recall@20": VALUES}),
    "users of numbers": lambda path: npz(path, users=VALUES),
    "a user twice": lambda path: npz(path, users=np.array(["a", "a"])),
    "values of another length": lambda path: npz(path, users=USERS, **{"Recall@20": VALUES[:1]}),
    "values in two dimensions": lambda path: npz(path, users=USERS, **{"Recall@20": np.eye(2)}),
    "NaN": lambda path: npz(path, users=USERS, **{"Recall@20": VALUES * np.nan}),
    "complex": lambda path: npz(path, users=USERS, **{"Recall@20": VALUES + 1j}),
    "lists outside the items": lambda path: npz(
        path, users=USERS, items=USERS, top=np.array([[0], [2]])
    ),
    "lists below the items": lambda path: npz(
        path, users=USERS, items=USERS, top=np.array([[0], [-2]])
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_damaged_per_user_values_are_named_and_the_tests_left_out(
    tmp_path: Path, name: str
) -> None:
    path = store(tmp_path, record("AlignRec", history=[]), np.array([0.1, 0.2]))
    store(tmp_path, record("BPR", value=0.02, history=[]), np.array([0.01, 0.03]))
    lists = path.with_suffix(".users.npz")
    with trial("reports", name):
        LISTS[name](lists)
        values = json.loads(path.read_text())
        values["per_user"]["sha256"] = sha256_file(lists)
        path.write_text(json.dumps(values))
        skipped: list[RecordError] = []
        pages = contents.tables(
            read_runs(tmp_path / "runs"), skipped=lambda _, error: skipped.append(error)
        )
        if name != "no users":
            assert len(skipped) == 1
        assert lists.name in skipped[0].problem
        assert printable(str(skipped[0])) == str(skipped[0])
        text = as_text(pages["toy-tests"])
        assert "damaged per-user values" in text
        with pytest.raises(RecordError, match="no usable per-user values"):
            contents.tables(read_runs(tmp_path / "runs"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_per_user_values_that_are_no_file_are_refused(tmp_path: Path, make: Any) -> None:
    path = store(tmp_path, record("AlignRec", history=[]), np.array([0.1, 0.2]))
    store(tmp_path, record("BPR", value=0.02, history=[]), np.array([0.01, 0.03]))
    with trial("reports"):
        path.with_suffix(".users.npz").unlink()
        make(path.with_suffix(".users.npz"))
        with pytest.raises(RecordError, match=r"users\.npz"):
            contents.tables(read_runs(tmp_path / "runs"))


# What a report deletes ---------------------------------------------------------------------------


def test_only_files_of_an_earlier_report_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "figures", lambda *_: iter(()))  # seconds each
    output = tmp_path / "output"
    for model, value in (("AlignRec", 0.1), ("BPR", 0.2)):
        store(output, record(model, value=value, history=[]))
    gone = store(output, record("Pop", dataset="other", history=[]))
    build.build(output)
    tables = output / "tables"
    own = {path.name for path in tables.iterdir()}
    assert {"toy-tests.md", "other.md"} <= own
    foreign = [
        output / "site" / "runs" / "mine.html",
        tables / "mine-tests.md",
        tables / "mine.csv",
    ]
    for path in foreign:
        path.write_text("mine")
    (tables / "other.csv").write_text("edited")
    gone.unlink()
    with trial("reports", "stale files"):
        build.build(output)
        assert all(path.read_text() == "mine" for path in foreign)
        assert (tables / "other.csv").read_text() == "edited"
        assert not (tables / "other.md").exists()
        assert len(list((output / "site" / "runs").glob("*.html"))) == 3
    victim = tmp_path / "victim"
    (output / "site" / "runs").rename(victim)
    (output / "site" / "runs").symlink_to(victim)
    with trial("reports", "a link in place of a folder"):
        before = {path.name: path.read_bytes() for path in victim.iterdir()}
        next((output / "runs" / "toy").rglob("*.json")).unlink()
        build.build(output)
        assert before.keys() <= {path.name for path in victim.iterdir()}


def test_nothing_is_deleted_through_a_link_to_another_folder_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "figures", lambda *_: iter(()))
    store(tmp_path, record("AlignRec", history=[]))
    gone = store(tmp_path, record("BPR", history=[]))
    build.build(tmp_path)
    pages = tmp_path / "site" / "runs"
    before = {path.name: path.read_bytes() for path in pages.iterdir()}
    pages.rename(tmp_path / "kept")
    pages.symlink_to(tmp_path / "kept")
    gone.unlink()
    with trial("reports", "a link within the output"):
        build.build(tmp_path)
        assert before.keys() <= {path.name for path in (tmp_path / "kept").iterdir()}


@pytest.mark.parametrize(
    "entry",
    [
        {
            "inputs": "",
            "files": {"../victim.txt": "x", "/etc/passwd": "x", "a/../../victim.txt": "x"},
        },
        {"inputs": "", "paths": ["../victim.txt"]},
        {"inputs": 1},
        [],
        "x",
        {"inputs": "", "files": ["x"]},
    ],
)
def test_the_notes_of_an_earlier_report_are_no_orders(tmp_path: Path, entry: Any) -> None:
    output, victim = tmp_path / "output", tmp_path / "victim.txt"
    victim.write_text("mine")
    store(output, record(protocol="diagnostics", features="lsa"))  # nothing to draw
    notes = output / "site" / "inputs.json"
    notes.parent.mkdir()
    notes.write_text(json.dumps({"report": entry}))
    with trial("reports", "inputs.json"):
        assert all(path.is_relative_to(output) for path in build.build(output))
        assert victim.read_text() == "mine"


@pytest.mark.parametrize("target", ["Nope", "alignrec", "\x1b[31m", "x" * 10_000, "", "../x"])
def test_an_unknown_target_is_refused_before_anything_is_written(
    tmp_path: Path, target: str
) -> None:
    store(tmp_path, record("AlignRec", history=[]))
    with trial("reports", target):
        answer = run_verb("report", "--output", tmp_path, "--target", target)
        assert answer.status == 2
        assert answer.errors.startswith("UnknownNameError: No record is of a model or feature set")
        assert ("Did you mean 'AlignRec'?" in answer.errors) == (target == "alignrec")
        check_plain(answer.errors)
        assert len(answer.errors) < 4000
        assert [path.name for path in tmp_path.iterdir()] == ["runs"]
