"""Build shards from a corpus: read it, fit or reuse a vectorizer, write rows, place them in shards, publish.

Passes record finished work in the working folder (`workspace`), so the same command resumes a killed build, and the
result is identical in every byte.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.arrays.file_set import FileSet
from shardtrain.corpus.labels import Classes, differing_in_case
from shardtrain.corpus.readers import plan_units
from shardtrain.corpus.reading import Reading, recorded_source
from shardtrain.corpus.source import Corpus, Source, Unit
from shardtrain.errors import CorpusFormatError, LabelError, ShardsExistError, UsageError, VectorizerError
from shardtrain.loader.shards import open_shards
from shardtrain.options import identity, identity_defaults
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import count
from shardtrain.pipeline.crew import crew
from shardtrain.pipeline.facts import Totals, joined
from shardtrain.pipeline.given import CorpusLike, GivenCorpus, as_files
from shardtrain.pipeline.holdout import note_of
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.origin import origin_of
from shardtrain.pipeline.parts import (
    classes_of,
    extended_manifest,
    first_manifest,
    next_number,
    provenance,
    reading_of,
)
from shardtrain.pipeline.placing import place_split
from shardtrain.pipeline.rows import fit_rows, transform_rows
from shardtrain.pipeline.shards_job import FIRST_BUILD_OPTIONS, make_shards
from shardtrain.pipeline.spacing import spacing_note
from shardtrain.pipeline.splits import opened_as_begun, started_with_two_splits, validated_as_before, with_found_splits
from shardtrain.pipeline.text_warnings import warn_of_replaced_bytes
from shardtrain.pipeline.units import SplitSource, Units, keep_every_class, load_kernels, survey
from shardtrain.pipeline.workspace import Workspace, check_left, files_of, require_room
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import Job, file_job
from shardtrain.runtime.passes import (
    LONG_MEMORY,
    PROCESS_BYTES,
    UNIT_BYTES,
    Passes,
    Workers,
    affordable_workers,
)
from shardtrain.runtime.progress import progress, say, warn
from shardtrain.runtime.quantities import size
from shardtrain.shards import layout
from shardtrain.shards.layout import Manifest, SplitEntry
from shardtrain.shards.manifest import read_manifest, vectorizer_folder
from shardtrain.shards.packing import check_codec, codec_of
from shardtrain.vectorize.fitted import Vectorizer, copy_vectorizer, load_vectorizer, save_vectorizer
from shardtrain.vectorize.groups import files_together
from shardtrain.vectorize.indexing import idle_stop_words
from shardtrain.vectorize.settings import HashedSettings, SequenceSettings, Settings

PARALLEL_BYTES = 32 << 20  # smaller corpora are built before a second process has started
# Disk of all files of a build, measured on news, encyclopedia, reviews and messages of 1 to 40 MB: bytes per n-gram of
# a text (more where n-grams of a single document are candidates), and for sequences per byte of text.
NGRAM_DISK_BYTES, RARE_NGRAM_DISK_BYTES, SEQUENCE_DISK_RATIO = 20, 30, 6
# What groups of very many units add, as computed by tools/simulate_scale.py for news, and a reserve.
GROUPED_NGRAM_DISK_BYTES, GROUPED_SEQUENCE_DISK_RATIO = 18, 4
_MOST_SHOWN = 10  # labels in a warning
RULE_RATIO = 1500  # the guide: fewer samples per median word suggests n-grams


def build(corpus: CorpusLike, out: Path | str, options: BuildOptions | None = None, *, reuse: bool = False) -> Manifest:
    """Build shards in the folder `out` from a corpus, or append to them; return the manifest.

    Args:
        corpus: see `pipeline.given.as_files`.
        out: the folder.
        options: of the build.
        reuse: shards in `out` that the same build made of the same files are left as they are.

    Raises:
        ShardsNotFoundError: there are no shards to append to.
        ShardsExistError: `out` holds something that must not be replaced.
        CorpusError: the corpus cannot be read or no classifier can be trained on it.
        VectorizerError: a vectorizer that is to be reused is missing or damaged.
        DiskFullError: the disk has no room.
    """
    options = options or BuildOptions()
    out = options.placed(Path(out))
    with as_files(corpus, out, options) as given:
        placed = replace(given, paths=tuple(map(options.placed, given.paths)))
        return _build(placed, out, with_found_splits(placed.paths, options), reuse=reuse)


def _build(corpus: GivenCorpus, out: Path, options: BuildOptions, *, reuse: bool) -> Manifest:
    job = job_for(corpus, out, options)
    two_splits, remembered = started_with_two_splits(out, job), source_before(out, options)

    def make(space: Workspace) -> tuple[Manifest, Passes]:
        before = _before(out, job) if options.append else None
        inputs = _open_inputs(corpus, space, out, options, before, two_splits=two_splits, remembered=remembered)
        return _make(inputs, space)

    return make_shards(
        out,
        job,
        make,
        memory_limit=options.memory_limit,
        overwrite=options.overwrite,
        resume=options.resume,
        reuse=reuse,
        append=options.append,
        origin=origin_of(corpus, options, job.record["corpus"], two_splits=two_splits, remembered=remembered),
        earlier=out if options.append else None,
    )


def job_for(corpus: GivenCorpus, out: Path, options: BuildOptions) -> Job:
    """Return the job of a build: its options, with the identities of what they name, its files and the unit size.

    Raises:
        ShardsNotFoundError: there are no shards to append to.
        VectorizerError: the vectorizer to reuse is missing or damaged.
    """
    reused = options.vectorizer_from
    chosen = identity(
        options,
        append=f"to shards {read_manifest(out).fingerprint}" if options.append else None,
        vectorizer_from=load_vectorizer(vectorizer_folder(reused)).describe()["fingerprint"] if reused else None,
        max_features=options.num_features,
        stop_words=sorted(set(options.stop_words)),
    )
    named = [Path(path) for path in (options.validation, options.test) if path]
    files = {**corpus.identify(), **{name: found for path in named for name, found in files_of(path).items()}}
    program = f"units of {UNIT_BYTES} bytes"
    return file_job(chosen, files, program, defaults=identity_defaults(BuildOptions), digested=FIRST_BUILD_OPTIONS)


def _before(out: Path, job: Job) -> Manifest:
    """Read the manifest of the shards to append to; this process holds the lock of the output folder.

    Raises:
        ShardsError: a file of theirs is missing or has another size.
    """
    before = read_manifest(out)
    if job.record["options"]["append"] != f"to shards {before.fingerprint}":
        raise ShardsExistError(
            f"the shards in '{out}' were changed by another build in the meantime; run the command again"
        )
    folder = out / before.vectorizer_folder
    found = load_vectorizer(folder).describe()["fingerprint"]
    expected = before.vectorizer.get("fingerprint")
    if found != expected:
        raise VectorizerError(
            f"'{folder}' holds the vectorizer {found}, the shards were made with {expected}; restore "
            "the shards' own vectorizer from a copy, or rebuild the shards"
        )
    open_shards(out).close()  # so that a file that is missing is noticed now, and not when the addition is published
    return before


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a build works on.

    Attributes:
        corpus: opened.
        options: of the build.
        before: the manifest of the shards that are appended to, if any.
        folder: of the vectorizer that is reused or saved.
        reused: the vectorizer that is reused, if any.
    """

    corpus: Corpus
    options: BuildOptions
    before: Manifest | None
    folder: Path
    reused: Vectorizer | None

    @property
    def seed(self) -> int:
        return self.before.seed if self.before else self.options.seed

    @property
    def codec(self) -> str | None:
        if self.options.compress or not self.before:
            return self.options.compress
        return codec_of(self.before.splits["train"].shards[-1])


