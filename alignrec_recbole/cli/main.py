"""Entry point: picks the verb and turns errors into exit statuses."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from alignrec_recbole.cli.download import _download, download_parser
from alignrec_recbole.cli.run import _run, parser


def program() -> int:
    """The command line as a program of its own: `run_benchmark.py`, `alignrec-bench`."""
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 2 refused, 130 interrupted)."""
    for noise in ("The given NumPy array is not writable", "A value is trying to be set on a copy"):
        warnings.filterwarnings("ignore", message=noise)  # RecBole's, not the user's
    try:
        from alignrec_recbole.errors import AlignRecError
    except ImportError as error:  # RecBole or another requirement is not installed
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["download"]:
            return _download(download_parser().parse_args(given[1:]))
        if given[:1] == ["pretrain"]:
            from alignrec_recbole.cli import pretrain

            return pretrain.main(given[1:])
        if given[:1] == ["prepare"]:
            from alignrec_recbole.cli import prepare

            return prepare.main(given[1:])
        if given[:1] == ["report"]:
            from alignrec_recbole.reports.build import main as report

            return report(given[1:])
        if any(argument.partition("=")[0] == "--suite" for argument in given):
            from alignrec_recbole.cli.suite import main as suite

            return suite(given)
        return _run(parser().parse_args(given))
    except AlignRecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
