"""Sum repeated rows of sparse gradients before an optimizer squares them, and apply Adam as one fused kernel.

`tf.IndexedSlices` may contain a row more than once: every token that occurs twice in a batch repeats its row of an
embedding. Keras' Adam, AdamW and RMSprop square such slices before summing them, so their second moment is wrong. The
sums are dense, because every optimizer with moments converts them anyway; this costs the memory of one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from shardtrain.models.layers import transposed_product


def sum_repeated_rows(gradients: Sequence[Any]) -> list[Any]:
    """Convert sparse gradients to dense tensors, repeated rows summed; dense ones and None (unused weights) stay."""
    return [_dense(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]


def _dense(slices: tf.IndexedSlices) -> tf.Tensor:
    """Sum the slices into one dense tensor.

    For a float32 table this is the product of a 0/1 matrix and the values, which runs on all cores: 2 to 3 times as
    fast as `unsorted_segment_sum`, measured on 20,000 x 200 with 12,800 and 64,000 slices.
    """
    if slices.dense_shape is None or slices.values.dtype != tf.float32 or slices.values.shape.rank != 2:
        return tf.convert_to_tensor(slices)
    rows = tf.cast(slices.indices, tf.int64)
    count = tf.size(rows, out_type=tf.int64)
    selection = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.stack([tf.range(count), rows], axis=1),
        values=tf.ones_like(rows, tf.float32),
        dense_shape=tf.stack([count, tf.cast(slices.dense_shape[0], tf.int64)]),
    )
    total = transposed_product(selection, slices.values)
    static = tf.get_static_value(slices.dense_shape)
    if static is not None:
        total.set_shape(static)
    return total


@keras.saving.register_keras_serializable(package="shardtrain")
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` whose step is one TensorFlow kernel, `ResourceApplyAdam`.

    Options, variables and, to float tolerance, every step are those of Keras' Adam (Kingma and Ba, ICLR 2015); a step
    on a 20,000 x 64 kernel takes about half the time. Repeated rows of sparse gradients are summed first. The kernel
    has no `amsgrad`; with that option the step is Keras' own.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update `variable` and its two moments by one step."""
        (gradient,) = sum_repeated_rows([gradient])
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def _handle(variable: Any) -> Any:
    """Return the resource handle of a Keras or TensorFlow variable."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


OPTIMIZERS = {"adam": FusedAdam, "adagrad": keras.optimizers.Adagrad, "sgd": keras.optimizers.SGD}
