"""Laws of a model's outputs: what they mean is found before training, and what does not fit is refused in one line."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from shardtrain.errors import ModelError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import input_adapter, prepare
from shardtrain.models.outputs import Loss, loss_of, meaning_of

NGRAM = DatasetInfo(
    kind="ngram",
    num_features=30,
    vocabulary_size=30,
    class_names=("a", "b", "c"),
    num_train=100,
    num_validation=10,
    vectorizer="v",
    fingerprint="f",
)
BINARY = DatasetInfo(**{**vars(NGRAM), "class_names": ("a", "b")})
SEQUENCE = DatasetInfo(**{**vars(NGRAM), "kind": "sequence", "num_features": 20, "vocabulary_size": 50})
DENSE = DatasetInfo(**{**vars(NGRAM), "kind": "dense"})


def dense(units: int, activation: str | None = None, *after: keras.layers.Layer, sparse: bool = True) -> keras.Model:
    inputs = keras.Input((30,), sparse=sparse)
    outputs = keras.layers.Dense(units, activation=activation)(inputs)
    for layer in after:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def tokens(*layers: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.layers.Embedding(50, 8), keras.layers.GlobalAveragePooling1D(), *layers])


class Subclassed(keras.Model):
    def __init__(self, activation: str | None) -> None:
        super().__init__()
        self.last = keras.layers.Dense(3, activation=activation)

    def call(self, x: Any) -> Any:
        return self.last(x)


def nested() -> keras.Model:
    inputs = keras.Input((30,))
    return keras.Model(inputs, dense(3, "softmax", sparse=False)(inputs))


@pytest.mark.parametrize(
    ("model", "description", "meaning"),
    [
        (lambda: dense(3, "softmax"), NGRAM, "probabilities"),
        (lambda: dense(1, "sigmoid"), BINARY, "probabilities"),
        (lambda: dense(3), NGRAM, "logits"),
        (lambda: dense(1), BINARY, "logits"),
        (lambda: dense(3, "linear", sparse=False), DENSE, "logits"),
        (lambda: dense(3, None, keras.layers.Softmax()), NGRAM, "probabilities"),
        (lambda: dense(3, None, keras.layers.Activation("softmax")), NGRAM, "probabilities"),
        (lambda: dense(3, "softmax", keras.layers.Dropout(0.1)), NGRAM, "probabilities"),
        (lambda: dense(3, None, keras.layers.Dropout(0.1)), NGRAM, "logits"),
        (nested, NGRAM, "probabilities"),
        (lambda: Subclassed("softmax"), NGRAM, "probabilities"),
        (lambda: Subclassed(None), NGRAM, "logits"),
        (lambda: Subclassed("softmax"), DENSE, "probabilities"),
        (lambda: tokens(keras.layers.Dense(3, activation="softmax")), SEQUENCE, "probabilities"),
        (lambda: tokens(keras.layers.Dense(3), keras.layers.Dropout(0.5)), SEQUENCE, "logits"),
    ],
    ids=[
        *("softmax", "sigmoid", "no softmax", "no sigmoid", "linear on dense features", "a softmax layer"),
        *("an activation layer", "dropout after softmax", "dropout after nothing", "a model in a model"),
        *("a subclass with softmax", "a subclass without", "a subclass on dense features"),
        *("sequences with softmax", "sequences without"),
    ],
)
def test_what_the_outputs_mean_is_found_and_a_loss_for_it_is_chosen(
    model: Any, description: DatasetInfo, meaning: str
) -> None:
    keras.utils.set_random_seed(1)
    made = model()
    adapter = prepare(made, description, learning_rate=0.01)
    assert meaning_of(made, adapter, description) == meaning
    assert bool(loss_of(made).from_logits) == (meaning == "logits")
    assert adapter.one_hot == 0


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        ("sparse_categorical_crossentropy", Loss(name="sparse_categorical_crossentropy", from_logits=False)),
        ("SparseCategoricalCrossentropy", Loss(name="sparse_categorical_crossentropy", from_logits=False)),
        (keras.losses.CategoricalCrossentropy(), Loss(name="categorical_crossentropy", from_logits=False)),
        (keras.losses.BinaryCrossentropy(from_logits=True), Loss(name="binary_crossentropy", from_logits=True)),
        ([keras.losses.binary_crossentropy], Loss(name="binary_crossentropy", from_logits=False)),
        ("mse", Loss(name="mean_squared_error", from_logits=None)),
        (keras.losses.KLDivergence(), Loss(name="kl_divergence", from_logits=None)),
        ("crossentropy", Loss()),
        (lambda y_true, y_pred: keras.ops.mean(y_pred), Loss()),
    ],
    ids=["name", "name of a class", "object", "from_logits", "function in a list", "mse", "kl", "automatic", "own"],
)
def test_the_loss_of_a_compiled_model_is_known_however_it_is_given(loss: Any, found: Loss) -> None:
    model = dense(3, "softmax")
    model.compile("sgd", loss)
    assert loss_of(model) == found


def test_every_built_in_loss_of_keras_is_known_by_name() -> None:
    classes = [
        each
        for name, each in vars(keras.losses).items()
        if isinstance(each, type) and issubclass(each, keras.losses.Loss) and each is not keras.losses.Loss
    ]
    assert len(classes) > 15
    for each in classes:
        model = dense(3, "softmax")
        model.compile("sgd", each())
        assert loss_of(model).name, each


@pytest.mark.parametrize(
    ("loss", "units", "activation", "description", "one_hot"),
    [
        ("categorical_crossentropy", 3, "softmax", NGRAM, 3),
        (keras.losses.CategoricalCrossentropy(from_logits=True), 3, None, NGRAM, 3),
        ("binary_crossentropy", 3, "sigmoid", NGRAM, 3),
        ("mse", 3, "softmax", NGRAM, 3),
        ("binary_crossentropy", 2, "softmax", BINARY, 2),
        ("binary_crossentropy", 1, "sigmoid", BINARY, 0),
        ("hinge", 1, "sigmoid", BINARY, 0),
        ("sparse_categorical_crossentropy", 3, "softmax", NGRAM, 0),
        (lambda y_true, y_pred: keras.ops.mean(y_pred), 3, "softmax", NGRAM, 0),
    ],
)
def test_labels_are_one_hot_where_the_loss_takes_these(
    loss: Any, units: int, activation: str | None, description: DatasetInfo, one_hot: int
) -> None:
    model = dense(units, activation)
    model.compile("sgd", loss, metrics=["accuracy"])
    assert prepare(model, description, learning_rate=0.1).one_hot == one_hot
    assert input_adapter(model, description).one_hot == one_hot


def several(inputs: int, outputs: int) -> keras.Model:
    given = [keras.Input((30,), name=f"part_{number}") for number in range(inputs)]
    x = keras.layers.Concatenate()(given) if inputs > 1 else given[0]
    return keras.Model(given, [keras.layers.Dense(3, activation="softmax")(x) for _ in range(outputs)])


def compiled(model: keras.Model, loss: Any) -> keras.Model:
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("model", "description", "said"),
    [
        (lambda: several(2, 1), NGRAM, r"^the model has 2 inputs \('part_0', 'part_1'\); shards have one"),
        (lambda: several(1, 2), NGRAM, r"^the model has 2 outputs \(.*\); it must have one"),
        (
            lambda: compiled(dense(3), "sparse_categorical_crossentropy"),
            NGRAM,
            "not probabilities, and its loss sparse_categorical_crossentropy does not take logits; .*from_logits=True",
        ),
        (lambda: compiled(dense(3), "mse"), NGRAM, "its loss mean_squared_error does not take logits; .*two classes$"),
        (
            lambda: compiled(dense(1, "sigmoid"), "categorical_crossentropy"),
            BINARY,
            "1 output unit, but its loss categorical_crossentropy needs one per class; .*binary_crossentropy",
        ),
        (lambda: compiled(dense(1), "sparse_categorical_crossentropy"), BINARY, "needs one per class"),
        (lambda: compiled(dense(4, "softmax"), "categorical_crossentropy"), NGRAM, "has 4 units; for 3 classes"),
    ],
    ids=[
        *("two inputs", "two outputs", "logits for a loss of probabilities", "logits for a loss of numbers"),
        *("one unit for one-hot labels", "one unit for indices", "too many units"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_remedy(model: Any, description: DatasetInfo, said: str) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        prepare(model(), description, learning_rate=0.1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "metric", ["accuracy", "acc", "binary_accuracy", keras.metrics.BinaryAccuracy(name="accuracy")], ids=str
)
def test_the_accuracy_of_one_logit_is_counted_at_zero_and_the_rest_of_the_compilation_stays(metric: Any) -> None:
    model, optimizer = dense(1), keras.optimizers.SGD(0.5)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=[metric, keras.metrics.AUC(name="auc", from_logits=True)])
    prepare(model, BINARY, learning_rate=0.1)
    assert model.optimizer is optimizer
    assert loss_of(model).from_logits
    labels, logits = keras.ops.array([0, 0, 1, 1]), keras.ops.array([[-1.0], [0.25], [0.25], [1.0]])
    found = model.compute_metrics(None, labels, logits)
    assert float(found[metric if isinstance(metric, str) else metric.name]) == 0.75
    assert float(found["auc"]) == pytest.approx(0.875)
