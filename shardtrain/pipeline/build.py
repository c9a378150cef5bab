"""One build from start to end: read the corpus, fit or reuse a vectorizer, write rows, place them, publish.

Passes record what they finish in the working folder (`workspace`), so the same command goes on where a killed one
stopped, and its result is the same in every byte.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.corpus.labels import Classes
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.readers import plan_units
from shardtrain.corpus.source import Corpus, Source, Unit
from shardtrain.errors import ShardsExistError, UsageError, VectorizerError
from shardtrain.pipeline.fitting import count
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.origin import origin_of
from shardtrain.pipeline.parts import classes_of, first_manifest, longer_manifest, next_number, provenance
from shardtrain.pipeline.placing import place_split
from shardtrain.pipeline.rows import fit_rows, transform_rows
from shardtrain.pipeline.running import run_job
from shardtrain.pipeline.units import UnitFacts, UnitTask, survey, warm_up
from shardtrain.pipeline.workspace import Workspace, identify, require_room
from shardtrain.runtime.executors import Executor, Processes, Serial
from shardtrain.runtime.passes import (
    LONG_MEMORY,
    PROCESS_BYTES,
    UNIT_BYTES,
    Passes,
    affordable_workers,
    longest_unit,
    task_budget,
)
from shardtrain.runtime.progress import progress, say, warn
from shardtrain.shards import layout
from shardtrain.shards.layout import Manifest
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.packing import check_codec, codec_of
from shardtrain.vectorize.fitted import Settings, copy_vectorizer, load_vectorizer, save_vectorizer
from shardtrain.vectorize.hashed import HashedSettings
from shardtrain.vectorize.sequences import SequenceSettings

PARALLEL_BYTES = 32 << 20  # smaller corpora are done before a second process has started
# Disk of all files of a build together, measured on news, encyclopedia, reviews and messages of 1 to 40 MB: what an
# n-gram in a text takes (more where those of one document are candidates), and for sequences each byte of text.
NGRAM_DISK_BYTES, RARE_NGRAM_DISK_BYTES, SEQUENCE_DISK_RATIO = 20, 30, 6
RULE_RATIO = 1500  # the guide: fewer samples per median word suggests n-grams


def build(corpus: Path | str, out: Path | str, options: BuildOptions | None = None) -> Manifest:
    """Make shards in the folder `out` from a corpus (a file or a folder), or add to those; returns the manifest.

    Raises:
        ShardsNotFoundError: there are no shards to add to.
        ShardsExistError: `out` holds something that must not be replaced.
        CorpusError: the corpus cannot be read or no classifier can be trained on it.
        VectorizerError: a vectorizer that is to be reused is missing or damaged.
        DiskFullError: the disk has no room.
    """
    options = options or BuildOptions()
    corpus, out = Path(corpus), Path(out)
    job = job_for(corpus, out, options)
    how = {"overwrite": options.overwrite, "resume": options.resume, "append": options.append}
    origin = origin_of(corpus, options, job["corpus"])

    def make(space: Workspace) -> tuple[Manifest, Passes]:
        return _make(corpus, space, out, options, _before(out, job) if options.append else None)

    earlier = out if options.append else None
    return run_job(out, job, make, memory_limit=options.memory_limit, **how, origin=origin, earlier=earlier)


def job_for(corpus: Path, out: Path, options: BuildOptions) -> dict[str, Any]:
    """What decides the result of a build; see `identify`.

    Raises:
        ShardsNotFoundError: there are no shards to add to.
        VectorizerError: there is no vectorizer to use.
    """
    return identify(corpus, options, unit_bytes=UNIT_BYTES, reused=_reused(out, options))


def _reused(out: Path, options: BuildOptions) -> dict[str, str]:
    """Identities of what is reused, as `identify` takes them.

    Raises:
        ShardsNotFoundError: there are no shards to add to.
        VectorizerError: there is no vectorizer to use.
    """
    if options.append:
        return {"append": f"to shards {read_manifest(out).fingerprint}"}
    if options.vectorizer_from:
        return {
            "vectorizer-from": load_vectorizer(options.vectorizer_from / layout.VECTORIZER).describe()["fingerprint"]
        }
    return {}


def _before(out: Path, job: dict[str, Any]) -> Manifest:
    """The manifest of the shards that are added to, while the output folder is this process's alone."""
    before = read_manifest(out)
    if job["options"]["append"] != f"to shards {before.fingerprint}":
        raise ShardsExistError(f"the shards in '{out}' were changed by another build just now; run the command again")
    found = load_vectorizer(out / layout.VECTORIZER).describe()["fingerprint"]
    expected = before.vectorizer.get("fingerprint")
    if found != expected:
        raise VectorizerError(
            f"'{out / layout.VECTORIZER}' holds the vectorizer {found}, the shards were made with {expected}; restore "
            "the folder that belongs to them or rebuild the shards"
        )
    return before


