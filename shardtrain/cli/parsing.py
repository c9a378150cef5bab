"""Parse command lines with argparse; report a mistake in one line, with the nearest known name.

Options are never abbreviated: a command line that works today must not become ambiguous when an option is added.
Options that are not on the command line are taken from a TOML file (settings.py), else they have their defaults.
An option with an empty value counts as not given, so that a script can pass `--memory-limit "$LIMIT"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from shardtrain.cli.settings import as_toml, options, read_settings
from shardtrain.errors import UsageError
from shardtrain.options import nearest, no_choice
from shardtrain.runtime.terminal import tell_error, write_data, write_lines

# Other names for commands and options, for suggestions.
OTHER_NAMES = {"classify": "predict", "download": "fetch", "test": "evaluate", "vectorize": "build"}
SAME_OPTIONS = (  # what commands, or other programs, call the same thing, for suggestions
    ("--learning-rate", "--lr", "--rate"),
    ("--epochs", "--epoch"),
    ("--batch-size", "--batch", "--bs"),
    ("--ngram-range", "--ngrams"),
    ("--max-features", "--vocab-size"),
    ("--out", "--output"),
    ("--overwrite", "--force"),
    ("--monitor", "--metric"),
    ("--to", "--format"),
    ("--x", "--features"),
)
_UNSET = object()  # the value of an option that is not on the command line


class Parser(argparse.ArgumentParser):
    """The parser of a command, or the top-level parser.

    Attributes:
        commands: for a command, all commands by name: the tables that a --config file may have; else empty.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.commands: Mapping[str, argparse.ArgumentParser] = {}

    @property
    def command(self) -> str:
        """Name of the command."""
        return self.prog.split()[-1]

    def add_settings(self) -> None:
        """Add --config and --print-config."""
        group = self.add_argument_group("options from a file")
        group.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help=f"a TOML file; its table [{self.command}] sets options, which the command line overrides",
        )
        group.add_argument("--print-config", action="store_true", help="print all options as such a file, and exit")

    def error(self, message: str) -> NoReturn:
        """Print one line that reports the mistake in the command line, and exit with code 2."""
        tell_error(f"error: {message}; see `python -m {self.prog} --help`")
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among the choices, in the words of all surfaces."""
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
            raise argparse.ArgumentError(None, no_choice(name, value, action.choices))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help or the version, which are what argparse writes: errors go through `error`."""
        write_lines(message.splitlines())

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but refuse every unknown word of a command."""
        words = sys.argv[1:] if args is None else list(args)
        if not self.commands:
            self._refuse_unknown_command(words)
            return super().parse_known_args(words, namespace)
        self._refuse_unknown_options(words)
        words = self._without_empty(words)
        file, only_print = _named_file(words), "--print-config" in _of_command(words)
        try:
            of_file = read_settings(file, self.commands)[self.command] if file is not None else {}
        except UsageError as error:
            self.error(error.on_command_line)
        self._relax_required(of_file, only_print=only_print)
        known = options(self).values()
        found, left = super().parse_known_args(words, argparse.Namespace(**{each.dest: _UNSET for each in known}))
        if left := self._append_to_last(found, left):
            self.error(f"{self.command} does not take {left[0]!r} here")
        found.given = {name for name, value in vars(found).items() if value is not _UNSET}
        found.of_file = _fill(found, self, of_file)
        if only_print:
            found.run = partial(print_settings, parser=self)
        return found, []

    def _refuse_unknown_command(self, words: Sequence[str]) -> None:
        for action in self._actions:
            if not isinstance(action, argparse._SubParsersAction):
                continue
            word = next((word for word in words if not word.startswith("-")), None)
            if word is not None and word not in action.choices:
                meant = nearest(OTHER_NAMES.get(word, word), action.choices)
                self.error(f"there is no command {word!r}{meant}")
            early = words[: words.index(word)] if word is not None else words
            for each in early:
                if each not in self._option_string_actions:
                    self.error(f"{each!r} is not an option for all commands; options follow the command")

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Refuse unknown options before argparse reports missing arguments."""
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                self.error(f"{self.command} has no option {name!r}{self._meant(name)}")

    def _meant(self, name: str) -> str:
        """Return what may be meant by an unknown option, as the end of a message."""
        same = (each for names in SAME_OPTIONS if name in names for each in names)
        if (usual := next((each for each in same if each in self._option_string_actions), None)) is not None:
            return f"; did you mean {usual!r}?"
        others = [command for command, parser in self.commands.items() if name in parser._option_string_actions]
        if others and any(action.metavar == "COMMAND" for action in self._actions):
            return f"; options of fit or train follow --, as in `{self.command} … -- fit SHARDS …`"
        if others:
            return f"; it is an option of {' and '.join(others) if len(others) < 3 else ', '.join(others)}"
        return nearest(name, self._option_string_actions, cutoff=0.5)

    def _without_empty(self, words: Sequence[str]) -> list[str]:
        """Remove the options whose values are all empty: they count as not given."""
        kept, left = [], list(words)
        while left and left[0] != "--":
            number = self._words_of_empty(left)
            kept += [] if number else left[:1]
            del left[: number or 1]
        return kept + left

    def _words_of_empty(self, words: Sequence[str]) -> int:
        """Return the number of words at the start that are an option with empty values only; 0 if there is none."""
        name, equals, value = words[0].partition("=")
        action = self._option_string_actions.get(name)
        if action is None or action.nargs == 0:
            return 0
        if equals:
            return 0 if value else 1
        empty = next((number for number, word in enumerate(words[1:]) if word), len(words) - 1)
        if action.nargs in (None, "?"):
            return 2 if empty else 0
        after = words[1 + empty :]
        return 1 + empty if empty and (not after or after[0].startswith("-")) else 0

    def _relax_required(self, of_file: Mapping[str, Any], *, only_print: bool) -> None:
        """Require no option that the file sets; for --print-config require no option and no argument."""
        for action in self._actions:
            if action.option_strings:
                action.required = action.required and action.dest not in of_file and not only_print
            elif only_print:
                action.required = False
                action.nargs = "*" if action.nargs in ("+", "*") else "?"

    def _append_to_last(self, found: argparse.Namespace, left: list[str]) -> list[str]:
        """Append words after options to the last argument if that takes several; return words that are left."""
        *_, last = [None, *(action for action in self._actions if not action.option_strings)]
        if last is None or last.nargs not in ("*", "+"):
            return left
        words = left[1:] if left[:1] == ["--"] else left
        if words is left and any(word.startswith("-") for word in words):
            return left
        read = last.type if callable(last.type) else str
        setattr(found, last.dest, [*getattr(found, last.dest), *map(read, words)])
        return []


