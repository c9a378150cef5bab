"""Decide the splits of a build: find files that are named, and keep those of a build that an older version began.

Versions before test splits took test.csv of a folder for the validation split. What they began is finished so, because
its scratch files were made so; what is built anew keeps the test split apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shardtrain.corpus.folders import find_beside
from shardtrain.corpus.source import Corpus
from shardtrain.options import flag
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.workspace import folder_of
from shardtrain.runtime.jobs import Job
from shardtrain.runtime.progress import say
from shardtrain.shards.layout import Manifest


def with_found_splits(corpus: Sequence[Path], options: BuildOptions) -> BuildOptions:
    """Return the options with the files of splits that are named alone found in the corpus' folder.

    Raises:
        CorpusNotFoundError: such a file does not exist.
    """
    validation, test = (
        find_beside(corpus[0], Path(path), flag(name)) if path else None
        for name, path in (("validation", options.validation), ("test", options.test))
    )
    return replace(options, validation=validation, test=test)


def started_with_two_splits(out: Path, job: Job) -> bool:
    """Return whether a build that will be resumed was started by a version that knew no test split.

    For these versions test.csv of a folder was the validation split, and so it stays for what they have begun.
    """
    folder = folder_of(out)
    found = folder.recorded()
    return found is not None and "test" not in found.get("options", {}) and folder.difference(job) == ""


def opened_as_begun(corpus: Corpus, options: BuildOptions) -> Corpus:
    """Return the corpus of a build that began with two splits as it was opened then; a difference is reported."""
    begun = corpus.with_two_splits(named=options.validation is not None)
    if begun != corpus:
        held_out = Path(begun.validation.origin).name if begun.validation else "a fraction of the training documents"
        say(f"an earlier version began this build without a test split: the validation split is {held_out}, as it was")
    return begun


def validated_as_before(corpus: Corpus, before: Manifest, options: BuildOptions) -> Corpus:
    """Return a corpus to append with its test file as the validation split where that file validates the shards.

    Shards of versions that knew no test split were made so; the same rows in both splits would be reported as a test.
    """
    if corpus.test is None or options.test is not None:
        return corpus
    name = Path(corpus.test.origin).name
    parts = before.build.get("parts", ())
    validating = {part["validation"].get("name") for part in parts if isinstance(part.get("validation"), dict)}
    if name not in validating:
        return corpus
    say(f"{name} is the validation split, as in the shards that are appended to; --test {name} makes it a test split")
    return corpus.with_two_splits(named=options.validation is not None)
