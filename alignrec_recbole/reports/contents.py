"""The contents of a report: which tables and figures there are, and their files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from alignrec_recbole.audit.report import AuditReport, read_audits
from alignrec_recbole.errors import RecordError, UnknownNameError, printable
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.reports import list_tables, protocol_tables
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.budget_tables import budget_table
from alignrec_recbole.reports.budgets import budgets_of
from alignrec_recbole.reports.captions import KINDS
from alignrec_recbole.reports.colours import Colours, colours_of
from alignrec_recbole.reports.comparisons import comparisons, significance, variant_comparisons
from alignrec_recbole.reports.grouping import (
    ComparisonKey,
    SeedGroup,
    comparable_groups,
    primary_metric,
)
from alignrec_recbole.reports.inputs import PAGES, Inputs, digest_of
from alignrec_recbole.reports.knock_out import knock_out_tables
from alignrec_recbole.reports.leaderboards import leaderboard, marked
from alignrec_recbole.reports.progress import bar
from alignrec_recbole.reports.significance import Side, UserMeans
from alignrec_recbole.reports.site import build as site
from alignrec_recbole.reports.site.figures import figure_path, write_figure
from alignrec_recbole.reports.table import Table
from alignrec_recbole.reports.table_files import write_tables
from alignrec_recbole.runs.lists import user_values_path
from alignrec_recbole.runs.record import Run, read_runs
from alignrec_recbole.suites.status import read_status

SUFFIXES = ("svg", "pdf", "png", "csv")
Skip = Callable[[Path, RecordError], None]


class Figure(NamedTuple):
    """A figure that records may be drawn as.

    Attributes:
        name: stem of its files.
        kind: what it shows.
        draw: name of the function in plots/.
        arguments: of that function.
        runs: the records it is made of.
        files: other files it is made of.
    """

    name: str
    kind: str
    draw: str
    arguments: tuple[Any, ...]
    runs: list[Run]
    files: tuple[Path, ...] = ()


def write_report(
    output: Path,
    inputs: Inputs,
    target: str | None,
    side: Side,
    test: str,
    skipped: Skip,
    width: str = "page",
    columns: Sequence[str] = (),
) -> list[Path]:
    """Write tables, plots and site; return the paths of the tables, the plots and the index.

    Args:
        skipped: called for every file that cannot be used.
        width: of the figures, column or page.
        columns: of the first LaTeX table of each page of ranked rows.
    """
    runs = _runs_of(output, skipped)
    check_target(runs, target)
    tuning = read_runs(output / "tuning", skipped)
    audits = read_audits(output / "audit", skipped)
    marks = AuditMarks.of(report for _, report in audits)
    pages = tables(runs, target, side, test, skipped, tuning, marks)
    paths = []
    check_columns(pages, columns)
    for stem, several in pages.items():
        files = write_tables(several, output / "tables", stem, columns)
        inputs.note(f"tables/{stem}", "", files)
        paths += files
    drawn = []
    found = list(figures(runs, tuning, target, UserMeans(skipped), audits))
    for figure in bar(found, "figures"):
        files = _draw(figure, output, inputs, width)
        paths += files
        if files:
            drawn.append(figure.name)
    suites = read_status(output / "suites", skipped)
    return [*paths, site.write(output, runs, pages, drawn, suites, audits, inputs)]


def check_target(runs: Sequence[Run], target: str | None) -> None:
    """Refuse a target that no record has.

    Raises:
        UnknownNameError: with the nearest model, feature set or row.
    """
    if target is None:
        return
    groups = [group for members in comparable_groups(runs).values() for group in members]
    known = sorted({n for g in groups for n in (g.label, g.first.model, g.first.features)})
    if target not in known:
        raise UnknownNameError(
            f"No record is of a model or feature set {target!r}.{suggest(target, known)}",
            found=f"--target {target}",
            expected=f"one of {', '.join(known)}",
        )


def check_columns(pages: Mapping[str, Sequence[Table]], columns: Sequence[str]) -> None:
    """Refuse columns that no table has.

    Raises:
        UnknownNameError: with the nearest column.
    """
    known = list(dict.fromkeys(n for tables in pages.values() for t in tables for n in t.header))
    for name in columns:
        if name not in known:
            raise UnknownNameError(
                f"No table has a column {name!r}.{suggest(name, known)}",
                found=f"--columns {','.join(columns)}",
                expected=f"some of {', '.join(known)}",
            )


def write_figures(
    output: Path,
    inputs: Inputs,
    target: str | None,
    skipped: Skip,
    names: Sequence[str],
    width: str = "page",
) -> list[Path]:
    """Draw some figures alone; return their paths.

    Args:
        names: kinds such as cost, which every data set may have, or names such as baby-cost.

    Raises:
        UnknownNameError: no record gives such a figure.
    """
    runs = _runs_of(output, skipped)
    check_target(runs, target)
    tuning = read_runs(output / "tuning", skipped)
    audits = read_audits(output / "audit", skipped)
    found = list(figures(runs, tuning, target, UserMeans(skipped), audits))
    known = [*KINDS, *(figure.name for figure in found)]
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"There is no figure {name!r}.{suggest(name, known)}",
                found=f"--figures {','.join(names)}",
                expected=f"one of {', '.join(known)}",
            )
    wanted = [figure for figure in found if {figure.kind, figure.name} & set(names)]
    return [
        path for figure in bar(wanted, "figures") for path in _draw(figure, output, inputs, width)
    ]


def _runs_of(output: Path, skipped: Skip) -> list[Run]:
    runs = read_runs(output / "runs", skipped)
    if not runs:
        raise RecordError(
            f"{output / 'runs'} has no record, so there is nothing to report.",
            found="no usable .json file",
            expected="the output folder of earlier runs",
            hint="run a benchmark first, or pass --output with its folder",
        )
    return runs


def _draw(figure: Figure, output: Path, inputs: Inputs, width: str) -> list[Path]:
    """The figure's files, drawn if its records changed; none if there is nothing to draw."""
    beside = [str(run.path) for run in figure.runs if user_values_path(run) is not None]
    colours = [repr(each) for each in figure.arguments if isinstance(each, Colours)]
    sources = [*(run.path for run in figure.runs), *figure.files]
    digest = digest_of(figure.name, sources, width, beside, colours, apart_from=PAGES)
    files = [output / "plots" / f"{figure.name}.{suffix}" for suffix in SUFFIXES]
    inline = figure_path(output / "site", figure.name)
    before = inputs.before.get(figure.name)
    reason = before.not_drawn if before else ""
    if not inputs.unchanged(figure.name, digest, [] if reason else [*files, inline]):
        from alignrec_recbole.reports import plots  # half a second of start-up

        reason = ""
        try:
            draw = getattr(plots, figure.draw)
            drawing = draw(*figure.arguments, width=plots.WIDTHS[width])
        except plots.EmptyPlotError as error:
            reason = error.problem.removeprefix("There is nothing to draw: ")
        else:
            plots.save(drawing, output / "plots", figure.name)
            write_figure(files[0].read_text("utf-8"), output / "site", figure.name)
        inputs.note(figure.name, digest, [] if reason else [*files, inline], reason)
    if reason:
        tqdm.write(printable(f"not drawn: {figure.name} ({reason})"))
        return []
    return files


