"""Measure what a build writes and reads per pass, per byte of a corpus, by building samples of it in this process.

Files of the scratch folder are looked at after each pass, array by array, because arrays grow in different ways: most
with the text, those of candidates as the vocabulary does (Heaps' law, fitted to three samples), and those that say
where the terms of a unit or bucket begin with the number of both, which is known without a measurement, as is what each
task keeps. The largest
sample is built twice, the second time with groups. An array of a mapped file counts as read whole once per mapping.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.arrays import scratch
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.pipeline import build as building
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.passes import Passes
from shardtrain.shards.layout import VECTORIZER
from shardtrain.vectorize import groups
from shardtrain.vectorize.saved import DESCRIPTION

PLAIN, GROUPED = "plain", "grouped"
TEXT, CANDIDATES, CHOSEN, PLACES = "text", "candidates", "chosen", "places"  # what an array grows with
_OF_PLACES = {"starts", "term_starts", "entry_starts"}
_OF_TASKS = ("keys-", "best-", "short")  # begins of the names of folders
_OF_CANDIDATES = {"hashes", "checks", "counts", "first", "scores"}  # in merged buckets and files of scores
_OF_CHOSEN = ("chosen", "names")
_SHARES = (4, 2, 1)  # of the sample, whose sizes are divided by these


@dataclass
class PassMeasured:
    """What a pass did.

    Attributes:
        seconds: of CPU.
        opened: scratch files that were opened to be read.
        made: files that were written.
        written: bytes, by what they grow with.
        read: bytes of scratch files, by what they grow with.
        headers: bytes of the files that were written, beside their arrays.
    """

    seconds: float = 0.0
    opened: int = 0
    made: int = 0
    written: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    headers: int = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Ratios of a corpus; see the module.

    Attributes:
        vectorizer: "ngram" or "sequence".
        num_bytes: of the largest sample.
        documents: in it.
        classes: of its labels.
        rows, nonzeros: of each split of its shards.
        num_features: of its rows; of sequences, their length.
        vocabulary_size: see `Vectorizer`.
        terms: of all its units together.
        entries: of its postings; 0 for sequences.
        candidates: factor and exponent: their number by the bytes of a corpus.
        vectorizer_bytes: of the arrays of the saved vectorizer that have an item per candidate.
        passes: by variant and title.
    """

    vectorizer: str
    num_bytes: int
    documents: int
    classes: int
    rows: dict[str, int]
    nonzeros: dict[str, int]
    num_features: int
    vocabulary_size: int
    terms: int
    entries: int
    candidates: tuple[float, float]
    vectorizer_bytes: int
    passes: dict[str, dict[str, PassMeasured]]

    def candidates_of(self, num_bytes: int) -> int:
        """Return the number of candidates that a corpus of so many bytes has."""
        factor, exponent = self.candidates
        return round(factor * math.pow(num_bytes, exponent))

    def save(self, path: Path) -> None:
        """Write the ratios as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote."""
        record = json.loads(path.read_text(encoding="utf-8"))
        passes = {
            variant: {title: PassMeasured(**values) for title, values in found.items()}
            for variant, found in record.pop("passes").items()
        }
        return cls(**{**record, "candidates": tuple(record["candidates"])}, passes=passes)


@dataclass
class Observed:
    """What was seen of one build: its passes by title, and sums over the whole."""

    passes: dict[str, PassMeasured] = field(default_factory=dict)
    lengths: Counter[str] = field(default_factory=Counter)  # items of the arrays, by folder and name
    tasks: Counter[str] = field(default_factory=Counter)  # by title


def grows_with(folder: str, array: str) -> str:
    """Return what an array of the files in a scratch folder grows with."""
    if array in _OF_PLACES or folder.startswith(_OF_TASKS):
        return PLACES
    if folder.startswith(_OF_CHOSEN):
        return CHOSEN
    return CANDIDATES if folder.startswith(("bucket", "scores", "kept")) and array in _OF_CANDIDATES else TEXT


