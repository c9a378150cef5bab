"""Compute what a build of a corpus takes that is too large to try: passes, files, bytes, memory, hours and cost.

Counts come from the functions that the build itself plans with, bytes and seconds from a measurement of samples of a
corpus like it. Measure once, then ask as often as wanted; a size is a number of bytes, with or without a unit:

    python tools/simulate_scale.py --measure data/demo --ratios demo.json
    python tools/simulate_scale.py --ratios demo.json --corpus-bytes 10TB --cores 1000 --store parallel

Nothing here depends on the machine but the seconds of CPU, which are those of the measurement. What a store costs and
how fast it is are assumptions, printed with the result: pass those of yours.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scale_measured import Measured, measure
from scale_passes import Pass, Simulation

from shardtrain.corpus.unit_table import UnitTable
from shardtrain.errors import ShardtrainError
from shardtrain.options import parse_size
from shardtrain.pipeline.build import disk_ratio, grouped_disk_ratio, unit_bytes
from shardtrain.pipeline.facts import Gathered
from shardtrain.pipeline.naming import FEATURE_BYTES
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_MEMORY, Workers, affordable_workers
from shardtrain.runtime.quantities import size
from shardtrain.shards.layout import BLOCK_BYTES, CHECKSUM_BYTES

_SOME = 1 << 12  # units of which the memory is measured
_FEW_UNITS = 4


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where the files are; the figures are assumptions, each an option of its own.

    Attributes:
        latency_ms: to open a file, or of a request.
        throughput: bytes per second, of all machines together.
        per_million_reads, per_million_writes: dollars, of requests.
        per_gb_month: dollars.
        supported: whether a build can keep its files there.
    """

    latency_ms: float
    throughput: float
    per_million_reads: float = 0.0
    per_million_writes: float = 0.0
    per_gb_month: float = 0.0
    supported: bool = True


