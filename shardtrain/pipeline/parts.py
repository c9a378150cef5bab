"""Describe the parts of a folder of shards, one per corpus that was built or appended, in its manifest.

The first part decides the classes, the seed and the vectorizer. Its raw labels are recorded, so that parts appended
later get the same class indices. The shards of a part follow those of the parts before it.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shardtrain.corpus.label_spelling import must_be_literal
from shardtrain.corpus.labels import (
    Classes,
    check_added_labels,
    check_first_label,
    check_put_together,
    check_test_labels,
    check_validation_labels,
    known_classes,
    resolve_classes,
)
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.source import Corpus
from shardtrain.errors import CorpusFormatError, ShardsError
from shardtrain.options import subset
from shardtrain.pipeline.facts import Totals
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.checksums import file_checksum
from shardtrain.shards import layout
from shardtrain.shards.layout import FileEntry, Manifest, SplitEntry
from shardtrain.shards.manifest import fingerprint_of
from shardtrain.vectorize.fitted import Vectorizer
from shardtrain.version import __version__


def classes_of(
    train_counts: Counter[str],
    held_out_counts: Counter[str],
    test_counts: Counter[str],
    corpus: Corpus,
    options: BuildOptions,
    before: Manifest | None,
) -> Classes:
    """Return the classes of a corpus, checked: those of its training labels, or of the shards it is appended to.

    Raises:
        LabelError: labels that no classifier can be trained on, or that the shards do not have.
        CorpusFormatError: there is no document to append.
        ShardsError: the shards do not record the labels they were built with.
    """
    if before is None:
        classes = resolve_classes(train_counts, class_names=corpus.class_names, labels=options.labels)
        check_first_label(train_counts + held_out_counts, corpus.train)
        check_put_together(train_counts + held_out_counts, corpus.train)
        if corpus.validation:
            check_validation_labels(held_out_counts, classes, corpus.validation.origin)
        if corpus.test:
            check_test_labels(test_counts, classes, Path(corpus.test.origin).name)
        return classes
    classes = known_classes(before.class_names, _recorded_labels(before))
    check_added_labels(train_counts + held_out_counts + test_counts, classes)
    if not train_counts and not held_out_counts and not test_counts:
        raise CorpusFormatError(
            f"'{Path(corpus.train.origin).name}' holds no valid document, so there is nothing to append"
        )
    return classes


def reading_of(before: Manifest | None, options: BuildOptions) -> CorpusOptions:
    """Return how a corpus is read: labels literally if those of the shards that it is appended to need it."""
    read = subset(options, CorpusOptions)
    return replace(read, labels="names") if before and must_be_literal(_recorded_labels(before)) else read


def _recorded_labels(before: Manifest) -> dict[str, int]:
    labels: dict[str, int] | None = before.build.get("labels")
    if labels is None:
        raise ShardsError(
            "the shards do not record the labels they were built with, so nothing can be appended; rebuild them "
            "with this version of shardtrain"
        )
    return labels


def next_number(before: Manifest | None, split: str) -> int:
    """Return the number for the name of a split's next shard: one more than the highest in use."""
    entry = before.splits.get(split) if before else None
    found = (re.fullmatch(rf"{split}-([0-9]+)\.h5", shard.file) for shard in (entry.shards if entry else ()))
    return max((int(match[1]) + 1 for match in found if match), default=0)


def first_manifest(
    splits: dict[str, SplitEntry],
    classes: Classes,
    seed: int,
    vectorizer: Vectorizer,
    ready: Path,
    part: dict[str, Any],
) -> Manifest:
    """Make the manifest of new shards, whose vectorizer is in `ready`; `part` is the provenance of their corpus."""
    return Manifest(
        kind=vectorizer.kind,
        num_features=vectorizer.num_features,
        vocabulary_size=vectorizer.vocabulary_size,
        class_names=classes.names,
        seed=seed,
        fingerprint=fingerprint_of(splits, {}),
        splits=splits,
        files={
            f"{layout.VECTORIZER}/{file.name}": FileEntry(bytes=file.stat().st_size, checksum=file_checksum(file))
            for file in sorted((ready / layout.VECTORIZER).iterdir())
        },
        vectorizer=vectorizer.describe(),
        build={"labels": classes.codes, "parts": [{**part, "shards": _ranges({}, splits)}]},
    )


def extended_manifest(before: Manifest, added: dict[str, SplitEntry], part: dict[str, Any]) -> Manifest:
    """Make the manifest of shards to which the shards of `part` are appended."""
    splits = {
        name: _joined(before.splits.get(name), added.get(name))
        for name in layout.SPLITS
        if name in before.splits or name in added
    }
    part = {**part, "shards": _ranges(before.splits, added)}
    build = {**before.build, "parts": [*before.build.get("parts", ()), part]}
    return replace(before, fingerprint=fingerprint_of(splits, before.sources), splits=splits, build=build)


def _joined(first: SplitEntry | None, second: SplitEntry | None) -> SplitEntry:
    if first is None or second is None:
        joined = first or second
        assert joined is not None
        return joined
    return SplitEntry(
        examples=first.examples + second.examples,
        nonzeros=first.nonzeros + second.nonzeros,
        class_counts=tuple(a + b for a, b in zip(first.class_counts, second.class_counts, strict=True)),
        shards=(*first.shards, *second.shards),
    )


def _ranges(before: Mapping[str, SplitEntry], added: Mapping[str, SplitEntry]) -> dict[str, list[int]]:
    """Return the range [start, stop) of the new shards in each split's list of shards."""
    starts = {name: len(before[name].shards) if name in before else 0 for name in added}
    return {name: [starts[name], starts[name] + len(split.shards)] for name, split in added.items()}


def _in_corpus(path: str, corpus: Corpus) -> str:
    """Return a file's path in its corpus: without local folders, which differ from one way to run a job to another."""
    for source in corpus.sources.values():
        if path in {file.origin for file in source.files} or Path(path).is_relative_to(source.origin):
            with contextlib.suppress(ValueError):  # of several files of one split, one may be in another folder
                return str(Path(path).relative_to(Path(source.origin).parent))
    return Path(path).name


def provenance(corpus: Corpus, totals: Totals, options: BuildOptions) -> dict[str, Any]:
    """Return the provenance of a part, for people to read, without its shards."""
    return {
        "shardtrain": __version__,
        "vectorizer": "reused" if options.reuses else "fitted",
        "train": corpus.train.describe(),
        "validation": corpus.validation.describe() if corpus.validation else None,
        **({"test": corpus.test.describe()} if corpus.test else {}),
        "documents": totals.num_documents,
        "corpus_bytes": sum(source.num_bytes for source in corpus.sources.values()),
        "rejected_rows": totals.num_bad_rows,
        "rejected": [{**asdict(row), "path": _in_corpus(row.path, corpus)} for row in totals.bad_rows],
        "replaced_bytes": totals.num_replaced,
        "validation_fraction": 0.0 if corpus.validation else options.validation_fraction,
    }
