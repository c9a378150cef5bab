"""Declare options, each once: as a field of a frozen dataclass, made with `option`.

The field has name, type and default; `option` adds help, group and the rest (`Option`). Everything else derives from
it: the arguments of the command line and the keys of a TOML file (`cli.arguments`), the keywords of the Python API
with their types (`with_options`), what a resume compares (`identity`), and the table in docs/options.md. A class
decorated with `checked` converts and checks every value it is made of (`checked_value`), so all surfaces take and
refuse the same values.

Importing this module, and any module of option classes, loads nothing outside the standard library.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from shardtrain.errors import UnknownOptionError, UsageError
from shardtrain.option_values import MismatchError, as_declared, in_words

REQUIRED: Any = object()  # in place of a default
_KEY = "option"  # in a field's metadata
_SLIP = 0.9  # least similarity of a word with a slip, such as a letter too many, and what was meant
_MOST_MEANT = 3  # names that a message suggests
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


_TYPES: dict[type[Any], dict[str, Any]] = {}  # what `types_of` found
_PLAIN = Option(help="", group="")  # of a field that is no option


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


def checked(cls: type[T]) -> type[T]:
    """Decorate an option class, above `dataclass`: its values are converted and checked before the class sees them.

    Making one raises UnknownOptionError for an unknown keyword, and UsageError for a value of another type, one that is
    not among the choices, or two options of which one at most may be given.
    """
    init: Callable[..., None] = cls.__init__
    fields = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    positional = [each.name for each in fields.values() if not each.kw_only]

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **keywords: Any) -> None:
        given = dict(zip(positional, args, strict=False))
        if len(args) > len(positional):
            alone = f"; only {', '.join(positional)} may be given without its name" if positional else ""
            raise UnknownOptionError(f"{_brief(args[len(positional)])} has no keyword{alone}")
        if twice := given.keys() & keywords:
            raise UnknownOptionError(f"{', '.join(twice)} is given twice, with and without its name")
        given |= keywords
        refuse_unknown(cls, given, cls.__name__)
        values = {name: checked_value(cls, name, value) for name, value in given.items()}
        refuse_exclusive(cls, [name for name, value in values.items() if value != fields[name].default])
        init(self, **values)

    cls.__init__ = checked_init  # type: ignore[method-assign]
    return cls


def checked_value(cls: type[Any], name: str, value: Any) -> Any:
    """Convert the value of an option of a class, as its declaration says.

    Raises:
        UsageError: the value cannot be one of the option's; the message names option, value and what is expected.
    """
    nested = nested_in(cls).get(name)
    if nested is not None:
        return _nested_value(name, nested, value)
    declared, kind = options_of(cls).get(name, _PLAIN), types_of(cls).get(name, Any)
    try:
        found = as_declared(value, kind, parse=declared.parse, convert=declared.convert)
    except MismatchError:
        raise UsageError(f"{flag(name)} is {_brief(value)}; expected {_expected(cls, name)}") from None
    except UsageError as error:
        said = error.on_command_line
        raise UsageError(said if flag(name) in said else f"{flag(name)}: {said}") from None
    if declared.choices and found is not None and found not in declared.choices:
        raise UsageError(no_choice(flag(name), found, declared.choices))
    return found


def no_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return the message about a value that is not among the choices of an option."""
    return f"{name} is {_brief(value)}; choose one of {', '.join(choices)}{nearest(str(value), choices)}"


def types_of(cls: type[Any]) -> dict[str, Any]:
    """Return the types of a class's fields, without those that only a type checker knows."""
    if cls in _TYPES:
        return _TYPES[cls]
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        try:
            found |= inspect.get_annotations(base, locals={}, eval_str=True)
        except NameError:
            continue
    _TYPES[cls] = found
    return found


