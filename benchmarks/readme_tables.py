"""Generated tables of README.md and results/README.md: rebuild them, or `--check` for stale ones.

A generated block stands between `<!-- table: NAME -->` and `<!-- end table -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from alignrec_recbole.errors import AlignRecError, RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports.grouping import Block, Group, blocks
from alignrec_recbole.reports.reference_results import PRIMARY_METRIC, published, verdict
from alignrec_recbole.reports.tables import COLUMNS, Cell, Table, comparisons, leaderboard, marked
from alignrec_recbole.runs.record import Run, read_runs
from benchmarks.speed import report as speed

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "results/README.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)
SHORT = ("model", "features", "seeds", *COLUMNS, "over best baseline", "reproduction")


def leaderboards(found: dict[Block, list[Group]]) -> str:
    """The leaderboard of every data set's trained models, in few columns."""
    parts = []
    for block, members in found.items():
        if block.protocol == "full":
            table = leaderboard(block, members, comparisons(members))
            kept = [i for i, name in enumerate(table.header) if name in SHORT]
            rows = [[row[i] for i in kept] for row in table.rows]
            header = [table.header[i] for i in kept]
            parts.append(f"**{table.title}**\n\n{_markdown(Table(table.title, header, rows))}")
    return "\n\n".join(parts)


def reproduction(found: dict[Block, list[Group]]) -> str:
    """Our means beside the reference figures, each seed in brackets."""
    rows = []
    for block, members in found.items():
        anchors = {row.model: row for row in published(block.dataset)}
        for group in members:
            anchor = anchors.get(group.first.model)
            judged = verdict(group, list(anchors.values()))
            if anchor and judged:
                recall, ndcg = group.values(PRIMARY_METRIC), group.values("NDCG@20")
                each = f" ({', '.join(f'{v:.4f}' for v in recall)})" if len(recall) > 1 else ""
                rows.append(
                    [
                        Cell(group.label),
                        Cell(block.dataset),
                        Cell(str(len(recall))),
                        Cell(f"{recall.mean():.4f}{each}"),
                        Cell(f"{anchor.values[PRIMARY_METRIC]:.4f}"),
                        Cell(judged),
                        Cell(f"{ndcg.mean():.4f}"),
                        Cell(f"{anchor.values['NDCG@20']:.4f}"),
                    ]
                )
    header = ["model", "data set", "seeds", PRIMARY_METRIC, "reference", "verdict", "NDCG@20"]
    return _markdown(Table("reproduction", [*header, "reference"], rows))


TRAINED = ROOT / "results" / "shipped" / "parity" / "baselines_lfm2k.json"
SIDES = "ours", "reference"
USUAL_RATE = 0.001  # RecBole's and MMRec's, of models whose YAML names none


def trained(file: Path = TRAINED) -> str:
    """What `benchmarks.parity.baselines --store` kept: both sides' Recall@20 of each seed."""
    rows = []
    for model, entry in json.loads(file.read_text()).items():
        off = entry["relative_difference"]
        rows.append(
            [
                Cell(model),
                Cell(f"{entry['settings'].get('learning_rate', USUAL_RATE)}"),
                *(
                    Cell(" ".join(f"{v:.4f}" for v in entry[f"{side} {PRIMARY_METRIC}"]))
                    for side in SIDES
                ),
                *(Cell(f"{100 * off[metric]:+.1f} %") for metric in (PRIMARY_METRIC, "NDCG@20")),
                Cell(", ".join(map(str, entry["our_epochs"]))),
                Cell(", ".join(map(str, entry["reference_epochs"]))),
            ]
        )
    header = [
        "model",
        "learning rate",
        f"{PRIMARY_METRIC}, ours",
        "reference",
        "off",
        "NDCG@20 off",
    ]
    return _markdown(Table("trained", [*header, "epochs", "reference"], rows))


def _markdown(table: Table) -> str:
    body = marked(table, "github")
    return tabulate(body, headers=table.header, tablefmt="github", disable_numparse=True)


TABLES: dict[str, Callable[[dict[Block, list[Group]]], str]] = {
    "leaderboards": leaderboards,
    "reproduction": reproduction,
    "trained": lambda found: trained(),
    "speed": lambda found: f"{speed.table()}\n\nMeasured on: {speed.machine()}.",
}


def clean(runs: Sequence[Run]) -> list[Run]:
    """Runs of committed code: the others are not shown in a README."""
    return [run for run in runs if not run.record.code.get("dirty")]


def rebuilt(text: str, found: dict[Block, list[Group]], name: str) -> str:
    """A file's text with its generated blocks made anew.

    Raises:
        RecordError: a block asks for an unknown table, or the file has none.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise RecordError(
                f"{name} asks for an unknown table.",
                found=match[2],
                expected=f"one of {', '.join(TABLES)}",
            )
        return f"{match[1]}\n{TABLES[match[2]](found)}\n\n{match[3]}"

    out, count = BLOCK.subn(block, text)
    if not count:
        raise RecordError(
            f"{name} has no generated table.",
            found="no marker",
            expected="<!-- table: NAME --> … <!-- end table -->",
        )
    return out


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Rebuild or check; returns 1 where --check finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_tables")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    options = parser.parse_args(arguments)
    found = blocks(clean(read_runs(root / "results" / "shipped" / "runs")))
    stale = []
    for name in FILES:
        path = root / name
        old = path.read_text("utf-8")
        new = rebuilt(old, found, name)
        if new != old:
            stale.append(name)
            if not options.check:
                with atomic_write(path, "w") as handle:
                    handle.write(new)
    if stale and options.check:
        print(f"stale: {', '.join(stale)}; run python -m benchmarks.readme_tables")
        return 1
    print(f"{'rebuilt' if stale else 'unchanged'}: {', '.join(stale or FILES)}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except AlignRecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
