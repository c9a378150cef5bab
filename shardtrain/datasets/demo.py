"""Write a demo corpus of any size in English, from which a classifier learns well but not perfectly.

The texts look plausible and mean nothing (`language`). The same seed gives the same bytes on every machine. About 40
MB/s, one block of documents in memory at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shardtrain.datasets.draws import MAX_SEED
from shardtrain.datasets.language import Language
from shardtrain.errors import CorpusError, CorpusExistsError, UsageError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.storage import check_output_file, check_output_folder

MAX_CLASSES = 1_000
MAX_TEST_DOCUMENTS = 70_000  # the size of DBPedia's test split


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The corpus that was written; `num_bytes` counts train.csv and test.csv together."""

    num_train: int
    num_test: int
    num_bytes: int
    class_names: tuple[str, ...]


class Generator(Protocol):
    """What generates the rows of a corpus."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2 and so on, as the rows number them."""

    def write(self, documents: int, split: int) -> Iterator[tuple[bytes, int]]:
        """Yield the rows of split 0 (training) or 1 (test) in blocks, as (bytes, number of documents)."""


def write_demo(
    out: Path,
    *,
    documents: int = 20_000,
    classes: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda num_documents: None,
) -> Demo:
    """Write train.csv, test.csv and classes.txt in the layout of Zhang et al., sorted by class.

    Args:
        out: folder, created if missing.
        documents: rows of train.csv, at least one per class; test.csv has a tenth, at most `MAX_TEST_DOCUMENTS`.
        classes: 2 to `MAX_CLASSES`.
        seed: 0 to 2^64 - 1.
        overwrite: replace existing files.
        advance: called with the number of documents in each block written.

    Raises:
        UsageError: a number is out of range.
        CorpusExistsError: `out` has one of the files already, and `overwrite` is false.
        CorpusError: `out` cannot be written to.
    """
    if not 2 <= classes <= MAX_CLASSES:
        raise UsageError(f"--classes {classes:,}; expected 2 to {MAX_CLASSES:,}")
    if documents < classes:
        raise UsageError(f"--documents {documents:,} for {classes:,} classes; each class needs at least one")
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed {seed}; expected 0 to 2^64 - 1")
    return write_corpus(
        Path(out),
        lambda: Language(classes, seed),
        documents=documents,
        classes=classes,
        overwrite=overwrite,
        advance=advance,
    )


def write_corpus(
    out: Path,
    generator: Callable[[], Generator],
    *,
    documents: int,
    classes: int,
    overwrite: bool,
    advance: Callable[[int], None],
) -> Demo:
    """Write the files of a generated corpus; see `write_demo`. The generator is made when nothing is in the way."""
    num_test = min(MAX_TEST_DOCUMENTS, max(classes, documents // 10))
    train, test, names = (out / name for name in ("train.csv", "test.csv", "classes.txt"))
    check_output_folder(out, "--out", CorpusError)
    for path in (train, test, names):
        check_output_file(path, "--out")
        if path.exists() and not overwrite:
            raise CorpusExistsError(f"'{path}' exists already; choose another folder, or replace it with --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = generator()
        num_bytes = 0
        with contextlib.ExitStack() as files:  # committed at the end, train.csv last: it marks the folder as complete
            to_train, to_test, to_names = (files.enter_context(committed(path)) for path in (train, test, names))
            to_names.write("".join(f"{name}\n" for name in made.class_names).encode())
            for file, split, number in ((to_test, 1, num_test), (to_train, 0, documents)):
                for block, count in made.write(number, split):
                    num_bytes += file.write(block)
                    advance(count)
            train.unlink(missing_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise CorpusError(f"cannot write the demo to '{out}': {error.strerror}; choose another folder") from error
    return Demo(num_train=documents, num_test=num_test, num_bytes=num_bytes, class_names=made.class_names)
