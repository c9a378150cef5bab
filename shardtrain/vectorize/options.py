"""Declare the options for the features that a build makes of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.options import changed, checked, flag, option
from shardtrain.vectorize.settings import (
    ANALYZERS,
    MAX_COLUMNS,
    SELECTORS,
    STRIP_ACCENTS,
    VECTORIZERS,
    HashedSettings,
    Limit,
    NgramSettings,
    SequenceSettings,
    Settings,
    common_fields,
)

_GROUP = "features"
_OF_NGRAMS = (
    "analyzer",
    "strip_accents",
    "ngram_range",
    "min_df",
    "max_df",
    "stop_words",
    "binary",
    "sublinear_tf",
    "select",
)
_OF_VOCABULARIES = ("min_df", "max_df", "sublinear_tf", "select")  # hashed n-grams have none


def _limit(text: str) -> Limit:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number of documents nor a proportion") from None


def _number(text: str) -> int:
    if text == "all":
        return MAX_COLUMNS
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a whole number nor all") from None


def read_stop_words(path: Path | str) -> tuple[str, ...]:
    """Read the words of a UTF-8 file, one per line; white space around them and empty lines do not count.

    Raises:
        UsageError: the file cannot be read or is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"--stop-words '{path}' cannot be read: {reason}; it is a file with a word per line"
        ) from error
    return tuple(word for line in lines if (word := line.strip()))


@checked
@dataclass(frozen=True, kw_only=True)
class VectorizerOptions:
    """Options for the features made of text.

    Attributes:
        vectorizer: "ngram" (tf-idf), "count", "hashing" (stateless), "sequence" or
            "auto" ("ngram" or "sequence" by the guide's rule).
        max_features: n-grams kept, columns of hashed n-grams, or size of the vocabulary including the id for padding;
            "all", for which memory must have room; None: 20,000, or 2**20 columns.
        analyzer: n-grams of what: "word", "char" or "char_wb" (characters within words).
        strip_accents: "unicode", or "none" where accents distinguish words.
        ngram_range: fewest and most words or characters of an n-gram.
        min_df: fewest training documents an n-gram must occur in; a float is a proportion of them.
        max_df: most training documents it may occur in, or a proportion of them.
        stop_words: words that are removed before n-grams are made.
        binary: an n-gram counts once per document, however often it occurs.
        sublinear_tf: 1 + ln(times) in place of times.
        select: how n-grams are chosen: "f_classif", "chi2" or "none" (the most frequent).
        max_length: most token ids of a sequence.

    Raises:
        UsageError: a value outside its range, or one that has no effect with this vectorizer.
    """

    vectorizer: str = option(
        "ngram",
        "tf-idf, counts or hashes of n-grams for an mlp, token ids for a sepcnn, or auto: ngram or sequence by the "
        "ratio of documents to their words",
        group=_GROUP,
        choices=VECTORIZERS,
    )
    max_features: int | None = option(
        None,
        "n-grams kept, vocabulary size, or columns with hashing; all: every one that --min-df and --max-df leave",
        group=_GROUP,
        metavar="N|all",
        parse=_number,
        unset="20000; with hashing 1048576",
    )
    analyzer: str = option(
        "word",
        "n-grams of words, of characters, or of characters within words, padded with spaces",
        group=_GROUP,
        choices=ANALYZERS,
    )
    strip_accents: str = option(
        "unicode",
        "remove accents before n-grams are made, or keep them where they distinguish words",
        group=_GROUP,
        choices=STRIP_ACCENTS,
    )
    ngram_range: tuple[int, int] = option(
        (1, 2), "words or characters of an n-gram", group=_GROUP, metavar=("LOW", "HIGH"), nargs=2, parse=int
    )
    min_df: Limit = option(
        2,
        "fewest training documents an n-gram must occur in; with a decimal point, a proportion of them",
        group=_GROUP,
        metavar="N|F",
        parse=_limit,
    )
    max_df: Limit = option(
        1.0,
        "most training documents an n-gram may occur in; with a decimal point, a proportion of them",
        group=_GROUP,
        metavar="N|F",
        parse=_limit,
    )
    stop_words: tuple[str, ...] = option(
        (),
        "words that are removed before n-grams are made, one per line in lower case",
        group=_GROUP,
        metavar="FILE",
        convert=read_stop_words,
        unset="none",
    )
    binary: bool = option(False, "count an n-gram once per document, however often it occurs", group=_GROUP)
    sublinear_tf: bool = option(False, "weigh n-grams by 1 + ln(times) in place of times", group=_GROUP)
    select: str = option(
        "f_classif",
        "how n-grams are chosen: by ANOVA F, by chi-squared, or the most frequent",
        group=_GROUP,
        choices=SELECTORS,
    )
    max_length: int = option(500, "most token ids of a sequence", group=_GROUP, metavar="N", parse=int)

    def __post_init__(self) -> None:
        if self.vectorizer not in ("sequence", "auto"):
            self._refuse(("max_length",), "is for sequences")
        if self.vectorizer == "sequence":
            self._refuse(_OF_NGRAMS, "is for n-grams")
        elif self.vectorizer == "hashing":
            self._refuse(_OF_VOCABULARIES, "needs a vocabulary")
            if self.max_features == MAX_COLUMNS:
                raise UsageError("--max-features all needs a vocabulary, not --vectorizer hashing; give a number")
        for kind in self.candidates:
            self.settings(kind)  # refuses what is out of range before any work

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        """Refuse options that were changed although they have no effect."""
        for name in changed(self, names):
            raise UsageError(f"{flag(name)} {reason}, not for --vectorizer {self.vectorizer}")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The vectorizers that may be fitted: one, or of "auto" those it chooses from."""
        return ("ngram", "sequence") if self.vectorizer == "auto" else (self.vectorizer,)

    def settings(self, kind: str) -> Settings:
        """Return the settings of a vectorizer that is to be fitted.

        Args:
            kind: "ngram", "count", "hashing" or "sequence".
        """
        cls = {"sequence": SequenceSettings, "hashing": HashedSettings}.get(kind, NgramSettings)
        given = {**common_fields(self, cls), "max_features": self.num_features}
        if kind != "sequence":
            given["stop_words"] = tuple(sorted(set(self.stop_words)))
        if cls is NgramSettings:
            given["weighting"] = "count" if kind == "count" else "tfidf"
        made: Settings = cls(**given)
        return made

    @property
    def num_features(self) -> int:
        """`max_features`, or its default for the vectorizer."""
        if self.max_features is not None:
            return self.max_features
        return 1 << 20 if self.vectorizer == "hashing" else 20_000

    @property
    def density(self) -> int:
        """How many times as many terms as usual a text has; units are smaller by this factor."""
        return self.settings(self.candidates[0]).density
