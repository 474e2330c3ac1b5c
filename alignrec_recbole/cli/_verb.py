"""The class of every verb: examples below its help, older spellings, several values after a flag.

click and cloup: options in groups, older spellings, shell completion, and 0.07 s of CPU to import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import cloup


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


class Deferred(cloup.Command):
    """A verb whose file is imported when it is asked for: help and other verbs start without it.

    Args:
        name: of the verb.
        summary: the first line of its help; not needed if it is hidden.
        file: in `alignrec_recbole/cli`, with a command of the same name; the verb's name by
            default.
        hidden: not shown in help.
    """

    def __init__(
        self, name: str, summary: str = "", *, file: str | None = None, hidden: bool = False
    ) -> None:
        super().__init__(name, help=summary, hidden=hidden)
        self.file = file or name.replace("-", "_")

    def load(self) -> click.Command:
        """The verb itself."""
        module = importlib.import_module(f"{__package__}.{self.file}")
        found: click.Command = getattr(module, self.file)
        return found


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
