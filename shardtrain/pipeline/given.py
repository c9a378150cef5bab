"""Accept a corpus that is no file: standard input, or rows that a Python program gives.

Both can be read only once, while a build reads its documents several times and in any order. So they are first written
to a folder beside the output, which is removed at the end, also of a build that fails; what a killed process left there
is removed by the next one. The build is identified by their content: the same rows resume it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardtrain.corpus.folders import corpus_paths
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import STANDARD, TextOptions
from shardtrain.corpus.rows import NAME, is_table, write_rows
from shardtrain.corpus.source import Corpus
from shardtrain.errors import CorpusError
from shardtrain.pipeline.workspace import files_of
from shardtrain.runtime.atomic import GIVEN_PREFIX, committed, final_name, make_folder
from shardtrain.runtime.checksums import file_checksum
from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.leases import HeldError
from shardtrain.runtime.locks import locked_folder
from shardtrain.runtime.terminal import standard_input

_NAMES = {"standard-input": "standard input", "rows": NAME}  # of the files in them, and what messages call them

CorpusLike = Path | str | Sequence[Path | str] | Iterable[Any]


@dataclass(frozen=True, kw_only=True)
class GivenCorpus:
    """A corpus as files.

    Attributes:
        paths: its files, or its folder.
        name: what messages call it where it is not the user's file; None: by its path.
    """

    paths: tuple[Path, ...]
    name: str | None = None

    def open(self, options: TextOptions, **how: Any) -> Corpus:
        """Open it; `how` are other arguments of `open_corpus`."""
        if self.name is None:
            return open_corpus(self.paths, options, **how)
        try:
            corpus = open_corpus(self.paths, options, rows=self.name == NAME, **how)
        except CorpusError as error:
            message = error.on_command_line.replace(f"'{self.paths[0]}'", self.name)
            raise type(error)(message.replace(str(self.paths[0]), self.name)) from error
        notes = tuple(note.replace(self.paths[0].name, self.name, 1) for note in corpus.notes)
        return replace(corpus, train=corpus.train.named(self.name), notes=notes)

    def identify(self) -> dict[str, list[Any]]:
        """Identify its files: by size, time and ends, and what was written to a folder by its content."""
        if self.name is not None:
            return {self.name: identify_content(self.paths[0])}
        return {name: found for path in self.paths for name, found in files_of(path).items()}


@contextlib.contextmanager
def as_files(corpus: CorpusLike, beside: Path, options: TextOptions) -> Iterator[GivenCorpus]:
    """Yield a corpus as files, for as long as the block runs.

    Args:
        corpus: one or several paths, patterns, "-" for standard input, a table, or an iterable of rows.
        beside: where a file is written, next to it.
        options: columns of rows that the user chose.

    Raises:
        CorpusError: a pattern matches nothing, or a row has no label and text.
        DiskFullError: the disk has no room.
    """
    if (given := given_files(corpus)) is not None:
        yield given
        return
    standard = isinstance(corpus, str)
    place = beside.absolute().parent
    make_folder(place)  # as the build does, so that the next one finds what is left here
    _remove_left(place)
    folder = Path(tempfile.mkdtemp(prefix=GIVEN_PREFIX, dir=place))
    try:
        with locked_folder(folder):
            path = folder / ("standard-input" if standard else "rows")
            if standard:
                copy_standard_input(path)
            else:
                write_rows(corpus, path, options)  # type: ignore[arg-type]
            yield GivenCorpus(paths=(path,), name=_NAMES[path.name])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def given_files(corpus: CorpusLike) -> GivenCorpus | None:
    """Return a corpus that is in files already; None for standard input and for rows, which exist once.

    Raises:
        CorpusError: a pattern matches nothing.
    """
    if not _are_paths(corpus) or corpus == STANDARD:
        return None
    return GivenCorpus(paths=corpus_paths(corpus))  # type: ignore[arg-type]


def copy_standard_input(path: Path) -> None:
    """Copy standard input to a file, because units are read at several offsets at a time."""
    with committed(path, synced=False) as file:
        shutil.copyfileobj(standard_input().buffer, file, 1 << 20)


def identify_content(path: Path) -> list[Any]:
    """Identify a file that each call writes anew, so that its modification time means nothing: by size and content."""
    return [path.stat().st_size, file_checksum(path)]


def _are_paths(corpus: Any) -> bool:
    if isinstance(corpus, str | Path):
        return True
    return (
        not is_table(corpus) and isinstance(corpus, Sequence) and all(isinstance(each, str | Path) for each in corpus)
    )


def _remove_left(place: Path) -> None:
    """Remove the folders of processes that were killed: ours, with nothing in them but what is written there."""
    for folder in place.glob(f"{GIVEN_PREFIX}*"):
        if stat.S_ISDIR((found := folder.lstat()).st_mode) and found.st_uid == os.geteuid():
            with contextlib.suppress(OSError, HeldError), locked_folder(folder, patient=False):
                names = (path.name for path in folder.iterdir() if not is_lock(path.name))
                if all((final_name(name) or name) in _NAMES for name in names):
                    shutil.rmtree(folder, ignore_errors=True)