@contextlib.contextmanager
def observed() -> Iterator[Observed]:
    """Watch the passes of builds in this process."""
    found = Observed()
    open_before, read_before, timed_before = scratch._open_scratch, scratch.SpilledFile._read, Passes.timed
    init_before, item_before = scratch.SpilledArrays.__init__, scratch.SpilledArrays.__getitem__
    stream_before = Passes.stream
    current = [PassMeasured()]  # that of the pass that runs; what is done between passes is counted with none
    seen: set[Path] = set()
    last, mapped = [Path()], {}  # the file that was opened last; the folder of each mapped file
    touched: dict[tuple[int, str], scratch.SpilledArrays] = {}  # in this pass; kept, so that no other has its id

    def opened(path: Path) -> Any:
        current[0].opened += 1
        last[0] = path
        return open_before(path)

    def made(self: scratch.SpilledArrays, *values: Any, **named: Any) -> None:
        init_before(self, *values, **named)
        mapped[id(self)] = _folder(last[0])

    def read(self: scratch.SpilledFile, descriptor: int, name: str, part: slice | None) -> Any:
        array = read_before(self, descriptor, name, part)
        _add(current[0].read, grows_with(_folder(self.path), name), array.nbytes)
        return array

    def item(self: scratch.SpilledArrays, name: str) -> Any:
        array = item_before(self, name)
        if (id(self), name) not in touched:
            touched[id(self), name] = self
            _add(current[0].read, grows_with(mapped[id(self)], name), array.nbytes)
        return array

    @contextlib.contextmanager
    def timed(self: Passes, title: str) -> Iterator[None]:
        current[0] = found.passes.setdefault(title, PassMeasured())
        started = time.process_time()
        with timed_before(self, title):
            yield
        current[0].seconds += time.process_time() - started
        current[0] = PassMeasured()
        touched.clear()
        _look(self.scratch.parent, seen, found.passes[title], found.lengths)

    def stream(self: Passes, title: str, function: Any, tasks: Any, *rest: Any, **how: Any) -> Any:
        found.tasks[title] += len(tasks)
        return stream_before(self, title, function, tasks, *rest, **how)

    patches: list[tuple[Any, str, Any]] = [
        (scratch, "_open_scratch", opened),
        (scratch.SpilledFile, "_read", read),
        (scratch.SpilledArrays, "__init__", made),
        (scratch.SpilledArrays, "__getitem__", item),
        (Passes, "timed", timed),
        (Passes, "stream", stream),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(_patched(owner, name, value))
        yield found


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _folder(path: Path) -> str:
    """Return the name of the folder of a file set that a scratch file is in."""
    return path.parent.parent.name


def _add(sums: dict[str, int], key: str, value: int) -> None:
    sums[key] = sums.get(key, 0) + value


def _look(place: Path, seen: set[Path], found: PassMeasured, lengths: Counter[str]) -> None:
    """Add the files that are new since the last look; records are not counted."""
    for path in place.rglob("*"):
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        size = path.stat().st_size
        if path.suffix in (".records", ".npy", ".json"):
            continue
        found.made += 1
        if path.suffix:  # a shard
            _add(found.written, TEXT, size)
            continue
        with open(path, "rb") as file:
            entries = scratch._found(path, file.fileno()).entries
        in_arrays = 0
        for name, (dtype, shape, _, _) in entries.items():
            num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            _add(found.written, grows_with(_folder(path), name), num_bytes)
            lengths[f"{_folder(path)}/{name}"] += shape[0]
            in_arrays += num_bytes
        found.headers += size - in_arrays


def measure(corpus: Path, options: BuildOptions, sample_bytes: int) -> Measured:
    """Build samples of a corpus' training split of at most about `sample_bytes`, and return its ratios."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder, points = Path(name), []
        for share in _SHARES:
            sample = _sample(corpus, options, sample_bytes, share, folder / f"sample-{share}")
            plain, manifest = observe(sample, folder / "out", options)
            candidates = _length(plain, "bucket", "counts")
            points.append((sample.stat().st_size, max(1, candidates)))
        with _patched(groups, "MOST_FILES", 0):
            grouped, _ = observe(sample, folder / "out", options)
        vectorizer = folder / "out" / VECTORIZER
        description = json.loads((vectorizer / DESCRIPTION).read_text())
        of_candidates = ("hashes", "checks", "counts", "columns")
        saved = sum(path.stat().st_size for path in vectorizer.glob("*.npy") if path.stem in of_candidates)
    sizes, numbers = np.log([size for size, _ in points]), np.log([number for _, number in points])
    exponent, intercept = np.polyfit(sizes, numbers, 1)
    splits = manifest.splits
    return Measured(
        vectorizer=options.vectorizer,
        num_bytes=points[-1][0],
        documents=sum(split.examples for split in splits.values()),
        classes=len(splits["train"].class_counts),
        rows={name: split.examples for name, split in splits.items()},
        nonzeros={name: split.nonzeros for name, split in splits.items()},
        num_features=manifest.num_features,
        vocabulary_size=description.get("vocabulary_size", manifest.num_features),
        terms=_length(plain, "run", "hashes"),
        entries=_length(plain, "run", "times"),
        candidates=(float(np.exp(intercept)), float(exponent)),
        vectorizer_bytes=saved if options.vectorizer == "ngram" else 0,
        passes={PLAIN: plain.passes, GROUPED: grouped.passes},
    )


def _length(found: Observed, folder: str, array: str) -> int:
    return sum(n for name, n in found.lengths.items() if name.startswith(folder) and name.endswith(f"/{array}"))


def observe(corpus: Path, out: Path, options: BuildOptions) -> tuple[Observed, Any]:
    """Build shards of one file per split in this process, and return what was seen and the manifest."""
    with observed() as found:
        manifest = build(corpus, out, replace(options, workers=1, rows_per_shard=1 << 40, overwrite=True))
    return found, manifest


def _sample(corpus: Path, options: BuildOptions, sample_bytes: int, share: int, out: Path) -> Path:
    """Write every n-th document of a corpus to a CSV file, so that n times `share` files are as large as the sample."""
    out.mkdir()
    path = out / "train.csv"
    with tempfile.TemporaryDirectory() as scratch_folder, open(path, "w", encoding="utf-8", newline="") as file:
        source = open_corpus(corpus, options, scratch=Path(scratch_folder), memory_limit=options.memory_limit).train
        step = share * max(1, -(-source.num_bytes // sample_bytes))
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for unit in plan_units(source, unit_bytes=building.unit_bytes(options.density), advance=lambda _: None):
            documents = read_unit(source, unit, lambda ordinals: ordinals % step == 0)
            writer.writerows(zip(documents.labels, documents.texts, strict=True))
    return path