@dataclass(frozen=True)
class Units:
    """The units of a source and, for progress bars, the bytes of each."""

    tasks: list[UnitTask]
    sizes: list[int]


def _make(
    path: Path, space: Workspace, out: Path, options: BuildOptions, before: Manifest | None
) -> tuple[Manifest, Passes]:
    """Make everything that is to be published; `before` is the manifest of the shards that it is added to."""
    corpus = open_corpus(path, options.read, validation=options.validation, scratch=space.scratch)
    for note in corpus.notes:
        say(note)
    folder = (out if before else space.ready) / layout.VECTORIZER
    reused = load_vectorizer(folder) if before else None
    if options.vectorizer_from:
        reused = copy_vectorizer(options.vectorizer_from / layout.VECTORIZER, folder)
    density = reused.settings.density if reused else options.density
    seed = before.seed if before else options.seed
    codec = options.compress or (codec_of(before.splits["train"].shards[-1]) if before else None)
    if codec:
        check_codec(codec)
    with _executor(options, corpus.train.num_bytes) as executor:
        passes = Passes(executor, space.scratch, task_budget(executor.workers, options.memory_limit))
        threshold = 0 if corpus.validation else options.threshold
        plan = partial(
            plan_source, passes, seed=seed, density=density, workers=executor.workers, memory_limit=options.memory_limit
        )
        held_out = units = plan(corpus.train, threshold=threshold, title="scanning")
        if corpus.validation:
            held_out = plan(corpus.validation, threshold=1 << 64, title="scanning validation")
        surveyed: list[UnitFacts] = []
        if corpus.validation:  # its labels are checked before any work is spent
            surveyed = survey(passes, held_out.tasks, held_out.sizes, "surveying validation")

        def classes_in(facts: Sequence[UnitFacts]) -> Classes:
            return classes_of(facts, surveyed or facts, corpus, options, before)

        settings = reused.settings if reused else _settings(passes, units, options)
        require_room(space, disk_bytes(settings, corpus))
        if reused or isinstance(settings, HashedSettings):  # nothing to count and to fit
            vectorizer = reused or save_vectorizer(folder, settings, {}, [], {})
            facts = survey(passes, units.tasks, units.sizes, "surveying")
            classes = classes_in(facts)
            rows = transform_rows(passes, units.tasks, units.sizes, folder, classes.codes, held_out=False)
        else:
            counted = count(passes, units.tasks, units.sizes, settings, check=classes_in)
            facts = list(counted.facts)
            classes = classes_in(facts)
            vectorizer, rows = fit_rows(passes, counted, classes.codes, folder)
        if num_replaced := sum(unit.num_replaced for unit in (*facts, *surveyed)):
            warn(
                f"{num_replaced:,} bytes are not UTF-8 and were read as U+FFFD; if the corpus is in another encoding, "
                "convert it with `iconv -f ENCODING -t UTF-8` and build again"
            )
        files = {"train": rows}
        if held_out.tasks and held_out.tasks[0].threshold:
            files["validation"] = transform_rows(
                passes, held_out.tasks, held_out.sizes, folder, classes.codes, held_out=True
            )
        splits = {
            name: place_split(
                passes, name, rows, vectorizer, len(classes.names), space.ready,
                first_number=next_number(before, name), rows_per_shard=options.rows_per_shard, codec=codec,
            )
            for name, rows in files.items()
        }  # fmt: skip
    if "validation" in splits and not splits["validation"].examples:
        say("no document fell into the validation fraction")
    splits = {name: split for name, split in splits.items() if split.examples}
    part = provenance(corpus, [*facts, *surveyed], options)
    if before:
        return longer_manifest(before, splits, part), passes
    return first_manifest(splits, classes, seed, vectorizer, space.ready, part), passes


def disk_bytes(settings: Settings, corpus: Corpus) -> int:
    """About how many bytes scratch files, unpacked texts among them, and shards take together."""
    sources = [source for source in (corpus.train, corpus.validation) if source is not None]
    unpacked = sum(source.num_bytes for source in sources if source.path != source.origin)
    return disk_ratio(settings) * sum(source.num_bytes for source in sources) + unpacked


