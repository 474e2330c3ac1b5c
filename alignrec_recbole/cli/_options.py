"""What the verbs share: the command class, options with older spellings, types of values.

click and cloup: options in groups, older spellings, shell completion, and 0.07 s of CPU to import.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import cloup
from click.shell_completion import CompletionItem

from alignrec_recbole.data.split_names import DEFAULT_SEED, DEFAULT_SPLIT, METHODS, NUMBERINGS
from alignrec_recbole.engines import DEFAULT, ENGINES
from alignrec_recbole.errors import printable


class UsablePath(click.Path):
    """A path that the file system can have; whether anything is there is not looked at."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a zero byte, a link to itself and a part that is too long are usage errors."""
        try:
            os.stat(value)
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                reason = getattr(error, "strerror", None) or str(error)
                self.fail(f"The path {printable(repr(value), 80)} cannot be used: {reason}.", param)
        return super().convert(value, param, ctx)


FOLDER = UsablePath(path_type=Path)
FILE = UsablePath(path_type=Path)
COUNT = click.IntRange(1, 10**9)
THREADS = click.IntRange(1, 1024)
WORKERS = click.IntRange(0, 256)
SHARE = click.FloatRange(0, 1)
_SETTING_OPTIONS = {"crop": "--min-crop-area", "recompute": "--gradient-checkpointing"}


def setting_option(name: str) -> str:
    """The option of a pre-training setting.

    >>> setting_option("crop"), setting_option("batch_size")
    ('--min-crop-area', '--batch-size')
    """
    return _SETTING_OPTIONS.get(name, f"--{name.replace('_', '-')}")


class Option(cloup.Option):
    """An option with older spellings, and with several values after one flag if `spread`.

    Args:
        aliases: spellings that are accepted and not shown.
        spread: `--set a=1 b=2` means `--set a=1 --set b=2`.
    """

    def __init__(
        self,
        *names: Any,
        aliases: Sequence[str] = (),
        spread: bool = False,
        **keywords: Any,
    ) -> None:
        super().__init__(*names, **keywords)
        self.aliases, self.spread = tuple(aliases), spread

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register every spelling; help and errors show the documented ones."""
        shown = self.opts
        self.opts = [*shown, *self.aliases]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown


def option(*names: str, **keywords: Any) -> Callable[[Any], Any]:
    """`cloup.option` of the class above."""
    return cloup.option(*names, cls=Option, **keywords)


class Verb(cloup.Command):
    """A command whose help ends with examples.

    Args:
        examples: arguments after the program's name, one string per example.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after `--set a=1 b=2` has become `--set a=1 --set b=2`."""
        several = {
            name
            for parameter in self.params
            if isinstance(parameter, Option) and parameter.spread
            for name in parameter.opts
        }
        return super().parse_args(ctx, spread_values(args, several))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples."""
        format_examples(self.examples, ctx, formatter)


def format_examples(
    examples: Iterable[str], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write the section "Examples"."""
    program = ctx.find_root().command_path
    formatter.write_paragraph()
    formatter.write("Examples:\n")
    for example in examples:
        formatter.write(f"  {program} {example}\n")


def verb(examples: Sequence[str], **keywords: Any) -> Callable[[Any], Any]:
    """Declare a verb."""
    return cloup.command(cls=Verb, examples=examples, **keywords)


def spread_values(arguments: Sequence[str], names: set[str]) -> list[str]:
    """Repeat an option before each of the values that follow it.

    >>> spread_values(["--set", "a=1", "b=2", "--quiet"], {"--set"})
    ['--set', 'a=1', '--set', 'b=2', '--quiet']
    """
    out: list[str] = []
    current = ""  # the option that takes the next value, if it is one of `names`
    fresh = False  # whether it has no value yet
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*out, *arguments[number:]]
        if argument.startswith("-") and not fresh:
            current, fresh = (argument, True) if argument in names else ("", False)
        elif current:
            if not fresh:
                out.append(current)
            fresh = False
        out.append(argument)
    return out


class Text(click.ParamType):
    """A value parsed from text by a function that raises ValueError with a sentence."""

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any],
        complete: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.name, self.parse, self.complete = name, parse, complete

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The parsed value; defaults are passed through."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Names for the last element of a comma-separated list."""
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(before + comma + name)
            for name in self.complete()
            if name.startswith(last)
        ]


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names.

    >>> names("Pop, EASE,")
    ('Pop', 'EASE')
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise ValueError(f"{text!r} contains no name")
    return found


