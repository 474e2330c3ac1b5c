"""Generated trials: suite files and status folders, refused in a sentence or run as written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trials import check_answered, check_refused, run_verb, trial

from alignrec_recbole.cli.run import parse
from alignrec_recbole.engines import child
from alignrec_recbole.errors import AlignRecError, SettingError
from alignrec_recbole.suites import schema
from alignrec_recbole.suites.scheduler import Scheduler, SuiteOptions
from alignrec_recbole.suites.status import CellStatus, read_status, write_status

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
GROUP = "cells: [{datasets: [d], models: [BPR], %s}]\n"
FILES = {  # content of a suite → words of its error
    "aliases at the top": (LAUGHS + "cells: *a11", "values"),
    "aliases in set": (LAUGHS + GROUP % "set: {k: *a11}", "values"),
    "aliases in seeds": (LAUGHS + GROUP % "seeds: *a11", "values"),
    "aliases in a merge": (LAUGHS + GROUP % "<<: *a11", "values"),
    "an alias of itself": ("cells: &a [*a]", "contains itself"),
    "nested 5,000 deep": ("cells: " + "[" * 5000 + "]" * 5000, "deep"),
    "nested 5,000 deep in blocks": ("\n".join(" " * n + "- " * 1 for n in range(500)), "deep"),
    "nested mappings": ("cells: " + "{a: " * 100 + "1" + "}" * 100, "deep"),
    "not UTF-8": (b"cells: \xff\xfe", "UTF-8"),
    "UTF-16": ("cells: []".encode("utf-16"), "UTF-8"),
    "a zero byte": (b"cells: \x00", "not valid YAML"),
    "bytes in set": (GROUP % "set: {k: !!binary aGk=}", "binary"),
    "a set in set": (GROUP % "set: {k: !!set {a, b}}", "set"),
    "an object": (GROUP % "set: {k: !!python/object:os.system x}", "python"),
    "ordered pairs": (GROUP % "set: {k: !!omap [a: 1]}", "omap"),
    "NaN in set": (GROUP % "set: {k: .nan}", "not finite"),
    "infinity in a grid": (GROUP % "grid: {k: [.inf]}", "not finite"),
    "a number as a key": (GROUP % "set: {1: 2}", "cells.0.set"),
    "a key with a blank": (GROUP % "set: {a b: 2}", "cells.0.set"),
    "a key twice": (GROUP % "seeds: [1], seeds: [2]", "twice"),
    "a number of 5,000 digits": (GROUP % f"seeds: [1{'0' * 5000}]", "digits"),
    "a seed beyond 64 bits": (GROUP % "seeds: [100000000000000000000]", "cells.0.seeds.0"),
    "a negative seed": (GROUP % "seeds: [-1]", "cells.0.seeds.0"),
    "a word as a seed": (GROUP % "seeds: [x]", "cells.0.seeds.0"),
    "a list as a model": ("cells: [{datasets: [d], models: [[BPR]]}]", "cells.0.models.0"),
    "no model's name": ("cells: [{datasets: [d], models: ['']}]", "cells.0.models.0"),
    "a number as a data set": ("cells: [{datasets: [3]}]", "cells.0.datasets.0"),
    "no data set": ("cells: [{datasets: []}]", "cells.0.datasets"),
    "no protocol": (GROUP % "protocols: []", "cells.0.protocols"),
    "an unknown setting": (GROUP % "setting: mrec", "cells.0.setting"),
    "epochs as text": (GROUP % "epochs: many", "cells.0.epochs"),
    "10^30 epochs": (GROUP % f"epochs: 1{'0' * 30}", "cells.0.epochs"),
    "an empty grid": (GROUP % "grid: {k: []}", "cells.0.grid"),
    "no list in a grid": (GROUP % "grid: {k: 3}", "cells.0.grid"),
    "an unknown key": (GROUP % "model: [BPR]", "cells.0.model"),
    "an unknown key at the top": ("cell: []", "cells"),
    "no cells": ("cells: []", "cells"),
    "cells that are a mapping": ("cells: {a: 1}", "cells"),
    "a list": ("- a", "not a mapping"),
    "text": ("hello", "not a mapping"),
    "nothing": ("", "cells"),
    "output as a list": ("output: [a]\n" + GROUP % "seeds: [1]", "output"),
    "10^9 cells": (GROUP % f"seeds: [{', '.join(map(str, range(1000)))}], features: "
                   f"[{', '.join(f'f{n}' for n in range(1000))}], protocols: "
                   f"[{', '.join(f'p{n}' for n in range(1000))}]", "at most 10,000"),
    "12,000 cells in two groups": (
        f"cells: {json.dumps([{'datasets': ['d'], 'seeds': list(range(6000))}] * 2)}",
        "at most 10,000"),
    "a text of 10,001 letters": (GROUP % f"set: {{k: {'x' * 10_001}}}", "too long"),
    "a whole number of 64 bits": (GROUP % f"set: {{k: {2**63}}}", "beyond 64 bits"),
    "10,001 values": (GROUP % f"set: {{k: {[0] * 10_001}}}", "more than 10,000 values"),
    "10^9 points": (GROUP % "grid: {a: %s, b: %s, c: %s}" % ((list(range(1000)),) * 3), "grid"),
    "an undefined alias": ("cells: *a", "undefined alias"),
    "two documents": ("cells: []\n---\ncells: []", "not valid YAML"),
    "a tab": ("cells:\n\t- a", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_suite_is_refused(name: str, tmp_path: Path) -> None:
    content, word = FILES[name]
    path = tmp_path / "odd.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with trial("suites", name):
        with pytest.raises(SettingError) as caught:
            schema.read_suite(str(path))
        assert "odd" in caught.value.problem
        assert word in str(caught.value)
        assert len(str(caught.value)) < 4000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
    | st.binary(max_size=3) | st.just({"a"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
WORDS = st.sampled_from(["BPR", "Pop", "d", "full", "lsa", "a,b", "", "../x", "\x1b[31m", "é x"])
GROUPS = st.fixed_dictionaries(
    {"datasets": st.lists(WORDS, max_size=2)},
    optional={
        "models": st.lists(WORDS, max_size=3) | VALUES,
        "features": st.lists(WORDS, max_size=2) | VALUES,
        "protocols": st.lists(WORDS, max_size=2),
        "seeds": st.lists(st.integers(), max_size=3) | VALUES,
        "setting": st.sampled_from(["mmrec", "recbole", "x", 3]),
        "epochs": st.integers() | VALUES,
        "set": st.dictionaries(st.sampled_from(["a", "k.b", "", "a=b"]), VALUES, max_size=3),
        "grid": st.dictionaries(
            st.sampled_from(["a", "k.b"]), st.lists(VALUES, max_size=3), max_size=2
        ),
    },
)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({"cells": st.lists(GROUPS, max_size=3) | VALUES}))
def test_a_generated_suite_is_read_or_refused(tmp_path_factory, document: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.yaml"
    path.write_text(yaml.dump(document), "utf-8", errors="surrogatepass")
    with trial("suites", repr(document)[:200]):
        try:
            cells = schema.read_suite(str(path)).expanded
        except AlignRecError as error:
            refused = str(error)
        else:
            refused = ""
        assert len(refused) < 4000
        if refused:
            return
        assert 0 < len(cells) <= schema.MAX_CELLS
        for cell in cells:
            assert (tmp_path_factory.getbasetemp() / f"{cell.stem}.json").name.isprintable()
            json.dumps(cell.arguments)


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**40), 2**40)
                    | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=8),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=5))  # fmt: skip
def test_what_a_suite_sets_is_what_the_cell_reads(value: object) -> None:
    group = schema.CellGroup(datasets=["d"], models=["BPR"], set={"k": value})
    with trial("suites", repr(value)):
        (cell,) = group.cells()
        text = value if isinstance(value, str) else None
        try:
            read = dict(parse(cell.arguments).overrides)["k"]
        except Exception:
            assert text is not None  # text that is no YAML is refused when the cell starts
        else:
            assert text is not None or read == value


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "/" + "x" * 300, "x" * 5000 + ".yaml", "/" + "x" * 300 + ".yaml", "../smoke",
     "/etc/passwd", "smoky", "", ".", "*", "\x1b[31m", "a\x00.yaml", "\udcff.yaml", "..yaml",
     "dev.yaml", "loop.yaml", "folder.yaml", "fifo.yaml"],
)  # fmt: skip
def test_a_name_that_is_no_suite(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dev.yaml").symlink_to("/dev/zero")
    Path("loop.yaml").symlink_to("loop.yaml")
    Path("folder.yaml").mkdir()
    os.mkfifo("fifo.yaml")
    Path("..yaml").write_text("cells: [{datasets: [d], models: [Pop]}]")
    with trial("suites", name[:40]):
        check_refused(run_verb("suite", name, "--quiet") if name else run_verb("suite", "--quiet"))
        assert not (tmp_path / "results").exists()


# Status folders ----------------------------------------------------------------------------------

SUITE = schema.Suite(cells=[{"datasets": ["d"], "models": ["Pop"], "seeds": [1]}])  # type: ignore
CELL = SUITE.expanded[0]
FOREIGN = {
    "mine.json": '{"a": 1}',
    "mine-0123abcd.json": '{"a": 1}',
    "notes-0123abcd.json": "no JSON",
    "data-0123abcd.json": CellStatus(name="x", arguments=["y"], status="finished")
    .model_dump_json(),
    "deep-0123abcd.json": "[" * 100_000,
    "notes.txt": "text",
}  # fmt: skip


def make(output: Path) -> Scheduler:
    return Scheduler(SUITE, SuiteOptions(name="s", output=output, progress=False))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_in_the_status_folder_stays(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "suites" / "s"
    folder.mkdir(parents=True)
    (folder / name).write_text(FOREIGN[name])
    with trial("suites", name):
        make(tmp_path)._reset_status([CELL])
        assert (folder / name).read_text() == FOREIGN[name]
        assert (folder / f"{CELL.stem}.json").is_file()


@pytest.mark.parametrize("linked", ["suites", "suites/s"])
def test_nothing_is_deleted_through_a_link(linked: str, tmp_path: Path) -> None:
    gone = schema.Suite(cells=[{"datasets": ["d"], "models": ["EASE"]}]).expanded[0]  # type: ignore
    status = CellStatus(name="x", arguments=gone.arguments, status="finished")
    victim = tmp_path / "victim"
    inner = victim if linked == "suites/s" else victim / "s"
    write_status(inner / f"{gone.stem}.json", status)
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(victim)
    with trial("suites", linked):
        make(tmp_path)._reset_status([CELL])
        assert (inner / f"{gone.stem}.json").is_file()


def test_a_status_of_an_earlier_form_of_the_suite_goes_and_a_link_to_one_stays(
    tmp_path: Path,
) -> None:
    gone = schema.Suite(cells=[{"datasets": ["d"], "models": ["EASE"]}]).expanded[0]  # type: ignore
    status = CellStatus(name="x", arguments=gone.arguments, status="finished")
    folder = tmp_path / "suites" / "s"
    write_status(tmp_path / "elsewhere.json", status)
    write_status(folder / f"{gone.stem}.json", status)
    with trial("suites", "stale"):
        make(tmp_path)._reset_status([CELL])
        assert not (folder / f"{gone.stem}.json").exists()
        (folder / f"{gone.stem}.json").symlink_to(tmp_path / "elsewhere.json")
        make(tmp_path)._reset_status([CELL])
        assert (tmp_path / "elsewhere.json").is_file()
        assert (folder / f"{gone.stem}.json").is_symlink()


def test_a_status_of_another_cell_is_not_this_cells(tmp_path: Path) -> None:
    path = tmp_path / "suites" / "s" / f"{CELL.stem}.json"
    write_status(path, CellStatus(name="other", arguments=["--model=EASE"], status="finished"))
    with trial("suites", "another cell"):
        assert make(tmp_path).status(CELL).status == "missing"
        assert make(tmp_path).pending() == [CELL]


def test_the_log_of_a_cell_is_not_written_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "COMMAND", ("-c", "print('said')"))
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    folder = tmp_path / "suites" / "s"
    folder.mkdir(parents=True)
    (folder / f"{CELL.stem}.log").symlink_to(victim)
    with trial("suites", "log"):
        assert not make(tmp_path).run([CELL])
        assert victim.read_text() == "precious"
        assert "said" in (folder / f"{CELL.stem}.log").read_text()


def test_the_summary_names_the_error_of_a_failed_cell(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text("cells: [{datasets: [nowhere], models: [Pop]}]")
    cell = schema.read_suite(str(path)).expanded[0]
    error = (
        "Traceback (most recent call last):\n  File x\n\nalignrec_recbole.errors.UnknownNameError:"
        " Data set 'nowhere' is unknown.\x1b[31m\n  found     none\n  hint      pass --data-path\n"
    )
    status = CellStatus(name=cell.name, arguments=cell.arguments, status="failed", error=error)
    write_status(tmp_path / "out" / "suites" / "tiny" / f"{cell.stem}.json", status)
    with trial("suites", "summary"):
        answer = run_verb("suite", path, "--list", "--output", tmp_path / "out", "--quiet")
        check_answered(answer)
        assert "UnknownNameError: Data set 'nowhere' is unknown." in answer.output
        assert "hint" not in answer.output
        assert read_status(tmp_path / "out" / "suites")["tiny"][0].summary.isprintable()
