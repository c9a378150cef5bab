"""A schema takes what it declares and nothing else, and says where, what was found and what was expected."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mutations import mutations

from shardtrain.errors import RunError
from shardtrain.runtime.schema import (
    Anything,
    Choice,
    Either,
    Fields,
    Flag,
    Integer,
    Items,
    Keyed,
    Mismatch,
    Number,
    Row,
    Text,
    check,
    hex_digits,
    optional,
    parse_json,
    read_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def in_order(value: dict[str, Any]) -> None:
    if value["first"] > value["last"]:
        raise Mismatch(str(value["first"]), f"at most `last`, {value['last']}", ("first",))


RANGE = Fields({"first": Integer(), "last": Integer(0, 9)}, {"note": optional(Text())}, rule=in_order)
FITTING: list[tuple[Any, Any]] = [
    (Integer(-3, 4), -3),
    (Integer(), (1 << 63) - 1),
    (Number(0, 1), 1),
    (Number(), -1e308),
    (Number(finite=False), math.inf),
    (Flag(), False),
    (Text(), "\ud800"),
    (hex_digits(4), "09af"),
    (Choice(("a", 1, None)), None),
    (Either((Integer(), Text("[a-z]+"))), "x"),
    (Items(Integer(), 1, 2, distinct=True), [1, 2]),
    (Items(Integer(), kind=tuple), (1,)),
    (Row((Integer(), Text())), [1, ""]),
    (Keyed(Integer(), Text("[0-9]+")), {"12": 3}),
    (RANGE, {"first": 3, "last": 9, "note": None}),
    (Fields(others=True), {"any": [1]}),
    (Anything(3), [[{}]]),
]
NOT_FITTING: list[tuple[Any, Any, str]] = [
    (Integer(), True, "true, expected an integer of at least 0"),
    (Integer(), 1.0, "1.0, expected an integer of at least 0"),
    (Integer(1, 5), 6, "6, expected an integer from 1 to 5"),
    (Integer(), 1 << 4000, "an integer of 4,001 bits, expected an integer of at least 0"),
    (Number(0), -0.5, "-0.5, expected a finite number of at least 0"),
    (Number(0, 1), math.nan, "NaN, expected a finite number from 0 to 1"),
    (Number(), 10**400, "an integer of 1,329 bits, expected a finite number"),
    (Flag(), 1, "1, expected true or false"),
    (Text(), None, "null, expected a text"),
    (Text("a+", "letters a"), "ab\x1b", '"ab\\u001b", expected letters a'),
    (hex_digits(4), "09AF", '"09AF", expected 4 hex digits'),
    (Choice(("a", 1)), True, 'true, expected "a" or 1'),
    (Either((Integer(), Flag())), "x", '"x", expected an integer of at least 0 or true or false'),
    (Items(Integer(), 2, 2), [1], "a list of 1, expected a list of 2"),
    (Items(Integer()), (1,), "a list of 1, expected a list"),
    (Items(Integer(), distinct=True), [1, 2, 1], "`[2]` is 1 again, expected values that are all different"),
    (Items(Items(Flag())), [[True], [False, 0]], "`[1][1]` is 0, expected true or false"),
    (Row((Integer(), Text())), [1], "a list of 1, expected a list of 2"),
    (Keyed(Integer()), {"a": 1, "b\n": -1}, '`"b\\n"` is -1, expected an integer of at least 0'),
    (Keyed(Integer(), Text("[0-9]+", "digits")), {"x": 1}, '`keys` is the key "x", expected keys that are digits'),
    (RANGE, {"first": 1}, "`last` is missing, expected an integer from 0 to 9"),
    (RANGE, {"first": 9, "last": 3}, "`first` is 9, expected at most `last`, 3"),
    (RANGE, {"first": 1, "last": 3, "more": 0}, "`more` is there, expected no such key"),
    (Keyed(RANGE), {"a.b": {"first": -1, "last": 3}}, "`a.b.first` is -1, expected an integer of at least 0"),
    (Anything(3), [[[[]]]], "nested deeper, expected values of at most 3 levels"),
]


@pytest.mark.parametrize(
    ("schema", "value"), FITTING, ids=[f"{type(schema).__name__} of {value!r}" for schema, value in FITTING]
)
def test_what_fits_is_taken(schema: Any, value: Any) -> None:
    check(value, schema)


@pytest.mark.parametrize(("schema", "value", "said"), NOT_FITTING, ids=[said for *_, said in NOT_FITTING])
def test_what_does_not_fit_is_reported_with_place_finding_and_expectation(schema: Any, value: Any, said: str) -> None:
    with pytest.raises(Mismatch) as failure:
        check(value, schema)
    assert str(failure.value) == said


@settings(deadline=None, max_examples=25)
@given(JSON)
def test_a_mutation_of_a_value_fits_or_is_reported_in_one_line_of_printable_text(value: Any) -> None:
    schema = Keyed(Either((Integer(), Text(), Items(Number()), RANGE, Keyed(Flag()))))
    for _, mutated in mutations(value):
        found = schema.mismatch(mutated)
        assert found is None or str(found).isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[NaN]", b"[-Infinity]", b"[1e999]", b"[" * 99_999, b"9" * 9999], ids=repr
)
def test_what_json_does_not_have_and_python_reads_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


def test_a_file_is_refused_by_the_error_of_its_room_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"first": -3, "last": 3}')
    with pytest.raises(RunError) as failure:
        read_json(tmp_path / "a.json", RANGE, RunError, advice="train again")
    expected = f"'{tmp_path / 'a.json'}': `first` is -3, expected an integer of at least 0; train again"
    assert str(failure.value) == expected
    with pytest.raises(RunError, match=r"cannot be read: No such file or directory; train again"):
        read_json(tmp_path / "b.json", RANGE, RunError, advice="train again")
