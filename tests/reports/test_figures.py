"""Figures at the size of print: nothing clipped, nothing overlapping, 8-point text, their data."""

from __future__ import annotations

import itertools
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text
from records import METRICS, record, store

from alignrec_recbole.audit.report import read_audits
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.reports import build, colours, contents, plots
from alignrec_recbole.reports.grouping import ComparisonKey, comparable_groups
from alignrec_recbole.reports.plots import style
from alignrec_recbole.reports.plots.audit import LOOKS
from alignrec_recbole.reports.plots.cost import machine_of
from alignrec_recbole.reports.plots.fonts import _added, in_small_fonts
from alignrec_recbole.reports.significance import UserMeans
from alignrec_recbole.runs.record import Run, read_runs

AUDITS = Path(__file__).resolve().parents[2] / "results" / "shipped" / "audit"
MODELS = ("AlignRec", "BPR", "LightGCN", "MGCN", "FREEDOM", "VBPR", "Pop", "SMORE")
SETS = ("lsa", "all-MiniLM-L6-v2+vggish+whisper", "random", "shuffled:lsa")


def many(output: Path) -> Path:
    """Every figure with long names, several seeds, machines and settings."""
    rng = np.random.default_rng(0)
    for place, model in enumerate(MODELS):
        for seed in (1, 2, 3):
            value = 0.05 + 0.01 * place + 0.001 * float(rng.random())
            history = [
                {"epoch": e, "seconds": 0.1, "loss": 1 / (e + 1), "valid": value * e / 30}
                for e in range(30)
            ]
            machine = {"cpu": "a long name of a CPU", "threads": 1}
            if place > 5:
                machine["device"] = "A GPU"
            made = record(
                model,
                seed,
                value,
                features="none" if place in (1, 2, 6) else SETS[1],
                history=history,
                epochs=30,
                machine=machine,
                seconds={"train_epoch": 0.1, "total": 10.0 ** (place / 2) + seed},
                peak_rss_bytes=2**30 + place * 2**27,
            )
            store(output, made, rng.random(40) * 2 * value)
    for weight, layers in itertools.product((0.0, 0.00001, 0.001, 0.1), (1, 2, 3)):
        config = {"reg_weight": weight, "n_layers": layers}
        store(output, record("LightGCN", value=weight + 0.1, config=config), kind="tuning")
        store(
            output, record("BPR", value=weight + 0.1, config={"reg_weight": weight}), kind="tuning"
        )
    for kind in ("sum", "attention"):
        store(output, record("AlignRec", value=0.1, config={"fuser": kind}), kind="tuning")
    group = {"users": 1234.0, "items": 12_345.0, "Recall@20": 0.1}
    tails = {
        "history": dict.fromkeys(("<=3", "4-7", "8-15", "16-31", ">=32"), group),
        "popularity": dict.fromkeys(("0", "1-3", "4-7", "8-15", "16-31", ">=32"), group),
    }
    for ranker, features in itertools.product(("zero-shot", "item-cf"), SETS):
        common: dict[str, Any] = {"features": features, "history": [], "epochs": 0}
        common["chance"] = dict.fromkeys(METRICS, 0.01)
        for protocol in (ranker, "cold-start"):
            store(output, record(ranker, protocol=protocol, value=0.02, **common))
        curve = [
            {"modality": modality, "ratio": r, "mask_seed": s, "metrics": dict.fromkeys(METRICS, v)}
            for modality in ("text", "audio")
            for r in (0.0, 0.5, 1.0)
            for s in (0, 1)
            for v in (0.1 - 0.05 * r + 0.001 * s,)
        ]
        config = {"protocol": {"fill": "zero"}}
        masked = record(ranker, protocol="mask-modality", curve=curve, config=config, **common)
        store(output, masked)
        store(output, record(ranker, protocol="long-tail", groups=tails, **common))
    for model in MODELS:
        for seed in (1, 2):
            store(output, record(model, seed, protocol="long-tail", groups=tails, history=[]))
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def drawn(output: Path) -> dict[tuple[str, str], plots.Drawing]:
    """(kind, width) → drawing."""
    runs, tuning = read_runs(output / "runs"), read_runs(output / "tuning")
    audits = [
        (path, report.model_copy(update={"dataset": "toy"}))
        for path, report in read_audits(AUDITS)
        if report.dataset == "sports"
    ]
    found = {}
    for figure in contents.figures(runs, tuning, None, UserMeans(), audits):
        if figure.runs or figure.files:
            for width, inches in plots.WIDTHS.items():
                draw = getattr(plots, figure.draw)
                found[figure.kind, width] = draw(*figure.arguments, width=inches)
    return found


