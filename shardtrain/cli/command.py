"""A command of the command line as a value: what it works on, the option classes it offers, and what it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardtrain.cli.arguments import add_options


@dataclass(frozen=True, kw_only=True)
class Argument:
    """What a command works on: a word, or several, without an option before it.

    Attributes:
        name: of the value in the parsed arguments.
        metavar: placeholder; those of `completion.FOLDERS` and `completion.FILES` are completed as such.
        help: what it is.
        nargs: as argparse has it.
        parse: makes a value of a word.
        default: where it may be omitted.
        choices: the words that it takes; empty: any.
    """

    name: str
    metavar: str
    help: str
    nargs: str | None = None
    parse: Callable[[str], Any] = Path
    default: Any = None
    choices: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Offered:
    """An option class that a command offers, or a part of it.

    Attributes:
        cls: the class.
        without: options that the command does not have.
        choices: of an option with fewer choices than the class has.
    """

    cls: type[Any]
    without: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: on the command line.
        help: one line in the list of commands.
        description: what it does, above its options.
        run: takes the parsed arguments and returns the exit code.
        arguments: what it works on.
        options: option classes, in the order of their help.
        examples: command lines, one per line.
        extend: adds to the parser what no option class says.
    """

    name: str
    help: str
    description: str
    run: Callable[[argparse.Namespace], int]
    arguments: tuple[Argument, ...] = ()
    options: tuple[type[Any] | Offered, ...] = ()
    examples: str
    extend: Callable[[argparse.ArgumentParser], None] | None = None

    def add_to(self, commands: argparse._SubParsersAction[Any]) -> None:
        """Add the command's parser."""
        lines = [f"  {line}" for line in self.examples.strip().splitlines()]
        parser = commands.add_parser(
            self.name,
            help=self.help,
            description=self.description,
            epilog="\n".join(["examples:" if len(lines) > 1 else "example:", *lines]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for each in self.arguments:
            parser.add_argument(
                each.name,
                metavar=each.metavar,
                help=each.help,
                nargs=each.nargs,
                type=each.parse,
                default=each.default,
                choices=each.choices or None,
            )
        for offered in self.offered:
            add_options(parser, offered.cls, without=offered.without, choices=offered.choices)
        if self.extend is not None:
            self.extend(parser)
        parser.set_defaults(run=self.run)

    @property
    def offered(self) -> tuple[Offered, ...]:
        """The option classes with what the command leaves out of them."""
        return tuple(each if isinstance(each, Offered) else Offered(cls=each) for each in self.options)
