"""Build the models of Google's text classification guide, and check and compile any model for given shards.

`mlp` and `linear` take n-grams, with a sparse first layer, or dense features; `sepcnn` takes sequences. The layers are
those of the guide. Every layer has its own name and seed, so equal seeds give equal weights without a global generator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras

from shardtrain.errors import ModelError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.adapters import InputAdapter
from shardtrain.models.layers import SparseDense, SparseDropout
from shardtrain.models.names import choose_model
from shardtrain.models.optimizers import OPTIMIZERS
from shardtrain.models.options import SUFFIX, MlpOptions, SepcnnOptions
from shardtrain.models.outputs import (
    LOGITS,
    check_single,
    check_trainable,
    count_at_zero,
    empty_row,
    loss_of,
    meaning_of,
    output_units,
    outputs_for,
)
from shardtrain.models.schedules import Rate
from shardtrain.models.user_models import (
    ModelFunction,
    call_function,
    load_file,
    load_function,
)


def mlp(description: DatasetInfo, options: MlpOptions, *, seed: int) -> keras.Model:
    """Build input dropout, layers - 1 times [dense relu, dropout] and the output layer; n-grams stay sparse."""
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
    """Build a model of the output layer alone, which is logistic regression; n-grams stay sparse."""
    sparse = description.kind == "ngram"
    inputs = keras.Input((description.num_features,), sparse=sparse, name="ngrams" if sparse else "features")
    layer = SparseDense if sparse else keras.layers.Dense
    return keras.Model(inputs, _output(inputs, layer, description, _seeds(seed)), name="linear")


def sepcnn(description: DatasetInfo, options: SepcnnOptions, *, seed: int) -> keras.Model:
    """Build embedding, blocks of separable convolutions with pooling between them, global average, dropout, output.

    Raises:
        ModelError: the sequences are shorter than the pooling requires.
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
    """Append the two separable convolutions of a block.

    The guide specifies uniform depthwise weights without a range. "uniform" then meant [0, 1); the ±0.05 of current
    Keras shrinks the signal 20 times per layer, and training stays at chance. The range here is LeCun's for the
    kernel_size inputs of a depthwise filter, which preserves the variance.
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
    """Append the output layer: the probability of class 1 if there are two classes, otherwise one per class."""
    binary = description.num_classes == 2
    return layer(
        1 if binary else description.num_classes,
        activation="sigmoid" if binary else "softmax",
        dtype="float32",  # also if the layers before it compute in half precision
        kernel_initializer=_glorot(seeds),
        name="output",
    )(x)


def _glorot(seeds: Iterator[int]) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=next(seeds))


def _seeds(seed: int) -> Iterator[int]:
    """Yield a seed for each layer."""
    generator = random.Random(seed)
    while True:
        yield generator.getrandbits(31)


def make_model(
    model: str | ModelFunction,
    description: DatasetInfo,
    mlp_options: MlpOptions,
    sepcnn_options: SepcnnOptions,
    *,
    seed: int,
) -> keras.Model:
    """Build or load the requested model: "auto", a name, MODULE:FUNCTION, FILE.keras or a function.

    Raises:
        UsageError: `model` is not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model cannot be built, or takes features of another kind.
    """
    if callable(model):
        return call_function(model, description, seed=seed)
    name = choose_model(model, description.kind)
    if name == "mlp":
        return mlp(description, mlp_options, seed=seed)
    if name == "linear":
        return linear(description, seed=seed)
    if name == "sepcnn":
        return sepcnn(description, sepcnn_options, seed=seed)
    if name.endswith(SUFFIX):
        return load_file(name, seed=seed)
    return call_function(load_function(name), description, seed=seed)


def input_adapter(model: keras.Model, description: DatasetInfo) -> InputAdapter:
    """Return the adapter from batches to a model.

    N-grams are made dense if its input is not sparse, and labels one-hot if it is compiled with a loss that takes
    these.
    """
    adapter = feature_adapter(model, description)
    if model.compiled and loss_of(model).one_hot(units=2):
        units = output_units(model, adapter)
        return replace(adapter, one_hot=units if units > 1 else 0)
    return adapter


def feature_adapter(model: keras.Model, description: DatasetInfo) -> InputAdapter:
    """Return the adapter for the features alone; labels stay class indices."""
    inputs: Any = getattr(model, "inputs", None)  # None: the model is built by its first batch, which will be sparse
    dense = bool(inputs) and not inputs[0].sparse
    return InputAdapter(kind=description.kind, num_features=description.num_features, dense=dense)


def prepare(
    model: keras.Model,
    description: DatasetInfo,
    *,
    learning_rate: Rate,
    clip_norm: float | None = None,
    optimizer: str = "adam",
) -> InputAdapter:
    """Check that the model's input and output fit the shards, and compile it unless it is already compiled.

    Args:
        model: a built-in or custom model, whose outputs are probabilities or logits.
        description: of the shards.
        learning_rate: of the optimizer; ignored if the model is already compiled.
        clip_norm: gradients are scaled down to this global norm; None: no clipping.
        optimizer: "adam", "adagrad" or "sgd"; ignored if the model is already compiled.

    Returns:
        The adapter from batches to the model's input.

    Raises:
        ModelError: the model has several inputs or outputs, does not take such batches, has an output of another size,
            or is compiled with a loss that does not fit its output.
    """
    check_single(model)
    adapter = feature_adapter(model, description)
    width = outputs_for(model, adapter, empty_row(adapter)).shape[1]
    if width != description.num_classes and (width, description.num_classes) != (1, 2):
        expected = "1 or 2 units" if description.num_classes == 2 else f"{description.num_classes} units"
        raise ModelError(
            f"the model's output has {width} unit{'s' * (width != 1)}; for {description.num_classes} classes it must "
            f"have {expected}"
        )
    meaning = meaning_of(model, adapter, description)
    if not model.compiled:
        compile_model(model, width, learning_rate, clip_norm, optimizer, logits=meaning == LOGITS)
        return adapter
    check_trainable(model, width, meaning)
    if width == 1 and meaning == LOGITS:
        count_at_zero(model)
    return input_adapter(model, description)


def compile_model(
    model: keras.Model,
    width: int,
    learning_rate: Rate,
    clip_norm: float | None,
    optimizer: str = "adam",
    *,
    logits: bool = False,
) -> None:
    """Compile a model with an optimizer, accuracy and the cross-entropy loss for an output of `width` units."""
    loss: Any = "binary_crossentropy" if width == 1 else "sparse_categorical_crossentropy"
    accuracy: Any = "accuracy"
    if logits:
        kind = keras.losses.BinaryCrossentropy if width == 1 else keras.losses.SparseCategoricalCrossentropy
        loss = kind(from_logits=True)
        accuracy = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0) if width == 1 else accuracy
    made = OPTIMIZERS[optimizer](learning_rate, global_clipnorm=clip_norm)
    model.compile(made, loss=loss, metrics=[accuracy])