KINDS = ("protocols", "robustness", "long-tail", "cost", "training", "sensitivity", "audit")


def texts(drawing: plots.Drawing) -> list[Text]:
    return [
        text
        for text in drawing.figure.findobj(Text)
        if text.get_text().strip() and text.get_visible()
    ]


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_clipped_and_text_has_eight_points(drawn: Any, kind: str, width: str) -> None:
    drawing = drawn[kind, width]
    figure = drawing.figure
    assert figure.get_figwidth() == plots.WIDTHS[width]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for text in texts(drawing):
        assert text.get_fontsize() == style.TEXT, text
    page = figure.bbox.padded(1.5)
    unseen = outside(figure)
    for text in texts(drawing):
        box = text.get_window_extent(renderer)
        if text not in unseen:
            assert page.containsx(box.x0), text
            assert page.containsx(box.x1), text
            assert page.containsy(box.y0), text
            assert page.containsy(box.y1), text
    for axis in figure.axes:
        for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
            inside = [t for t in labels if t.get_text() and t not in unseen]
            boxes = [text.get_window_extent(renderer) for text in inside]
            for first, second in itertools.combinations(boxes, 2):
                assert not first.overlaps(second), (kind, inside)


def outside(figure: Any) -> set[Text]:
    """Names of ticks that are not drawn, since they are not in the range of their axis."""
    found = set()
    for axis in figure.axes:
        for place, (limits, labels) in enumerate(
            (
                (axis.get_xlim(), axis.get_xticklabels(which="both")),
                (axis.get_ylim(), axis.get_yticklabels(which="both")),
            )
        ):
            low, high = sorted(limits)
            slack = 1e-9 * (high - low)
            found |= {
                label
                for label in labels
                if not low - slack <= label.get_position()[place] <= high + slack
            }
    return found


@pytest.mark.parametrize("width", ["column", "page"])
def test_names_of_points_touch_neither_each_other_nor_the_frame(drawn: Any, width: str) -> None:
    drawing = drawn["cost", width]
    canvas = FigureCanvasAgg(drawing.figure)
    canvas.draw()  # annotations are placed when they are drawn
    renderer = canvas.get_renderer()
    named = 0
    for axis in drawing.figure.axes:
        boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]
        named += len(boxes)
        for box in boxes:
            assert axis.get_window_extent(renderer).padded(1.5).fully_containsx(box.x0)
            assert axis.get_window_extent(renderer).padded(1.5).fully_containsx(box.x1)
        for first, second in itertools.combinations(boxes, 2):
            assert not first.overlaps(second)
    assert named == 2 * len(MODELS)


