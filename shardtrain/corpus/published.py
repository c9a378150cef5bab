"""Describe the published sets: their names, sizes, classes, archives and checksums, from `published.toml`.

Recognizing a set only decides how backslashes in its text are read. The record that `fetch` writes into a folder is
trusted; a folder's name or class names count only where the number of classes agrees.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from shardtrain.runtime.schema import Fields, Integer, Text, read_if_sound

_FETCHED = Fields({"name": Text(), "bytes": Integer()}, others=True)
RECORD = ".fetched.json"  # in a folder that `fetch` made: the set it holds and the archive that it came from


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The archive (.tar.gz) in which a set is published.

    Attributes:
        url: address.
        num_bytes: size.
        checksum: `sha256:` or `md5:` and the digest in hexadecimal; empty if unknown.
        unpacked_bytes: approximate size of everything in it.
        also: checksums of other archives of the same set that are accepted as well.
        members: files to unpack, relative to the top folder of the archive; a star stands for part of a name.
    """

    url: str
    num_bytes: int
    checksum: str
    unpacked_bytes: int
    also: tuple[str, ...] = ()
    members: tuple[str, ...] = ("train.csv", "test.csv", "classes.txt", "readme.txt")

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A published set.

    Attributes:
        name: short name, and the default name of its folder.
        title: full name.
        num_classes: number of classes.
        num_train: rows of the training split.
        num_test: rows of the test split.
        unescape: whether its text spells newlines and quotes as backslash-n and backslash-quote.
        archive: the archive to download.
        licence: terms of use, in a few words.
        citation: papers to cite.
        folder_names: other common names of its folder.
        class_names: lines of its classes.txt; empty if it has none, or only numbers.
    """

    name: str
    title: str
    num_classes: int
    num_train: int
    num_test: int
    unescape: bool
    archive: Archive
    licence: str
    citation: str
    folder_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def _load() -> tuple[Dataset, ...]:
    table = tomllib.loads(resources.files(__package__).joinpath("published.toml").read_text("utf-8"))
    return tuple(_dataset(entry, table["papers"]) for entry in table["datasets"])


def _dataset(entry: Mapping[str, Any], papers: Mapping[str, str]) -> Dataset:
    values = _with_tuples(entry)
    archive = Archive(**_with_tuples(values.pop("archive")))
    return Dataset(archive=archive, citation=" ".join(papers[key] for key in values.pop("papers")), **values)


def _with_tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


DATASETS = _load()


def recognise(folder_name: str, class_names: Sequence[str] | None) -> Dataset | None:
    """Return the published set whose folder has this name (any case, with or without `_csv`) or these class names."""
    plain = folder_name.lower().replace("-", "_").removesuffix("_csv")
    for dataset in DATASETS:
        if class_names is not None and len(class_names) != dataset.num_classes:
            continue
        if plain in (dataset.name, *dataset.folder_names):
            return dataset
        if class_names is not None and dataset.class_names == tuple(class_names):
            return dataset
    return None


def recorded(folder: Path) -> Dataset | None:
    """Return the published set that `fetch` wrote to a folder, or None if `fetch` did not make the folder."""
    found = fetch_record(folder)
    return next((dataset for dataset in DATASETS if found and dataset.name == found["name"]), None)


def fetch_record(folder: Path) -> dict[str, Any] | None:
    """Return the record that `fetch` wrote to a folder; None if there is none, or it makes no sense."""
    found: dict[str, Any] | None = read_if_sound(folder / RECORD, _FETCHED)
    return found