def disk_ratio(settings: Settings) -> int:
    """About how many bytes scratch files and shards take for each byte of text."""
    if isinstance(settings, SequenceSettings):
        return SEQUENCE_DISK_RATIO
    ngrams = settings.ngrams if isinstance(settings, HashedSettings) else settings
    of_ngram = RARE_NGRAM_DISK_BYTES if settings is ngrams and ngrams.min_df == 1 else NGRAM_DISK_BYTES
    return math.ceil(of_ngram * ngrams.per_byte)


def plan_source(
    passes: Passes, source: Source, *, seed: int, threshold: int, density: int, workers: int, memory_limit: int,
    title: str,
) -> Units:  # fmt: skip
    """Cut a source into units, which reads all of it and writes nothing.

    Raises:
        UsageError: a document is so long that the memory does not allow to index it.
    """
    with passes.timed(title), progress(title, total=source.num_bytes, lasting=False) as shown:
        units = plan_units(source, unit_bytes=UNIT_BYTES // density, advance=shown.add)
    for unit in units:
        if unit.num_text_bytes > longest_unit(workers, memory_limit, density):
            raise UsageError(_too_long(source, unit, memory_limit, density))
    tasks = [UnitTask(source=source, unit=unit, seed=seed, threshold=threshold) for unit in units]
    return Units(tasks, [unit.num_bytes for unit in units])


def _too_long(source: Source, unit: Unit, memory_limit: int, density: int) -> str:
    """What to do about a unit that one document makes too long: one process has the most memory for it."""
    needed = PROCESS_BYTES + unit.num_text_bytes * LONG_MEMORY * density
    more = f" --memory-limit {-(-needed >> 20)}MiB" if needed > memory_limit else ""
    where = "" if source.folders else f", line {unit.first_line} or behind it"
    return (
        f"{source.origin}{where}: a document of about {unit.num_text_bytes / 1e6:,.1f} MB is too long to be indexed "
        f"within {memory_limit >> 20} MiB; build with --workers 1{more}, or make several documents of it"
    )


def _executor(options: BuildOptions, num_bytes: int) -> Executor:
    allowed = affordable_workers(options.cores, options.memory_limit)
    if allowed < (options.workers or 1):
        say(f"--memory-limit allows {allowed} of the {options.workers} workers asked for")
    workers = workers_for(options, num_bytes)
    return Serial() if workers == 1 else Processes(workers, prepare=warm_up)


def workers_for(options: BuildOptions, num_bytes: int) -> int:
    """Workers for a training split of so many bytes; one means the build's own process."""
    return 1 if num_bytes < PARALLEL_BYTES else affordable_workers(options.cores, options.memory_limit)


def _settings(passes: Passes, units: Units, options: BuildOptions) -> Settings:
    """The vectorizer's settings; `auto` goes by the guide's ratio of samples to median words per sample."""
    kind = options.vectorizer
    if kind == "auto":
        facts = survey(passes, units.tasks, units.sizes, "surveying", words=True)
        lengths: Counter[int] = Counter()
        for unit in facts:
            lengths.update(unit.words)
        samples, middle = lengths.total(), _median(lengths)
        ratio = samples / max(middle, 1.0)
        kind = "ngram" if ratio < RULE_RATIO else "sequence"
        say(
            f"{samples:,} documents of {middle:g} words (median): ratio {ratio:,.0f}, "
            f"{'below' if kind == 'ngram' else 'not below'} {RULE_RATIO:,}, so --vectorizer {kind}"
        )
    settings = settings_of(kind, options)
    if isinstance(settings, SequenceSettings):
        return settings
    if idle := (settings.ngrams if isinstance(settings, HashedSettings) else settings).idle_stop_words():
        say(f"{len(idle):,} stop words are no words in lower case without accents: {', '.join(idle[:5])}")
    return settings


def settings_of(kind: str, options: BuildOptions) -> Settings:
    """The settings of a vectorizer that is to be fitted; its kind is not "auto"."""
    if kind == "sequence":
        return options.sequence_settings()
    return options.hashed_settings() if kind == "hashing" else options.ngram_settings(kind)


def _median(lengths: Counter[int]) -> float:
    """The median of a histogram; of an even number, the mean of the two in the middle."""
    values = np.array(sorted(lengths))
    ends = np.cumsum([lengths[value] for value in values]) if len(values) else np.zeros(1)
    total = int(ends[-1])
    if not total:
        return 0.0
    low, high = (values[np.searchsorted(ends, position, side="right")] for position in ((total - 1) // 2, total // 2))
    return float(low + high) / 2
