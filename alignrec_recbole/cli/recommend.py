"""The verb `recommend`: ranked lists of a trained model for given users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from alignrec_recbole.cli._types import FILE
from alignrec_recbole.cli._verb import option, verb

MAX_IDS_BYTES = 1 << 30  # of a file of tokens
MOST_ROWS = 1000  # of a table in the terminal


@verb(
    examples=(
        "recommend --run results/runs/ml-100k/BPR/RECORD.json --users 1,7 -k 20",
        "recommend --run exported --users users.txt -k 50 --to lists.parquet",
    ),
)
@cloup.option_group(
    "What to rank",
    option(
        "--run",
        "source",
        required=True,
        type=FILE,
        metavar="RECORD",
        help="Record of a finished run, its .safetensors, or a folder made by `export`.",
    ),
    option(
        "--users",
        metavar="U[,U…]|FILE",
        help="Users by the ids of the data, or a file with one per line.  [default: all]",
    ),
    option(
        "--items",
        metavar="I[,I…]|FILE",
        help="The only items that may be listed, in the same way.  [default: all]",
    ),
    option(
        "--new-items",
        metavar="FILE|NAME=FILE[,…]",
        help="Feature files of items that were not in the training, to list them too; for models "
        "that score by content alone.",
    ),
    option("-k", type=click.IntRange(1, 10**6), default=20, help="Items per user.  [default: 20]"),
    option(
        "--exclude",
        type=click.Choice(["run", "train", "seen", "none"]),
        default="run",
        help="What lists leave out: training items (train), those and validation items (seen), or "
        "what the run's evaluation left out.  [default: run]",
    ),
    option(
        "--explain",
        is_flag=True,
        help="Add the user's training item that the model has nearest to each listed item: a "
        "neighbour, not a cause.",
    ),
    option(
        "--explain-by",
        metavar="FILE[,FILE…]",
        help="With --explain: feature files of the items. Adds the user's training item whose "
        "features are nearest, whatever the model did.",
    ),
)
@cloup.option_group(
    "Files",
    option(
        "--to",
        type=FILE,
        metavar="FILE",
        help="Write .csv, .tsv, .json or .parquet.  [default: a table in the terminal]",
    ),
)
def recommend(**given: Any) -> int:
    """List the items that a trained model ranks first for users.

    With --exclude run, the lists are those of the run's test ranking, item by item.
    """
    from alignrec_recbole.api import new_items
    from alignrec_recbole.api.tables import write_table
    from alignrec_recbole.api.trained_model import load_model
    from alignrec_recbole.errors import SettingError, printable

    if given["explain_by"] and not given["explain"]:
        raise SettingError(
            "Option --explain-by needs --explain.",
            found="--explain-by alone",
            expected="both options, or neither",
        )
    model = load_model(given["source"])
    if given["new_items"] is not None:
        files = new_items.files_of(given["new_items"])
        frames = {
            name: new_items.read_features(path, further_items=True) for name, path in files.items()
        }
        model = model.with_items(frames.get("", frames))
    exclude = None if given["exclude"] == "none" else given["exclude"]
    lists = model.recommend(
        _tokens("--users", given["users"]),
        given["k"],
        exclude=exclude,
        items=_tokens("--items", given["items"]),
    )
    if given["explain"]:
        content = [new_items.read_features(Path(file)) for file in _files(given["explain_by"])]
        lists = model.explain(lists, content or None)
    if given["to"] is not None:
        write_table(lists, given["to"])
        print(f"{len(lists):,} rows in {printable(str(given['to']))}")
        return 0
    from tabulate import tabulate

    shown = lists.head(MOST_ROWS)
    rows = [
        [f"{cell:.6g}" if isinstance(cell, float) else printable(str(cell), 60) for cell in row]
        for row in shown.itertuples(index=False, name=None)
    ]
    print(tabulate(rows, headers=list(shown.columns), disable_numparse=True))
    if len(lists) > MOST_ROWS:
        print(f"… {len(lists):,} rows in all; --to FILE writes them")
    return 0


def _files(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _tokens(option: str, text: str | None) -> list[str] | None:
    """Tokens of an option: a list, or the lines of a file of this name."""
    from alignrec_recbole.errors import SettingError
    from alignrec_recbole.io.opening import is_regular_file, read_text

    if text is None:
        return None
    if is_regular_file(Path(text)):
        lines = read_text(Path(text), what="list of ids", max_bytes=MAX_IDS_BYTES).splitlines()
        found = [line.strip() for line in lines]
    else:
        found = [token.strip() for token in text.split(",")]
    found = [token for token in found if token]
    if not found:
        raise SettingError(
            f"Option {option} names no id.",
            found=repr(text[:200]),
            expected="ids separated by commas, or a file with one per line",
        )
    return found