@dataclass(frozen=True)
class _OtherSplit:
    """A split of its own that is not trained on: its units, and what was counted in them."""

    units: Units
    totals: Totals


@dataclass(frozen=True)
class _TrainingRows:
    """The vectorized training split: row files, one per unit, and what was learned of the corpus on the way.

    `units` have the documents that stay in training for their classes.
    """

    files: FileSet
    totals: Totals
    classes: Classes
    vectorizer: Vectorizer
    units: Units


def _make(inputs: _Inputs, space: Workspace) -> tuple[Manifest, Passes]:
    """Make everything that is to be published, in the folder of a workspace."""
    options, before = inputs.options, inputs.before
    corpus, reused = inputs.corpus, inputs.reused
    local = partial(_workers, options, corpus.train.num_bytes)
    with crew(options, space.scratch, local, prepare=load_kernels) as (executor, workers):
        passes = Passes(
            executor,
            space.scratch,
            workers.task_budget(options.memory_limit),
            workers.sharing,
            details=titles.DETAILS,
        )
        check_left(space, passes)
        plan = partial(
            plan_source,
            passes,
            seed=inputs.seed,
            density=reused.settings.density if reused else options.density,
            workers=workers,
            memory_limit=options.memory_limit,
        )
        units = plan(corpus.train, threshold=0 if corpus.validation else options.threshold, title=titles.SCAN)
        others = {}
        for name, (scan, labels) in titles.OTHER_SPLITS.items():
            if name in corpus.sources:
                held_out = plan(corpus.sources[name], threshold=1 << 64, title=scan)
                # labels are checked before the long passes
                others[name] = _OtherSplit(held_out, survey(passes, held_out, labels).totals())
        settings = reused.settings if reused else _settings(passes, units, options)
        if not reused and (note := spacing_note(units, settings)):
            say(note)
        require_room(space, disk_bytes(settings, corpus))
        train = _vectorize_training(inputs, passes, units, settings, others)
        totals = joined([train.totals, *(other.totals for other in others.values())])
        if not corpus.validation and units.split.threshold:
            others = {"validation": _OtherSplit(train.units, train.totals), **others}
        files = {"train": train.files}
        for name, other in others.items():
            files[name] = transform_rows(passes, other.units, inputs.folder, train.classes.codes, split=name)
        splits = _place_splits(inputs, passes, files, train, space.ready)
    part = provenance(corpus, totals, options)
    if before:
        return extended_manifest(before, splits, part), passes
    return first_manifest(splits, train.classes, inputs.seed, train.vectorizer, space.ready, part), passes


