"""Find why a run decides as it does: terms of its mistakes, and of each class in the model and in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardtrain.errors import RunError, VectorizerError
from shardtrain.inference.explanations import Explanation, TopTerm
from shardtrain.inference.run import Run
from shardtrain.loader.shards import Shards
from shardtrain.report.distinctive import distinctive_features
from shardtrain.report.row_statistics import Counts

TERMS = 8  # of a class
_REASONS = 10  # of a mistake


@dataclass(frozen=True, kw_only=True)
class TypicalTerm:
    """A term that is typical of a class in the data; see `DistinctiveFeature`."""

    term: str
    score: float
    share: float
    share_elsewhere: float


@dataclass(frozen=True, kw_only=True)
class ClassTerms:
    """The terms of a class, the strongest first: those of the model, and those of the training rows."""

    model: tuple[TopTerm, ...]
    data: tuple[TypicalTerm, ...]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of some classes, by index.

    Attributes:
        classes: their terms.
        reason: why those of the model are missing; empty where they are not.
    """

    classes: Mapping[int, ClassTerms]
    reason: str


def explain_texts(run: Run, texts: Mapping[int, str]) -> tuple[dict[int, Explanation], str]:
    """Explain the predicted class of texts, each with a key; return also the reason if that cannot be done."""
    if not texts:
        return {}, ""
    try:
        found = run.explain(list(texts.values()), n=_REASONS)
    except (RunError, VectorizerError) as error:
        return {}, error.on_command_line
    return dict(zip(texts, found, strict=True)), ""


def class_terms(run: Run, shards: Shards, occurrences: Counts | None, classes: Sequence[int]) -> Terms:
    """Find the terms of classes in the model and in the training rows of shards, which are read once more.

    Args:
        run: the run.
        shards: made by the vectorizer of the run.
        occurrences: number of training rows in which each column occurs; None: unknown, for there are too many columns.
        classes: indices of the classes.
    """
    try:
        names = run.load_vectorizer().terms
        found = run.top_terms(TERMS)
    except (RunError, VectorizerError) as error:
        return Terms(classes={}, reason=error.on_command_line)
    typical: dict[int, tuple[TypicalTerm, ...]] = {}
    if occurrences is not None:
        first = 1 if shards.manifest.kind == "sequence" else 0  # id of the first word, or the first column
        features = distinctive_features(shards.train, occurrences, sorted(classes), most=TERMS)
        typical = {
            index: tuple(
                TypicalTerm(
                    term=names[each.column - first],
                    score=each.score,
                    share=each.share,
                    share_elsewhere=each.share_elsewhere,
                )
                for each in best
            )
            for index, best in features.items()
        }
    labels = run.description.class_names
    return Terms(
        classes={index: ClassTerms(model=found[labels[index]], data=typical.get(index, ())) for index in classes},
        reason="",
    )
