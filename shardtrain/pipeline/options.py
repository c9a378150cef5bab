"""Declare the options for making shards: from text, from tables, in place over HDF5 files, or from other shards."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.options import CorpusOptions
from shardtrain.errors import UsageError
from shardtrain.options import REQUIRED, changed, checked, flag, option, options_of, parse_size, show_size
from shardtrain.runtime.machine import cores
from shardtrain.shards.layout import CODECS
from shardtrain.vectorize.options import VectorizerOptions

LEAST_MEMORY = 256 << 20
_OUTPUT, _SPLITS, _RESOURCES, _MEANING = "output", "splits and order", "resources", "meaning"


@checked
@dataclass(frozen=True)
class ShardsOutput:
    """Where shards go."""

    out: Path | str = option(
        Path("data/shards"),
        "folder of the shards",
        group=_OUTPUT,
        metavar="DIR",
        parse=Path,
        identity=False,
        positional=True,
    )


@checked
@dataclass(frozen=True)
class NamedOutput:
    """The output folder of shards that are not built from text, which is required."""

    out: Path = option(
        REQUIRED,
        "folder of the shards",
        group=_OUTPUT,
        metavar="DIR",
        parse=Path,
        identity=False,
        positional=True,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    """What happens to shards that exist.

    Attributes:
        overwrite: replace finished shards in the output folder.
    """

    overwrite: bool = option(False, "replace finished shards in --out", group=_OUTPUT, identity=False)


@checked
@dataclass(frozen=True, kw_only=True)
class ResumeOptions(OverwriteOptions):
    """What happens to finished shards and interrupted work.

    Attributes:
        resume: require an interrupted build in the output folder; the same command resumes one anyway.
    """

    resume: bool = option(
        False,
        "resume an interrupted build, fail if there is none; the same command resumes it anyway",
        group=_OUTPUT,
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """What making shards may use, and how large they are.

    Attributes:
        memory_limit: bytes of anonymous memory for all processes together.
        workers: processes, or threads of a build where memory has no room for two; None: one per core, as it allows.
        seed: decides the order of rows and the validation fraction.
        rows_per_shard: rows of every shard but the last of a split.
        compress: HDF5 filter of the shards: "zstd", "lz4" or "blosc2"; None: plain shards, or, with `append`, as those
            that exist.

    Raises:
        UsageError: a value outside its range.
    """

    seed: int = option(
        1, "seed of the order of rows and the validation fraction", group=_SPLITS, metavar="S", parse=int
    )
    memory_limit: int = option(
        1 << 30,
        f"memory for all processes together, at least {show_size(LEAST_MEMORY)}",
        group=_RESOURCES,
        metavar="SIZE",
        convert=parse_size,
        show=show_size,
        identity=False,
    )
    workers: int | None = option(
        None,
        "processes, or threads of a build where memory has no room for two",
        group=_RESOURCES,
        metavar="N",
        parse=int,
        unset="one per core, as the memory allows",
        identity=False,
    )
    rows_per_shard: int = option(  # 100 to 300 MB per file: few files, and enough of them to share out
        1 << 18, "rows per shard", group=_RESOURCES, metavar="N", parse=int
    )
    compress: str | None = option(
        None,
        "write shards through this HDF5 filter: smaller, and decoded when read",
        group=_RESOURCES,
        choices=CODECS,
        unset="plain",
    )

    def __post_init__(self) -> None:
        if self.memory_limit < LEAST_MEMORY:
            raise UsageError(f"--memory-limit {show_size(self.memory_limit)}: at least {show_size(LEAST_MEMORY)}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least 1")
        if self.rows_per_shard < 1:
            raise UsageError(f"--rows-per-shard {self.rows_per_shard}: at least 1")

    @property
    def cores(self) -> int:
        """Number of workers: `workers`, or one per core."""
        return self.workers or cores()


def check_fraction(fraction: float) -> None:
    """Check a validation fraction.

    Raises:
        UsageError: it is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"--validation-fraction {fraction}: at least 0 and below 1")


def key_threshold(fraction: float) -> int:
    """Return the threshold of 64-bit keys below which rows make the validation fraction."""
    return int(fraction * 2**64)


