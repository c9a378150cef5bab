"""Read and write the files of a fitted vectorizer, and declare what they hold.

    vectorizer.json   version, kind, settings, sizes, a checksum of each other file, and the fingerprint; written last
    terms.json        the strings of the terms
    *.npy             arrays of the kind, see `ARRAYS`

Version 1 knows terms by their hashes alone. Version 2, which has their checks too, is written where that is not enough,
or where counts exceed 32 bits.

A fingerprint that fits only says that nobody changed the file by accident. What is read is also checked for sense, so
that whoever uses a vectorizer, `build --vectorizer-from` included, never computes rows that readers of shards refuse.
Arrays are checked piece by piece, because those of a large corpus have hundreds of millions of items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.npy import map_npy, write_npy
from shardtrain.errors import UsageError, VectorizerError
from shardtrain.runtime.atomic import commit_json, make_folder
from shardtrain.runtime.checksums import checksum, file_checksum
from shardtrain.runtime.schema import (
    Choice,
    Either,
    Fields,
    Flag,
    Integer,
    Items,
    Mismatch,
    Number,
    Row,
    Schema,
    Text,
    hex_digits,
    read_json,
)
from shardtrain.vectorize.identity import TermIds, need_checks
from shardtrain.vectorize.settings import (
    ANALYZERS,
    MAX_COLUMNS,
    MAX_NGRAM,
    SELECTORS,
    STRIP_ACCENTS,
    WEIGHTINGS,
    HashedSettings,
    NgramSettings,
    SequenceSettings,
    Settings,
    parse_settings,
    settings_record,
)

DESCRIPTION, TERMS = "vectorizer.json", "terms.json"
VERSIONS = (1, 2)
ARRAYS: dict[str, dict[str, str]] = {
    "ngram": {"hashes": "<u8", "counts": "<u4", "columns": "<i4", "scores": "<f8"},
    "sequence": {"hashes": "<u8"},
    "hashing": {},
}  # names and types of version 1, by kind
_CHECKED = {"checks": "<u4"}  # of version 2
_WIDE = {"counts": "<u8"}  # of version 2, where documents are not counted in 32 bits
_NARROW = 1 << 32
_KIND_OF: dict[type, str] = {NgramSettings: "ngram", SequenceSettings: "sequence", HashedSettings: "hashing"}
_CLASS_OF = {kind: cls for cls, kind in _KIND_OF.items()}
_ADVICE = "copy the folder again or rebuild the shards"
_PIECE = 1 << 20  # items of an array that are checked at a time

Array = npt.NDArray[Any]

_MAX_HASH = (1 << 64) - 1
_HASHING = Fields({"seed": Integer(0, _MAX_HASH), "mask": Integer(0, _MAX_HASH)})
_LIMIT = Either((Integer(1), Number(0, 1)))
_OF_NGRAMS: dict[str, Schema] = {
    "analyzer": Choice(ANALYZERS),
    "ngram_range": Row((Integer(1, MAX_NGRAM), Integer(1, MAX_NGRAM))),
    "stop_words": Items(Text(), distinct=True),
    "binary": Flag(),
    "max_features": Integer(1, MAX_COLUMNS),
    "strip_accents": Choice(STRIP_ACCENTS),
}
SETTINGS = {
    "ngram": Fields(
        {"hashing": _HASHING},
        {
            **_OF_NGRAMS,
            "min_df": _LIMIT,
            "max_df": _LIMIT,
            "weighting": Choice(WEIGHTINGS),
            "sublinear_tf": Flag(),
            "select": Choice(SELECTORS),
        },
    ),
    "sequence": Fields(
        {"hashing": _HASHING, "max_features": Integer(2, MAX_COLUMNS), "max_length": Integer(1, MAX_COLUMNS)}
    ),
    "hashing": Fields({"hashing": _HASHING}, _OF_NGRAMS),
}
_FACTS: dict[str, dict[str, Schema]] = {
    "ngram": {"num_documents": Integer(1)},
    "sequence": {"num_words": Integer(1), "length": Integer(1, MAX_COLUMNS)},
    "hashing": {},
}


def _types_of(kind: str, version: int, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return names and types of the arrays of a vectorizer."""
    if version == 1:
        return ARRAYS[kind]
    wide = _WIDE if facts.get("num_documents", 0) >= _NARROW else {}
    return {**ARRAYS[kind], **wide, **_CHECKED}


