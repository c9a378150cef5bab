"""Record the corpus that shards were built from, and read the documents of single rows from it again.

build.json holds the record, not the manifest, which names no folder of a machine: shards are used without their corpus.
To show the text of a row takes the corpus' path, the options it was read with, and a check that it is unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.reading import Reading
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError
from shardtrain.options import subset
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.given import GivenCorpus
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.workspace import files_of
from shardtrain.runtime.progress import progress
from shardtrain.shards.layout import MEASURED, Manifest

_UNIT_BYTES = 1 << 20  # read to get one document

Origin = dict[str, Any]


def origin_of(
    corpus: GivenCorpus, options: BuildOptions, files: dict[str, list[Any]], *, two_splits: bool, remembered: Any
) -> Origin:
    """Return what it takes to open a corpus again, as JSON values.

    Args:
        corpus: its files.
        options: that it was read with.
        files: as `files_of` returns them.
        two_splits: whether a test file counts as the validation split, as in versions whose records lack `test`.
        remembered: description of the corpus that it was read like, if any.
    """
    test = {} if two_splits else {"test": str(Path(options.test).resolve()) if options.test else None}
    return {
        "paths": [] if corpus.name else [os.path.realpath(path) for path in corpus.paths],
        "validation": str(Path(options.validation).resolve()) if options.validation else None,
        **test,
        "read": asdict(subset(options, CorpusOptions)),
        "files": files,
        **({"remembered": remembered} if remembered else {}),
    }


def recorded_origins(folder: Path) -> list[Origin | None]:
    """Read the origin of each part of the shards in `folder` from build.json; None: unknown; []: none is recorded."""
    record = read_build_record(folder)
    return list(record.origins) if record else []


def origins_with(earlier: Path | None, manifest: Manifest, added: Origin | None) -> list[Origin | None]:
    """Return the origin of each part of `manifest`: those of the shards in `earlier`, then `added`."""
    before = recorded_origins(earlier) if earlier else []
    missing = len(manifest.build.get("parts", ())) - (added is not None)
    return [*[*before, *[None] * missing][:missing], *([added] if added else [])]


def open_again(origin: Origin, *, scratch: Path) -> Corpus:
    """Open the corpus of a part.

    Args:
        origin: from build.json.
        scratch: existing folder into which .gz files are unpacked.

    Raises:
        CorpusNotFoundError: the corpus no longer exists.
        CorpusFormatError: the corpus or build.json was changed.
    """
    if origin.get("paths") == []:
        raise CorpusNotFoundError("the shards were built from standard input or from rows of a program")
    try:
        corpus = [Path(each) for each in origin.get("paths") or (origin["path"],)]
        validation, test = (Path(origin[split]) if origin.get(split) else None for split in ("validation", "test"))
        paths = [*corpus, *(each for each in (validation, test) if each)]
        found = {name: value for each in paths for name, value in files_of(each).items()}
        expected = {str(name): list(identity) for name, identity in origin["files"].items()}
        texts = origin["read"]["text_columns"]
        read = CorpusOptions(**{**origin["read"], "text_columns": None if texts is None else tuple(texts)})
    except (
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # options that this version does not have, or not with this value
        raise CorpusFormatError(f"{MEASURED} does not record how the corpus was read ({error!r})") from error
    for name, identity in expected.items():
        if not Path(name).exists():
            raise CorpusNotFoundError(f"'{name}' no longer exists")
        if found.get(name) != identity:
            raise CorpusFormatError(f"'{name}' was changed after the shards were built")
    if found.keys() != expected.keys():
        raise CorpusFormatError(f"'{corpus[0]}' holds other files than when the shards were built")
    opened = open_corpus(
        corpus,
        read,
        validation=validation,
        test=test,
        scratch=scratch,
        remembered=Reading.of_record(origin.get("remembered")),
    )
    return opened if "test" in origin else opened.with_two_splits(named=validation is not None)


def read_documents(source: Source, ordinals: Iterable[int]) -> dict[int, str]:
    """Read the documents with these ordinals; the file is scanned once, and only the units that hold them are read.

    Raises:
        CorpusFormatError: the file was changed while it was read.
    """
    wanted = np.unique(np.fromiter(ordinals, np.int64))
    with progress(f"looking up documents in {Path(source.origin).name}", total=source.num_bytes, lasting=False) as done:
        units = plan_units(source, unit_bytes=_UNIT_BYTES, advance=done.add)
    texts = {}
    for unit in units:
        first, last = np.searchsorted(wanted, [unit.first_document, unit.first_document + unit.num_documents])
        if first == last:
            continue
        documents = read_unit(source, unit)
        for place in np.flatnonzero(np.isin(documents.ordinals, wanted[first:last])).tolist():
            texts[int(documents.ordinals[place])] = documents.texts[place]
    return texts
