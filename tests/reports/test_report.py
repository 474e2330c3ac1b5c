"""Tables, plots and site are views of records: marked, escaped, complete."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import METRICS, record, store

from alignrec_recbole.api.results import load_results
from alignrec_recbole.errors import RecordError
from alignrec_recbole.registry.components import components
from alignrec_recbole.reports import build, contents, inputs, plots, reference_results
from alignrec_recbole.reports.comparisons import comparisons, targets, variant_comparisons
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.formats.latex import as_latex
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.grouping import (
    ComparisonKey,
    SeedGroup,
    comparable_groups,
    default_variants,
    seed_groups,
)
from alignrec_recbole.reports.leaderboards import comparison, leaderboard
from alignrec_recbole.reports.table import column_ranks, mean_sd_cell
from alignrec_recbole.runs.record import Run, read_runs

ROOT = Path(__file__).resolve().parents[2]


def toy(output: Path) -> Path:
    """Two seeds of three models, grid points, and every protocol that has views of its own."""
    for model, value in (("Pop", 0.05), ("BPR", 0.07), ("AlignRec", 0.09)):
        for seed in (999, 1000):
            users = np.random.default_rng(seed).random(40) * 2 * value
            store(output, record(model, seed, float(users.mean())), users)
    for weight in (0.01, 0.1):
        made = record("BPR", value=weight, config={"reg_weight": weight})
        store(output, made.model_copy(update={"metrics": {}}), kind="tuning")
    chance = dict.fromkeys(METRICS, 0.01)
    for features in ("lsa", "random"):
        kind = {"features": features, "chance": chance, "history": [], "epochs": 0}
        store(output, record("zero-shot", protocol="zero-shot", **kind))
        curve = [
            {
                "modality": "text",
                "ratio": ratio,
                "mask_seed": seed,
                "metrics": dict.fromkeys(METRICS, 0.1 - 0.05 * ratio + 0.001 * seed),
            }
            for ratio in (0.0, 0.5, 1.0)
            for seed in (0, 1)
        ]
        config = {"protocol": {"fill": "zero"}}
        masked = record("zero-shot", protocol="mask-modality", curve=curve, config=config, **kind)
        store(output, masked)
    group = {"users": 3.0, "Recall@20": 0.1, "exposure@20": 0.5}
    tails = {
        "history": {"<=3": group, ">=4": group},
        "popularity": {"0": {"items": 1.0}, ">=1": group},
    }
    store(output, record("BPR", protocol="long-tail", groups=tails, history=[]))
    store(
        output,
        record("none", protocol="diagnostics", features="lsa", metrics={"uniformity": -2.0}),
    )
    return output


# Rules of tables ---------------------------------------------------------------------------------


def test_best_is_bold_and_second_underlined_as_far_as_printed() -> None:
    assert column_ranks([0.1, 0.3, 0.2]) == [0, 1, 2]
    assert column_ranks([0.30001, 0.3, 0.2]) == [1, 1, 2]  # equal in print: both are best
    assert column_ranks([None, 0.2]) == [0, 0]  # nothing to be better than


def test_marks_in_every_format(tmp_path: Path) -> None:
    tables = comparison(read_runs(toy(tmp_path) / "runs"), "toy")
    markdown = [line for line in as_text(tables, "github").splitlines() if line.startswith("| ")]
    best = next(line for line in markdown if "AlignRec" in line)
    second = next(line for line in markdown if "BPR" in line)
    assert len(re.findall(r"\*\*0\.\d{4} ± 0\.\d{4}\*\*", best)) == len(METRICS)
    assert len(re.findall(r"<u>0\.\d{4} ± 0\.\d{4}</u>", second)) == len(METRICS)
    latex = as_latex(tables)
    assert latex.count(r"\textbf{") == latex.count(r"\underline{") == len(METRICS)
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_published_rows_are_never_marked(tmp_path: Path) -> None:
    for model in ("BPR", "LightGCN"):
        store(tmp_path, record(model, value=0.01, dataset="baby"))
    table = comparison(read_runs(tmp_path / "runs"), "baby")[0]
    printed = {row[0].text: [cell.rank for cell in row] for row in table.rows}
    assert not any(printed["LightGCN (published)"])  # far above ours, yet not a run of ours


def test_csv_is_unrounded(tmp_path: Path) -> None:
    runs = read_runs(toy(tmp_path) / "runs")
    table = pd.read_csv(StringIO(as_csv(comparison(runs, "toy")))).set_index("model")
    values = [r.record.metrics["Recall@20"] for r in runs if r.record.model == "AlignRec"]
    assert table.loc["AlignRec", "Recall@20"] == np.mean(values)
    assert table.loc["AlignRec", "Recall@20 sd"] == np.std(values, ddof=1)


def test_mean_and_spread_over_seeds() -> None:
    assert mean_sd_cell([0.1, 0.2, 0.3]).text == "0.2000 ± 0.1000"
    assert mean_sd_cell([]).text == "—"


def test_settings_and_protocols_are_not_mixed(tmp_path: Path) -> None:
    store(tmp_path, record(setting="mmrec"))
    store(tmp_path, record(setting="recbole"))
    store(tmp_path, record(protocol="zero-shot"))
    assert len(comparable_groups(read_runs(tmp_path / "runs"))) == 3


def test_other_data_are_another_table(tmp_path: Path) -> None:
    split = {"kind": "released"}
    for model, digest in (("LightGCN", "a"), ("BPR", "a"), ("VBPR", "b")):
        store(tmp_path, record(model, data={"split": split, "files": {"toy.inter": digest}}))
    found = comparable_groups(read_runs(tmp_path / "runs"))
    rows = sorted(sorted(group.label for group in members) for members in found.values())
    assert rows == [["BPR", "LightGCN"], ["VBPR"]]
    titles = [table.title for table in contents.tables(read_runs(tmp_path / "runs"))["toy"]]
    assert len(set(titles)) == 2
    assert all(", data " in title for title in titles)


def test_curves_of_other_settings_are_not_averaged(tmp_path: Path) -> None:
    for fuser, value in (("sum", 0.2), ("attention", 0.1)):
        for ratio in (0.0, 1.0):
            mask = {"modality": "text", "ratio": ratio, "seed": 0, "fill": "zero"}
            store(
                tmp_path,
                record(
                    "AlignRec",
                    value=value / (1 + ratio),
                    features="text",
                    protocol="mask-modality",
                    config={"fuser": fuser, "feature_mask": mask},
                ),
            )
    (table,) = contents.tables(read_runs(tmp_path / "runs"))["toy-mask-modality"]
    cells = {row[0].text: [cell.text for cell in row[4:6]] for row in table.rows}
    assert cells == {
        "AlignRec": ["0.2000", "0.1000"],
        "AlignRec (fuser=attention)": ["0.1000", "0.0500"],
    }


def test_variants_are_named_by_what_differs(tmp_path: Path) -> None:
    for number_, weight in enumerate((0.1, 0.1, 0.5)):
        config = {"reg_weight": weight, "part": {"on": True}}
        features = "lsa" if number_ else "none"
        store(tmp_path, record(config=config, features=features))
    labels = {g.name for g in seed_groups(read_runs(tmp_path / "runs"))}
    assert labels == {"LightGCN", "LightGCN, lsa", "LightGCN (reg_weight=0.5), lsa"}


@pytest.mark.parametrize(("weight", "default_is_first"), [(0.5, False), (0.6, True)])
def test_of_two_variants_the_default_one_has_the_plain_name(
    tmp_path: Path, weight: float, default_is_first: bool
) -> None:
    """Groups are ordered by their hashes, which says nothing about which is the default."""
    default = {"reg_weight": components("LightGCN").defaults["reg_weight"]}
    aligned = {"reg_weight": weight, "align": {"cca": 0.1}}
    first, second = (record(config=config) for config in (default, aligned))
    assert (first.config_sha256 < second.config_sha256) == default_is_first
    for made in (first, second):
        store(tmp_path, made)
    found = seed_groups(read_runs(tmp_path / "runs"))
    names = {"LightGCN", f"LightGCN (reg_weight={weight}, align.cca=0.1)"}
    assert {g.label for g in found} == names
    assert default_variants(found)["LightGCN", "none"].label == "LightGCN"


def test_variants_are_tested_against_the_model_as_it_is(tmp_path: Path) -> None:
    for model, config, gain in (
        ("LightGCN", {"cl": 0.5}, 0.0),
        ("LightGCN", {"align": {"cca": 0.1, "uia": 0.1}}, 0.02),
        ("BPR", {}, 0.0),
    ):
        for seed in (999, 1000, 1001):
            users = np.random.default_rng(seed).random(40) + gain
            made = record(model, seed, users.mean(), config=config)
            store(tmp_path, made, users)
    found = variant_comparisons(seed_groups(read_runs(tmp_path / "runs")))
    assert {c.target for c in found} == {"LightGCN (align.cca=0.1, align.uia=0.1)"}
    assert {c.baseline for c in found} == {"LightGCN (cl=0.5)"}
    assert [(c.over, c.pairs) for c in found if c.metric == "Recall@20"] == [
        ("users", 40),
        ("seeds", 3),
    ]
    assert all(c.difference == pytest.approx(0.02) for c in found if c.metric == "Recall@20")
    titles = [table.title for table in contents.tables(read_runs(tmp_path / "runs"))["toy-tests"]]
    assert titles[1].endswith("variants against the model with its usual settings")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"value": 0.0754}, "within 4 % (+0.0 %)"),
        ({"value": 0.0784}, "within 4 % (+4.0 %)"),
        ({"value": 0.0785}, "outside 4 % (+4.1 %)"),
        ({"value": 0.0700}, "outside 4 % (-7.2 %)"),
        ({"value": 0.0754, "features": "lsa"}, "not comparable: other features"),
        ({"value": 0.0754, "setting": "recbole"}, "not comparable: other split or masks"),
        ({"value": 0.0754, "notes": ["data differ from …"]}, "not comparable: other data"),
        ({"value": 0.0754, "model": "VBPR", "features": "lsa"}, "not comparable: other features"),
        ({"value": 0.0754, "model": "Unknown"}, ""),
    ],
)
def test_reproduction_verdicts(tmp_path: Path, changes: dict, expected: str) -> None:
    path = store(tmp_path, record(dataset="baby", **changes))
    group = seed_groups(read_runs(path.parent))[0]
    assert (
        reference_results.reproduction_status(group, reference_results.reference_results("baby"))
        == expected
    )


def test_improvement_is_over_the_best_other_row(tmp_path: Path) -> None:
    for model, value in (("Pop", 0.05), ("BPR", 0.10), ("AlignRec", 0.11)):
        store(tmp_path, record(model, value=value))
    block, members = next(iter(comparable_groups(read_runs(tmp_path / "runs")).items()))
    table = leaderboard(block, members)
    column = table.header.index("over best baseline")
    assert {row[0].text: row[column].text for row in table.rows} == {
        "Pop": "—",
        "BPR": "—",
        "AlignRec": "+10.0 %",
    }


def test_an_ablation_is_tested_against_the_whole_model(tmp_path: Path) -> None:
    for number_, (weight, value) in enumerate([(0.1, 0.12), (0.0, 0.10), (0.1, 0.11)]):
        config = {"cca_weight": weight, "uia_weight": 0.1 if number_ < 2 else 0.0}
        store(tmp_path, record("AlignRec", value=value, config=config))
    members = next(iter(comparable_groups(read_runs(tmp_path / "runs")).values()))
    assert [g.label for g in targets(members, None)] == ["AlignRec"]
    others = {c.baseline for c in comparisons(members)}
    assert others == {"AlignRec (cca_weight=0.0)", "AlignRec (uia_weight=0.0)"}


# Damaged and missing records ---------------------------------------------------------------------


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = store(tmp_path, record())
    path.write_text(path.read_text()[:100])
    with pytest.raises(RecordError, match=rf"{path.name} is not a run record"):
        build.build(tmp_path)


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to report"):
        build.build(tmp_path)


def test_failed_runs_are_not_in_tables(tmp_path: Path) -> None:
    store(tmp_path, record(status="failed", error="a traceback"))
    assert not comparable_groups(read_runs(tmp_path / "runs"))


# Plots -------------------------------------------------------------------------------------------


def test_a_plot_of_nothing_is_an_error() -> None:
    for draw in (
        plots.robustness_curves,
        plots.long_tail_dots,
        plots.training_curves,
        plots.quality_against_cost,
        plots.sensitivity,
    ):
        with pytest.raises(plots.EmptyPlotError, match="nothing to draw"):
            draw([])
    with pytest.raises(plots.EmptyPlotError):
        plots.protocol_bars({})


def test_seconds_of_another_device_are_named_and_not_compared(tmp_path: Path) -> None:
    on_gpu = {"machine": {"cpu": "c", "threads": 1, "device": "G9"}}
    store(tmp_path, record("LightGCN", value=0.2))
    store(tmp_path, record("VBPR", value=0.1, **on_gpu, seconds={"train_epoch": 0.5, "total": 1.0}))
    (members,) = comparable_groups(read_runs(tmp_path / "runs")).values()
    table = leaderboard(ComparisonKey("toy", "full", "mmrec"), members, [])
    seconds = [row[table.header.index("s/epoch")].text for row in table.rows]
    assert sorted(seconds) == ["0.10", "0.50 (G9)"]
    drawing = plots.quality_against_cost(members)
    titles = [axis.get_title(loc="left") for axis in drawing.figure.axes]
    assert sorted(set(titles)) == ["G9", "a <fast> one, 1 thread"]
    for axis in drawing.figure.axes:
        (name,) = [text.get_text() for text in axis.texts]
        assert name == ("VBPR" if axis.get_title(loc="left") == "G9" else "LightGCN")
    assert drawing.data.groupby("machine")["row"].count().max() == 1


def test_energy_is_a_column_where_it_was_measured(tmp_path: Path) -> None:
    measured = {"joules": 5000.0, "seconds": 9.0, "source": "rapl"}
    for seed, energy in ((1, measured), (2, {**measured, "joules": 7000.0}), (3, None)):
        store(tmp_path, record("AlignRec", seed=seed, energy=energy))
    store(tmp_path, record("BPR"))
    table = comparison(read_runs(tmp_path / "runs"), "toy")[0]
    shown = {row[0].text: row[table.header.index("kJ/run")].text for row in table.rows}
    assert shown == {"AlignRec": "6", "BPR": "—"}
    joules = load_results(tmp_path).set_index(["model", "seed"])["joules"]
    assert joules["AlignRec", 2] == 7000
    assert np.isnan(joules["AlignRec", 3])
    assert "kJ/run" not in comparison(read_runs(toy(tmp_path / "b") / "runs"), "toy")[0].header


def test_plots_have_labelled_axes_and_equal_bytes(tmp_path: Path) -> None:
    output = toy(tmp_path)
    found = contents.figures(read_runs(output / "runs"), read_runs(output / "tuning"))
    wanted = [each for each in found if each.runs]
    drawn = {each.name: getattr(plots, each.draw)(*each.arguments) for each in wanted}
    kinds = ("protocols", "robustness", "long-tail", "cost", "training", "sensitivity")
    assert list(drawn) == [f"toy-{kind}" for kind in kinds]
    for name, drawing in drawn.items():
        for axis in drawing.figure.axes:
            assert axis.get_xlabel(), name
            if not name.endswith("protocols"):  # bars are named one by one
                assert axis.get_ylabel() or drawing.figure.get_supylabel(), name
            assert axis.lines or axis.patches, name
    full = next(
        m for b, m in comparable_groups(read_runs(output / "runs")).items() if b.protocol == "full"
    )
    first, again = (
        [
            path.read_bytes()
            for path in plots.save(plots.training_curves(full), tmp_path / name, "p")
        ]
        for name in "ab"
    )
    assert first == again
    assert [path.suffix for path in sorted((tmp_path / "a").iterdir())] == [
        ".csv",
        ".pdf",
        ".png",
        ".svg",
    ]


# Report and site ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page refers to, its ids and its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = toy(tmp_path_factory.mktemp("report"))
    return build.build(output)[-1].parent


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_record_has_a_page_and_every_link_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in pages_of(site)}
    reached = {site.resolve() / "index.html"}
    for path, page in pages.items():
        assert len(set(page.ids)) == len(page.ids), path.name
        for link in page.links:
            if link.startswith("#"):
                assert link[1:] in page.ids, (path.name, link)
            elif not link.startswith("data:"):
                aim = (path.parent / link).resolve()
                assert aim.is_file(), (path.name, link)
                assert aim.is_relative_to(site.resolve())  # the site is whole by itself
                reached.add(aim)
        assert "http" not in "".join(page.links)
    assert pages.keys() <= reached
    records = list((site.parent / "runs").rglob("*.json"))
    assert len(list((site / "runs").glob("*.html"))) == len(records)
    texts = {path.read_text("utf-8") for path in records}
    assert {path.read_text("utf-8") for path in (site / "runs").glob("*.json")} == texts


def test_pages_escape_what_records_say(site: Path) -> None:
    for path in pages_of(site):
        text = path.read_text("utf-8")
        assert "<script>" not in text
        assert text.count("<script src=") == 1
        assert "default-src 'none'" in text
        assert not re.search(r"<[^>]* (style|on\w+)=", text)


def test_tables_are_usable_without_sight(site: Path) -> None:
    for path in pages_of(site):
        text = path.read_text("utf-8")
        page = Page(text)
        assert page.tags.count("caption") == page.tags.count("table")
        assert text.count('role="region" tabindex="0" aria-label=') == text.count('class="scroll"')
        assert 'lang="en"' in text
        assert page.tags.count("main") == page.tags.count("h1") == 1
    assert '<span class="spoken"> (best)</span>' in (site / "data" / "toy.html").read_text("utf-8")


def test_report_is_the_same_twice(tmp_path: Path) -> None:
    output = toy(tmp_path)
    first = {path: path.read_bytes() for path in build.build(output)}
    assert {path: path.read_bytes() for path in build.build(output)} == first


def test_pages_of_deleted_records_go(tmp_path: Path) -> None:
    path = store(tmp_path, record(seed=1))
    store(tmp_path, record(seed=2))
    build.build(tmp_path)
    path.unlink()
    build.build(tmp_path)
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 1


HEAVY = ("torch", "recbole", "pandas", "scipy", "matplotlib", "jinja2")
LIGHT = {  # module → what it may not import
    **dict.fromkeys(("runs.record", "runs.config_hash", "runs.lists", "protocols"), HEAVY),
    **dict.fromkeys(("reports.build", "reports.contents", "reports.site.build"), HEAVY),
    "reports.plots": ("torch", "recbole"),
}


def imported_by(code: str) -> set[str]:
    """Packages that a fresh process has imported after the code."""
    names = """