def test_no_panel_of_cost_has_two_machines(output: Path, drawn: Any) -> None:
    runs = read_runs(output / "runs")
    where = {run.record.model: machine_of(run.record) for run in runs if run.record.history}
    for axis in drawn["cost", "page"].figure.axes:
        shown = {text.get_text() for text in axis.texts}
        assert shown
        assert {where[name] for name in shown} == {axis.get_title(loc="left").replace("\n", " ")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_beside_a_figure_are_what_it_shows(drawn: Any, kind: str) -> None:
    drawing = drawn[kind, "page"]
    read = pd.read_csv(StringIO(plots.as_csv(drawing)))
    assert len(read) == len(drawing.data)
    numeric = drawing.data.select_dtypes("number").columns
    for column in numeric:
        np.testing.assert_array_equal(read[column], drawing.data[column])
    heights = {
        "protocols": "Recall@20",
        "robustness": "Recall@20",
        "long-tail": "Recall@20",
        "cost": "Recall@20",
        "training": "valid",
        "sensitivity": "best",
        "audit": "value",
    }
    column = heights[kind]
    shown = set()
    for axis in drawing.figure.axes:
        for line in axis.lines:
            along = line.get_xdata() if kind == "audit" else line.get_ydata()
            shown |= {*np.asarray(along, float).tolist()}
        for bar in axis.patches:
            shown.add(bar.get_width())
        for image in axis.images:
            shown |= {*np.asarray(image.get_array(), float).ravel().tolist()}
    values = read[column].dropna()
    assert len(values)
    assert all(np.isclose(list(shown), value, rtol=1e-12).any() for value in values)


def test_an_audit_has_a_row_per_check_that_compares_in_the_look_of_its_verdict(
    drawn: Any,
) -> None:
    checks = {
        (check.name, check.subject): check
        for _, report in read_audits(AUDITS)
        if report.dataset == "sports"
        for check in report.checks
        if check.value is not None and (check.control, check.chance) != (None, None)
    }
    data = drawn["audit", "page"].data
    assert len(data) == len(checks) > 10
    rows = zip(data["check"], data["about"].fillna(""), data["value"], data["verdict"], strict=True)
    for name, about, value, verdict in rows:
        assert (value, verdict) == (checks[name, about].value, checks[name, about].verdict)
    looks = {
        (LOOKS[verdict], value)
        for verdict, value in zip(data["verdict"], data["value"], strict=True)
    }
    points = {
        ((line.get_color(), line.get_marker()), line.get_xdata()[0])
        for axis in drawn["audit", "page"].figure.axes
        for line in axis.lines
    }
    assert looks <= points
    hues = {*colours.OTHERS, *colours.OF_FEATURES, colours.TARGET, colours.GREY}
    assert not hues & {colour for colour, _ in LOOKS.values()}


def test_an_audit_is_drawn_of_data_sets_with_records_and_once_per_split() -> None:
    (path, report), *_ = read_audits(AUDITS)
    other = report.model_copy(update={"split_sha256": "f" * 64})
    runs = [Run(Path("r"), record(dataset=report.dataset))]
    names = [
        figure.name
        for figure in contents.figures(runs, [], audits=[(path, report), (path, other)])
        if figure.kind == "audit"
    ]
    assert names == [f"baby-{report.split_sha256[:8]}-audit", "baby-ffffffff-audit"]
    none = contents.figures([Run(Path("r"), record())], [], audits=[(path, report)])
    assert not [figure for figure in none if figure.kind == "audit"]


def test_one_colour_is_one_thing(output: Path, drawn: Any) -> None:
    found = comparable_groups(read_runs(output / "runs"))
    made = colours.colours_of(found)
    hues = [*made.rows.values(), *made.features.values()]
    assert len(set(hues)) == len(hues)
    assert colours.GREY not in hues
    assert made.rows["AlignRec, " + SETS[1]] == colours.TARGET
    assert len(made.rows) == 5
    assert made.of_features("shuffled:lsa") == made.of_features("random") == colours.GREY
    full = found[ComparisonKey("toy", "full", "mmrec")]
    best = sorted(full, key=lambda group: -(group.mean("Recall@20") or 0))[:4]
    assert {group.name for group in best} <= set(made.rows)
    legend = drawn["training", "page"].figure.legends[0]
    of_line = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert of_line["AlignRec"] == colours.TARGET
    assert of_line["3 others"] == colours.GREY


def test_intervals_are_over_seeds_and_over_users(output: Path, drawn: Any) -> None:
    from scipy import stats

    data = drawn["protocols", "page"].data
    row = data[(data["protocol"] == "full") & (data["row"] == "BPR")].iloc[0]
    runs = [r for r in read_runs(output / "runs") if r.record.model == "BPR" and r.record.history]
    values = [run.record.metrics["Recall@20"] for run in runs]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (row["low over seeds"], row["high over seeds"]) == pytest.approx((low, high))
    assert row["users"] == 40
    assert row["low over users"] < row["high over users"]
    chance = data[data["protocol"] == "zero-shot"]["chance"]
    assert (chance == 0.01).all()


def test_settings_are_lines_points_or_a_map(drawn: Any) -> None:
    figure = drawn["sensitivity", "page"].figure
    by_title: dict[str, list[Any]] = {}
    for axis in figure.axes:
        by_title.setdefault(axis.get_title(loc="left"), []).append(axis)
    (points,) = by_title["AlignRec"]
    assert [line.get_linestyle() for line in points.lines] == ["None"]
    (line,) = by_title["BPR"]
    assert line.get_xscale() == "symlog"  # 0 is among the values
    (grid,) = by_title["LightGCN"]
    assert grid.images[0].get_array().shape == (3, 4)


def test_panels_of_a_model_with_a_part_more_say_so(tmp_path: Path) -> None:
    for weight in (0.01, 0.1):
        for more in ({}, {"align": {"cca": weight}}):
            config = {"reg_weight": 0.1 if more else weight, **more}
            store(tmp_path, record("BPR", value=weight, config=config), kind="tuning")
    drawing = plots.sensitivity(read_runs(tmp_path / "tuning"))
    titles = [axis.get_title(loc="left") for axis in drawing.figure.axes]
    assert titles == ["BPR + align", "BPR"]
    assert set(drawing.data["row"]) == {"BPR + align", "BPR"}


@pytest.mark.parametrize(("columns", "decimals"), [(2, 3), (7, 2)])
def test_figures_in_the_cells_of_a_map_do_not_touch(
    tmp_path: Path, columns: int, decimals: int
) -> None:
    for row, column in itertools.product((1, 2), range(1, columns + 1)):
        config = {"knn_k": row, "n_layers": column}
        value = 0.3 + row / 100 + column / 1000
        store(tmp_path, record("FREEDOM", value=value, config=config), kind="tuning")
        for other in ("A", "B"):  # panels are narrower than the page
            config = {"reg_weight": column}
            store(tmp_path, record(other, value=value, config=config), kind="tuning")
    figure = plots.sensitivity(read_runs(tmp_path / "tuning")).figure
    (axis,) = [axis for axis in figure.axes if axis.images]
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 2 * columns
    assert {len(text.get_text()) for text in axis.texts} == {decimals + 1}
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)


