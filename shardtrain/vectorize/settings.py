"""Define the settings of vectorizers: frozen values that are saved with them; making and checking them needs no kernel.

`indexing` splits texts into terms under such settings. A setting that was added after the first version is omitted from
the record where it has its default, so that the fingerprints of older vectorizers do not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shardtrain.errors import UsageError

Limit = int | float  # a number of documents, or a proportion of them

VECTORIZERS = ("ngram", "count", "hashing", "sequence", "auto")
TERMS_PER_BYTE = {
    "word": 0.2,
    "char": 1.0,
    "char_wb": 1.0,
}  # by analyzer: about how many n-grams of one length a byte of text has
ANALYZERS = tuple(TERMS_PER_BYTE)
STRIP_ACCENTS = ("unicode", "none")
WEIGHTINGS = ("tfidf", "count")
SELECTORS = ("f_classif", "chi2", "none")
USUAL_PER_BYTE = 0.4  # n-grams that begin in a byte of text: words and pairs of words
MAX_COLUMNS = (1 << 31) - 1
MAX_NGRAM = 1000  # words or characters: kernels hold a table of so many, and a text has so many n-grams per word
_LATER = "omitted from a record where it is the default"


def later(default: Any) -> Any:
    """Declare a setting that was added after the first version."""
    return field(default=default, metadata={_LATER: True})


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """How terms are hashed: another seed gives unrelated hashes; `mask` shortens them (in tests)."""

    seed: int = 0x9E3779B9  # above any byte: with 0, a NUL at the start of a word would not change its hash
    mask: int = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class NgramSettings:
    """N-grams with weights; the defaults are the guide's.

    Attributes:
        analyzer: "word", "char" or "char_wb" (characters within words, with a space at both ends).
        ngram_range: fewest and most words or characters of an n-gram.
        stop_words: removed before n-grams are made; compared with words in lower case, without accents.
        min_df: fewest documents an n-gram must occur in; a float is a proportion of the training documents.
        max_df: most documents it may occur in, or a proportion of them.
        weighting: "tfidf" or "count".
        binary: an n-gram counts once per document, however often it occurs.
        sublinear_tf: 1 + ln(times) in place of times.
        select: "f_classif", "chi2" or "none" (the most frequent n-grams).
        max_features: n-grams kept.
        hashing: how terms are hashed.
        strip_accents: "unicode" (NFKD without combining characters), or "none".

    Raises:
        UsageError: a setting outside its range.
    """

    analyzer: str = "word"
    ngram_range: tuple[int, int] = (1, 2)
    stop_words: tuple[str, ...] = ()
    min_df: Limit = 2
    max_df: Limit = 1.0
    weighting: str = "tfidf"
    binary: bool = False
    sublinear_tf: bool = False
    select: str = "f_classif"
    max_features: int = 20_000
    hashing: Hashing = Hashing()
    strip_accents: str = later("unicode")

    def __post_init__(self) -> None:
        if self.strip_accents not in STRIP_ACCENTS:
            raise UsageError(f"--strip-accents {self.strip_accents}: choose one of {', '.join(STRIP_ACCENTS)}")
        if self.analyzer not in ANALYZERS:
            raise UsageError(f"--analyzer {self.analyzer}: choose one of {', '.join(ANALYZERS)}")
        if self.stop_words and self.analyzer != "word":
            raise UsageError(f"--stop-words are words, but --analyzer {self.analyzer} makes n-grams of characters")
        low, high = self.ngram_range
        if not 1 <= low <= high <= MAX_NGRAM:
            raise UsageError(
                f"--ngram-range {low} {high}: the first must be at least 1 and not above the second, which is at most "
                f"{MAX_NGRAM:,}"
            )
        for option, limit in (("--min-df", self.min_df), ("--max-df", self.max_df)):
            if not (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1):
                raise UsageError(f"{option} {limit}: a number of documents from 1, or a proportion above 0.0 up to 1.0")
        if isinstance(self.min_df, int) is isinstance(self.max_df, int):
            self.document_range(1)  # comparable for any corpus: reported before any work
        if self.max_features < 1:
            raise UsageError(f"--max-features {self.max_features} must be at least 1")
        if self.select not in SELECTORS:
            raise UsageError(f"--select {self.select}: choose one of {', '.join(SELECTORS)}")
        if self.weighting not in WEIGHTINGS:
            raise UsageError(f"weighting {self.weighting!r}: choose {' or '.join(WEIGHTINGS)}")
        if self.weighting == "count" and self.sublinear_tf:
            raise UsageError("--sublinear-tf weighs counts, which --vectorizer count leaves as they are")

    def document_range(self, num_documents: int) -> tuple[int, int]:
        """Return the fewest and most documents, both inclusive, in which a candidate occurs.

        Raises:
            UsageError: the most are fewer than the fewest.
        """
        low = self.min_df if isinstance(self.min_df, int) else self.min_df * num_documents
        high = self.max_df if isinstance(self.max_df, int) else self.max_df * num_documents
        if high < low:
            raise UsageError(
                f"--max-df {self.max_df} corresponds to fewer documents than --min-df {self.min_df}; raise the first "
                "or lower the second"
            )
        return math.ceil(low), math.floor(high)

    @property
    def per_byte(self) -> float:
        """About how many n-grams begin in a byte of text, for planning memory and disk."""
        low, high = self.ngram_range
        return TERMS_PER_BYTE[self.analyzer] * (high - low + 1)

    @property
    def density(self) -> int:
        """How many times as many n-grams as usual a text has; pieces held in memory are smaller by this factor."""
        return max(1, math.ceil(self.per_byte / USUAL_PER_BYTE))


@dataclass(frozen=True, kw_only=True)
class HashedSettings:
    """Hashed n-grams; all but `max_features`, the number of columns, is as for n-grams.

    Raises:
        UsageError: a setting outside its range.
    """

    analyzer: str = "word"
    ngram_range: tuple[int, int] = (1, 2)
    stop_words: tuple[str, ...] = ()
    binary: bool = False
    max_features: int = 1 << 20
    hashing: Hashing = Hashing()  # of stop words only
    strip_accents: str = later("unicode")

    def __post_init__(self) -> None:
        if not 1 <= self.max_features <= MAX_COLUMNS:
            raise UsageError(f"--max-features {self.max_features} must be at least 1 and below 2**31")
        _ = self.ngrams

    @property
    def density(self) -> int:
        """How many times as many n-grams as usual a text has."""
        return self.ngrams.density

    @property
    def ngrams(self) -> NgramSettings:
        """How texts are split into n-grams."""
        return NgramSettings(**common_fields(self, NgramSettings, without=("max_features", "binary", "hashing")))


@dataclass(frozen=True, kw_only=True)
class SequenceSettings:
    """Sequences of token ids; the defaults are the guide's.

    Raises:
        UsageError: a setting outside its range.
    """

    max_features: int = 20_000
    max_length: int = 500
    hashing: Hashing = Hashing()

    def __post_init__(self) -> None:
        if self.max_features < 2 or self.max_length < 1:
            raise UsageError(
                f"--max-features {self.max_features} must be at least 2 and --max-length {self.max_length} at least 1"
            )

    def document_range(self, num_documents: int) -> tuple[int, int | None]:
        """Return the fewest and most times a word must occur to be a candidate; None: no limit."""
        return 1, None

    @property
    def density(self) -> int:
        """As for n-grams: a text has as many words as usual."""
        return 1


CountedSettings = NgramSettings | SequenceSettings  # of vectorizers that are fitted by counting terms
Settings = CountedSettings | HashedSettings


def common_fields(source: Any, cls: type[Any], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of `source` for those fields of a dataclass that it has as well."""
    names = [each.name for each in fields(cls) if each.name not in without]
    return {name: getattr(source, name) for name in names if hasattr(source, name)}


def settings_record(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON values; later settings are omitted where they have their default."""
    defaults = {each.name: each.default for each in fields(settings) if each.metadata.get(_LATER)}
    return {name: value for name, value in asdict(settings).items() if defaults.get(name, ...) != value}


def parse_settings(cls: type[Any], record: Mapping[str, Any]) -> Any:
    """Parse the settings of a class from their record, whose types were checked; the reverse of `settings_record`.

    Raises:
        UsageError: a setting outside its range.
    """
    typed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return cls(**{**typed, "hashing": Hashing(**record["hashing"])})