def seeds(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of whole numbers."""
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 999,1000") from None


def cores(text: str) -> tuple[int, int]:
    """Parse K or U,I: interactions that users and items have at least.

    >>> cores("5"), cores("3,1")
    ((5, 5), (3, 1))
    """
    found = re.fullmatch(r"([0-9]{1,6})(?:,([0-9]{1,6}))?", text.replace(" ", ""))
    if not found or not int(found[1]) or (found[2] and not int(found[2])):
        raise ValueError(f"{text!r} is not K or U,I with numbers from 1, such as 5 or 5,10")
    return int(found[1]), int(found[2] or found[1])


def shard(text: str) -> tuple[int, int]:
    """Parse i/n.

    >>> shard("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not i/n with 1 ≤ i ≤ n, such as 2/4")
    return int(found[1]), int(found[2])


def number_of_jobs(text: str) -> int | None:
    """Parse N or auto, which is None.

    >>> number_of_jobs("2"), number_of_jobs("auto")
    (2, None)
    """
    if text == "auto":
        return None
    if not text.isdecimal() or not int(text):
        raise ValueError(f"--jobs must be at least 1, or auto, not {text!r}")
    return int(text)


SEEDS = Text("seeds", seeds)
SHARD = Text("shard", shard)
CORES = Text("cores", cores)


# Options of several verbs ------------------------------------------------------------------------


def data_path() -> Callable[[Any], Any]:
    """--data-path."""
    return option(
        "--data-path",
        type=FOLDER,
        metavar="DIR",
        help="Folder that contains the data sets' folders.  [default: $ALIGNREC_DATA, else ./data]",
    )


def split(default: str | None = DEFAULT_SPLIT) -> Callable[[Any], Any]:
    """--split, --numbering and --seed of the verbs that make data sets.

    Args:
        default: split; None: the source's own where it has one.
    """
    shown = "user-random:0.8,0.1,0.1"
    return cloup.option_group(
        "Numbers and split",
        option(
            "--split",
            default=default,
            metavar="NAME[:NUMBERS]",
            help=f"{', '.join(METHODS)}.  "
            f"[default: {shown if default else f'that of the source, else {shown}'}]",
        ),
        option(
            "--numbering",
            type=click.Choice(NUMBERINGS),
            default="random",
            help="Numbers of users and items; those by appearance leak the test set.  "
            "[default: random]",
        ),
        option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=DEFAULT_SEED,
            metavar="N",
            help=f"Of the numbers and the split.  [default: {DEFAULT_SEED}]",
        ),
    )


def rekey(what: str) -> Callable[[Any], Any]:
    """--rekey; `what` begins its help and is followed by the data set."""
    return option(
        "--rekey",
        type=click.IntRange(0, 2**63 - 1),
        metavar="SEED",
        help=f"{what} the data set under random numbers of users and items, with its split, items "
        "and features, as NAME-rekeyed-SEED.",
    )


def features_path() -> Callable[[Any], Any]:
    """--features-path."""
    return option(
        "--features-path",
        type=FOLDER,
        metavar="DIR",
        help="Folder searched for feature files before the data set's own.",
    )


def weights() -> Callable[[Any], Any]:
    """--weights, of BEiT-3."""
    return option(
        "--weights",
        metavar="FILE|NAME",
        help="A file, or base, large, base-itc, large-itc, base-indomain or large-indomain to "
        "download them.",
    )


def tokenizer() -> Callable[[Any], Any]:
    """--tokenizer, of BEiT-3."""
    return option(
        "--tokenizer",
        metavar="FILE",
        help="SentencePiece model.  [default: the one beside the weights]",
    )


def max_tokens() -> Callable[[Any], Any]:
    """--max-tokens, of BEiT-3."""
    return option(
        "--max-tokens",
        type=COUNT,
        metavar="N",
        help="Tokens per text, special ones included.  [default: 128]",
    )


def device() -> Callable[[Any], Any]:
    """--device."""
    return option(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda or cuda:N.  [default: auto]",
    )


def threads() -> Callable[[Any], Any]:
    """--threads."""
    return option("--threads", type=THREADS, metavar="N", help="CPU threads.  [default: all cores]")


def jobs(help_text: str) -> Callable[[Any], Any]:
    """--jobs."""
    return option(
        "--jobs",
        type=Text("jobs", number_of_jobs),
        metavar="N|auto",
        help=f"{help_text} auto follows the data's size and the free cores and memory.  "
        "[default: auto]",
    )


def engine() -> Callable[[Any], Any]:
    """--engine."""
    return option(
        "--engine",
        type=Text("engine", str, lambda: ENGINES),
        default=DEFAULT,
        metavar="NAME[:ADDRESS]",
        help="Where they run: local; dask, with the ADDRESS of a scheduler, else one of its own; "
        "or slurm.  [default: local]",
    )


def mirror() -> Callable[[Any], Any]:
    """--mirror."""
    return option(
        "--mirror",
        metavar="URL",
        help="Folder on a server that has the files by their names.  "
        "[default: $ALIGNREC_MIRROR, else the published addresses]",
    )


def no_progress() -> Callable[[Any], Any]:
    """--no-progress."""
    return option(
        "--no-progress",
        "progress",
        flag_value=False,
        default=True,
        aliases=["--quiet"],
        help="Show no progress bars.",
    )