def test_no_panel_is_empty_where_no_search_has_epochs(tmp_path: Path) -> None:
    for weight in (0.01, 0.1):
        trial = record("EASE", value=weight, config={"reg_weight": weight}, epochs=0, history=[])
        store(tmp_path, trial, kind="tuning")
    note = "grid on validation: reg_weight in [0.01, 0.1]"
    made = record("EASE", value=0.1, tuned_on=note, epochs=0, history=[])
    store(tmp_path, made)
    runs, tuning = read_runs(tmp_path / "runs"), read_runs(tmp_path / "tuning")
    (figure,) = [f for f in contents.figures(runs, tuning) if f.kind == "budget"]
    (axis,) = plots.search_curves(*figure.arguments).figure.axes
    assert axis.get_xlabel() == "trials, in random order"
    assert axis.lines


def test_epochs_are_whole_and_start_at_one(drawn: Any) -> None:
    for axis in drawn["training", "page"].figure.axes:
        ticks = axis.get_xticks()
        assert ticks[0] == 1
        assert all(float(tick).is_integer() for tick in ticks)
        assert axis.lines[0].get_xdata()[0] == 1


def test_full_is_first_and_titles_are_questions(drawn: Any) -> None:
    figure = drawn["protocols", "page"].figure
    titles = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert titles[0] == "full: How well does a trained model rank all items?"
    assert all(title.endswith("?") for title in titles)
    heights = set()
    for axis in figure.axes:
        low, high = axis.get_ylim()
        inches = axis.get_position().height * figure.get_figheight() / abs(high - low)
        heights |= {round(bar.get_height() * inches, 2) for bar in axis.patches}
    assert len(heights) == 1