def refuse_unknown(
    cls: type[Any], names: Iterable[str], where: str, elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse keywords that no field of a class has.

    Args:
        cls: the class.
        names: the keywords.
        where: what was called.
        elsewhere: what to do instead, by keyword, for options of the command line that are no keywords.

    Raises:
        UnknownOptionError: there are such; the message has the nearest name, or says where the option belongs.
    """
    known = {each.name for each in dataclasses.fields(cls) if each.init}
    for name in names:
        if name in known:
            continue
        owners = [
            f"{key}={inner.__name__}({name}=...)" for key, inner in nested_in(cls).items() if name in options_of(inner)
        ]
        if owners:
            hint = f"; it is a size of a model: pass {' or '.join(owners)}, from shardtrain.models.options"
        else:
            hint = f"; {elsewhere[name]}" if elsewhere and name in elsewhere else nearest(name, known)
        raise UnknownOptionError(f"{where} has no option '{name}'{hint}")


def refuse_exclusive(cls: type[Any], given: Collection[str]) -> None:
    """Refuse two options of a class of which one at most may be given.

    Raises:
        UsageError: there are such.
    """
    sets: dict[str, str] = {}
    for name, declared in options_of(cls).items():
        if declared.exclusive and name in given:
            if declared.exclusive in sets:
                raise UsageError(
                    f"{flag(sets[declared.exclusive])} and {flag(name)} exclude each other; omit one of them"
                )
            sets[declared.exclusive] = name


def nearest(word: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the end of a message about an unknown word: the nearest known names, or nothing; see `nearest_names`."""
    return did_you_mean(nearest_names(word, names, cutoff=cutoff))


def did_you_mean(names: Sequence[Any]) -> str:
    """Return the end of a message that suggests names, or nothing if there are none or many."""
    if not 0 < len(names) <= _MOST_MEANT:
        return ""
    *others, last = [f"'{name}'" for name in names]
    return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"


def nearest_names(word: str, names: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are nearest to an unknown word.

    These are the one that it is a slip of, else the longest that are a part of it ("loss" of "val_loss"), else the most
    similar one, else those that share most parts with it ("macro_f1" for "f1").
    """
    known = {name.lstrip("-"): name for name in names}  # the dashes of options would make short ones similar
    plain, parts = word.lstrip("-"), _parts(word)
    similar = partial(difflib.get_close_matches, plain, known, n=1)
    within = {name: len(_parts(name)) for name in known if _parts(name) < parts}
    found = similar(cutoff=_SLIP) or _highest(within) or similar(cutoff=cutoff)
    return [known[name] for name in found or _highest({name: _likeness(parts, _parts(name)) for name in known})]


def _parts(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", name.lower()))


def _likeness(parts: Iterable[str], others: frozenset[str]) -> float:
    """Count the parts that others begin with, such as "acc" of "accuracy"; with equal counts, fewer others win."""
    shared = sum(any(other.startswith(part) for other in others) for part in parts if len(part) > 1)
    return shared + 1 / len(others) if shared else 0


def _highest(counts: Mapping[str, float]) -> list[str]:
    most = max(counts.values(), default=0)
    return [name for name, count in counts.items() if count == most > 0]


def _nested_value(name: str, cls: type[Any], value: Any) -> Any:
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return cls(**value)
    first, default = next(iter(defaults_of(cls).items()))
    example = f"{cls.__name__}({first}={default})"
    raise UsageError(f"{flag(name)} is {_brief(value)}; expected {cls.__name__}, such as {example}")


def _expected(cls: type[Any], name: str) -> str:
    """Describe the values of an option; one that is converted also takes a text."""
    declared, default = options_of(cls).get(name, _PLAIN), defaults_of(cls).get(name)
    words = in_words(types_of(cls)[name])
    if declared.choices:
        words = f"one of {', '.join(declared.choices)}{' or None' if default is None else ''}"
    return f"{words}, or a text such as {declared.show(default)!r}" if declared.convert and declared.show else words


def _brief(value: Any) -> str:
    """Format a value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


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
    cls: Callable[P, Made], *, elsewhere: Mapping[str, str] | None = None
) -> Callable[[Callable[[First, Made], Result]], Callable[Concatenate[First, P], Result]]:
    """Decorate a function of something and an option class, so that it takes the options as keywords.

    The signature, names and types, is that of the class, for `help`, editors and type checkers alike; `elsewhere` as in
    `refuse_unknown`.
    """
    made: Any = cls

    def decorate(function: Callable[[First, Made], Result]) -> Callable[Concatenate[First, P], Result]:
        @functools.wraps(function)
        def call(first: First, /, *args: P.args, **keywords: P.kwargs) -> Result:
            refuse_unknown(made, keywords, function.__name__, elsewhere)
            refuse_exclusive(made, [name for name, value in keywords.items() if value is not None])
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
