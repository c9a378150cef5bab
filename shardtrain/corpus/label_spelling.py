"""Decide when two labels are the same class, and which labels are missing. This is the one place of both rules.

Equal numbers are one class however they are spelled (`1`, `1.0`, `01`, `+1`, `1e0`), compared exactly, not as floats.
Missing are the values that pandas reads as missing (`nan`, `NULL`, `NA`, ...): a class of that name would be trained on
silently, so the error that names `--labels names` is the lesser harm. Labels that are taken literally follow neither
rule: `007` and `7` are two classes then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip  # those of pandas.read_csv

_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,6}))?")
_PLAIN = range(-10, 40)  # decimal exponents of numbers that are spelled without one; 128 bits have 39 digits


def canonical_label(label: str) -> str:
    """Return the canonical spelling of a label that is a decimal number; any other label is returned as it is.

    Equal numbers give equal strings: without a plus sign, leading zeros, and zeros after the point.
    """
    found = _NUMBER.fullmatch(label)
    if found is None:
        return label
    sign, whole, fraction, only_fraction, exponent = found.groups()
    fraction = only_fraction or fraction or ""
    digits = ((whole or "") + fraction).lstrip("0")
    if not digits:
        return "0"
    kept = digits.rstrip("0")
    power = int(exponent or 0) - len(fraction) + len(digits) - len(kept)  # the number is int(kept) * 10**power
    minus = "-" if sign == "-" else ""
    highest = power + len(kept) - 1
    if highest not in _PLAIN:
        return f"{minus}{kept[0]}{'.' if kept[1:] else ''}{kept[1:]}e{highest}"
    if power >= 0:
        return minus + kept + "0" * power
    point = len(kept) + power
    return minus + (f"{kept[:point]}.{kept[point:]}" if point > 0 else f"0.{'0' * -point}{kept}")


def is_number(label: str) -> bool:
    """Return whether a label is a decimal number."""
    return _NUMBER.fullmatch(label) is not None


def value_of(number: str) -> Decimal:
    """Return the exact value of a label that `is_number`, to sort by."""
    return Decimal(number)


def must_be_literal(codes: Mapping[str, int]) -> bool:
    """Return whether labels, with their class indices, were taken literally.

    They were if spelling alone distinguishes two classes, or if a label is a class that would be missing otherwise.
    """
    distinct = {(canonical_label(label), code) for label, code in codes.items()}
    return len({label for label, _ in distinct}) < len(distinct) or not MISSING.isdisjoint(codes)