def tables(
    runs: Sequence[Run],
    target: str | None = None,
    side: Side = "two-sided",
    test: str = "t",
    skipped: Skip | None = None,
    tuning: Sequence[Run] = (),
    marks: AuditMarks | None = None,
) -> dict[str, list[Table]]:
    """File stem → its tables.

    Args:
        skipped: see `UserMeans`.
        tuning: trials on validation.
        marks: footnotes by data.
    """
    out: dict[str, list[Table]] = defaultdict(list)
    found = comparable_groups(runs)
    for key, members in found.items():
        stem = key.dataset if key.protocol == "full" else f"{key.dataset}-{key.protocol}"
        if key.protocol == "knock-out":
            made = {"": knock_out_tables(key, members, skipped)}
        elif key.protocol in protocol_tables.TABLES:
            made = {"": protocol_tables.TABLES[key.protocol](key, members)}
        elif key.protocol == list_tables.PROTOCOL:
            made = {"": list_tables.tables(key, members, list_tables.ranked(found, key))}
        else:
            user_means = UserMeans(skipped)
            made = _ranked(key, members, target, side, test, user_means, tuning)
        for suffix, several in made.items():
            if several:
                out[stem + suffix] += [marked(table, members, marks) for table in several]
    return out


def _ranked(
    key: ComparisonKey,
    members: Sequence[SeedGroup],
    target: str | None,
    side: Side,
    test: str,
    user_means: UserMeans,
    tuning: Sequence[Run],
) -> dict[str, list[Table]]:
    """The leaderboard, the budgets and the tests, by the end of their file's stem."""
    tests = comparisons(members, target, side, test, user_means)
    tested = [significance(key, tests, side, test)] if tests else []
    if variants := variant_comparisons(members, side, test, user_means):
        what = "variants against the model with its usual settings"
        tested.append(significance(key, variants, side, test, what))
    searches = budgets_of(members, tuning)
    return {
        "": [leaderboard(key, members, tests, target, tuning, side)],
        "-budget": [budget_table(key, members, searches)] if searches else [],
        "-tests": tested,
    }


