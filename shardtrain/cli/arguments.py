"""Add the options of option classes to a parser, and make option classes from parsed arguments."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from shardtrain.errors import UsageError
from shardtrain.options import Option, defaults_of, nested_in, options_of

Made = TypeVar("Made")


def add_options(
    parser: argparse.ArgumentParser,
    cls: type[Any],
    *,
    without: Collection[str] = (),
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Add the options of a class, and of option classes nested in it, in the groups that they declare.

    Args:
        parser: of a command.
        cls: the class.
        without: options that the command does not have.
        choices: of an option with fewer choices than the class has.
    """
    defaults = defaults_of(cls)
    for name, declared in options_of(cls).items():
        if name not in without and not _has(parser, name, defaults[name]):
            fewer = (choices or {}).get(name, declared.choices)
            _add(_group(parser, declared), name, declared, defaults[name], fewer)
    for nested in nested_in(cls).values():
        add_options(parser, nested, without=without)


def given_options(args: argparse.Namespace, cls: type[Any]) -> dict[str, Any]:
    """Return the values of a class's options that the command line or its --config file sets, for it to convert."""
    found = {}
    for name, default in defaults_of(cls).items():
        if (key := dest(name, default)) in args.given:
            value = getattr(args, key)
            found[name] = not value if default is True else value
    return found


def options_from(args: argparse.Namespace, cls: type[Made]) -> Made:
    """Make an option class from the given values; the rest has its defaults.

    Raises:
        UsageError: values that the class refuses.
    """
    return cls(**given_options(args, cls))


def dest(name: str, default: Any) -> str:
    """Return the name of an option's value in the parsed arguments; a switch that is on is named by turning it off."""
    return f"no_{name}" if default is True else name


def spelled(name: str, declared: Option, default: Any) -> str:
    """Return the flag of an option."""
    return "--" + (declared.spelled or dest(name, default)).replace("_", "-")


def help_of(declared: Option, default: Any) -> str:
    """Return the line of help, with the default."""
    if declared.unset:
        known = f" (default: {declared.unset})"
    elif declared.required or isinstance(default, bool):
        known = ""
    else:
        show = declared.show or str
        known = f" (default {' '.join(map(show, default)) if isinstance(default, tuple) else show(default)})"
    return declared.help.replace("%", "%%") + known


def _has(parser: argparse.ArgumentParser, name: str, default: Any) -> bool:
    """Return whether the parser has the option already: sizes of two models may share a name."""
    wanted = dest(name, default)
    return any(action.dest == wanted for action in parser._actions)


def _group(parser: argparse.ArgumentParser, declared: Option) -> argparse._ArgumentGroup:
    """Return the group of an option, which is made when its first option is added."""
    found = [group for group in parser._action_groups if group.title == declared.group]
    group = found[0] if found else parser.add_argument_group(declared.group)
    if not declared.exclusive:
        return group
    sets: dict[str, argparse._ArgumentGroup] = vars(group).setdefault("exclusive_sets", {})
    if declared.exclusive not in sets:
        sets[declared.exclusive] = group.add_mutually_exclusive_group()
    return sets[declared.exclusive]


def _add(group: argparse._ArgumentGroup, name: str, declared: Option, default: Any, choices: tuple[str, ...]) -> None:
    what: dict[str, Any] = {"dest": dest(name, default), "help": help_of(declared, default)}
    if declared.switch:
        what["action"] = argparse.BooleanOptionalAction
    elif isinstance(default, bool) and declared.nargs is None:
        what["action"] = "store_true"
    else:
        if default is dataclasses.MISSING:
            default = None
        word = declared.show(default) if declared.show else None if declared.convert else default
        what |= {
            "type": _parser_of(declared.parse),
            "nargs": declared.nargs,
            "choices": choices or None,
            "metavar": declared.metavar or None,
            "default": list(word) if isinstance(word, tuple) else word,
            "required": declared.required,
        }
        if declared.nargs == "?":
            what["const"] = declared.const
    group.add_argument(spelled(name, declared, default), **what)


def _parser_of(parse: Callable[[str], Any] | None) -> Callable[[str], Any] | None:
    """Wrap a function for argparse so that the messages of its errors are shown."""
    if parse is None or isinstance(parse, type):
        return parse

    def read(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(error.on_command_line) from None
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    read.__name__ = getattr(parse, "__name__", "value").strip("_")
    return read