import sys
print(*{name.partition(".")[0] for name, module in sys.modules.items() if module})
"""
    done = subprocess.run(
        [sys.executable, "-c", code + names], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", LIGHT)
def test_what_reads_records_imports_nothing_heavy(module: str) -> None:
    found = imported_by(f"import alignrec_recbole.{module}")
    assert "alignrec_recbole" in found
    assert not found & set(LIGHT[module])


def test_an_import_that_comes_back_is_seen() -> None:
    """The check above, on modules that do need these packages."""
    assert "torch" in imported_by("import alignrec_recbole.protocols.rankers")
    assert {"pandas", "matplotlib"} <= imported_by("import alignrec_recbole.reports.plots")


def test_a_report_needs_neither_torch_nor_recbole(tmp_path: Path) -> None:
    """Tables, tests, plots and site, where both cannot be imported."""
    output = toy(tmp_path)
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "recbole"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from alignrec_recbole.cli.main import main
assert main(["report", "--output", {str(output)!r}]) == 0
"""
    assert "matplotlib" in imported_by(code)
    assert (output / "plots" / "toy-training.svg").is_file()
    again = imported_by(code)  # nothing changed: nothing is read or drawn
    assert not again & {"matplotlib", "pandas", "scipy", "numpy"}


def test_only_what_changed_is_drawn_again(tmp_path: Path) -> None:
    output = toy(tmp_path)
    build.build(output)
    stamps = {path: path.stat().st_mtime_ns for path in (output / "site").rglob("*.html")}
    stamps |= {path: path.stat().st_mtime_ns for path in (output / "plots").iterdir()}
    store(output, record("Pop", 1001, 0.06))  # protocol full of the data set
    build.build(output)
    written = {path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {"toy-training.svg", "toy-cost.png", "toy-protocols.pdf", "index.html"} <= written
    assert not [n for n in written if "robustness" in n or "long-tail" in n or "--BPR--" in n]
    (output / "plots" / "toy-long-tail.png").unlink()
    build.build(output)
    assert (output / "plots" / "toy-long-tail.png").is_file()


def test_a_figure_is_drawn_again_where_its_colours_or_its_code_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (output / "plots").iterdir()}

    def pages() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (output / "site").rglob("*.html")}

    output = toy(tmp_path)
    build.build(output)
    before = stamps()
    build.build(output, target="BPR")  # of another colour than it was
    after = stamps()
    assert before["toy-cost.svg"] != after["toy-cost.svg"]

    code, of_pages = inputs._code, pages()
    of_templates = tuple(inputs.PAGES)
    monkeypatch.setattr(
        inputs, "_code", lambda apart: code(apart) + ("" if apart == of_templates else "new")
    )
    build.build(output, target="BPR")  # as after a change of a template
    assert stamps() == after
    assert all(stamp != of_pages[path] for path, stamp in pages().items())


