"""Open a finished run: a trained model with its vectorizer, configuration and results.

A model that is a network over n-grams, whichever engine trained it, answers without Keras. All others are loaded in
Keras' safe mode, so that a model file cannot run code. Either is loaded only after its checksum was compared, because
neither reader detects a flipped bit in the weights. The vectorizer checks its own files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardtrain.arrays.text_input import checked_texts
from shardtrain.corpus.reading import Reading
from shardtrain.errors import ModelError, RunError
from shardtrain.inference.predictions import Predictions
from shardtrain.loader.info import DatasetInfo
from shardtrain.runtime.backend import check_backend
from shardtrain.runtime.notebook import listed, table
from shardtrain.runtime.progress import short
from shardtrain.training.run_folder import CONFIG, METRICS, MODEL, VECTORIZER, RunFolder, sha256

if TYPE_CHECKING:
    import keras

    from shardtrain.engine.network import Network, Shape
    from shardtrain.inference.classifier import Classifier, RowModel
    from shardtrain.inference.explain import Explainer
    from shardtrain.inference.explanations import Explanation, TopTerm
    from shardtrain.loader.shards import Shards
    from shardtrain.metrics.thresholds import Thresholds
    from shardtrain.vectorize.fitted import Vectorizer

BATCH_TEXTS = 512  # classified per call


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: how it was trained: `model`, `options`, `versions`, and `shards`, their folder at that time.
        description: of the shards it was trained on.
        metrics: `val_accuracy`, `val_loss`, `epochs` and the other results, with a test split `test_accuracy` and
            `test_loss` (None where not finite), `model_sha256` and `config_sha256`; `validation` and `test` hold all
            metrics of these splits, as `Metrics.record` has them.
    """

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    description: DatasetInfo = field(repr=False)
    metrics: Mapping[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Open a finished run folder; see `load_run`."""
        return load_run(path)

    def predict(self, texts: Iterable[str]) -> Predictions:
        """Classify texts, with all results in memory; `shardtrain.inference.predict_file` classifies large files.

        Args:
            texts: a list or any other series of texts, such as a generator or a column of pandas.

        Raises:
            TextsError: these are no texts (also TypeError); the message has the position of what is not one.
            RunError: the run's files are damaged, or the model's outputs are not probabilities.
        """
        names = self.description.class_names
        empty = Predictions(
            names, np.zeros((0, len(names)), np.float32), np.zeros(0, np.uint8), thresholds=self.thresholds
        )
        parts = [empty]
        parts += [batch for _, batch in self._batches(checked_texts(texts, call="run.predict"))]
        probabilities = np.concatenate([part.probabilities for part in parts])
        return replace(empty, probabilities=probabilities, marks=np.concatenate([part.marks for part in parts]))

    def predict_batches(self, texts: Iterable[str]) -> Iterator[tuple[list[str], Predictions]]:
        """Classify texts as they arrive; yield batches of texts with their predictions, in order.

        Raises:
            TextsError: these are no texts (also TypeError); an item that is not one is reported when it is reached.
            RunError: the run's files are damaged, or the model's outputs are not probabilities.
        """
        return self._batches(checked_texts(texts, call="run.predict_batches"))

    def _batches(self, texts: Iterator[str]) -> Iterator[tuple[list[str], Predictions]]:
        classifier = self.classifier()
        while batch := list(islice(texts, BATCH_TEXTS)):
            yield batch, classifier(batch)

    @property
    def thresholds(self) -> Thresholds | None:
        """Below which predictions are "undecided", as `evaluate --choose-threshold` chose them; None: there are none.

        Raises:
            RunError: the file is damaged, or of another model.
        """
        from shardtrain.inference.thresholds import load_thresholds

        return load_thresholds(self)

    def classifier(self, *, threshold: bool = True) -> Classifier:
        """Load the model for repeated use; the vectorizer is loaded on first use.

        Args:
            threshold: whether predictions below the run's thresholds are "undecided".

        Raises:
            RunError: the run's files are damaged.
            ModelError: Keras cannot load the model.
        """
        from shardtrain.inference.classifier import Classifier

        model: RowModel
        if (network := self.load_network()) is not None:
            from shardtrain.inference.network_model import NetworkModel

            model = NetworkModel(network)
        else:
            loaded = self.load_model()
            from shardtrain.inference.keras_model import KerasModel

            model = KerasModel(loaded, self.description, self.config.get("outputs"))
        thresholds = self.thresholds if threshold else None
        names = self.description.class_names
        return Classifier(model, names, self.load_vectorizer, run=self.path, thresholds=thresholds)

    def explain(self, texts: Iterable[str], *, n: int | None = 10, label: str | None = None) -> list[Explanation]:
        """Explain the class of each text: what its terms add to the logit, and where they stand in the text.

        With a linear model and an mlp over n-grams the parts sum to the logit exactly, in float64; with other models
        they are gradient times input, and `rest` is what is missing.

        Args:
            texts: as of `predict`.
            n: terms per text; None: all.
            label: the class to explain, by its name or a label of the corpus; None: the predicted one of each text.

        Raises:
            TextsError: these are no texts (also TypeError).
            UsageError: `n` is not positive, or there is no such class.
            RunError: the run's files are damaged, or the model's outputs are not probabilities.
            ModelError: the model looks up words, but not by a layer of the type `keras.layers.Embedding`.
        """
        from shardtrain.inference.explain import class_of

        explained = None if label is None else class_of(self, label)
        explainer, checked = self.explainer(n), checked_texts(texts, call="run.explain")
        found: list[Explanation] = []
        while batch := list(islice(checked, BATCH_TEXTS)):
            found += explainer(batch, explained=explained).explanations
        return found

    def explainer(self, n: int | None = 10, *, threshold: bool = True) -> Explainer:
        """Load the model to classify and explain repeatedly; see `explain` for `n` and what is raised.

        `threshold` is that of `classifier`.
        """
        from shardtrain.inference.explain import load_explainer

        return load_explainer(self, n, threshold=threshold)

    def top_terms(self, n: int = 10) -> dict[str, tuple[TopTerm, ...]]:
        """Return the terms that speak most for each class in the model, by the name of the class, best first.

        A term's effect is z(e) - z(0): the logit of a row with this term alone, of value 1, less that of a row without
        any. For a linear model that is its weight, which is what each unit of its value adds to the logit of any row;
        for an mlp it is what the term does alone, as in a text of this term only, whose tf-idf row has the length 1. In
        sequences the word is in the last place. Terms without positive effect are omitted.

        Raises:
            UsageError: `n` is not positive.
            VectorizerError: hashed features have no terms.
            RunError: the run's files are damaged, or it has no vectorizer.
        """
        from shardtrain.inference.top_terms import top_terms

        return top_terms(self, n)

    def evaluate(self, shards: Shards | Path | str, *, split: str = "validation") -> dict[str, float]:
        """Compute accuracy, loss and the model's other metrics on a split of shards, open ones or their folder.

        Args:
            shards: made by the run's vectorizer.
            split: "train", "validation" or "test".

        Raises:
            ModelError: the shards were made with another vectorizer, or have other classes.
            ShardsError: there is no such split.
            RunError: the run's files are damaged.
        """
        from shardtrain.inference.evaluate import evaluate
        from shardtrain.loader.shards import Shards, open_shards

        if isinstance(shards, Shards):
            return evaluate(self, shards, split=split)
        with open_shards(shards) as opened:
            return evaluate(self, opened, split=split)

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        metrics = self.metrics
        return table(
            f"Run {self.path}",
            {
                "model": self.config["model"],
                "validation accuracy": f"{metrics['val_accuracy']:.4f}",
                "validation loss": short(metrics["val_loss"]),
                **({"test accuracy": f"{tested:.4f}"} if (tested := metrics.get("test_accuracy")) is not None else {}),
                "epochs": f"{metrics['epochs']:,}"
                + (f", the best one is {metrics['best_epoch']:,}" if "best_epoch" in metrics else ""),
                "trained on": f"{self.description.num_train:,} examples, "
                f"{self.description.num_features:,} {self.description.kind} features",
                "classes": listed(self.description.class_names),
            },
        )

    @property
    def labels(self) -> dict[str, int]:
        """Return the class index of each raw label of the corpus; of a run that records none, of the class names."""
        recorded = self.config.get("labels")
        return dict(recorded) if recorded else {name: code for code, name in enumerate(self.description.class_names)}

    @property
    def reading(self) -> Reading | None:
        """Return how the training corpus was read; None of a run that does not record it."""
        return Reading.of_record(self.config.get("corpus"))

    @property
    def needs_keras(self) -> bool:
        """Whether `predict` and `evaluate` import Keras: the model is not a network over n-grams.

        Raises:
            RunError: the model's file is missing or differs from what was saved.
        """
        return self._network_shape() is None

    def load_network(self) -> Network | None:
        """Load the trained model as a network of compiled kernels; None where it is not one.

        Raises:
            RunError: the file differs from what was saved.
            ModelError: its weights cannot be read.
        """
        shape = self._network_shape()
        if shape is None:
            return None
        from shardtrain.engine.keras_file import read_keras

        return read_keras(self.path / MODEL, shape)

    def _network_shape(self) -> Shape | None:
        """Return the shape of the network in the model file; None where there is none for the run's features."""
        from shardtrain.engine.keras_file import network_shape

        self._verify_model()
        about, shape = self.description, network_shape(self.path / MODEL)
        if shape is None or self.config.get("outputs") == "logits":
            return None
        fits = (shape.features, max(2, shape.dims[-1])) == (about.num_features, about.num_classes)
        return shape if fits and about.kind == "ngram" else None

    def load_model(self) -> keras.Model:
        """Load the trained model, compiled as it was trained.

        Raises:
            RunError: the file differs from what was saved.
            ModelError: Keras cannot load it.
            UsageError: another backend than TensorFlow is chosen for Keras.
        """
        check_backend()
        self._verify_model()
        import keras

        import shardtrain.models.layers
        import shardtrain.models.optimizers  # noqa: F401 - both register the classes that a saved model names
        from shardtrain.models.guide import compile_model

        try:
            model = keras.saving.load_model(self.path / MODEL, safe_mode=True)
        except (TypeError, ValueError, ImportError) as error:  # raised by Keras for unknown classes
            raise ModelError(
                f"the model of '{self.path}' cannot be loaded: {str(error).strip().splitlines()[0]}; if it has custom "
                "layers, import the module that registers them first (on the command line: `--import MODULE`)"
            ) from error
        if not model.compiled:  # the fused engine wrote it
            compile_model(model, model.output_shape[-1], 0.0, None)
        return model

    def load_vectorizer(self) -> Vectorizer:
        """Load the vectorizer that the model's features were made with.

        Raises:
            VectorizerError: it is missing or damaged.
            RunError: there is none, or it is not the one that the model was trained with.
        """
        from shardtrain.vectorize.fitted import load_vectorizer

        if not self.description.vectorizer:
            raise RunError(
                f"'{self.path}' was trained on {self.description.kind} features that were not made from text, so it "
                "cannot classify texts; use its model.keras on such features, or `python -m shardtrain evaluate`"
            )
        vectorizer = load_vectorizer(self.path / VECTORIZER)
        found = vectorizer.describe()["fingerprint"]
        if found != self.description.vectorizer:
            raise RunError(
                f"'{self.path / VECTORIZER}' is not the vectorizer of this run: its fingerprint is {found}, "
                f"{CONFIG} says {self.description.vectorizer}; copy it again from the shards"
            )
        return vectorizer

    def _verify_model(self) -> None:
        path = self.path / MODEL
        if not path.is_file():
            raise RunError(
                f"'{path}' is missing; restore it from a copy or train again with `python -m shardtrain fit`"
            )
        found, expected = sha256(path), self.metrics["model_sha256"]
        if found != expected:
            raise RunError(
                f"'{path}' is damaged: its SHA-256 is {found[:16]}…, {METRICS} says {expected[:16]}…; "
                "restore it from a copy or train again with `python -m shardtrain fit`"
            )


def load_run(path: Path | str) -> Run:
    """Open a finished run folder; model and vectorizer are loaded later.

    Raises:
        RunNotFoundError: no such folder, or the run in it is unfinished.
        RunError: its JSON files are damaged or of another version.
    """
    folder = Path(path)
    record = RunFolder(folder).read()
    return Run(path=folder, config=record.config, description=record.description, metrics=record.metrics)