def _open_inputs(
    given: GivenCorpus,
    space: Workspace,
    out: Path,
    options: BuildOptions,
    before: Manifest | None,
    *,
    two_splits: bool,
    remembered: Any,
) -> _Inputs:
    """Open the corpus, report how it is read, and load or copy the vectorizer that is reused.

    Args:
        given: the corpus.
        space: where the shards are made.
        out: the output folder.
        options: of the build.
        before: the manifest of the shards that are appended to.
        two_splits: see `started_with_two_splits`.
        remembered: see `source_before`.
    """
    corpus = given.open(
        reading_of(before, options),
        validation=None if options.validation is None else options.placed(Path(options.validation)),
        test=None if options.test is None else options.placed(Path(options.test)),
        scratch=space.scratch,
        remembered=Reading.of_record(remembered),
        memory_limit=options.memory_limit,
    )
    for note in corpus.notes:
        say(note)
    if two_splits:
        corpus = opened_as_begun(corpus, options)
    if before:
        corpus = validated_as_before(corpus, before, options)
    if corpus.train.label_doubt and not before:
        raise LabelError(corpus.train.label_doubt)
    folder = out / before.vectorizer_folder if before else space.ready / layout.VECTORIZER
    reused = load_vectorizer(folder) if before else None
    if options.vectorizer_from:
        reused = copy_vectorizer(vectorizer_folder(options.vectorizer_from), folder)
    inputs = _Inputs(corpus=corpus, options=options, before=before, folder=folder, reused=reused)
    if inputs.codec:
        check_codec(inputs.codec)
    return inputs


def source_before(out: Path, options: BuildOptions) -> Any:
    """Return the description of the corpus of the shards or the vectorizer that a build reuses; None: unknown."""
    reused = out if options.append else options.vectorizer_from
    if reused is None or not (reused / layout.MANIFEST).is_file():
        return None
    return recorded_source(read_manifest(reused).build)