STORES = {
    "disk": Store(latency_ms=0.05, throughput=2e9),
    "nfs": Store(latency_ms=1.0, throughput=1e9, per_gb_month=0.3),
    "parallel": Store(latency_ms=0.5, throughput=20e9, per_gb_month=0.14),
    "object": Store(
        latency_ms=30.0,
        throughput=20e9,
        per_million_reads=0.4,
        per_million_writes=5.0,
        per_gb_month=0.023,
        supported=False,
    ),
}
_HOURS_PER_MONTH = 730


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=Path, required=True, metavar="FILE", help="of the measurement")
    parser.add_argument("--measure", type=Path, metavar="CORPUS", help="build samples of it, and write the ratios")
    parser.add_argument("--sample", default="64MB", metavar="SIZE", help="of the largest sample (64MB)")
    parser.add_argument("--vectorizer", choices=("ngram", "sequence"), default="ngram", help="to measure (ngram)")
    parser.add_argument(
        "--corpus-bytes",
        nargs="+",
        default=[],
        metavar="SIZE",
        help="of the corpus, unpacked, in powers of two: 1TB is 2**40 bytes (1TB); or of several",
    )
    parser.add_argument("--document-bytes", type=float, help="on average (as measured)")
    parser.add_argument("--classes", type=int, help="number of labels (as measured)")
    parser.add_argument("--cores", type=int, default=16, help="of all machines together (16)")
    parser.add_argument(
        "--memory-limit", default="4GiB", metavar="SIZE", help="as of build: with disk of all, else of a worker (4GiB)"
    )
    parser.add_argument("--rows-per-shard", type=int, default=BuildOptions().rows_per_shard)
    parser.add_argument("--store", choices=STORES, default="disk", help="where the files are (disk)")
    for name in (each.name for each in fields(Store) if each.name != "supported"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help="of the store, in place of its own")
    parser.add_argument("--core-hour", type=float, default=0.045, help="dollars (0.045)")
    args = parser.parse_args(arguments)
    try:
        return run(args)
    except ShardtrainError as error:
        parser.error(error.on_command_line)
    except (OSError, ValueError, TypeError, KeyError) as error:
        parser.error(f"{args.ratios} cannot be used ({error}); measure a corpus again with --measure")


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for."""
    if args.measure:
        options = BuildOptions(vectorizer=args.vectorizer, memory_limit=parse_size(args.memory_limit))
        found = measure(args.measure, options, parse_size(args.sample))
        found.save(args.ratios)
        print(f"measured {size(found.num_bytes)}, {found.documents:,} documents; wrote {args.ratios}")
        if found.num_bytes < _FEW_UNITS * unit_bytes(options.density):
            print(f"these are less than {_FEW_UNITS} whole units, so ratios are those of smaller ones: take more")
        if not args.corpus_bytes:
            return 0
    given = {each.name: getattr(args, each.name, None) for each in fields(Store)}
    store = replace(STORES[args.store], **{name: value for name, value in given.items() if value is not None})
    builds = [simulation_of(args, parse_size(each)) for each in args.corpus_bytes or ["1TB"]]
    lines = table_of(builds, store, args.cores, args.core_hour)
    if len(builds) == 1:
        lines = lines_of(builds[0], store, args.cores, args.core_hour)
    print("\n".join(lines))
    return 0


def simulation_of(args: argparse.Namespace, num_bytes: int) -> Simulation:
    """Return the simulation that the arguments ask for, of a corpus of so many bytes."""
    measured, limit = Measured.load(args.ratios), parse_size(args.memory_limit)
    options = BuildOptions(
        vectorizer=measured.vectorizer, memory_limit=limit, rows_per_shard=args.rows_per_shard, workers=args.cores
    )
    return Simulation(
        num_bytes=num_bytes,
        document_bytes=args.document_bytes or measured.num_bytes / measured.documents,
        classes=args.classes or measured.classes,
        options=options,
        cores=args.cores,
        workers=affordable_workers(args.cores, limit) if args.store == "disk" else Workers(),
        memory_limit=limit,
        measured=measured,
    )


def lines_of(build: Simulation, store: Store, cores: int, core_hour: float) -> Iterator[str]:
    """Yield the report."""
    passes = list(build.passes())
    grouped = f"{len(build.runs):,} groups" if build.runs.grouped else "no groups"
    yield (
        f"corpus: {size(build.num_bytes)}, {build.rows('train'):,} training documents, {build.units:,} units in "
        f"{grouped}, {build.terms:,} terms in {build.buckets:,} buckets, about {build.candidates:,} candidates"
    )
    yield ""
    yield "| pass | tasks | files opened | files made | read | written | core hours | hours of waiting |"
    yield "|---|---|---|---|---|---|---|---|"
    for each in passes:
        yield (
            f"| {each.title} | {each.tasks:,} | {_requests(each):,} | {each.made:,} | {size(each.read)} | "
            f"{size(each.written)} | {each.seconds / 3600:,.1f} | {_waiting(each, store):,.1f} |"
        )
    yield ""
    yield from _sums(build, store, cores, core_hour)


def _requests(each: Pass) -> int:
    return each.texts + each.opened


def _waiting(each: Pass, store: Store) -> float:
    """Return the hours that workers wait for the store to answer, all together."""
    return (_requests(each) + each.made) * store.latency_ms / 1000 / 3600


def _elapsed(each: Pass, store: Store, working: int) -> float:
    """Return the fewest hours that a pass takes: of its tasks, or of the store to move its bytes."""
    worked = each.seconds / 3600 + _waiting(each, store)
    return max(worked / min(working, each.tasks), (each.read + each.written) / store.throughput / 3600)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A whole build.

    Attributes:
        read, written: bytes.
        opened, made: files.
        cpu, waiting, moving, elapsed: hours: of work, of waiting for the store, of moving bytes, of the build.
        disk: bytes at the end.
        work, kept, asked: dollars: of cores, disk and requests.
    """

    read: int
    written: int
    opened: int
    made: int
    cpu: float
    waiting: float
    moving: float
    elapsed: float
    disk: int
    work: float
    kept: float
    asked: float

    @property
    def dollars(self) -> float:
        """What it costs."""
        return self.work + self.kept + self.asked


def working_of(build: Simulation, cores: int) -> int:
    """Return how many tasks run at once."""
    return min(cores, build.workers.number) if build.workers.number > 1 else cores