def test_a_report_is_made_again_where_the_settings_it_reads_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("values: [0.0754]")
    before = inputs.digest_of("x", [])
    monkeypatch.setattr(inputs, "properties_dir", lambda: tmp_path)
    changed = inputs.digest_of("x", [])
    assert before != changed == inputs.digest_of("x", [])
    (tmp_path / "a.yaml").write_text("values: [0.0999]")
    inputs._settings.cache_clear()
    assert inputs.digest_of("x", []) != changed


def test_records_without_recall_have_tables_of_what_they_have(tmp_path: Path) -> None:
    """Another metric orders the rows, and the table says so."""
    for model, value in (("Pop", 0.1), ("AlignRec", 0.3)):
        metrics = {"NDCG@5": value, "MRR@5": value / 2}
        selection = {"metric": "NDCG@5", "split": "valid", "best_epoch": 1, "best_score": value}
        users = np.random.default_rng(0).random(30) * value
        store(
            tmp_path,
            record(model, metrics=metrics, valid_metrics=metrics, selection=selection),
            users,
            metrics=tuple(metrics),
        )
    pages = contents.tables(read_runs(tmp_path / "runs"))
    (table,) = pages["toy"]
    assert list(table.header[3:5]) == ["NDCG@5", "MRR@5"]
    assert [row[0].text for row in table.rows] == ["AlignRec", "Pop"]
    assert "No record has Recall@20: ordered by NDCG@5." in table.note
    assert {row[2].text for row in pages["toy-tests"][0].rows} == {"NDCG@5"}
    assert build.build(tmp_path)[-1].is_file()


