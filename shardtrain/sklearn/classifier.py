"""Use `fit`'s models as a scikit-learn classifier of texts, numbers or finished shards.

Data in memory is written to a scratch folder, converted to shards and trained on as by the command line, so features,
training loop and best epoch are the same. The finished run is kept in memory as the bytes of its files: a fitted
classifier can be pickled and copied, and needs no folder. The cost is twice the size of the run in memory.

scikit-learn's estimator checks run on it (tests/package/test_sklearn.py) with dense and sparse numbers. Those that do
not apply are in `NOT_APPLICABLE`, each with its reason.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.api import build, fit
from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features
from shardtrain.arrays.text_input import holds_texts, text_sequence
from shardtrain.errors import LabelError, MissingExtraError, TextsError, UsageError
from shardtrain.inference.classifier import Classifier
from shardtrain.inference.rows import check_shards
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.order import permutation
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.options import AUTO, MlpOptions, model_for
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.options import ConvertOptions
from shardtrain.runtime.progress import NORMAL, QUIET, verbosity
from shardtrain.sklearn.kept_files import read_files, written_files

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise MissingExtraError(
        "shardtrain.sklearn has estimators for scikit-learn; install it with `pip install 'shardtrain[sklearn]'`"
    ) from error

_FLOAT32 = "a float32 probability may differ in the seventh digit with the other rows of its batch; these allow 1e-7"
NOT_APPLICABLE: dict[str, str] = {
    "check_methods_sample_order_invariance": _FLOAT32,
    "check_methods_subset_invariance": _FLOAT32,
}
_ROWS = 4096  # rows of shards per batch


class ShardClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier that trains the models of `shardtrain.fit`.

    Args:
        vectorizer: of texts, as in `BuildOptions`; ignored for numbers, as are the next two.
        ngram_range: fewest and most words of an n-gram.
        max_features: number of n-grams, or size of the vocabulary; None: the vectorizer's default.
        model: "auto", "mlp", "linear" or "sepcnn".
        units: of the hidden layer of an mlp.
        recipe: "auto", "fast" or "guide", which decides what is None below, as `fit` does.
        epochs: the most epochs to train; None, as for the next three: what `fit` chooses.
        patience: epochs without a lower validation loss after which training stops.
        batch_size: rows per step.
        learning_rate: of the optimizer.
        validation_fraction: of the examples of each class, held out to select the best epoch.
        random_state: seed of weights, dropout, order and held-out examples; an integer.
        folder: where shards and run are kept; None: they are not kept.
        verbose: report progress on stderr.

    Attributes:
        classes_: the classes, (num_classes,).
        n_features_in_: number of columns; not set for texts.
        metrics_: as `Run.metrics`.
    """

    def __init__(
        self,
        *,
        vectorizer: str = "ngram",
        ngram_range: tuple[int, int] = (1, 2),
        max_features: int | None = None,
        model: str = "auto",
        units: int = 64,
        recipe: str = "auto",
        epochs: int | None = None,
        patience: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation_fraction: float = 0.1,
        random_state: int = 1,
        folder: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.vectorizer = vectorizer
        self.ngram_range = ngram_range
        self.max_features = max_features
        self.model = model
        self.units = units
        self.recipe = recipe
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.folder = folder
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> ShardClassifier:
        """Train a model.

        Args:
            X: texts, (examples,), as a list, an array or a column of pandas or polars; numbers, (examples,
                num_features), dense or a scipy matrix; or shards, open or their folder.
            y: the class of each example; None for shards, which hold labels.

        Raises:
            ValueError: scikit-learn's validation refuses the data, or no classifier can be trained on the labels.
            TextsError: the texts are not a series of texts (also TypeError); the message has the right call.
        """
        with ExitStack() as stack:
            stack.enter_context(verbosity(NORMAL if self.verbose else QUIET))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="shardtrain-"))
            folder = Path(scratch if self.folder is None else self.folder)
            if isinstance(X, Shards | str | Path):
                if y is not None:
                    raise UsageError("shards hold their labels; omit y")
                shards = _opened(X, stack)
                self.classes_ = np.array(shards.description.class_names)
            else:
                shards = stack.enter_context(self._make_shards(X, y, folder, Path(scratch)))
            self._train(shards, folder / "run")
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Classify texts, rows, or the examples of the shards' validation split; return classes, (examples,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Classify as `predict`; return the probabilities of `classes_`, (examples, num_classes).

        Raises:
            TextsError: the texts are not a series of texts (also TypeError); the message has the right call.
        """
        check_is_fitted(self)
        if isinstance(X, Shards | str | Path):
            with ExitStack() as stack:
                shards = _opened(X, stack)
                check_shards(self._run, shards)
                parts = [self._classifier.classify_rows(x).probabilities for x, _ in shards.validation.batches(_ROWS)]
                return np.concatenate(parts)
        X = list(X) if isinstance(X, Iterator) else X
        if holds_texts(X) or (not hasattr(self, "n_features_in_") and getattr(X, "ndim", 1) == 1):
            return self._classifier(text_sequence(X, call="classifier.predict")).probabilities
        if not hasattr(self, "n_features_in_"):
            raise UsageError(
                "the classifier was trained on texts; give texts, (examples,), or shards of its vectorizer"
            )
        X = validate_data(self, X, accept_sparse="csr", reset=False, dtype=np.float32)
        return self._classifier.classify_rows(_features(X)).probabilities

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the accuracy; of shards on their validation split, with their labels."""
        if isinstance(X, Shards | str | Path):
            with ExitStack() as stack:
                shards = _opened(X, stack)
                return float(super().score(shards, self.classes_[shards.validation.labels()], sample_weight))
        return float(super().score(X, y, sample_weight))

    def _make_shards(self, X: Any, y: Any, folder: Path, scratch: Path) -> Shards:
        """Make shards of texts or numbers and their classes."""
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction is {self.validation_fraction}; it must be above 0 and below 1")
        self.__dict__.pop("n_features_in_", None)
        X = list(X) if isinstance(X, Iterator) else X
        text = holds_texts(X)
        if text:
            X = np.array(text_sequence(X, call="classifier.fit"), dtype=object)
            if y is None:
                raise UsageError("fit needs the class of each text: requires y to be passed, but the target y is None")
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        else:
            X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise LabelError(f"at least two classes are needed to train a classifier; y has 1 class, {y[0]!r}")
        held = held_out(codes, self.validation_fraction, self.random_state)
        splits = {"train": ~held if not held.all() else held, "validation": held}
        write = _write_texts if text else _write_numbers
        files = {name: write(scratch / name, X[chosen], codes[chosen]) for name, chosen in splits.items()}
        if not text:
            options = ConvertOptions(
                y=tuple(str(labels) for _, labels in files.values()),
                validation=(files["validation"][0],),
                kind="dense" if isinstance(X, np.ndarray) else "sparse",
                labels="integers",
                seed=self.random_state,
                workers=1,
                overwrite=True,
            )
            convert([files["train"][0]], folder / "shards", options)
            return open_shards(folder / "shards")
        return build(
            files["train"][0],
            folder / "shards",
            validation=files["validation"][0],
            vectorizer=self.vectorizer,
            ngram_range=self.ngram_range,
            max_features=self.max_features,
            labels="integers",
            label_column="label",
            text_columns=("text",),
            seed=self.random_state,
            workers=1,
            overwrite=True,
        )

    def _train(self, shards: Shards, folder: Path) -> None:
        model = model_for(shards.description.kind) if self.model == AUTO else self.model
        run = fit(
            shards,
            out=folder,
            overwrite=True,
            model=self.model,
            mlp=MlpOptions(units=self.units) if model == "mlp" else MlpOptions(),
            recipe=self.recipe,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.random_state,
        )
        if not run.description.vectorizer:
            self.n_features_in_ = run.description.num_features
        self.metrics_ = dict(run.metrics)
        self._files = read_files(folder)
        self._run, self._classifier = _loaded(self._files)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for name in ("_run", "_classifier"):  # loaded again from the files
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            self._run, self._classifier = _loaded(self._files)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.string = True
        return tags