def _of_command(words: Sequence[str]) -> Sequence[str]:
    """Return the words that may be options: those before "--"."""
    return words[: words.index("--")] if "--" in words else words


def _named_file(words: Sequence[str]) -> Path | None:
    """Find the file that `--config` names, which is needed before parsing."""
    named, before = None, _of_command(words)
    for number, word in enumerate(before, 1):
        if word.startswith("--config="):
            named = word.partition("=")[2]
        elif word == "--config" and number < len(before):
            named = before[number]
    return None if named is None else Path(named)


def _fill(found: argparse.Namespace, parser: Parser, of_file: Mapping[str, Any]) -> dict[str, Any]:
    """Set every option: from the command line, the file or its default; return those from the file by key."""
    given = {name for name, value in vars(found).items() if value is not _UNSET}
    excluded: set[str] = set()
    for group in parser._mutually_exclusive_groups:
        names = {action.dest for action in group._group_actions}
        excluded |= names if names & given else set()
    taken = {}
    for key, action in options(parser).items():
        if action.dest in given:
            continue
        from_file = action.dest in of_file and action.dest not in excluded
        setattr(found, action.dest, of_file[action.dest] if from_file else action.default)
        if from_file:
            taken[key] = of_file[action.dest]
            found.given.add(action.dest)
    return taken


def print_settings(args: argparse.Namespace, *, parser: Parser) -> int:
    """Print the options of a command as a file for `--config`."""
    write_data("".join(f"{line}\n" for line in as_toml(parser.command, parser, args)))
    return 0