@checked
@dataclass(frozen=True, kw_only=True)
class BuildOptions(ResourceOptions, VectorizerOptions, CorpusOptions, ResumeOptions):
    """How a corpus becomes shards.

    Attributes:
        append: add to the finished shards in the output folder, with their vectorizer, classes and seed.
        vectorizer_from: folder of shards or of a run whose fitted vectorizer is used; None: one is fitted.
        validation: file or folder of the validation split; a name alone is looked up in the corpus' folder, too. None:
            valid.csv of the folder (or validation, dev, val), else a fraction.
        validation_fraction: of the training documents, where there is no validation file; in [0, 1).
        test: file or folder of the test split, on which no model is chosen; None: test.csv of the folder.

    The other attributes are those of the classes that it extends.

    Raises:
        UsageError: a value outside its range, or options that exclude each other.
    """

    append: bool = option(
        False,
        "add to the finished shards in --out, with their vectorizer and classes; none of them is rewritten",
        group=_OUTPUT,
    )
    validation: Path | str | None = option(
        None,
        "corpus of the validation split",
        group=_SPLITS,
        metavar="FILE",
        parse=Path,
        exclusive="validation",
        unset="valid.csv of the folder, or validation, dev, val",
    )
    validation_fraction: float = option(
        0.1,
        "share of the training documents to hold out where there is no validation file; 0 for none",
        group=_SPLITS,
        metavar="F",
        parse=float,
        exclusive="validation",
    )
    test: Path | str | None = option(
        None,
        "corpus of the test split, which fit evaluates once at its end",
        group=_SPLITS,
        metavar="FILE",
        parse=Path,
        unset="test.csv of the folder",
    )
    vectorizer_from: Path | None = option(
        None,
        "use the fitted vectorizer of a folder of shards or of a run",
        group="features",
        metavar="DIR",
        parse=Path,
        unset="fit one",
    )

    def __post_init__(self) -> None:
        CorpusOptions.__post_init__(self)
        ResourceOptions.__post_init__(self)
        check_fraction(self.validation_fraction)
        if self.append and self.overwrite:
            raise UsageError("--append keeps the shards that --overwrite replaces; give one of them")
        if self.append and self.vectorizer_from:
            raise UsageError("--append uses the vectorizer of the shards it adds to; omit --vectorizer-from")
        self.refuse_unused(changed(self))
        VectorizerOptions.__post_init__(self)

    def refuse_unused(self, given: Collection[str]) -> None:
        """Refuse options that decide nothing because the reused vectorizer or the older shards have decided it.

        Args:
            given: names of the options that were given.

        Raises:
            UsageError: there are such; the message names them.
        """
        if not self.reuses:
            return
        cause = flag("append") if self.append else flag("vectorizer_from")
        decided = [*options_of(VectorizerOptions), *(["seed"] if self.append else [])]
        unused = [flag(name) for name in decided if name in given]
        if self.append and self.labels != "auto":  # "auto" claims nothing, so it may be given
            unused.append(flag("labels"))
        if unused:
            it = "it" if len(unused) == 1 else "them"
            raise UsageError(
                f"{cause} takes what exists already, so {', '.join(unused)} would change nothing; omit {it}"
            )

    @property
    def reuses(self) -> bool:
        """Whether a vectorizer is used that is fitted already."""
        return self.append or self.vectorizer_from is not None

    @property
    def threshold(self) -> int:
        """Documents whose 64-bit key is below it make the validation fraction."""
        return key_threshold(self.validation_fraction)


@checked
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What features, labels and splits of tables are.

    Attributes:
        kind: "dense" or "tokens" where whole numbers may be either, or "sparse"; "auto" where it is plain.
        labels: "integers", "names", or "auto" for integers where all labels are.
        validation: files of the validation split; none: a fraction.
        validation_fraction: of the rows, where there are no such files; in [0, 1).

    Raises:
        UsageError: a value outside its range.
    """

    kind: str = option(
        "auto",
        "kind of the features; whole numbers are tokens (ids of words, 0 for padding) or dense",
        group=_MEANING,
        choices=("auto", "dense", "sparse", "tokens"),
        unset="if plain",
    )
    labels: str = option(
        "auto",
        "integers from 0 or 1, or names",
        group=_MEANING,
        choices=("auto", "integers", "names"),
        unset="integers where all labels are",
    )
    validation: tuple[Path, ...] = option(
        (),
        "files of the validation split",
        group=_MEANING,
        metavar="FILE",
        nargs="+",
        parse=Path,
        exclusive="validation",
        unset="none",
    )
    validation_fraction: float = option(
        0.1,
        "share of the rows to hold out where no files are given; 0 for none",
        group=_MEANING,
        metavar="F",
        parse=float,
        exclusive="validation",
    )

    def __post_init__(self) -> None:
        check_fraction(self.validation_fraction)


@checked
@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ResourceOptions, TableOptions, ResumeOptions):
    """How tables become shards.

    Attributes:
        x: names of the features: a dataset or group of HDF5, an array of .npz, columns of Parquet.
        y: names of the labels: a dataset, an array, a column, or for .npy a file for each file of features.

    The other attributes are those of the classes that it extends.

    Raises:
        UsageError: a value outside its range.
    """

    x: tuple[str, ...] = option(
        (),
        "features: a dataset or CSR group of HDF5, an array of .npz, columns of Parquet",
        group=_MEANING,
        metavar="NAME",
        nargs="+",
        unset="of .npz x, of Parquet all numbers",
    )
    y: tuple[str, ...] = option(
        (),
        "labels: a dataset, array or column; for .npy, and scipy's .npz, a .npy file for each FILE, those of "
        "--validation last",
        group=_MEANING,
        metavar="NAME",
        nargs="+",
        unset="of .npz y, of Parquet label",
    )

    def __post_init__(self) -> None:
        TableOptions.__post_init__(self)
        ResourceOptions.__post_init__(self)


@checked
@dataclass(frozen=True, kw_only=True)
class IndexOptions(TableOptions, OverwriteOptions):
    """What is indexed.

    Attributes:
        x: name of the features: a dataset, or a group with data, indices and indptr.
        y: name of the labels: a dataset, or a group with codes and categories.

    The other attributes are those of the classes that it extends.

    Raises:
        UsageError: a value outside its range.
    """

    x: str = option(
        REQUIRED,
        "features: a dataset, or a CSR group",
        group=_MEANING,
        metavar="NAME",
    )
    y: str = option(
        REQUIRED,
        "labels: a dataset, or a group of categories",
        group=_MEANING,
        metavar="NAME",
    )


@checked
@dataclass(frozen=True, kw_only=True)
class RecompressOptions(ResumeOptions):
    """How finished shards are written again.

    Attributes:
        compress: HDF5 filter of the new shards, or "none" for plain ones.

    The other attributes are those of the class that it extends.

    Raises:
        UsageError: a filter that shards cannot have.
    """

    compress: str = option(
        REQUIRED,
        "HDF5 filter of the new shards: zstd is smallest, lz4 fastest; none: plain, mapped without decoding",
        group=_OUTPUT,
        choices=(*CODECS, "none"),
    )

    @property
    def codec(self) -> str | None:
        """The filter; None: plain shards."""
        return None if self.compress == "none" else self.compress
