"""Read and write options as a TOML file: a table per command, a key per long option, with underscores for dashes.

Keys and types are taken from argparse, so a new option needs nothing here. An option's `type` must make numbers or
strings, or values whose str() it parses. Switches are true or false, options of several words are lists. The whole
file is checked, not only the command's table.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shardtrain.errors import UsageError
from shardtrain.options import nearest

NOT_IN_FILES = ("help", "config", "print_config")  # options that a file cannot set
TYPES: dict[
    Any, tuple[tuple[type, ...], str]
] = {  # accepted TOML types and their name in messages, by an option's type
    None: ((str,), "a text"),
    Path: ((str,), "a text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options of a command by key, in the order of its help."""
    found = {}
    for action in parser._actions:
        long = next((name for name in action.option_strings if name.startswith("--")), "")
        if long and (key := long[2:].replace("-", "_")) not in NOT_IN_FILES:
            found[key] = action
    return found


def read_settings(path: Path, parsers: Mapping[str, argparse.ArgumentParser]) -> dict[str, dict[str, Any]]:
    """Read a file of options; return the values of each command's options, by their names in the parsed arguments.

    Raises:
        UsageError: the file is not valid TOML, or has an unknown table or key, or a value that the option cannot have.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config '{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of the encoding
        raise UsageError(f"--config '{path}' is not valid TOML: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"'{path}': '{name}' is not in a table; move it to that of a command, such as [fit]")
        if name not in parsers:
            raise UsageError(f"'{path}': there is no command for the table [{name}]{nearest(name, parsers)}")
    try:
        return {name: _read_table(tables.get(name, {}), name, parser) for name, parser in parsers.items()}
    except UsageError as error:
        raise UsageError(f"'{path}': {error.on_command_line}") from None


def _read_table(table: Mapping[str, Any], command: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    known, found = options(parser), {}
    for written, value in table.items():
        key = written.replace("-", "_")
        if key not in known:
            raise UsageError(f"[{command}] has no option '{written}'{nearest(key, known)}")
        if known[key].dest in found:
            raise UsageError(f"[{command}] has '{key}' twice")
        if value == "" and known[key].nargs != 0:  # not given, as on the command line
            continue
        try:
            found[known[key].dest] = _read(known[key], value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise UsageError(f"'{written}' of [{command}] is {as_written(value)}; {error}") from None
    for group in parser._mutually_exclusive_groups:
        given = [key for key, action in known.items() if action in group._group_actions and action.dest in found]
        both = [key for key in given if found[known[key].dest] is not False]
        if len(both) > 1:
            raise UsageError(f"[{command}] has '{both[0]}' and '{both[1]}', which exclude each other; omit one of them")
    return found


def _read(action: argparse.Action, value: Any) -> Any:
    """Convert a TOML value to the option's value; a ValueError says what the value must be."""
    if action.nargs == 0 or (action.nargs == "?" and isinstance(value, bool)):
        if not isinstance(value, bool):
            raise ValueError("it must be true or false")
        return value if action.nargs == 0 else action.const if value else action.default
    if action.nargs in (None, "?"):
        return _read_word(action, value)
    if action.nargs == "+" and not isinstance(value, list):
        value = [value]  # a list of one, as in Python
    number = action.nargs if isinstance(action.nargs, int) else None
    if not isinstance(value, list) or not value or number not in (None, len(value)):
        raise ValueError(f"it must be a list of {number or 'one or more'} values, each {_expected(action)}")
    return [_read_word(action, each) for each in value]


def _read_word(action: argparse.Action, value: Any) -> Any:
    kind = action.type
    fitting, _ = TYPES.get(kind, ((int, float, str), ""))
    if isinstance(value, bool) or not isinstance(value, fitting):
        raise ValueError(f"it must be {_expected(action)}")
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"it must be {_expected(action)}{nearest(str(value), action.choices)}")
    if not callable(kind):
        return value
    try:
        return kind(str(value))
    except ValueError:
        raise ValueError(f"it must be {_expected(action)}") from None


def _expected(action: argparse.Action) -> str:
    if action.choices is not None:
        return "one of " + ", ".join(map(str, action.choices))
    return TYPES[action.type][1] if action.type in TYPES else f"a {getattr(action.type, '__name__', 'value')}"


def as_toml(command: str, parser: argparse.ArgumentParser, values: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a file with a command's options: given ones as values, the others as comments with their help.

    A default is a comment too: as a value it would count as given, and some options are refused where they are given.

    Args:
        command: its name.
        parser: of the command.
        values: the parsed arguments; their `given` has the names of those that are given.
    """
    yield f"[{command}]"
    for key, action in options(parser).items():
        value = getattr(values, action.dest)
        empty = value is None or value in ([], ())
        if action.dest in values.given and not empty:
            yield f"{key} = {_toml(value)}"
            continue
        among = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        text = " ".join((action.help or "").split()).replace("%%", "%")
        yield f"# {key}{among}: {text}" if empty else f"# {key} = {_toml(value)}  #{among} {text}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = json.dumps(str(value), ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # otherwise JSON strings are TOML strings
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{str(value)!r} is not valid Unicode, so it cannot be written to a file of options") from None
    return text


def as_written(value: Any) -> str:
    """Format a value as in the file."""
    return _toml(value) if isinstance(value, bool | int | float | str | list) else str(value)