def _vectorize_training(
    inputs: _Inputs, passes: Passes, units: Units, settings: Settings, others: Mapping[str, _OtherSplit]
) -> _TrainingRows:
    """Fit or reuse the vectorizer and write the rows of the training documents; `others` are the other splits."""

    def classes_in(totals: Totals) -> Classes:
        held_out = others["validation"].totals if "validation" in others else totals
        tested = others["test"].totals if "test" in others else Totals()
        counts = totals.train, held_out.held_out, tested.held_out
        return classes_of(*counts, inputs.corpus, inputs.options, inputs.before)

    def check(totals: Totals) -> Classes:
        _report_texts(joined([totals, *(other.totals for other in others.values())]), inputs.options.encoding)
        classes = classes_in(totals)
        if not inputs.before and (alike := differing_in_case(classes.codes)):
            shown = ", ".join(f"'{label}'" for label in alike[:_MOST_SHOWN])
            warn(f"labels that differ in capitals only are classes of their own: {shown}")
        return classes

    if inputs.reused or isinstance(settings, HashedSettings):  # there is nothing to count and to fit
        vectorizer = inputs.reused or save_vectorizer(inputs.folder, settings, {}, [], {})
        gathered = survey(passes, units, titles.LABELS)
        if inputs.before:  # an addition has the classes of the shards, whether it trains on them or not
            totals = gathered.totals()
        else:
            units, totals = keep_every_class(units, gathered)
        classes = check(totals)
        _report_kept(units)
        files = transform_rows(passes, units, inputs.folder, classes.codes, split="train")
        return _TrainingRows(files, totals, classes, vectorizer, units)
    counted = count(passes, units, settings, check=check)
    classes = classes_in(counted.totals)
    _report_kept(counted.units)
    vectorizer, files = fit_rows(passes, counted, classes.codes, inputs.folder)
    return _TrainingRows(files, counted.totals, classes, vectorizer, counted.units)


def _report_texts(totals: Totals, encoding: str | None) -> None:
    """Warn of undecodable bytes and of blank texts, and refuse a corpus without any good record.

    Raises:
        CorpusFormatError: all records are bad.
    """
    warn_of_replaced_bytes(totals.num_replaced, again="build again", encoding=encoding)
    if totals.num_bad_rows and not totals.num_documents:
        first, number = totals.bad_rows[0], totals.num_bad_rows
        raise CorpusFormatError(f"none of {number:,} records can be used; the first is {first.place}: {first.reason}")
    if totals.num_blank:
        texts_are = "text is" if totals.num_blank == 1 else "texts are"
        warn(
            f"{totals.num_blank:,} of {totals.num_documents:,} {texts_are} blank: nothing can be learned from them, "
            "but they count in training and in accuracy"
        )


def _report_kept(units: Units) -> None:
    if num_kept := sum(map(len, units.kept.values())):
        say(note_of(num_kept))


def _place_splits(
    inputs: _Inputs, passes: Passes, files: Mapping[str, FileSet], train: _TrainingRows, ready: Path
) -> dict[str, SplitEntry]:
    """Write the shards of each split from its row files; splits without rows are omitted."""
    splits = {
        name: place_split(
            passes,
            name,
            rows,
            train.vectorizer,
            len(train.classes.names),
            ready,
            first_number=next_number(inputs.before, name),
            rows_per_shard=inputs.options.rows_per_shard,
            codec=inputs.codec,
        )
        for name, rows in files.items()
    }
    if "validation" in splits and not splits["validation"].examples:
        say("no document fell into the validation fraction")
    if "test" in splits and not splits["test"].examples:
        say("the test file holds no valid document, so there is no test split")
    return {name: split for name, split in splits.items() if split.examples}


def disk_bytes(settings: Settings, corpus: Corpus) -> int:
    """Estimate the bytes of scratch files, including unpacked texts, and shards together."""
    sources = corpus.sources.values()
    unpacked = sum(source.staged_bytes for source in sources)
    grouped = sum(source.num_bytes for source in sources if _is_grouped(source.num_bytes, settings))
    plain = disk_ratio(settings) * sum(source.num_bytes for source in sources)
    return plain + grouped_disk_ratio(settings) * grouped + unpacked


