"""Entry point of the command line: its verbs, the default verb, and errors as exit statuses."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click
import cloup
from click.shell_completion import CompletionItem

from alignrec_recbole._version import __version__
from alignrec_recbole.cli import _endings
from alignrec_recbole.cli._command import as_typed, program_name
from alignrec_recbole.cli._verb import Deferred, format_examples
from alignrec_recbole.errors import AlignRecError, Interrupted
from alignrec_recbole.runtime import allocator, processes

EXAMPLES = (
    "--model AlignRec,LightGCN,BPR --dataset ml-100k --epochs 20",
    "list models",
)
IGNORED_WARNINGS = (  # of RecBole's own code
    "The given NumPy array is not writable",
    "A value is trying to be set on a copy",
)


class Program(cloup.Group):
    """The verbs; arguments without a verb are those of `run`, or of `suite` with `--suite`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default verb before options that are not the program's own."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0].startswith("-") and args[0] not in own:
            suite = any(argument.partition("=")[0] == "--suite" for argument in args)
            args = ["suite" if suite else "run", *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb by its name, imported if it is not yet."""
        found = super().get_command(ctx, cmd_name)
        return found.load() if isinstance(found, Deferred) else found

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The two forms of a command."""
        formatter.write_usage(ctx.command_path, "--model M[,M…] --dataset NAME [OPTIONS]")
        formatter.write_usage(ctx.command_path, "VERB [OPTIONS]", "       ")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Completion and the examples."""
        formatter.write_paragraph()
        formatter.write("Shell completion: see `doctor`.\n")
        format_examples(EXAMPLES, ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs, and the options of the default verb."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            default = self.get_command(ctx, "run")
            found += default.shell_complete(ctx, incomplete) if default else []
        return found


SECTIONS = {
    "Experiments": (
        Deferred("run", "Train, evaluate and compare models (the default verb)."),
        Deferred("tune", "Search hyper-parameters on validation, then test the choice."),
        Deferred("suite", "Run the experiments of one YAML file, and report."),
        Deferred("report", "Write tables, plots and a site from stored records."),
        Deferred("leaderboard", "Check the records of a folder that others add to."),
    ),
    "Trained models": (
        Deferred("recommend", "List the items that a trained model ranks first for users."),
        Deferred("export", "Write a trained model and its vectors, or features."),
    ),
    "Data and features": (
        Deferred("download", "Download, verify and convert a published data set."),
        Deferred(
            "import", "Convert a newer published data set, or any table.", file="import_dataset"
        ),
        Deferred("import-amazon", "Convert the public Amazon files of 2014 or 2018."),
        Deferred("audit", "Look for leaks of the test split in data, features, models."),
        Deferred("prepare", "Encode a data set's items into a feature file."),
        Deferred("merge-shards", "Join the parts that `prepare --shard I/N` has written."),
        Deferred("pretrain", "Continue BEiT-3 on a data set's items by masked prediction."),
    ),
    "Information": (
        Deferred(
            "list", "List models, data sets, encoders, protocols and more.", file="list_names"
        ),
        Deferred("doctor", "Show versions, hardware, extras, data folders and more."),
    ),
}
HIDDEN = ("suite-cell", "run-spec", "tune-worker")  # started by the program itself


@cloup.group(
    cls=Program,
    sections=[cloup.Section(name, verbs) for name, verbs in SECTIONS.items()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="alignrec-recbole")
def program() -> None:
    """Train, evaluate and compare multimodal recommenders.

    Without a verb, the options are those of `run`: see `run --help`.
    """


for name in HIDDEN:
    program.add_command(Deferred(name, hidden=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: a check of the verb failed, the output was closed, or a defect; 2: refused; 130:
    interrupted.
    """
    _endings.escape_what_terminals_cannot_show()
    allocator.use_large_pages()  # before a verb imports torch
    # looking for plug-ins of pydantic reads the metadata of every installed package
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status: Any = program.main(
            given, prog_name=program_name(), standalone_mode=False, obj=given
        )
        _endings.flush_output()
        return int(status or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except AlignRecError as error:
        _endings.say(f"{type(error).__name__}: {error}")
        return 2
    except Interrupted as stopped:
        if processes.is_first():  # each of several processes of the run comes here
            print(f"{stopped}\n  {as_typed(given)}", file=sys.stderr)
        return 130
    except (click.Abort, KeyboardInterrupt):
        print(
            "Stopped at once. The last saved state is kept; run the same command to resume.\n"
            f"  {as_typed(given)}",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        return _endings.end(error)