def held_out(codes: npt.NDArray[np.integer[Any]], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Select the held-out examples, a mask of (examples,): the fraction of each class, and at least one in all.

    Every class keeps an example to train on. If each class has only one example, all are both held out and trained on.
    """
    held = np.zeros(len(codes), np.bool_)
    counts = np.bincount(codes)
    taken = np.minimum(np.round(counts * fraction).astype(np.int64), np.maximum(counts - 1, 0))
    if not taken.any() and counts.max() > 1:
        taken[counts.argmax()] = 1
    for code, count in enumerate(taken.tolist()):
        members = np.flatnonzero(codes == code)
        held[members[permutation(len(members), seed, code)[:count]]] = True
    return held if held.any() else ~held


def _opened(X: Shards | str | Path, stack: ExitStack) -> Shards:
    """Return shards, opened until `stack` ends if they are given by their folder."""
    if isinstance(X, Shards):
        return X
    if isinstance(X, str) and not os.path.exists(X):
        shown = repr(X) if len(X) <= 60 else f"{X[:59]!r}…"
        raise TextsError(f"there is no folder of shards {shown}; if this is a text, pass a list of texts: [text]")
    return stack.enter_context(open_shards(X))


def _features(X: Any) -> Features:
    """Return validated numbers as feature rows."""
    if isinstance(X, np.ndarray):
        return X
    X = _sorted(X)
    return Csr(X.data, X.indices.astype(np.int32, copy=False), X.indptr, X.shape)


def _sorted(X: Any) -> Any:
    """Copy a scipy matrix with sorted columns and no duplicates in its rows."""
    X = X.copy()
    X.sum_duplicates()
    return X


def _write_texts(path: Path, texts: npt.NDArray[Any], codes: npt.NDArray[Any]) -> tuple[Path, Path]:
    file = path.with_suffix(".jsonl")
    with open(file, "w", encoding="utf-8") as lines:
        for text, code in zip(texts.tolist(), codes.tolist(), strict=True):
            lines.write(json.dumps({"label": code, "text": text}) + "\n")
    return file, file


def _write_numbers(path: Path, X: Any, codes: npt.NDArray[Any]) -> tuple[Path, Path]:
    labels = path.with_suffix(".labels.npy")
    np.save(labels, codes)
    if isinstance(X, np.ndarray):
        np.save(path.with_suffix(".npy"), X)
        return path.with_suffix(".npy"), labels
    import scipy.sparse

    scipy.sparse.save_npz(path.with_suffix(".npz"), scipy.sparse.csr_matrix(_sorted(X)))
    return path.with_suffix(".npz"), labels


def _loaded(files: dict[str, bytes]) -> tuple[Run, Classifier]:
    """Load the run in these files and its classifier; no folder is needed afterwards."""
    with written_files(files) as folder:
        run = load_run(folder)
        classifier = run.classifier()
        if run.description.vectorizer:
            _ = classifier.vectorizer  # its arrays are mapped, and stay mapped after the folder is removed
        return run, classifier
