"""Plan a build without running it: how the corpus is read, and how much memory and disk the build takes.

Every figure comes from the functions that the build itself calls. The corpus is scanned as in the first pass, and
nothing is written. A .gz file can be cut into units only when it is unpacked, so its size is measured, and its first
two MiB are unpacked in the system's temporary folder for detecting its format.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shardtrain.corpus.reading import Reading
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import LabelError, ShardsExistError
from shardtrain.pipeline import titles
from shardtrain.pipeline.build import RULE_RATIO, disk_bytes, job_for, plan_source, source_before, workers_for
from shardtrain.pipeline.given import CorpusLike, GivenCorpus, as_files
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.spacing import spacing_note
from shardtrain.pipeline.splits import opened_as_begun, started_with_two_splits, with_found_splits
from shardtrain.pipeline.units import Units
from shardtrain.pipeline.workspace import check_free, folder_of, room_of
from shardtrain.runtime.engines.names import PROCESSES
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import Job
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_MEMORY, Passes, Workers
from shardtrain.runtime.quantities import size
from shardtrain.shards import layout
from shardtrain.shards.manifest import read_manifest, vectorizer_folder
from shardtrain.vectorize.fitted import load_vectorizer
from shardtrain.vectorize.groups import files_together
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.settings import MAX_COLUMNS, HashedSettings, NgramSettings, SequenceSettings, Settings

_SCANS = {"train": titles.SCAN, **{name: scan for name, (scan, _) in titles.OTHER_SPLITS.items()}}


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How a split is read.

    Attributes:
        source: its name, format and columns, as in a manifest.
        num_bytes: of text, unpacked.
        documents: records, valid or not, including those held out; None for a .gz.
        units: pieces that workers process; None for a .gz.
    """

    source: dict[str, Any]
    num_bytes: int
    documents: int | None
    units: int | None


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The plan of a build.

    Attributes:
        out: folder of the shards.
        notes: lines that report how the corpus would be read, and texts without spaces between words.
        train: the training split.
        validation: the validation split, or None where it is a fraction of the training split.
        validation_fraction: of the training documents, where there is no validation file.
        test: the test split, or None.
        vectorizer: what would be fitted or reused, in words; for "auto" also how it would be chosen.
        passes: their titles, in order.
        resumes: whether an interrupted build would be resumed.
        executor: who would work; of another than "processes" the other figures are of one worker.
        workers: tasks that would run at once; 1: in the build's own process.
        processes: of the build, its own included; 1 with several workers: these are threads.
        memory_limit: bytes for all processes together.
        process_bytes: base memory of a process.
        unit_bytes: memory of a worker while it indexes a unit.
        task_bytes: memory budget of a worker for the data of one task.
        disk_bytes: estimated size of scratch files and shards.
        disk_room: bytes available on the disk of `out`.
        refused: why the build would be refused although everything else is right: `out` holds shards; else empty.
    """

    out: str
    notes: tuple[str, ...]
    train: SplitPlan
    validation: SplitPlan | None
    validation_fraction: float
    test: SplitPlan | None
    vectorizer: str
    passes: tuple[str, ...]
    resumes: bool
    executor: str
    workers: int
    processes: int
    memory_limit: int
    process_bytes: int
    unit_bytes: int
    task_bytes: int
    disk_bytes: int
    disk_room: int
    refused: str = ""

    @property
    def enough_disk(self) -> bool:
        """Whether the build would start."""
        return self.disk_bytes <= self.disk_room

    @property
    def _workers(self) -> str:
        if self.executor != PROCESSES:
            return f"those of {self.executor}, which a plan does not ask; the memory is that of each"
        if self.workers == 1:
            return "none, the build runs in one process"
        return f"{self.workers} {'threads' if self.processes == 1 else 'processes'}"

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        held_out = "none" if not self.validation_fraction else f"{self.validation_fraction:.0%} of the training split"
        if self.validation is not None:
            held_out = _in_words(self.validation)
        mib = 1 << 20
        writes = f"{'would resume the interrupted build in' if self.resumes else 'would write'} {self.out}"
        verdict = "enough" if self.enough_disk else "not enough: free some, or choose an --out on another disk"
        return [
            *self.notes,
            f"training: {_in_words(self.train)}",
            f"validation: {held_out}",
            *([f"test: {_in_words(self.test)}"] if self.test else ()),
            f"vectorizer: {self.vectorizer}",
            f"passes: {', '.join(self.passes)}",
            f"workers: {self._workers}",
            f"memory: at most {self.memory_limit // mib:,} MiB; {self.process_bytes // mib} MiB per process, "
            f"{self.unit_bytes // mib} MiB{' per worker' if self.workers > 1 else ''} to index a unit and "
            f"{self.task_bytes // mib} MiB for task data",
            f"disk: about {size(self.disk_bytes)} of scratch files and shards, "
            f"{size(self.disk_room)} are free: {verdict}",
            f"{f'would be refused: {self.refused}' if self.refused else writes}; nothing was written",
        ]


def plan_build(corpus: CorpusLike, out: Path | str, options: BuildOptions) -> BuildPlan:
    """Plan what `build` with the same arguments would do; errors before its first pass are raised here too.

    Raises:
        ShardsNotFoundError: there are no shards to append to.
        ShardsExistError: `out` holds something other than shards, or another interrupted build.
        CorpusError: the corpus cannot be read.
        VectorizerError: a vectorizer that is to be reused is missing or damaged.
    """
    out = Path(out)
    with as_files(corpus, out, options) as given:
        return _plan(given, out, with_found_splits(given.paths, options))


def _plan(corpus: GivenCorpus, out: Path, options: BuildOptions) -> BuildPlan:
    job = job_for(corpus, out, options)
    refused = _refused(out, job, options)
    changed = folder_of(out).difference(job)
    if changed and not options.overwrite:
        raise ShardsExistError(folder_of(out).refusal(job, changed))
    before = read_manifest(out) if options.append else None
    source = out if before else options.vectorizer_from
    reused = load_vectorizer(vectorizer_folder(source)) if source else None
    settings = [reused.settings] if reused else [options.settings(kind) for kind in options.candidates]
    density = reused.settings.density if reused else options.density
    seed = before.seed if before else options.seed
    with tempfile.TemporaryDirectory() as scratch:
        found = corpus.open(
            options,
            validation=options.validation,
            test=options.test,
            scratch=Path(scratch),
            preview=True,
            remembered=Reading.of_record(source_before(out, options)),
            memory_limit=options.memory_limit,
        )
        if started_with_two_splits(out, job):
            found = opened_as_begun(found, options)
        if found.train.label_doubt and not before:
            raise LabelError(found.train.label_doubt)
        workers = workers_for(options, found.train.num_bytes) if options.executor_name.local else Workers()
        budget = workers.task_budget(options.memory_limit)
        passes = Passes(Serial(), Path(scratch), budget)
        scan = partial(
            plan_source,
            passes,
            seed=seed,
            threshold=0,
            density=density,
            workers=workers,
            memory_limit=options.memory_limit,
        )
        units = {name: _units(each, partial(scan, title=_SCANS[name])) for name, each in found.sources.items()}
        splits = {name: _split(each, units[name]) for name, each in found.sources.items()}
        note = None if reused or units["train"] is None else spacing_note(units["train"], settings[0])
    return BuildPlan(
        out=str(out),
        notes=(*found.notes, *([note] if note else ())),
        train=splits["train"],
        validation=splits.get("validation"),
        validation_fraction=0.0 if found.validation else options.validation_fraction,
        test=splits.get("test"),
        vectorizer=_vectorizer(options, source, settings),
        passes=_titles(found, options, None if len(settings) > 1 else settings[0], units, reused=reused is not None),
        resumes=changed == "",
        executor=options.executor,
        workers=workers.number,
        processes=workers.processes,
        memory_limit=options.memory_limit,
        process_bytes=PROCESS_BYTES,
        unit_bytes=UNIT_MEMORY,
        task_bytes=budget,
        disk_bytes=max(disk_bytes(each, found) for each in settings),
        disk_room=room_of(out / layout.WORKING),
        refused=refused,
    )


def _refused(out: Path, job: Job, options: BuildOptions) -> str:
    """Return why the shards in `out` would not be replaced; empty where there are none, or they may be."""
    try:
        check_free(out, job, overwrite=options.overwrite, append=options.append)
    except ShardsExistError as error:
        if (out / layout.MANIFEST).exists():
            return error.on_command_line
        raise
    return ""


def _units(source: Source, scan: Callable[[Source], Units]) -> Units | None:
    """Return the units of a source, or None where a copy would have to be made first."""
    return None if source.staged_bytes else scan(source)


def _split(source: Source, units: Units | None) -> SplitPlan:
    return SplitPlan(
        source=source.describe(),
        num_bytes=source.num_bytes,
        documents=None if units is None else int(units.table.num_documents.sum()),
        units=None if units is None else len(units),
    )


def _vectorizer(options: BuildOptions, source: Path | None, settings: list[Settings]) -> str:
    if source is not None:
        return f"{_named(settings[0])}, reused from '{source}'"
    if len(settings) > 1:
        ngram, sequence = map(_named, settings)
        return (
            f"auto, by a survey of the documents: {ngram} if their number divided by their median words is below "
            f"{RULE_RATIO:,}, else {sequence}"
        )
    return _named(settings[0])


def _named(settings: Settings) -> str:
    if isinstance(settings, SequenceSettings):
        words = "words" if settings.max_features == MAX_COLUMNS else f"{settings.max_features:,} most frequent words"
        return f"sequences of at most {settings.max_length:,} of the {words}"
    ngrams = settings.ngrams if isinstance(settings, HashedSettings) else settings
    low, high = ngrams.ngram_range
    what = f"{low}- to {high}-grams of {'words' if ngrams.analyzer == 'word' else 'characters'}"
    if isinstance(settings, HashedSettings):
        return f"{settings.max_features:,} columns of hashed {what}"
    weighed = "counts" if settings.weighting == "count" else "tf-idf"
    if settings.max_features == MAX_COLUMNS:
        return f"{weighed} of all {what}"
    return f"{weighed} of the best {settings.max_features:,} {what}, by {settings.select}"


def _titles(
    corpus: Corpus, options: BuildOptions, settings: Settings | None, units: Mapping[str, Units | None], *, reused: bool
) -> tuple[str, ...]:
    """Return the titles of a build's passes in order; `settings` is None where a survey chooses them."""
    others = [passes for name, passes in titles.OTHER_SPLITS.items() if name in corpus.sources]
    found = [titles.SCAN, *(title for passes in others for title in passes)]
    if settings is None:
        found += [titles.LENGTHS, "then those of the vectorizer that is chosen"]
    elif reused or isinstance(settings, HashedSettings):
        found += [titles.LABELS]
    else:
        found += counting_titles(settings, many=_are_many(units["train"]))
    made = {"train": True, "validation": bool(corpus.validation) or options.threshold > 0, "test": bool(corpus.test)}
    splits = [name for name, exists in made.items() if exists]
    found += [titles.VECTORIZE_SPLIT[name] for name in splits]
    for name in splits:
        found += [titles.GROUP_ROWS] * _are_many(units.get(name, units["train"]))
        found += [titles.plan_shards(name), titles.write_shards(name)]
    return tuple(dict.fromkeys(found))


def _are_many(units: Units | None) -> bool:
    """Return whether the files of units are put together; of texts that would have to be unpacked nobody knows."""
    return units is not None and files_together(len(units)) > 1


def counting_titles(settings: NgramSettings | SequenceSettings, *, many: bool) -> list[str]:
    """Return the titles of the passes that count terms and choose features; `many`: there are very many units."""
    group, values = [titles.GROUP] * many, [titles.GROUP_VALUES] * many
    if isinstance(settings, SequenceSettings):
        return [titles.COUNT_WORDS, *group, titles.MERGE, titles.SELECT, titles.LONGEST, titles.NAMES]
    select = [*values, titles.SELECT, titles.CHOOSE, titles.NAMES]
    by_counts = SELECTORS[settings.select].by_counts
    return [titles.COUNT, *group, titles.MERGE, *([*select, titles.NORMS] if by_counts else [titles.NORMS, *select])]


def _in_words(split: SplitPlan) -> str:
    name, text = split.source["name"], f"{size(split.num_bytes)} of text"
    if split.documents is None:
        return f"{name}, {text} when unpacked, which a build does first"
    return f"{name}, {text}, {split.documents:,} documents in {split.units:,} unit{'s' * (split.units != 1)}"