def _is_grouped(num_bytes: int, settings: Settings) -> bool:
    return files_together(-(-num_bytes // unit_bytes(settings.density))) > 1


def grouped_disk_ratio(settings: Settings) -> int:
    """Estimate the bytes per byte of text that scratch files have in addition where units are put together."""
    if isinstance(settings, SequenceSettings):
        return GROUPED_SEQUENCE_DISK_RATIO
    if isinstance(settings, HashedSettings):  # of these only the rows
        return 1
    return math.ceil(GROUPED_NGRAM_DISK_BYTES * settings.per_byte)


def disk_ratio(settings: Settings) -> int:
    """Estimate the bytes of scratch files and shards per byte of text."""
    if isinstance(settings, SequenceSettings):
        return SEQUENCE_DISK_RATIO
    ngrams = settings.ngrams if isinstance(settings, HashedSettings) else settings
    of_ngram = RARE_NGRAM_DISK_BYTES if settings is ngrams and ngrams.min_df == 1 else NGRAM_DISK_BYTES
    return math.ceil(of_ngram * ngrams.per_byte)


def unit_bytes(density: int) -> int:
    """Return the bytes of a unit; texts with `density` times as many terms as usual have smaller ones."""
    return UNIT_BYTES // density


def plan_source(
    passes: Passes,
    source: Source,
    *,
    seed: int,
    threshold: int,
    density: int,
    workers: Workers,
    memory_limit: int,
    title: str,
) -> Units:
    """Cut a source into units, which reads all of it and writes nothing; where it is large, all workers read.

    Where one is too long to be indexed beside another, threads are given up for this process alone.

    Raises:
        UsageError: a document is too long to be indexed within the memory limit.
    """
    with passes.timed(title), progress(title, total=source.num_bytes, lasting=False) as shown:
        units = plan_units(source, unit_bytes=unit_bytes(density), advance=shown.add, executor=passes.executor)
    alone, lengths = Workers() if workers.sharing > 1 else workers, units.num_text_bytes
    if (too_long := np.flatnonzero(lengths > alone.longest_unit(memory_limit, density))).size:
        raise UsageError(_too_long(source, units[int(too_long[0])], memory_limit, density))
    if (lengths > workers.longest_unit(memory_limit, density)).any():
        passes.executor = Serial()
    return Units(SplitSource(source=source, seed=seed, threshold=threshold), units)


def _too_long(source: Source, unit: Unit, memory_limit: int, density: int) -> str:
    """Return the error for a unit that one document makes too long; with --workers 1 it gets the most memory."""
    needed = PROCESS_BYTES + unit.num_text_bytes * LONG_MEMORY * density
    more = f" and --memory-limit {-(-needed >> 20)}MiB" if needed > memory_limit else ""
    where = "" if source.folders else f", line {unit.first_line} or later"
    return (
        f"{source.origin}{where}: a document of about {size(unit.num_text_bytes)} is too long to be indexed "
        f"within {memory_limit >> 20} MiB; build with --workers 1{more}, or split it into several documents"
    )


def _workers(options: BuildOptions, num_bytes: int) -> Workers:
    allowed = affordable_workers(options.cores, options.memory_limit).number
    if allowed < (options.workers or 1):
        say(f"--memory-limit allows only {allowed} of {options.workers} workers")
    return workers_for(options, num_bytes)


def workers_for(options: BuildOptions, num_bytes: int) -> Workers:
    """Return the workers for a training split of `num_bytes`."""
    return Workers() if num_bytes < PARALLEL_BYTES else affordable_workers(options.cores, options.memory_limit)


def _settings(passes: Passes, units: Units, options: BuildOptions) -> Settings:
    """Return the vectorizer's settings; "auto" follows the guide's ratio of samples to median words per sample."""
    kind = options.vectorizer
    if kind == "auto":
        lengths = survey(passes, units, titles.LENGTHS, words=True).totals().words
        samples, middle = lengths.total(), _median(lengths)
        ratio = samples / max(middle, 1.0)
        kind = "ngram" if ratio < RULE_RATIO else "sequence"
        say(
            f"{samples:,} documents of {middle:g} words (median): ratio {ratio:,.0f}, "
            f"{'below' if kind == 'ngram' else 'not below'} {RULE_RATIO:,}, so --vectorizer {kind}"
        )
    settings = options.settings(kind)
    if isinstance(settings, SequenceSettings):
        return settings
    if idle := idle_stop_words(settings.ngrams if isinstance(settings, HashedSettings) else settings):
        say(f"{len(idle):,} stop words can match nothing: {', '.join(idle[:5])} (normalized texts never contain them)")
    return settings


def _median(lengths: Counter[int]) -> float:
    """Compute the median of a histogram; of an even number, the mean of the two in the middle."""
    values = np.array(sorted(lengths))
    ends = np.cumsum([lengths[value] for value in values]) if len(values) else np.zeros(1)
    total = int(ends[-1])
    if not total:
        return 0.0
    low, high = (values[np.searchsorted(ends, position, side="right")] for position in ((total - 1) // 2, total // 2))
    return float(low + high) / 2
