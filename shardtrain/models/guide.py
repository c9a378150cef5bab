"""The models of Google's text classification guide, and the way from any model to a compiled one that fits the shards.

`mlp` is for n-grams, where it starts with a sparse layer, and for dense features, as is `linear`; `sepcnn` is for
sequences; each is built layer by layer as the guide has it. All layers have names and seeds of their own, so that equal
seeds give equal weights without touching a global generator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.errors import ModelError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.adapters import InputAdapter
from shardtrain.models.layers import SparseDense, SparseDropout
from shardtrain.models.optimizers import FusedAdam
from shardtrain.models.options import AUTO, KINDS, MlpOptions, SepcnnOptions, model_for
from shardtrain.models.schedules import Rate
from shardtrain.models.user_models import SUFFIX, ModelFunction, call_function, load_file, load_function, said


def mlp(description: DatasetInfo, options: MlpOptions, *, seed: int) -> keras.Model:
    """Dropout on the input, then layers - 1 times [dense relu, dropout], then the output; n-grams stay sparse."""
    seeds = _seeds(seed)
    sparse = description.kind == "ngram"
    inputs = keras.Input((description.num_features,), sparse=sparse, name="ngrams" if sparse else "features")
    dropout, first = (SparseDropout, SparseDense) if sparse else (keras.layers.Dropout, keras.layers.Dense)
    x = dropout(options.dropout, seed=next(seeds), name="dropout_input")(inputs)
    for number in range(1, options.layers):
        dense = first if number == 1 else keras.layers.Dense
        x = dense(options.units, activation="relu", kernel_initializer=_glorot(seeds), name=f"dense_{number}")(x)
        x = keras.layers.Dropout(options.dropout, seed=next(seeds), name=f"dropout_{number}")(x)
    last = keras.layers.Dense if options.layers > 1 else first
    return keras.Model(inputs, _output(x, last, description, seeds), name="mlp")


def linear(description: DatasetInfo, *, seed: int) -> keras.Model:
    """The output layer alone, which is logistic regression; n-grams stay sparse."""
    sparse = description.kind == "ngram"
    inputs = keras.Input((description.num_features,), sparse=sparse, name="ngrams" if sparse else "features")
    layer = SparseDense if sparse else keras.layers.Dense
    return keras.Model(inputs, _output(inputs, layer, description, _seeds(seed)), name="linear")


def sepcnn(description: DatasetInfo, options: SepcnnOptions, *, seed: int) -> keras.Model:
    """Embedding, blocks of separable convolutions with pooling between them, global average, dropout, output.

    Raises:
        ModelError: the sequences are too short for that much pooling.
    """
    shortest = options.pool_size ** (options.blocks - 1)
    if description.num_features < shortest:
        raise ModelError(
            f"sepcnn with {options.blocks} blocks and pools of {options.pool_size} needs sequences of at least "
            f"{shortest} tokens, these have {description.num_features}; use fewer --blocks or a smaller --pool-size"
        )
    seeds = _seeds(seed)
    inputs = keras.Input((description.num_features,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(
        description.vocabulary_size,
        options.embedding_dim,
        embeddings_initializer=keras.initializers.RandomUniform(seed=next(seeds)),
        name="embedding",
    )(inputs)
    for block in range(1, options.blocks):
        x = keras.layers.Dropout(options.dropout, seed=next(seeds), name=f"dropout_{block}")(x)
        x = _convolutions(x, options.filters, options.kernel_size, block, seeds)
        x = keras.layers.MaxPooling1D(options.pool_size, name=f"pool_{block}")(x)
    x = _convolutions(x, 2 * options.filters, options.kernel_size, options.blocks, seeds)
    x = keras.layers.GlobalAveragePooling1D(name="average")(x)
    x = keras.layers.Dropout(options.dropout, seed=next(seeds), name="dropout_output")(x)
    return keras.Model(inputs, _output(x, keras.layers.Dense, description, seeds), name="sepcnn")


def _convolutions(x: Any, filters: int, kernel_size: int, block: int, seeds: Iterator[int]) -> Any:
    """The two separable convolutions of a block.

    The guide asks for uniform depthwise weights and names no range. When it was written "uniform" meant [0, 1); the
    ±0.05 of today's Keras makes the signal 20 times smaller a layer, and training stays at chance. The range here is
    LeCun's for the kernel_size inputs of a depthwise filter, with which the variance stays what it is.
    """
    reach = math.sqrt(3 / kernel_size)
    for part in "ab":
        x = keras.layers.SeparableConv1D(
            filters,
            kernel_size,
            activation="relu",
            padding="same",
            depthwise_initializer=keras.initializers.RandomUniform(-reach, reach, seed=next(seeds)),
            pointwise_initializer=_glorot(seeds),
            bias_initializer=keras.initializers.RandomUniform(seed=next(seeds)),
            name=f"convolution_{block}{part}",
        )(x)
    return x


def _output(x: Any, layer: type[keras.layers.Dense], description: DatasetInfo, seeds: Iterator[int]) -> Any:
    """Probabilities: of class 1 alone where there are two classes, else of every class."""
    binary = description.num_classes == 2
    return layer(
        1 if binary else description.num_classes,
        activation="sigmoid" if binary else "softmax",
        dtype="float32",  # also where the layers before it compute in half precision
        kernel_initializer=_glorot(seeds),
        name="output",
    )(x)


def _glorot(seeds: Iterator[int]) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=next(seeds))


def _seeds(seed: int) -> Iterator[int]:
    """A seed for each layer."""
    generator = random.Random(seed)
    while True:
        yield generator.getrandbits(31)


def model_name(model: str | ModelFunction, description: DatasetInfo) -> str:
    """The name of the model that is asked for: "mlp" and so on, or MODULE:FUNCTION of a function.

    Raises:
        UsageError: not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: it takes features of another kind.
    """
    if callable(model):
        return f"{model.__module__}:{getattr(model, '__qualname__', type(model).__qualname__)}"
    return choose_model(model, description)


def make_model(
    model: str | ModelFunction,
    description: DatasetInfo,
    mlp_options: MlpOptions,
    sepcnn_options: SepcnnOptions,
    *,
    seed: int,
) -> keras.Model:
    """Build the model that is asked for: "auto", a name, MODULE:FUNCTION, FILE.keras or a function.

    Raises:
        UsageError: not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: it cannot be built, or takes features of another kind.
    """
    if callable(model):
        return call_function(model, description, seed=seed)
    name = choose_model(model, description)
    if name == "mlp":
        return mlp(description, mlp_options, seed=seed)
    if name == "linear":
        return linear(description, seed=seed)
    if name == "sepcnn":
        return sepcnn(description, sepcnn_options, seed=seed)
    if name.endswith(SUFFIX):
        return load_file(name, seed=seed)
    return call_function(load_function(name), description, seed=seed)


def choose_model(model: str, description: DatasetInfo) -> str:
    """Resolve "auto", and check that a model of ours takes what the shards hold.

    Raises:
        UsageError: not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model takes features of another kind.
    """
    if model == AUTO:
        return model_for(description.kind)
    if ":" in model or model.endswith(SUFFIX):
        return model
    if model not in KINDS:
        raise UsageError(
            f"--model is {model!r}; choose {', '.join(KINDS)}, or MODULE:FUNCTION or FILE.keras for a model of your own"
        )
    if description.kind not in KINDS[model]:
        fitting = model_for(description.kind)
        raise ModelError(
            f"{model} needs {' or '.join(KINDS[model])} features, these shards hold {description.kind} features; "
            f"build shards with `python -m shardtrain build CORPUS --vectorizer {KINDS[model][0]}`, or train {fitting} "
            "on these"
        )
    return model


def input_adapter(model: keras.Model, description: DatasetInfo) -> InputAdapter:
    """How batches of the described shards enter `model`: n-grams densely where its input is not sparse."""
    inputs: Any = getattr(model, "inputs", None)  # None: a model that waits for its first batch, which will be sparse
    dense = bool(inputs) and not inputs[0].sparse
    return InputAdapter(kind=description.kind, num_features=description.num_features, dense=dense)


def prepare(
    model: keras.Model,
    description: DatasetInfo,
    *,
    learning_rate: Rate,
    clip_norm: float | None = None,
) -> InputAdapter:
    """Check that the model takes the shards' batches and gives their classes; compile it if it is not.

    Args:
        model: one of ours or of the user's.
        description: of the shards.
        learning_rate: of Adam, unless the model comes compiled.
        clip_norm: gradients that are longer, all weights together, are shortened to it; None: none are.

    Returns:
        How to feed it.

    Raises:
        ModelError: it does not take such batches, its output has another size, or it is to be compiled and its outputs
            are no probabilities.
    """
    feed = input_adapter(model, description)
    outputs = _of_an_empty_row(model, feed)
    width = outputs.shape[1]
    if width != description.num_classes and (width, description.num_classes) != (1, 2):
        expected = "1 or 2 units" if description.num_classes == 2 else f"{description.num_classes} units"
        raise ModelError(
            f"the model's output has {width} units; for {description.num_classes} classes it must have {expected} "
            "that are probabilities"
        )
    if not model.compiled:
        _check_probabilities(outputs)
        compile_model(model, width, learning_rate, clip_norm)
    return feed


def compile_model(model: keras.Model, width: int, learning_rate: Rate, clip_norm: float | None) -> None:
    """Compile a model with the loss that fits the width of its output, with Adam and accuracy."""
    loss = "binary_crossentropy" if width == 1 else "sparse_categorical_crossentropy"
    model.compile(FusedAdam(learning_rate, global_clipnorm=clip_norm), loss=loss, metrics=["accuracy"])


def _of_an_empty_row(model: keras.Model, feed: InputAdapter) -> npt.NDArray[Any]:
    """What the model gives for one empty row, (1, units); this also builds a model that waits for its first batch.

    Raises:
        ModelError: it fails, or gives something else.
    """
    rows = (1, feed.num_features)
    empty = Csr(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(2, np.int64), rows)
    x = empty if feed.kind == "ngram" else np.zeros(rows, np.float32 if feed.kind == "dense" else np.uint8)
    try:
        outputs = model(feed.assemble(*feed.arrays(x)))
    except Exception as error:  # Keras raises many kinds for shapes that do not fit
        raise ModelError(
            f"the model does not take batches of {feed.kind} features of shape (rows, {feed.num_features}): "
            f"{said(error)}"
        ) from error
    if not keras.ops.is_tensor(outputs):
        raise ModelError(f"the model gives a {type(outputs).__name__} for a batch; it must have one output")
    if len(outputs.shape) != 2:
        raise ModelError(f"the model's output has the shape {tuple(outputs.shape)} for one row; it must be (1, units)")
    return np.asarray(keras.ops.cast(outputs, "float32"))


def _check_probabilities(outputs: npt.NDArray[Any]) -> None:
    """Refuse outputs for which the loss that we choose would be wrong, as are those of a last layer without activation.

    Such a layer gives its biases for an empty row, which are zeros at first; softmax and sigmoid do not.

    Raises:
        ModelError: they cannot be probabilities.
    """
    if not ((outputs >= 0) & (outputs <= 1)).all() or not outputs.any():
        raise ModelError(
            f"the model's outputs are no probabilities: for an empty row they lie between {outputs.min():.3g} and "
            f"{outputs.max():.3g}; end the model with a softmax, or a sigmoid for two classes"
        )