def test_a_record_without_the_column_shows_a_dash_and_comes_last(tmp_path: Path) -> None:
    store(tmp_path, record("Pop", metrics={"NDCG@20": 0.9}))
    store(tmp_path, record("BPR", value=0.1))
    (table,) = comparison(read_runs(tmp_path / "runs"), "toy")
    column = table.header.index("Recall@20")
    assert [(row[0].text, row[column].text) for row in table.rows] == [
        ("BPR", "0.1000"),
        ("Pop", "—"),
    ]


def test_records_of_any_age_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    """The hash of a configuration was another one before a setting existed."""
    store(tmp_path, record(seed=1, config={"reg_weight": 0.1}))
    added = {"reg_weight": 0.1, "precision": "float32"}
    for seed in (1, 2):
        again = record(seed=seed, age=-1, config=added, started_utc="2027")
        store(tmp_path, again)
    (group,) = seed_groups(read_runs(tmp_path / "runs"))
    assert [r.seed for r in group.records] == [1, 2]
    assert group.first.started_utc < "2027"


def published(modality: str, group: str = "mmrec") -> dict:
    """What a record says of a file of published features."""
    return {"modality": modality, "settings": {"published": group}, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"mmrec-image": "image", "mmrec-text": "text"}, "no band"),
        ({"mmrec-text": "text"}, "not comparable: other features"),
        ({"mmrec-image": "image", "mmrec-text": "text", "lsa": None}, "not comparable"),
    ],
)
def test_runs_on_published_features_are_compared_with_published_rows(
    files: dict, expected: str
) -> None:
    """Both modalities and nothing else, by what the files say and not by their names."""
    summaries = {
        name: published(modality) if modality else {"modality": "text", "settings": {}}
        for name, modality in files.items()
    }
    rows = reference_results.reference_results("baby")
    made = record("VBPR", value=0.0663, dataset="baby", features="none").model_copy(
        update={"features": "+".join(files), "feature_files": summaries}
    )
    group = SeedGroup("VBPR", (Run(Path("x.json"), made),))
    assert reference_results.reproduction_status(group, rows).startswith(expected)
    (row,) = [row for row in rows if row.model == "VBPR"]
    comparable = {reference_results.features_of(made)}
    assert ("not comparable" in row.note(comparable)) == (expected != "no band")
