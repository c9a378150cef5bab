"""The kernel of the fused engine for linear models of two classes, which have one weight per feature.

One thread takes the steps. Several would have to hand over to each other, in every step, the weights that the step has
moved, which takes longer than the step. To transpose the batch, as `kernels` does, would also take longer than to add
each entry to a sum of its column.
"""

from __future__ import annotations

import numpy as np

from shardtrain.engine.kernels import BETA_1, BETA_2, EPSILON, LAZY_ADAM, SGD, first_layer, outcome, totals_of
from shardtrain.runtime.intrinsics import prefetch
from shardtrain.runtime.kernels import fast_kernel, inlined_kernel

_AHEAD = 64  # entries: how far weights and sums are prefetched
_MANY = 1 << 16  # columns, of which the arrays do not fit into the processor's cache: prefetching pays


@inlined_kernel
def _move(kind, weights, row, first, second, slope, rate):  # type: ignore[no-untyped-def]
    """Move the weight of a row by one step of an optimizer; with one weight per row, both Adagrads are one."""
    if kind == SGD:
        weights[row, 0] -= rate * slope
    elif kind == LAZY_ADAM:
        mean = first[row, 0] + (slope - first[row, 0]) * (np.float32(1) - BETA_1)
        square = second[row, 0] + (slope * slope - second[row, 0]) * (np.float32(1) - BETA_2)
        first[row, 0] = mean
        second[row, 0] = square
        weights[row, 0] -= rate * mean / (np.sqrt(square) + EPSILON)
    else:
        squares = first[row, 0] + slope * slope
        first[row, 0] = squares
        weights[row, 0] -= rate * slope / np.sqrt(squares + EPSILON)


@fast_kernel
def train_one_logit(  # type: ignore[no-untyped-def]
    spans, indices, values, bounds, y, class_weights, wide, wide_first, wide_second, small, small_first, small_second,
    logits, columns, totals, kind, rates, row_losses, row_hits, losses, hits,
):  # fmt: skip
    """Train on the batches of a group, one step each.

    Args:
        spans: (rows, 2): the half-open range of each row's entries.
        indices: column of each entry.
        values: of each entry.
        bounds: (batches + 1,): the first row of each batch.
        y: class of each row, 0 or 1.
        class_weights: of each class in the loss, or empty.
        wide: (features, 1).
        wide_first: (features, 1): the first number that the optimizer keeps of each weight; (1, 1) if it keeps none.
        wide_second: likewise the second.
        small: (1, 1): the bias.
        small_first: like `wide_first` of the bias.
        small_second: likewise.
        logits: (rows of a batch, 1), for logits and their gradients.
        columns: (entries of a batch + 1,), for a list of columns.
        totals: (features,), 0 everywhere, before and after, for the gradient of each weight.
        kind: of the optimizer, any but ADAM.
        rates: (batches,): learning rate of each step.
        row_losses: (rows of a batch,).
        row_hits: (rows of a batch,).
        losses: (batches,), gets the mean loss of each, weighted.
        hits: (batches,), gets how many rows of each were classified rightly.
    """
    many = len(totals) > _MANY
    for batch in range(len(bounds) - 1):
        begin, size = bounds[batch], bounds[batch + 1] - bounds[batch]
        for i in range(size):
            label, row = y[begin + i], logits[i]
            weight = class_weights[label] if len(class_weights) else np.float32(1)
            if many:
                for j in range(spans[begin + i, 0], spans[begin + i, 1]):
                    soon = indices[min(j + _AHEAD, len(indices) - 1)]
                    prefetch(wide.ctypes.data + wide.itemsize * soon)
                    prefetch(totals.ctypes.data + totals.itemsize * soon)
            first_layer(indices, values, spans[begin + i, 0], spans[begin + i, 1], wide, small, 0, 1, row)
            loss, hit = outcome(row, 1, label)
            row_losses[i], row_hits[i] = loss * weight, hit
            row[0] = (row[0] - np.float32(label)) * (weight / np.float32(size))
        losses[batch], hits[batch] = totals_of(row_losses, row_hits, size)
        count, bias = 0, np.float32(0)
        for i in range(size):
            slope = logits[i, 0]
            bias += slope
            for j in range(spans[begin + i, 0], spans[begin + i, 1]):
                column = indices[j]
                before = totals[column]
                columns[count] = column  # kept if it is new; a branch would often be foreseen wrongly
                count += before == 0
                totals[column] = before + values[j] * slope
                if many and kind != SGD:
                    prefetch(wide_first.ctypes.data + wide_first.itemsize * column)
                    if kind == LAZY_ADAM:
                        prefetch(wide_second.ctypes.data + wide_second.itemsize * column)
        for place in range(count):
            column = columns[place]
            total = totals[column]
            if total != 0:
                totals[column] = np.float32(0)
                _move(kind, wide, column, wide_first, wide_second, total, rates[batch])
        _move(kind, small, 0, small_first, small_second, bias, rates[batch])
