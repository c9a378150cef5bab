"""Declare options, each once: as a field of a frozen dataclass, made with `option`.

The field has name, type and default; `option` adds help, group and the rest (`Option`). Everything else derives from
it: the arguments of the command line and the keys of a TOML file (`cli.arguments`), the keywords of the Python API
with their types (`with_options`), what a resume compares (`identity`), and the table in docs/options.md. The cost is
that types are not inspected: where a value on the command line is not a string, `parse` must convert it.

Importing this module, and any module of option classes, loads nothing outside the standard library.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from shardtrain.errors import UsageError

REQUIRED: Any = object()  # in place of a default
_KEY = "option"  # in a field's metadata
_POWERS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}  # of two

T = TypeVar("T")
P = ParamSpec("P")
First = TypeVar("First")
Made = TypeVar("Made")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What is declared of an option beside its name, type and default.

    Attributes:
        help: what it does, for one line of `--help`; the default is added there.
        group: heading in `--help`.
        metavar: placeholder of its value, with the unit if it has one; "" for switches and choices.
        choices: the texts that it takes; empty: any value.
        parse: makes a value of a word: `int`, `float`, `Path` or a function that raises ValueError.
        convert: makes the field's value of the parsed ones, such as bytes of "512MiB".
        show: the reverse of `convert`, for the default in help and docs; None: `str`.
        nargs: as argparse has it: None for one word, "+", "?" or a number of words.
        const: value where nargs is "?" and no word follows.
        spelled: its name on the command line where Python cannot have it, such as "import".
        unset: the default in words, where its value does not say it.
        switch: a switch with two ends, `--name` and `--no-name`, whose default is neither.
        exclusive: name of a set of options of which one at most may be given.
        identity: whether it decides the result, so that an interrupted job with another value is another job.
        tunable: whether `tune` can try several values.
        required: it has no default.
    """

    help: str
    group: str
    metavar: str | tuple[str, ...] = ""
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    convert: Callable[[Any], Any] | None = None
    show: Callable[[Any], str] | None = None
    nargs: str | int | None = None
    const: Any = None
    spelled: str = ""
    unset: str = ""
    switch: bool = False
    exclusive: str = ""
    identity: bool = True
    tunable: bool = False
    required: bool = False


def option(default: T, help: str, *, group: str, positional: bool = False, **declared: Any) -> T:  # noqa: A002
    """Declare an option: a field of an option class; `declared` are the other attributes of `Option`.

    Args:
        default: the field's value where nothing is given; `REQUIRED` if it must be given.
        help: see `Option`.
        group: see `Option`.
        positional: whether Python takes it without its name, too.
        declared: see `Option`.
    """
    metadata = {_KEY: Option(help=help, group=group, required=default is REQUIRED, **declared)}
    if default is REQUIRED:
        return dataclasses.field(kw_only=not positional, metadata=metadata)  # type: ignore[no-any-return]
    return dataclasses.field(default=default, kw_only=not positional, metadata=metadata)


def options_of(cls: type[Any]) -> dict[str, Option]:
    """Return the options of a class by name, in the order of the fields, without those of nested option classes."""
    return {each.name: each.metadata[_KEY] for each in dataclasses.fields(cls) if _KEY in each.metadata}


def nested_in(cls: type[Any]) -> dict[str, type[Any]]:
    """Return the fields of a class that hold option classes of their own, such as the sizes of a model."""
    return {
        each.name: each.default_factory  # type: ignore[misc]
        for each in dataclasses.fields(cls)
        if dataclasses.is_dataclass(each.default_factory)
    }


def defaults_of(cls: type[Any]) -> dict[str, Any]:
    """Return the default of each option of a class."""
    known = options_of(cls)
    return {each.name: each.default for each in dataclasses.fields(cls) if each.name in known}


def flag(name: str, value: Any = True) -> str:
    """Return the flag of an option on the command line; `value` False negates the flag of a switch."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def changed(options: Any, names: Iterator[str] | tuple[str, ...] | None = None) -> list[str]:
    """Return the names of the options that differ from their defaults, all or among `names`."""
    defaults = defaults_of(type(options))
    return [name for name in (defaults if names is None else names) if getattr(options, name) != defaults[name]]


def identity(options: Any, cls: type[Any] | None = None, **resolved: Any) -> dict[str, Any]:
    """Return the options that decide a result, by their names on the command line, as JSON values.

    Args:
        options: of an option class.
        cls: the class whose options count; None: that of `options`.
        resolved: values in place of those that are there, such as the identity of what a path names.
    """
    found = {}
    for name, declared in options_of(cls or type(options)).items():
        if declared.identity:
            value = resolved.get(name, getattr(options, name))
            found[name.replace("_", "-")] = as_json(value)
    return found


def identity_defaults(cls: type[Any]) -> dict[str, Any]:
    """Return the `identity` of a class's defaults, which is what an older record without an option means."""
    return {name.replace("_", "-"): as_json(default) for name, default in defaults_of(cls).items()}


def as_json(value: Any) -> Any:
    """Convert the value of an option to JSON: paths and other values as strings, tuples as lists."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return str(value)


def subset(options: Any, cls: type[Made]) -> Made:
    """Return the options of a base class alone, as a value of that class."""
    return cls(**{each.name: getattr(options, each.name) for each in dataclasses.fields(cls)})  # type: ignore[arg-type]


def with_options(
    cls: Callable[P, Made],
) -> Callable[[Callable[[First, Made], Result]], Callable[Concatenate[First, P], Result]]:
    """Decorate a function of something and an option class, so that it takes the options as keywords.

    The signature, names and types, is that of the class, for `help`, editors and type checkers alike.
    """

    def decorate(function: Callable[[First, Made], Result]) -> Callable[Concatenate[First, P], Result]:
        @functools.wraps(function)
        def call(first: First, /, *args: P.args, **keywords: P.kwargs) -> Result:
            return function(first, cls(*args, **keywords))

        first, _ = inspect.signature(function).parameters.values()
        fields = inspect.signature(cls).parameters.values()
        call.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
            parameters=[first.replace(kind=inspect.Parameter.POSITIONAL_ONLY), *fields]
        )
        return call

    return decorate


def parse_size(size: str | int) -> int:
    """Parse a size such as 512MiB, 1.5GiB or 1073741824 to bytes; K, M, G and T are powers of 1024.

    Raises:
        ValueError: not a size.
    """
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(size))
    unit = match[2].upper().removesuffix("B").removesuffix("I") if match else ""
    if match is None or unit not in _POWERS or match[2].upper() in ("I", "IB"):
        raise UsageError(f"{size!r} is not a size; write it like 512MiB or 2GiB")
    return int(float(match[1]) * (1 << _POWERS[unit]))


def show_size(num_bytes: int) -> str:
    """Format a number of bytes as `parse_size` reads it, such as 256MiB."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        size = 1 << _POWERS[unit[0]]
        if num_bytes >= size and num_bytes % size == 0:
            return f"{num_bytes // size}{unit}"
    return str(num_bytes)
