"""Declare what a JSON file of ours holds, and check it when the file is read.

A checksum only says that a file is as it was written. Whether it makes sense (types, ranges, order, sizes against each
other) is declared once per file, as a value made of the classes below, beside the code that writes the file. Readers
then use its values without looking at them again. The first place that does not fit is reported as a `Mismatch`, whose
text says where it is, what was found and what was expected. Strings that say where are made only when something does
not fit, so checking a list of a million numbers costs little more than walking through it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shardtrain.errors import ShardtrainError

MAX_INTEGER = (1 << 63) - 1
_DEEPEST = 100  # levels of JSON: readers and writers of JSON recurse
_SHOWN = 60  # characters of a value in a message
_DIGITS = 16  # of a checksum


class Mismatch(ValueError):  # noqa: N818 - what is raised to users is the error of the file's room
    """A value that does not fit its schema.

    Args:
        found: what is there, in words.
        expected: what should be, in words.
        place: keys and indices that lead to it, the outermost first.
    """

    def __init__(self, found: str, expected: str, place: tuple[str | int, ...] = ()) -> None:
        self.found, self.expected, self.place = found, expected, place
        super().__init__(
            f"{_path(place)} is {found}, expected {expected}" if place else f"{found}, expected {expected}"
        )

    def within(self, key: str | int) -> Mismatch:
        """Return the same mismatch as seen from the value that has it at `key`."""
        return Mismatch(self.found, self.expected, (key, *self.place))


def _path(place: Sequence[str | int]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{_shown_key(key)}" for key in place)
    return f"`{''.join(parts).removeprefix('.')}`"


def _shown_key(key: str) -> str:
    return key if re.fullmatch(r"[\w./-]{1,100}", key, re.ASCII) else json.dumps(key[:_SHOWN])


def shown(value: Any) -> str:
    """Describe a value in a few words, without control characters."""
    if isinstance(value, Mapping):
        return f"an object of {len(value):,} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value):,}"
    if value is None or isinstance(value, bool | float | str):
        text = json.dumps(value)
    elif isinstance(value, int):
        text = str(value) if abs(value) < 1 << 200 else f"an integer of {value.bit_length():,} bits"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class Schema(Protocol):
    """What a value must be like."""

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        ...

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the first place where a value does not fit; None: it fits."""
        ...


def check(value: Any, schema: Schema) -> None:
    """Check a value.

    Raises:
        Mismatch: it does not fit.
    """
    if (found := schema.mismatch(value)) is not None:
        raise found


@dataclass(frozen=True)
class Integer:
    """An integer from `least` to `most`, both inclusive."""

    least: int = 0
    most: int = MAX_INTEGER

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        if self.most == MAX_INTEGER:
            return f"an integer of at least {self.least}"
        return f"an integer from {self.least} to {self.most}"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is int and self.least <= value <= self.most:  # not isinstance, because bool is an int
            return None
        return Mismatch(shown(value), self.expected)


@dataclass(frozen=True)
class Number:
    """A number from `least` to `most`; NaN and infinities only where it need not be `finite`."""

    least: float = -math.inf
    most: float = math.inf
    finite: bool = True

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        kind = "a finite number" if self.finite else "a number"
        low, high = math.isfinite(self.least), math.isfinite(self.most)
        if low and high:
            return f"{kind} from {self.least:g} to {self.most:g}"
        return f"{kind} of at least {self.least:g}" if low else kind

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        number = type(value) is float or (type(value) is int and abs(value) <= 1 << 1000)  # that fits in a float
        if number and not math.isfinite(value) and not self.finite:
            return None
        if number and math.isfinite(value) and self.least <= value <= self.most:
            return None
        return Mismatch(shown(value), self.expected)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    expected = "true or false"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        return None if type(value) is bool else Mismatch(shown(value), self.expected)


@dataclass(frozen=True)
class Text:
    """A text; with a `pattern` one that matches it, which `described` puts in words."""

    pattern: str = ""
    described: str = "a text"

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return self.described

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is str and (not self.pattern or re.fullmatch(self.pattern, value, re.DOTALL)):
            return None
        return Mismatch(shown(value), self.expected)


def hex_digits(count: int) -> Text:
    """Return the schema of a checksum of `count` hex digits."""
    return Text(f"[0-9a-f]{{{count}}}", f"{count} hex digits")


@dataclass(frozen=True)
class Choice:
    """One of some texts or integers, or None."""

    values: tuple[str | int | None, ...]

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        *others, last = map(shown, self.values)
        return f"{', '.join(others)} or {last}" if others else last

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if any(type(value) is type(each) and value == each for each in self.values):
            return None
        return Mismatch(shown(value), self.expected)


@dataclass(frozen=True)
class Either:
    """A value that fits at least one of some schemas; what is reported is the mismatch that lies deepest."""

    schemas: tuple[Schema, ...]

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return " or ".join(dict.fromkeys(each.expected for each in self.schemas))

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        found = []
        for each in self.schemas:
            if (mismatch := each.mismatch(value)) is None:
                return None
            found.append(mismatch)
        deepest = max(found, key=lambda mismatch: len(mismatch.place))
        return deepest if deepest.place else Mismatch(shown(value), self.expected)


def optional(schema: Schema) -> Either:
    """Return the schema of a value that may be null."""
    return Either((schema, Choice((None,))))