def _files_of(kind: str, version: int) -> tuple[str, ...]:
    return (*(f"{name}.npy" for name in _types_of(kind, version, {})), TERMS)


_DESCRIPTIONS = {
    (kind, version): Fields(
        {
            "version": Choice((version,)),
            "kind": Choice((kind,)),
            "settings": SETTINGS[kind],
            **_FACTS[kind],
            "files": Fields(dict.fromkeys(_files_of(kind, version), hex_digits(16))),
            "fingerprint": hex_digits(16),
        }
    )
    for kind, versions in (("ngram", VERSIONS), ("sequence", VERSIONS), ("hashing", (1,)))
    for version in versions
}
_ANY_KIND = Fields({"version": Integer(), "kind": Text()}, others=True)


@dataclass(frozen=True, eq=False)
class SavedVectorizer:
    """What the files of a vectorizer hold; the arrays stay on disk, mapped.

    Attributes:
        kind: "ngram", "sequence" or "hashing".
        description: the content of vectorizer.json.
        settings: how terms were found and chosen.
        terms: their strings.
        arrays: those that `ARRAYS` names for the kind, and of version 2 `checks`.
    """

    kind: str
    description: dict[str, Any]
    settings: Settings
    terms: list[str]
    arrays: dict[str, Array]

    @property
    def ids(self) -> TermIds:
        """The identities of candidates or words, as the arrays hold them."""
        return TermIds(self.arrays["hashes"], self.arrays.get("checks", np.empty(0, np.uint32)))


def write_vectorizer(
    folder: Path,
    settings: Settings,
    facts: Mapping[str, int],
    terms: list[str],
    arrays: Mapping[str, Iterable[Array]],
) -> None:
    """Write a vectorizer into `folder` (made if missing); the arguments are those of `fitted.save_vectorizer`."""
    kind = _KIND_OF[type(settings)]
    make_folder(folder)
    version = 1
    if kind != "hashing":
        write_npy(folder / "hashes.npy", arrays["hashes"], np.dtype("<u8"))
        shared = _share_a_hash(kind, map_npy(folder / "hashes.npy", VectorizerError, advice=_ADVICE))
        version += need_checks(settings.hashing, shared=shared) or facts.get("num_documents", 0) >= _NARROW
    for name, dtype in _types_of(kind, version, facts).items():
        if name != "hashes":
            write_npy(folder / f"{name}.npy", arrays[name], np.dtype(dtype))
    commit_json(folder / TERMS, terms)
    description: dict[str, Any] = {
        "version": version,
        "kind": kind,
        "settings": settings_record(settings),
        **facts,
        "files": {name: file_checksum(folder / name) for name in _files_of(kind, version)},
    }
    commit_json(folder / DESCRIPTION, {**description, "fingerprint": fingerprint_of(description)})


def _share_a_hash(kind: str, hashes: Array) -> bool:
    """Return whether two of the terms have one hash; those of n-grams ascend."""
    if kind == "sequence":
        return len(np.unique(hashes)) < len(hashes)
    return any(bool((piece[1:] == piece[:-1]).any()) for _, piece in _pieces(hashes))


