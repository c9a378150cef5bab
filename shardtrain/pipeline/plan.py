"""What a build would do, without doing it: how the corpus is read, and what the build takes of memory and disk.

Every figure comes from the functions that the build itself asks; nothing is estimated a second time. The corpus is
scanned, as the first pass does, and nothing is written; of a .gz, which only its unpacked copy can be cut into units,
the size is measured, and the first two MiB are unpacked in the system's folder for temporary files for a moment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import ShardsExistError
from shardtrain.pipeline.build import RULE_RATIO, Units, disk_bytes, job_for, plan_source, settings_of, workers_for
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.workspace import WORKING, check_free, interrupted, room_of
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_MEMORY, Passes, task_budget
from shardtrain.shards import layout
from shardtrain.shards.manifest import read_manifest
from shardtrain.vectorize.fitted import Settings, load_vectorizer
from shardtrain.vectorize.hashed import HashedSettings
from shardtrain.vectorize.ngrams import NgramSettings
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.sequences import SequenceSettings


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How a split is read.

    Attributes:
        source: its name, format and columns, as a manifest has them.
        num_bytes: of text, unpacked.
        documents: records, good or bad, those that are held out among them; None for a .gz.
        units: pieces that are worked on at a time; None for a .gz.
    """

    source: dict[str, Any]
    num_bytes: int
    documents: int | None
    units: int | None


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        out: folder of the shards.
        notes: how the corpus would be read, a line each.
        train: the training split.
        validation: the validation split, or None where it is a fraction of the other.
        validation_fraction: of the training documents, where there is no file for them.
        vectorizer: what would be fitted or used, in words; of "auto" also how it would be chosen.
        passes: their titles, in order.
        resumes: whether an interrupted build of the same would be gone on with.
        workers: processes that do the work; 1: the build's own.
        memory_limit: bytes for all processes together.
        process_bytes: that a process takes before any work.
        unit_bytes: that a worker takes while it indexes a unit.
        task_bytes: that a worker may hold for the data of one task besides.
        disk_bytes: that scratch files and shards take, about.
        disk_room: bytes on the disk of `out` for that.
    """

    out: str
    notes: tuple[str, ...]
    train: SplitPlan
    validation: SplitPlan | None
    validation_fraction: float
    vectorizer: str
    passes: tuple[str, ...]
    resumes: bool
    workers: int
    memory_limit: int
    process_bytes: int
    unit_bytes: int
    task_bytes: int
    disk_bytes: int
    disk_room: int

    @property
    def enough_disk(self) -> bool:
        """Whether the build would start."""
        return self.disk_bytes <= self.disk_room

    def lines(self) -> list[str]:
        """The plan for people."""
        held_out = "none" if not self.validation_fraction else f"{self.validation_fraction:.0%} of the training split"
        if self.validation is not None:
            held_out = _told(self.validation)
        mib = 1 << 20
        verdict = "enough" if self.enough_disk else "not enough: free some, or choose an --out on another disk"
        return [
            *self.notes,
            f"training: {_told(self.train)}",
            f"validation: {held_out}",
            f"vectorizer: {self.vectorizer}",
            f"passes: {', '.join(self.passes)}",
            f"workers: {self.workers if self.workers > 1 else 'none, the process itself does the work'}",
            f"memory: {self.memory_limit // mib:,} MiB at the most; {self.process_bytes // mib} MiB a process, and a "
            f"worker {self.unit_bytes // mib} MiB to index a unit and {self.task_bytes // mib} MiB for a task's data",
            f"disk: about {self.disk_bytes / 1e9:,.2f} GB of scratch files and shards, there are "
            f"{self.disk_room / 1e9:,.2f} GB: {verdict}",
            f"{'would go on with the interrupted build in' if self.resumes else 'would write'} {self.out}; "
            "nothing was written",
        ]


def plan_build(corpus: Path | str, out: Path | str, options: BuildOptions) -> BuildPlan:
    """Find out what `build` with the same arguments would do; what would fail before its first pass fails here too.

    Raises:
        ShardsNotFoundError: there are no shards to add to.
        ShardsExistError: `out` holds something that must not be replaced, or another interrupted build.
        CorpusError: the corpus cannot be read.
        VectorizerError: a vectorizer that is to be reused is missing or damaged.
    """
    path, out = Path(corpus), Path(out)
    job = job_for(path, out, options)
    check_free(out, job, overwrite=options.overwrite, append=options.append)
    changed = interrupted(out, job)
    if changed and not options.overwrite:
        raise ShardsExistError(f"'{out}' holds an interrupted build that was another one: {changed}")
    before = read_manifest(out) if options.append else None
    source = out if before else options.vectorizer_from
    reused = load_vectorizer(source / layout.VECTORIZER) if source else None
    settings = [reused.settings] if reused else [settings_of(kind, options) for kind in _kinds(options)]
    density = reused.settings.density if reused else options.density
    seed = before.seed if before else options.seed
    with tempfile.TemporaryDirectory() as scratch:
        found = open_corpus(path, options.read, validation=options.validation, scratch=Path(scratch), preview=True)
        workers = workers_for(options, found.train.num_bytes)
        budget = task_budget(workers, options.memory_limit)
        passes = Passes(Serial(), Path(scratch), budget)
        scan = partial(
            plan_source, passes, seed=seed, threshold=0, density=density, workers=workers,
            memory_limit=options.memory_limit,
        )  # fmt: skip
        train = _split(found.train, partial(scan, title="scanning"))
        held_out = _split(found.validation, partial(scan, title="scanning validation")) if found.validation else None
    return BuildPlan(
        out=str(out),
        notes=found.notes,
        train=train,
        validation=held_out,
        validation_fraction=0.0 if held_out else options.validation_fraction,
        vectorizer=_vectorizer(options, source, settings),
        passes=_titles(found, options, None if len(settings) > 1 else settings[0], reused=reused is not None),
        resumes=changed == "",
        workers=workers,
        memory_limit=options.memory_limit,
        process_bytes=PROCESS_BYTES,
        unit_bytes=UNIT_MEMORY,
        task_bytes=budget,
        disk_bytes=max(disk_bytes(each, found) for each in settings),
        disk_room=room_of(out / WORKING),
    )


def _kinds(options: BuildOptions) -> tuple[str, ...]:
    """The vectorizers that may be fitted."""
    return ("ngram", "sequence") if options.vectorizer == "auto" else (options.vectorizer,)


def _split(source: Source, scan: Callable[[Source], Units]) -> SplitPlan:
    documents = units = None
    if source.format == "folder" or source.path == source.origin:  # not a .gz
        tasks = scan(source).tasks
        documents, units = sum(task.unit.num_documents for task in tasks), len(tasks)
    return SplitPlan(source=source.describe(), num_bytes=source.num_bytes, documents=documents, units=units)


def _vectorizer(options: BuildOptions, source: Path | None, settings: list[Settings]) -> str:
    if source is not None:
        return f"{_named(settings[0])}, the one of '{source}'"
    if len(settings) > 1:
        ngram, sequence = map(_named, settings)
        return (
            f"auto, by a survey of the documents: {ngram} if their number divided by their median words is below "
            f"{RULE_RATIO:,}, else {sequence}"
        )
    return _named(settings[0])


def _named(settings: Settings) -> str:
    if isinstance(settings, SequenceSettings):
        return f"sequences of at most {settings.max_length:,} of the {settings.max_features:,} most frequent words"
    ngrams = settings.ngrams if isinstance(settings, HashedSettings) else settings
    low, high = ngrams.ngram_range
    what = f"{low}- to {high}-grams of {'words' if ngrams.analyzer == 'word' else 'characters'}"
    if isinstance(settings, HashedSettings):
        return f"{settings.max_features:,} columns of hashed {what}"
    weighed = "counts" if settings.weighting == "count" else "tf-idf"
    return f"{weighed} of the best {settings.max_features:,} {what}, by {settings.select}"


def _titles(corpus: Corpus, options: BuildOptions, settings: Settings | None, *, reused: bool) -> tuple[str, ...]:
    """The passes in the order in which a build enters them; `settings` None where a survey decides on them."""
    held_out = corpus.validation is not None
    titles = ["scanning", *(["scanning validation", "surveying validation"] if held_out else [])]
    if settings is None:
        titles += ["surveying", "counting", "merging", "then those of the vectorizer that is chosen"]
    elif reused or isinstance(settings, HashedSettings):
        titles += ["surveying"]
    elif isinstance(settings, NgramSettings):
        by_counts = SELECTORS[settings.select].by_counts
        chosen = ["scoring", "naming", "weighing"] if by_counts else ["weighing", "scoring", "naming"]
        titles += ["counting", "merging", *chosen]
    else:
        titles += ["counting", "merging", "ranking", "measuring", "naming"]
    validated = held_out or options.threshold > 0
    titles += ["writing rows", *(["writing validation rows"] if validated else []), "placing train"]
    return (*titles, *(["placing validation"] if validated else []))


def _told(split: SplitPlan) -> str:
    name, text = split.source["name"], f"{split.num_bytes / 1e6:,.1f} MB of text"
    if split.documents is None:
        return f"{name}, {text} once it is unpacked, which a build does first"
    return f"{name}, {text}, {split.documents:,} documents in {split.units:,} unit{'s' * (split.units != 1)}"
