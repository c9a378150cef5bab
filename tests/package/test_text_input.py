"""Laws of calls that take texts: every series of texts is one, all else is refused with the call that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus
from support.training import fit

from shardtrain.arrays.text_input import checked_texts, holds_texts, text_sequence
from shardtrain.arrays.texts import Texts
from shardtrain.errors import ShardtrainError, TextsError
from shardtrain.inference.run import Run
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.sklearn import ShardClassifier
from shardtrain.training.options import FitOptions


class Column:
    """A column as polars has it: a length, a shape, items and an iterator; no base class and no package."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values
        self.dtype, self.shape = "String", (len(values),)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: int) -> Any:
        return self._values[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


class Table:
    """A table as polars has it."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return self._columns

    @property
    def shape(self) -> tuple[int, int]:
        return 2, len(self._columns)

    def __getitem__(self, name: str) -> Column:
        return Column(list(TEXTS))


SERIES: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "map": lambda texts: map(str, texts),
    "values of a dict": lambda texts: dict(enumerate(texts)).values(),
    "numpy strings": np.array,
    "numpy objects": lambda texts: np.array(texts, object),
    "pandas Series": pd.Series,
    "pandas Series with an index of its own": lambda texts: pd.Series(texts, index=range(7, 7 + len(texts))),
    "pandas string Series": lambda texts: pd.Series(texts, dtype="string"),
    "pandas category": lambda texts: pd.Series(texts, dtype="category"),
    "polars-like column": Column,
    "Arrow array": pa.array,
    "Arrow chunks": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "Texts": Texts.from_strings,
}


@pytest.mark.parametrize("make", SERIES.values(), ids=SERIES)
def test_every_series_of_texts_is_one(make: Callable[[list[str]], Any]) -> None:
    texts = ["a b", "", "ä"]
    assert list(checked_texts(make(texts), call="f")) == texts
    assert list(text_sequence(make(texts), call="f")) == texts
    assert holds_texts(made := make(texts)) or not hasattr(made, "__getitem__")


NOT_A_SERIES: dict[str, tuple[Any, str]] = {
    "a text": ("the match", r"not a single text; call f\(\['the match'\]\)"),
    "a long text": ("x" * 100, r"not a text; call f\(\[text\]\)"),
    "bytes": (b"the match", r"not bytes; call f\(\[data.decode\(\)\]\)"),
    "a bytearray": (bytearray(b"x"), "not bytes"),
    "nothing": (None, r"not None \(NoneType\); call f\(\[text\]\)"),
    "a number": (7, r"not 7 \(int\)"),
    "a path": (Path("texts.txt"), r"not a path; call f\(path.read_text\(\).splitlines\(\)\)"),
    "a dict": ({"a": "b"}, r"not a dict; call f\(list\(texts.values\(\)\)\)"),
    "a set": ({"a"}, r"not a set, which has no order; call f\(sorted\(texts\)\)"),
    "a DataFrame": (
        pd.DataFrame({"id": [1], "text": ["x"]}),
        r"not a DataFrame of the columns 'id', 'text'; pass one column: f\(table\['text'\]\)",
    ),
    "a DataFrame of numbers": (pd.DataFrame({0: ["x"]}), r"the columns '0'; pass one column"),
    "an Arrow table": (pa.table({"body": ["x"]}), r"not a Table of the columns 'body'; .* f\(table\['body'\]\)"),
    "a polars-like table": (Table(["a", "b", "c", "d", "e", "g"]), r"'e' and 1 more; .* f\(table\['a'\]\)"),
    "a column as a matrix": (np.array([["a"], ["b"]]), r"ndarray of shape \(2, 1\); .* f\(texts\[:, 0\]\)"),
    "an array without dimension": (np.array("a"), r"of shape \(\); .* f\(texts.reshape\(-1\)\)"),
}


@pytest.mark.parametrize(("value", "said"), NOT_A_SERIES.values(), ids=NOT_A_SERIES)
def test_what_is_no_series_of_texts_is_refused_at_once_with_the_right_call(value: Any, said: str) -> None:
    with pytest.raises(TextsError, match=f"^f takes a list of texts, .*{said}"):
        checked_texts(value, call="f")


NOT_A_TEXT: dict[str, tuple[Any, str]] = {
    "None": (None, "None, a missing value; leave it out"),
    "NaN": (float("nan"), "nan, a missing value"),
    "NaN of numpy": (np.float32("nan"), r"np.float32\(nan\), a missing value"),
    "NA of pandas": (pd.NA, "<NA>, a missing value"),
    "a number": (7, r"7 \(int\), not a text"),
    "a float": (0.5, r"0.5 \(float\), not a text"),
    "a decimal": (Decimal(1), r"Decimal\('1'\) \(Decimal\), not a text"),
    "a truth value": (True, r"True \(bool\), not a text"),
    "bytes": (b"x", r"b'x', which is bytes; call f\(\[text.decode\(\) for text in texts\]\)"),
    "a list": (["a", "b"], r"\['a', 'b'\] \(list\), not a text; pass a flat list"),
    "a long list": (["word"] * 100_000, r"\['word', .*… \(list\), not a text"),
    "an array": (np.zeros(3), r"array\(\[0., 0., 0.\]\) \(ndarray\), not a text"),
}


@pytest.mark.parametrize(("value", "said"), NOT_A_TEXT.values(), ids=NOT_A_TEXT)
def test_an_item_that_is_no_text_is_refused_with_position_and_value(value: Any, said: str) -> None:
    items = checked_texts(["a", "b", value, "c"], call="f")
    assert [next(items), next(items)] == ["a", "b"]
    with pytest.raises(TextsError, match=f"^f: the text at position 2, counted from 0, is {said}"):
        next(items)


def test_positions_are_those_of_the_series_not_labels_of_its_index() -> None:
    with pytest.raises(TextsError, match="at position 1, counted from 0, is nan, a missing value"):
        text_sequence(pd.Series(["a", np.nan], index=[70, 80]), call="f")


def test_the_error_is_what_a_caller_would_catch() -> None:
    assert issubclass(TextsError, TypeError)
    assert issubclass(TextsError, ValueError)
    assert issubclass(TextsError, ShardtrainError)


@pytest.mark.parametrize(
    "numbers",
    [[[1.0, 2.0]], [1, 2], [], np.zeros((3, 2)), np.zeros(3), np.zeros((2, 2), object), pd.DataFrame({"a": [1.5]})],
    ids=lambda value: type(value).__name__,
)
def test_numbers_are_not_taken_for_texts(numbers: Any) -> None:
    assert not holds_texts(numbers)


# The calls


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("texts")
    corpus = write_corpus(root / "corpus", tuple(TOPICS))
    build(corpus, root / "shards", BuildOptions(workers=1))
    options = FitOptions(epochs=8, batch_size=16, learning_rate=0.02, mlp=MlpOptions(units=8))
    with open_shards(root / "shards") as shards:
        return fit(shards, options, out=root / "run")


@pytest.fixture(scope="module")
def classifier(run: Run) -> ShardClassifier:
    return ShardClassifier(epochs=12, batch_size=16, learning_rate=0.02, units=8).fit(run.path.parent / "shards")


@pytest.fixture(scope="module")
def calls(run: Run, classifier: ShardClassifier) -> dict[str, Callable[[Any], Any]]:
    """Every public call that takes texts, with its results as an array of a row for each text."""
    return {
        "run.predict": lambda texts: run.predict(texts).probabilities,
        "run.predict_batches": lambda texts: np.concatenate(
            [np.zeros((0, 3), np.float32), *(part.probabilities for _, part in run.predict_batches(texts))]
        ),
        "classifier": lambda texts: run.classifier()(texts).probabilities,
        "vectorizer.transform": lambda texts: run.load_vectorizer().transform(texts),
        "classifier.predict": classifier.predict,
        "classifier.predict_proba": classifier.predict_proba,
    }


CALLS = [
    "run.predict",
    "run.predict_batches",
    "classifier",
    "vectorizer.transform",
    "classifier.predict",
    "classifier.predict_proba",
]


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_every_series_and_refuses_the_rest(calls: dict[str, Callable[[Any], Any]], name: str) -> None:
    call, expected = calls[name], calls[name](list(TEXTS))
    for kind in ("generator", "tuple", "numpy strings", "pandas string Series", "polars-like column", "Arrow array"):
        found = call(SERIES[kind](list(TEXTS)))
        equal = found.shape == expected.shape if name == "vectorizer.transform" else np.array_equal(found, expected)
        assert equal, kind
    assert call([]).shape == (0, *expected.shape[1:])
    refused = (
        "the match",
        b"the match",
        [None, "the match"],
        ["the match", float("nan")],
        [["the", "match"]],
        pd.DataFrame({"text": list(TEXTS)}),
    )
    for value in refused:
        with pytest.raises(TypeError, match=r"\btexts?\b"):
            call(value)


def test_the_run_shows_its_own_call(run: Run) -> None:
    with pytest.raises(TypeError, match=r"call run.predict\(\['the match'\]\)"):
        run.predict("the match")
    assert run.predict(pd.Series(TEXTS)).labels == EXPECTED
    assert run.predict([]).labels == []


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["oven", None], "classifier.fit: the text at position 1, counted from 0, is None"),
        ([["oven"], ["mast"]], r"position 0, counted from 0, is \['oven'\] \(list\)"),
        (pd.DataFrame({"text": ["oven", "mast"]}), r"call|pass one column: classifier.fit\(table\['text'\]\)"),
        ("oven", "no folder of shards 'oven'; if this is a text, pass a list of texts"),
        (b"oven", r"classifier.fit takes a list of texts, not bytes"),
    ],
    ids=["a missing value", "lists", "a table", "a text", "bytes"],
)
def test_a_classifier_is_not_fitted_to_what_are_no_texts(texts: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        ShardClassifier(epochs=1).fit(texts, None if isinstance(texts, str) else ["a", "b"])