def fingerprint_of(description: Mapping[str, Any]) -> str:
    """Compute the fingerprint of a vectorizer from the content of its vectorizer.json, which may have one already."""
    rest = {name: value for name, value in description.items() if name != "fingerprint"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def read_vectorizer(folder: Path) -> SavedVectorizer:
    """Read and check the files of a vectorizer.

    Raises:
        VectorizerError: there is none, it is of another version, or one of its files is damaged or makes no sense.
    """
    description = _read_description(folder)
    kind = description["kind"]
    _compare_checksums(folder, description)
    try:
        settings = parse_settings(_CLASS_OF[kind], description["settings"])
    except UsageError as error:
        raise VectorizerError(f"'{folder / DESCRIPTION}': {error.on_command_line}; {_ADVICE}") from error
    of_terms = Items(Text(), distinct=True)
    terms = read_json(folder / TERMS, of_terms, VectorizerError, advice=_ADVICE)
    arrays = {}
    for name, dtype in _types_of(kind, description["version"], description).items():
        arrays[name] = map_npy(folder / f"{name}.npy", VectorizerError, dtype=dtype, advice=_ADVICE)
    saved = SavedVectorizer(kind, description, settings, terms, arrays)
    try:
        _CHECKS[kind](saved)
    except Mismatch as mismatch:
        raise VectorizerError(f"the vectorizer in '{folder}': {mismatch}; {_ADVICE}") from mismatch
    return saved


def read_terms(folder: Path) -> list[str]:
    """Read the terms of a vectorizer without its arrays.

    Raises:
        VectorizerError: as `read_vectorizer`.
    """
    expected = _read_description(folder)["files"][TERMS]
    _compare_checksum(folder / TERMS, expected)
    terms: list[str] = read_json(folder / TERMS, Items(Text(), distinct=True), VectorizerError, advice=_ADVICE)
    return terms


def check_fingerprint(folder: Path, expected: str) -> None:
    """Refuse a folder with another vectorizer than that of the shards beside it; its arrays are not read.

    Raises:
        VectorizerError: it is another one, there is none, or its description is damaged.
    """
    found = _read_description(folder)["fingerprint"]
    if found != expected:
        raise VectorizerError(
            f"'{folder}' holds the vectorizer {found}, but the shards were built with {expected}; restore the folder "
            "of that vectorizer or rebuild the shards"
        )


def check_files(folder: Path, expected: str) -> None:
    """Refuse a folder with another vectorizer than that of the shards beside it, and damaged files of that one.

    Raises:
        VectorizerError: as `check_fingerprint`, or a file is missing or damaged.
    """
    check_fingerprint(folder, expected)
    _compare_checksums(folder, _read_description(folder))


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise VectorizerError(f"'{folder}' has no readable vectorizer: there is no {DESCRIPTION}; {_ADVICE}")
    found: dict[str, Any] = read_json(path, _ANY_KIND, VectorizerError, advice=_ADVICE)
    if (found["kind"], found["version"]) not in _DESCRIPTIONS:
        raise VectorizerError(
            f"'{folder}' has a vectorizer that this version of shardtrain does not read: version {found['version']} of "
            f"kind {found['kind']!r:.60}, expected version {' or '.join(map(str, VERSIONS))} of kind "
            f"{', '.join(ARRAYS)}; install the version that wrote it, or rebuild the shards"
        )
    if found.get("fingerprint") != fingerprint_of(found):
        raise VectorizerError(
            f"'{path}' was changed or damaged after it was written: its fingerprint differs; {_ADVICE}"
        )
    return read_json(path, _DESCRIPTIONS[found["kind"], found["version"]], VectorizerError, advice=_ADVICE)  # type: ignore[no-any-return]


def _compare_checksums(folder: Path, description: Mapping[str, Any]) -> None:
    for name, expected in description["files"].items():
        _compare_checksum(folder / name, expected)


def _compare_checksum(path: Path, expected: str) -> None:
    try:
        found = file_checksum(path)
    except OSError as error:
        raise VectorizerError(f"'{path}' cannot be read: {error.strerror}; {_ADVICE}") from error
    if found != expected:
        raise VectorizerError(f"'{path}' is damaged: its checksum is {found}, expected {expected}; {_ADVICE}")


def _check_ngrams(saved: SavedVectorizer) -> None:
    """Check the arrays of an n-gram vectorizer against each other and against the terms."""
    settings, arrays, num_terms = saved.settings, saved.arrays, len(saved.terms)
    assert isinstance(settings, NgramSettings)
    _check_length(saved.terms, 1, settings.max_features, "terms")
    _check_length(arrays["scores"], num_terms, num_terms, "scores")
    num_candidates = len(arrays["hashes"])
    _check_length(arrays["hashes"], num_terms, max(num_terms, num_candidates), "hashes")
    for name in ("counts", "columns", *(_CHECKED if "checks" in arrays else ())):
        _check_length(arrays[name], num_candidates, num_candidates, name)
    _check_ascending(arrays["hashes"], arrays.get("checks"))
    _check_range(arrays["counts"], 1, saved.description["num_documents"], "counts")
    _check_range(arrays["columns"], -1, num_terms - 1, "columns")
    _check_columns(arrays["columns"], num_terms)


def _check_sequences(saved: SavedVectorizer) -> None:
    """Check the words of a sequence vectorizer."""
    settings, description, words = saved.settings, saved.description, saved.arrays["hashes"]
    assert isinstance(settings, SequenceSettings)
    kept = min(description["num_words"], settings.max_features - 1)  # id 0 is padding
    _check_length(saved.terms, kept, kept, "terms")
    _check_length(words, kept, kept, "hashes")
    if description["length"] > settings.max_length:
        raise Mismatch(str(description["length"]), f"at most max_length, {settings.max_length}", ("length",))
    if "checks" in saved.arrays:
        _check_length(saved.arrays["checks"], kept, kept, "checks")
        if len(saved.ids.distinct()[0]) != len(words):
            raise Mismatch("one hash and check twice", "words that are all different", ("checks.npy",))
    elif len(np.unique(words)) != len(words):
        raise Mismatch("one hash twice", "hashes that are all different", ("hashes.npy",))


def _check_hashed(saved: SavedVectorizer) -> None:
    """Check that a vectorizer without vocabulary has no terms."""
    _check_length(saved.terms, 0, 0, "terms")


_CHECKS = {"ngram": _check_ngrams, "sequence": _check_sequences, "hashing": _check_hashed}


def _check_length(items: Any, least: int, most: int, name: str) -> None:
    if not least <= len(items) <= most:
        file = TERMS if name == "terms" else f"{name}.npy"
        many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        raise Mismatch(f"a list of {len(items):,}", f"{many} items", (file,))


def _pieces(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield the index of each piece's first item, and the piece with the first item of the next one."""
    for start in range(0, len(array), _PIECE):
        yield start, array[start : start + _PIECE + 1]


def _check_ascending(hashes: Array, checks: Array | None) -> None:
    """Check that hashes ascend; equal ones may follow each other where their checks ascend."""
    for start, piece in _pieces(hashes):
        wrong = piece[1:] < piece[:-1]
        equal = piece[1:] == piece[:-1]
        if checks is not None:
            of_piece = checks[start : start + len(piece)]
            equal &= of_piece[1:] <= of_piece[:-1]
        if (wrong | equal).any():
            place = start + 1 + int((wrong | equal).argmax())
            name, array = (
                ("checks", checks) if checks is not None and not wrong[place - start - 1] else ("hashes", hashes)
            )
            raise Mismatch(str(array[place]), f"more than the one before, {array[place - 1]}", (f"{name}.npy", place))


def _check_range(array: Array, least: int, most: int, name: str) -> None:
    for start, piece in _pieces(array):
        if int(piece.min()) < least or int(piece.max()) > most:
            place = start + int(((piece < least) | (piece > most)).argmax())
            raise Mismatch(str(array[place]), f"an integer from {least} to {most}", (f"{name}.npy", place))


def _check_columns(columns: Array, num_terms: int) -> None:
    """Check that each column belongs to one candidate; the values are in range."""
    times = np.zeros(num_terms, np.int64)
    for start in range(0, len(columns), _PIECE):
        piece = columns[start : start + _PIECE]
        times += np.bincount(piece[piece >= 0], minlength=num_terms)
    if (times != 1).any():
        column = int((times != 1).argmax())
        raise Mismatch(f"{column} {times[column]:,} times", "each column once", ("columns.npy",))
