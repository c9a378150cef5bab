"""Where the documents of shards came from, so that they can be looked up again; build.json keeps it, not the manifest.

The manifest names no folder of this machine, and shards are used without their corpus. Who wants to see the text behind
a row needs both: the place of the corpus, how it was read, and whether it is still what it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError
from shardtrain.options import subset
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.workspace import MEASURED, files_of
from shardtrain.runtime.progress import progress
from shardtrain.shards.layout import Manifest

_UNIT_BYTES = 1 << 20  # what is read for a document

Origin = dict[str, Any]


def origin_of(corpus: Path, options: BuildOptions, files: dict[str, list[Any]]) -> Origin:
    """What it takes to open a corpus again, as JSON values; `files` are what was read, as `files_of` has it."""
    return {
        "path": str(corpus.resolve()),
        "validation": str(options.validation.resolve()) if options.validation else None,
        "read": asdict(subset(options, CorpusOptions)),
        "files": files,
    }


def recorded_origins(folder: Path) -> list[Origin | None]:
    """Of each part of the shards in `folder` where it came from, as far as build.json knows; [] if it knows nothing."""
    try:
        origins = json.loads((folder / MEASURED).read_bytes()).get("origins", [])
    except (OSError, ValueError, AttributeError):
        return []
    return [each if isinstance(each, dict) else None for each in origins] if isinstance(origins, list) else []


def origins_with(earlier: Path | None, manifest: Manifest, added: Origin | None) -> list[Origin | None]:
    """Where each part of `manifest` came from: those of the shards in `earlier`, then `added`."""
    before = recorded_origins(earlier) if earlier else []
    missing = len(manifest.build.get("parts", ())) - (added is not None)
    return [*[*before, *[None] * missing][:missing], *([added] if added else [])]


def open_again(origin: Origin, *, scratch: Path) -> Corpus:
    """Open the corpus of a part.

    Args:
        origin: as build.json has it.
        scratch: existing folder into which .gz files are unpacked.

    Raises:
        CorpusNotFoundError: it is not there any more.
        CorpusFormatError: it was changed since, or build.json was.
    """
    try:
        path, other = Path(origin["path"]), origin["validation"]
        validation = Path(other) if other else None
        found = {**files_of(path), **(files_of(validation) if validation else {})}
        expected = {str(name): list(identity) for name, identity in origin["files"].items()}
        texts = origin["read"]["text_columns"]
        read = CorpusOptions(**{**origin["read"], "text_columns": None if texts is None else tuple(texts)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorpusFormatError(f"{MEASURED} does not say how the corpus was read ({error!r})") from error
    for name, identity in expected.items():
        if not Path(name).exists():
            raise CorpusNotFoundError(f"'{name}' is not there any more")
        if found.get(name) != identity:
            raise CorpusFormatError(f"'{name}' was changed after the shards were built")
    if found.keys() != expected.keys():
        raise CorpusFormatError(f"'{path}' holds other files than when the shards were built")
    return open_corpus(path, read, validation=validation, scratch=scratch)


def read_documents(source: Source, ordinals: Iterable[int]) -> dict[int, str]:
    """The texts of the documents with these ordinals, by ordinal; the file is scanned once, and few pieces are read.

    Raises:
        CorpusFormatError: the file was changed meanwhile.
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