@dataclass(frozen=True)
class Items:
    """A list of `least` to `most` values; `distinct`: none of them twice; `kind`: tuple for values that are no JSON."""

    each: Schema
    least: int = 0
    most: int = MAX_INTEGER
    distinct: bool = False
    kind: type[list[Any]] | type[tuple[Any, ...]] = list

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        if self.least == self.most:
            return f"a list of {self.least:,}"
        many = self.most < MAX_INTEGER
        return f"a list of {self.least:,} to {self.most:,}" if many else "a list" + self._at_least

    @property
    def _at_least(self) -> str:
        return f" of at least {self.least:,}" if self.least else ""

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is not self.kind or not self.least <= len(value) <= self.most:
            return Mismatch(shown(value), self.expected)
        test = self.each.mismatch
        for number, item in enumerate(value):
            if (found := test(item)) is not None:
                return found.within(number)
        if self.distinct and len(set(value)) != len(value):
            seen: set[Any] = set()
            for number, item in enumerate(value):
                if item in seen:
                    return Mismatch(f"{shown(item)} again", "values that are all different").within(number)
                seen.add(item)
        return None


@dataclass(frozen=True)
class Row:
    """A list whose values have a schema each."""

    columns: tuple[Schema, ...]
    kind: type[list[Any]] | type[tuple[Any, ...]] = list

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return f"a list of {len(self.columns)}"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is not self.kind or len(value) != len(self.columns):
            return Mismatch(shown(value), self.expected)
        for number, (item, schema) in enumerate(zip(value, self.columns, strict=True)):
            if (found := schema.mismatch(item)) is not None:
                return found.within(number)
        return None


@dataclass(frozen=True)
class Keyed:
    """An object whose keys are data, such as labels: all values have one schema."""

    each: Schema
    keys: Schema = field(default_factory=Text)

    expected = "an object"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is not dict:
            return Mismatch(shown(value), self.expected)
        for key, item in value.items():
            if (found := self.keys.mismatch(key)) is not None:
                return Mismatch(f"the key {found.found}", f"keys that are {found.expected}").within("keys")
            if (found := self.each.mismatch(item)) is not None:
                return found.within(key)
        return None


@dataclass(frozen=True)
class Fields:
    """An object with named values.

    Attributes:
        required: schemas of the keys that must be there.
        optional: of those that may be there, such as those that older versions did not write.
        others: whether other keys may be there, whose values are not looked at.
        rule: compares values with each other; it gets the object, whose values fit, and raises `Mismatch`.
    """

    required: Mapping[str, Schema] = field(default_factory=dict)
    optional: Mapping[str, Schema] = field(default_factory=dict)
    others: bool = False
    rule: Callable[[Any], None] | None = None

    expected = "an object"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if type(value) is not dict:
            return Mismatch(shown(value), self.expected)
        for key, schema in self.required.items():
            if key not in value:
                return Mismatch("missing", schema.expected).within(key)
        for key, item in value.items():
            schema_of = self.required.get(key) or self.optional.get(key) or (ANYTHING if self.others else None)
            if schema_of is None:
                return Mismatch("there", "no such key").within(str(key))
            if (found := schema_of.mismatch(item)) is not None:
                return found.within(str(key))
        if self.rule is not None:
            try:
                self.rule(value)
            except Mismatch as found:
                return found
        return None


@dataclass(frozen=True)
class Anything:
    """Any value whose lists and objects are not nested too deep to be written again."""

    deepest: int = _DEEPEST

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return f"values of at most {self.deepest} levels"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        level = [value]
        for _ in range(self.deepest):
            level = [
                item
                for each in level
                if isinstance(each, dict | list | tuple)
                for item in (each.values() if isinstance(each, dict) else each)
            ]
            if not level:
                return None
        return Mismatch("nested deeper", self.expected)


ANYTHING = Anything()


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Parse JSON.

    Args:
        content: the text.
        finite: NaN and infinities are refused, which Python would read.

    Raises:
        ValueError: it is not JSON, not UTF-8, nested too deep, or has a number of too many digits.
    """
    try:
        if not finite:
            return json.loads(content)
        return json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:_SHOWN]} is not a finite number")
    return value


def read_json(path: Path, schema: Schema, error: Callable[[str], ShardtrainError], *, advice: str) -> Any:
    """Read a JSON file and check it.

    Args:
        path: the file.
        schema: of its content.
        error: makes the error from a message.
        advice: the next step, which ends the message.

    Raises:
        ShardtrainError: of the type `error`: the file cannot be read, is not JSON, or does not fit.
    """
    try:
        content = path.read_bytes()
    except OSError as failed:
        raise error(f"'{path}' cannot be read: {failed.strerror}; {advice}") from failed
    try:
        value = parse_json(content)
    except ValueError as failed:  # also bytes that are not UTF-8
        raise error(f"'{path}' is not valid JSON ({failed}); {advice}") from failed
    if (mismatch := schema.mismatch(value)) is not None:
        raise error(f"'{path}': {mismatch}; {advice}")
    return value


def read_if_sound(path: Path, schema: Schema) -> Any:
    """Read a JSON file that may be missing, and is as good as missing where it does not fit; None: there is none."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if schema.mismatch(value) is None else None


def canonical_checksum(value: Any) -> str:
    """Compute the checksum of a JSON value, whatever the order of its keys and the white space in its file."""
    from shardtrain.runtime.checksums import checksum  # needs a package; the commands' own modules read schemas too

    return checksum(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