def sums_of(build: Simulation, store: Store, cores: int, core_hour: float) -> Sums:
    """Add up the passes of a build."""
    passes = list(build.passes())
    read, written = (sum(getattr(each, name) for each in passes) for name in ("read", "written"))
    opened, made = sum(map(_requests, passes)), sum(each.made for each in passes)
    cpu, waiting = build.hours(), sum(_waiting(each, store) for each in passes)
    elapsed = sum(_elapsed(each, store, working_of(build, cores)) for each in passes)
    disk = build.disk()
    return Sums(
        read=read,
        written=written,
        opened=opened,
        made=made,
        cpu=cpu,
        waiting=waiting,
        moving=(read + written) / store.throughput / 3600,
        elapsed=elapsed,
        disk=disk,
        work=(cpu + waiting) * core_hour,
        kept=disk * elapsed / _HOURS_PER_MONTH / 1e9 * store.per_gb_month,
        asked=(opened * store.per_million_reads + made * store.per_million_writes) / 1e6,
    )


def table_of(builds: Sequence[Simulation], store: Store, cores: int, core_hour: float) -> Iterator[str]:
    """Yield a line per build."""
    yield (
        "| corpus | units | groups | buckets | files opened | files made | read per byte | written per byte | disk | "
        "driver | core hours | hours | cost |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for build in builds:
        found = sums_of(build, store, cores, core_hour)
        groups = f"{len(build.runs):,}" if build.runs.grouped else "none"
        yield (
            f"| {size(build.num_bytes)} | {build.units:,} | {groups} | {build.buckets:,} | {found.opened:,} | "
            f"{found.made:,} | {found.read / build.num_bytes:.1f} | {found.written / build.num_bytes:.1f} | "
            f"{size(found.disk)} | {driver_bytes(build) >> 20:,} MiB | {found.cpu:,.1f} | {found.elapsed:,.1f} | "
            f"${found.dollars:,.0f} |"
        )


def _sums(build: Simulation, store: Store, cores: int, core_hour: float) -> Iterator[str]:
    found, working = sums_of(build, store, cores, core_hour), working_of(build, cores)
    mib = 1 << 20
    yield f"files: {found.made:,} made, {found.opened:,} times opened"
    read, written = found.read / build.num_bytes, found.written / build.num_bytes
    ratio = disk_ratio(build.settings) + build.runs.grouped * grouped_disk_ratio(build.settings)
    estimated = size(ratio * build.num_bytes)
    yield (
        f"bytes: {read:.1f} read and {written:.1f} written per byte of the corpus; {size(found.disk)} on disk at the "
        f"end, {size(build.vectorizer_bytes)} of the vectorizer, which the driver writes (build estimates {estimated})"
    )
    yield (
        f"memory: {build.memory_limit // mib:,} MiB allowed, {PROCESS_BYTES // mib} MiB per process, "
        f"{UNIT_MEMORY // mib} MiB to index a unit or {build.budget // mib:,} MiB for task data; driver about "
        f"{driver_bytes(build) // mib:,} MiB"
    )
    yield (
        f"time: {found.cpu:,.0f} core hours of work, {found.waiting:,.0f} of waiting at {store.latency_ms:g} ms per "
        f"file, {found.moving:,.1f} hours to move the bytes at {store.throughput / 1e9:g} GB/s; at least "
        f"{found.elapsed:,.1f} hours with {working:,} cores"
    )
    yield (
        f"cost: ${found.work:,.0f} of cores at ${core_hour:g} per hour, ${found.kept:,.0f} of disk at "
        f"${store.per_gb_month:g} per GB and month, ${found.asked:,.0f} of requests at ${store.per_million_reads:g} "
        f"and ${store.per_million_writes:g} per million reads and writes; ${found.dollars:,.0f} in all"
    )
    if not store.supported:
        yield "a build cannot keep its files in such a store; this is what it would cost as it is"


def driver_bytes(build: Simulation) -> int:
    """Return the memory of the driver: its process, the units, what they counted, features and checksums of shards."""
    table = UnitTable.between(np.zeros((_SOME + 1, 5), np.int64)).values.nbytes / _SOME
    tracemalloc.start()
    gathered = Gathered(_SOME)
    counted = tracemalloc.get_traced_memory()[0] / _SOME
    tracemalloc.stop()
    del gathered
    shards = sum(each.written for each in build.passes() if each.title.startswith("writing"))
    digits = 2 * CHECKSUM_BYTES * shards / BLOCK_BYTES
    features = min(build.settings.max_features, build.candidates) * FEATURE_BYTES
    return round(PROCESS_BYTES + build.units * (table + counted) + features + digits)


if __name__ == "__main__":
    sys.exit(main())
