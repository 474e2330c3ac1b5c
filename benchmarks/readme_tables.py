"""Generated tables of the Markdown files: rebuild them, or `--check` that none is stale.

    python -m benchmarks.readme_tables [--check]

A generated block stands between `<!-- table: NAME -->` and `<!-- end table -->`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from benchmarks import command_line
from benchmarks.readme_blocks import ROOT, TABLES, Results, read

FILES = ("README.md", "results/README.md", "docs/performance.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def rebuilt(text: str, results: Results, name: str) -> str:
    """The text of a file with its generated blocks rebuilt.

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
        return f"{match[1]}\n{TABLES[match[2]](results)}\n\n{match[3]}"

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
    results = read(root / "results" / "shipped")
    stale = []
    for name in FILES:
        path = root / name
        old = path.read_text("utf-8")
        new = rebuilt(old, results, name)
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
    command_line.end(main)