def test_a_pdf_has_the_letters_of_the_figure_as_outlines_of_one_font(
    output: Path, tmp_path: Path
) -> None:
    """Type 3 fonts are refused by many publishers; a letter that the small font lacks is there."""
    runs = [r for r in read_runs(output / "runs") if r.record.protocol == "full"]
    members = comparable_groups(runs)[ComparisonKey("toy", "full", "mmrec")]
    plain = plots.training_curves(members)
    other = plots.training_curves(members)
    other.figure.axes[0].set_ylabel("\u0416 \u2603")
    files = []
    for name, drawing in (("plain", plain), ("other", other)):
        plots.save(drawing, tmp_path, name)
        files.append((tmp_path / f"{name}.pdf").read_bytes())
        assert b"/FontFile2" in files[-1]
        assert b"/Type3" not in files[-1]
        assert b"DejaVuSans" in files[-1]
    assert all(100 < len(file) < 200_000 for file in files)
    assert in_small_fonts("\u0416") == {}
    with mpl.rc_context(in_small_fonts("a \u2212 b")):
        assert findfont(FontProperties(weight="bold")).endswith("bold.ttf")


def test_figures_do_not_depend_on_the_settings_of_the_machine(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [r for r in read_runs(output / "runs") if r.record.protocol == "full"]
    members = comparable_groups(runs)[ComparisonKey("toy", "full", "mmrec")]
    ours = plots.save(plots.training_curves(members), tmp_path, "ours")
    with mpl.rc_context({"font.family": "serif", "font.size": 20, "figure.dpi": 33}):
        others = plots.save(plots.training_curves(members), tmp_path, "others")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(ours, others, strict=True)] == [
        True
    ] * 4

    def full(**_: str) -> None:
        raise OSError(28, "No space left on device")

    _added.cache_clear()
    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    assert in_small_fonts("abc") == {}
    assert plots.save(plots.training_curves(members), tmp_path, "large")[1].stat().st_size > 1000


def test_labels_are_where_the_first_drawing_put_them_in_all_files(
    output: Path, tmp_path: Path
) -> None:
    """Positions are fixed after the SVG file; the PNG file must look as if drawn alone."""
    found = comparable_groups(read_runs(output / "runs"))
    members = found[ComparisonKey("toy", "full", "mmrec")]
    saved = plots.training_curves(members)
    plots.save(saved, tmp_path, "saved")
    alone = plots.training_curves(members)
    places = []
    for each in (saved, alone):
        each.figure.dpi = 150
        each.figure.draw(FigureCanvasAgg(each.figure).get_renderer())
        unseen = outside(each.figure)
        shown = [text for text in texts(each) if text not in unseen]
        places.append([(text.get_text(), text.get_window_extent()) for text in shown])
    assert len(places[0]) > 20
    for (name, box), (other, expected) in zip(*places, strict=True):
        assert name == other
        np.testing.assert_allclose(box.extents, expected.extents, atol=1.5)


def test_one_figure_alone(tmp_path: Path) -> None:
    for model, value in (("Pop", 0.05), ("BPR", 0.07)):
        store(tmp_path, record(model, value=value))
    before = build.build(tmp_path)
    index = before[-1].stat().st_mtime_ns
    paths = build.build(tmp_path, width="column", figures=("cost",))
    assert [path.name for path in paths] == [f"toy-cost.{end}" for end in contents.SUFFIXES]
    assert before[-1].stat().st_mtime_ns == index
    wide = (tmp_path / "plots" / "toy-training.svg").stat().st_mtime_ns
    narrow = (tmp_path / "plots" / "toy-cost.svg").read_text()
    assert 'width="237.6pt"' in narrow
    assert build.build(tmp_path, figures=("toy-cost",))
    assert 'width="504pt"' in (tmp_path / "plots" / "toy-cost.svg").read_text()
    assert build.build(tmp_path) == before
    assert (tmp_path / "plots" / "toy-training.svg").stat().st_mtime_ns == wide
    with pytest.raises(UnknownNameError, match=r"There is no figure 'csot'.*cost"):
        build.build(tmp_path, figures=("csot",))
