"""What a build is asked to do, and how sizes are written."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path

from shardtrain.corpus.source import ReadOptions
from shardtrain.errors import UsageError
from shardtrain.runtime.machine import cores
from shardtrain.shards.codecs import CODECS
from shardtrain.vectorize.settings import HashedSettings, NgramSettings, SequenceSettings

VECTORIZERS = ("ngram", "count", "hashing", "sequence", "auto")
FITTING = (
    "vectorizer", "max_features", "analyzer", "ngram_range", "min_df", "max_df", "stop_words", "binary",
    "sublinear_tf", "select", "max_length",
)  # fmt: skip
LEAST_MEMORY = 256 << 20
_UNITS = {"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20, "G": 30, "GB": 30, "GIB": 30,
          "T": 40, "TB": 40, "TIB": 40}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a corpus becomes shards.

    Attributes:
        vectorizer: "ngram" (tf-idf), "count", "hashing" (stateless), "sequence" or
            "auto" ("ngram" or "sequence" by the guide's rule).
        vectorizer_from: folder of shards or of a run whose fitted vectorizer is used; None: one is fitted.
        validation: file or folder of the validation split; None: test.csv of the folder, else a fraction.
        validation_fraction: of the training documents, where there is no validation file; in [0, 1).
        max_features: n-grams kept, columns of hashed n-grams, or size of the vocabulary including the id for padding;
            None: 20,000, or 2**20 columns.
        analyzer: n-grams of what: "word", "char" or "char_wb" (characters within words).
        ngram_range: fewest and most words or characters of an n-gram.
        min_df: fewest training documents an n-gram must occur in; a float is a proportion of them.
        max_df: most training documents it may occur in, likewise.
        stop_words: words left out before n-grams are made.
        binary: how often an n-gram occurs in a document does not matter.
        sublinear_tf: 1 + ln(times) in place of times.
        select: how n-grams are chosen: "f_classif", "chi2" or "none" (the most frequent).
        max_length: most token ids of a sequence.
        memory_limit: bytes of anonymous memory; it sets how much every pass holds and how many workers run.
        workers: processes; None: one for each core.
        seed: decides the order of rows and the validation fraction.
        rows_per_shard: rows of every shard but the last of a split.
        compress: HDF5 filter of the shards: "zstd", "lz4" or "blosc2"; None: plain shards, or, with `append`, as those
            that are there.
        append: add to the finished shards in the output folder, with their vectorizer, classes and seed.
        overwrite: replace finished shards in the output folder.
        resume: there must be an interrupted build to go on with; the same options go on with one anyway.
        read: how files are read.

    Raises:
        UsageError: a value outside its range, or options that exclude each other.
    """

    vectorizer: str = "ngram"
    vectorizer_from: Path | None = None
    validation: Path | None = None
    validation_fraction: float = 0.1
    max_features: int | None = None
    analyzer: str = "word"
    ngram_range: tuple[int, int] = (1, 2)
    min_df: int | float = 2
    max_df: int | float = 1.0
    stop_words: tuple[str, ...] = ()
    binary: bool = False
    sublinear_tf: bool = False
    select: str = "f_classif"
    max_length: int = 500
    memory_limit: int = 1 << 30
    workers: int | None = None
    seed: int = 1
    rows_per_shard: int = 1 << 18  # 100 to 300 MB a file: few files, and enough of them to share out
    compress: str | None = None
    append: bool = False
    overwrite: bool = False
    resume: bool = False
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if self.vectorizer not in VECTORIZERS:
            raise UsageError(f"--vectorizer {self.vectorizer}: choose one of {', '.join(VECTORIZERS)}")
        if not 0 <= self.validation_fraction < 1:
            raise UsageError(f"--validation-fraction {self.validation_fraction}: at least 0 and below 1")
        if self.memory_limit < LEAST_MEMORY:
            raise UsageError(f"--memory-limit {self.memory_limit / 2**20:.0f}MiB: at least 256MiB")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least 1")
        if self.rows_per_shard < 1:
            raise UsageError(f"--rows-per-shard {self.rows_per_shard}: at least 1")
        if self.compress is not None and self.compress not in CODECS:
            raise UsageError(f"--compress {self.compress}: choose one of {', '.join(CODECS)}")
        if self.append and self.overwrite:
            raise UsageError("--append keeps the shards that --overwrite replaces; give one of them")
        if self.append and self.vectorizer_from:
            raise UsageError("--append uses the vectorizer of the shards it adds to; leave --vectorizer-from away")
        self.refuse_unused([each.name for each in fields(self) if getattr(self, each.name) != each.default])
        if self.vectorizer not in ("sequence", "auto"):
            self._refuse(("max_length",), "is for sequences")
        if self.vectorizer == "sequence":
            of_ngrams = (
                "analyzer",
                "ngram_range",
                "min_df",
                "max_df",
                "stop_words",
                "binary",
                "sublinear_tf",
                "select",
            )
            self._refuse(of_ngrams, "is for n-grams")
        elif self.vectorizer == "hashing":
            self._refuse(("min_df", "max_df", "sublinear_tf", "select"), "needs a vocabulary")
            self.hashed_settings()
        else:
            self.ngram_settings(self.vectorizer)  # refuses what is out of range before any work
        if self.vectorizer in ("sequence", "auto"):
            self.sequence_settings()

    def refuse_unused(self, given: Collection[str]) -> None:
        """Refuse options that decide nothing because something older has decided it.

        Args:
            given: names of the options that were given.

        Raises:
            UsageError: there are such; the message names them.
        """
        if not self.reuses:
            return
        cause, decided = ("--append", (*FITTING, "seed")) if self.append else ("--vectorizer-from", FITTING)
        unused = ["--" + name.replace("_", "-") for name in decided if name in given]
        if self.append and self.read.labels != "auto":
            unused.append("--labels")
        if unused:
            raise UsageError(
                f"{cause} takes what is there already, so {', '.join(unused)} would change nothing; leave "
                f"{'it' if len(unused) == 1 else 'them'} away"
            )

    @property
    def reuses(self) -> bool:
        """Whether a vectorizer is used that is fitted already."""
        return self.append or self.vectorizer_from is not None

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        """Refuse options that were changed although they have no effect."""
        defaults = {each.name: each.default for each in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise UsageError(f"--{name.replace('_', '-')} {reason}, not for --vectorizer {self.vectorizer}")

    def ngram_settings(self, kind: str) -> NgramSettings:
        """Settings of n-grams of the kind "ngram" or "count"."""
        return NgramSettings(
            analyzer=self.analyzer,
            ngram_range=self.ngram_range,
            stop_words=tuple(sorted(set(self.stop_words))),
            min_df=self.min_df,
            max_df=self.max_df,
            weighting="count" if kind == "count" else "tfidf",
            binary=self.binary,
            sublinear_tf=self.sublinear_tf,
            select=self.select,
            max_features=self.num_features,
        )

    def sequence_settings(self) -> SequenceSettings:
        """Settings of token ids."""
        return SequenceSettings(max_features=self.num_features, max_length=self.max_length)

    def hashed_settings(self) -> HashedSettings:
        """Settings of hashed n-grams."""
        return HashedSettings(
            analyzer=self.analyzer,
            ngram_range=self.ngram_range,
            stop_words=tuple(sorted(set(self.stop_words))),
            binary=self.binary,
            max_features=self.num_features,
        )

    @property
    def num_features(self) -> int:
        """`max_features`, or its default for the vectorizer."""
        return (
            self.max_features if self.max_features is not None else 1 << 20 if self.vectorizer == "hashing" else 20_000
        )

    @property
    def density(self) -> int:
        """How many times as many terms as usual a text has; so much smaller are the units."""
        return 1 if self.vectorizer == "sequence" else self.ngram_settings(self.vectorizer).density

    @property
    def threshold(self) -> int:
        """Documents whose 64-bit key is below it make the validation fraction."""
        return int(self.validation_fraction * 2**64)

    @property
    def cores(self) -> int:
        """Processes asked for."""
        return self.workers or cores()


def parse_size(text: str) -> int:
    """Bytes of a size such as 512MiB, 1.5GiB or 1073741824; K, M, G and T are powers of 1024.

    Raises:
        UsageError: not a size.
    """
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{text!r} is not a size; write it like 512MiB or 2GiB")
    return int(float(match[1]) * (1 << _UNITS[match[2].upper()]))


def read_stop_words(path: Path | str) -> tuple[str, ...]:
    """The words in a UTF-8 file, one a line; white space around them and empty lines do not count.

    Raises:
        UsageError: the file cannot be read or is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--stop-words '{path}' cannot be read: {error}") from error
    return tuple(word for line in lines if (word := line.strip()))