def figures(
    runs: Sequence[Run],
    tuning: Sequence[Run],
    target: str | None = None,
    user_means: UserMeans | None = None,
    audits: Sequence[tuple[Path, AuditReport]] = (),
) -> Iterator[Figure]:
    """Every figure that the records may give, by data set and evaluation convention."""
    yield from _audit_figures(audits, {run.record.dataset for run in runs})
    found = comparable_groups(runs)
    for dataset, setting, data in sorted({(k.dataset, k.setting, k.data) for k in found}):
        same = dataset, setting, data
        here = {k: g for k, g in found.items() if (k.dataset, k.setting, k.data) == same}
        several = len({k.setting for k in found if k.dataset == dataset}) > 1
        stem = "-".join([dataset, *([setting] if several else []), *([data] if data else [])])
        colours = colours_of(here, target)
        full, masked, knocked, tail, lists = (
            here.get(ComparisonKey(dataset, protocol, setting, data), [])
            for protocol in (
                "full",
                "mask-modality",
                "knock-out",
                "long-tail",
                list_tables.PROTOCOL,
            )
        )
        points = [
            run for run in tuning if (run.record.dataset, run.record.setting) == (dataset, setting)
        ]
        searches = {name: b for name, b in budgets_of(full, points).items() if b.trials > 1}
        ranked = _runs([group for members in here.values() for group in members])
        for kind, draw, arguments, made_of in (
            ("protocols", "protocol_bars", (here, colours, user_means), ranked),
            *(
                (kind, draw, (members, primary_metric(members), colours), _runs(members))
                for kind, draw, members in (
                    ("beyond-accuracy", "beyond_accuracy_panels", lists),
                    ("robustness", "robustness_curves", masked),
                    ("long-tail", "long_tail_dots", tail),
                    ("cost", "quality_against_cost", full),
                )
            ),
            ("training", "training_curves", (full, colours), _runs(full)),
            ("knock-out", "knock_out_leads", (knocked,), _runs(knocked)),
            ("sensitivity", "sensitivity", (points, colours), points),
            ("budget", "search_curves", (searches, full, colours), [*_runs(full), *points]),
        ):
            if kind != "budget" or searches:
                yield Figure(f"{stem}-{kind}", kind, draw, arguments, made_of)


def _audit_figures(
    audits: Sequence[tuple[Path, AuditReport]], datasets: Collection[str]
) -> Iterator[Figure]:
    """One figure per audited split of the data sets that have records."""
    splits: dict[tuple[str, str], list[tuple[Path, AuditReport]]] = defaultdict(list)
    for path, report in audits:
        if report.dataset in datasets:
            splits[report.dataset, report.split_sha256].append((path, report))
    several = Counter(dataset for dataset, _ in splits)
    for (dataset, split), members in splits.items():
        stem = f"{dataset}-{split[:8]}" if several[dataset] > 1 else dataset
        reports = [report for _, report in members]
        files = tuple(path for path, _ in members)
        yield Figure(f"{stem}-audit", "audit", "audit_dots", (reports,), [], files)


def _runs(members: Sequence[SeedGroup]) -> list[Run]:
    return [run for group in members for run in group.runs]
