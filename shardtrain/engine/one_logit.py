"""The kernel of the fused engine for linear models of two classes, which have one weight per feature.

A step has two phases, whose parts the threads take as in `kernels`. In the first, rows are computed one by one: losses
and the gradient of their logits. In the second there are as many owners of columns as parts: each reads all entries of
the batch, adds those of its columns, rows in order, to one sum per column that occurs, and then moves their weights. To
transpose the batch, as `kernels` does, would cost more than these sums of single numbers. A column has one owner,
whatever their number, so the result has the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np

from shardtrain.engine.kernels import (
    BETA_1,
    BETA_2,
    EPSILON,
    LAZY_ADAM,
    SGD,
    await_parts,
    first_layer,
    offer_parts,
    outcome,
    share_of,
    take_part,
    totals_of,
    wait_a_little,
)
from shardtrain.runtime.intrinsics import add_shared
from shardtrain.runtime.kernels import fast_kernel, inlined_kernel


@inlined_kernel
def _rows_part(  # type: ignore[no-untyped-def]
    part, parts, begin, size, indptr, indices, values, y, class_weights, wide, small, slopes, row_losses, row_hits
):
    """Compute the losses of a part of a batch's rows, and the gradients of their logits."""
    first, last = share_of(size, part, parts)
    for i in range(first, last):
        label, row = y[begin + i], slopes[i]
        weight = class_weights[label] if len(class_weights) else np.float32(1)
        first_layer(indices, values, indptr[begin + i], indptr[begin + i + 1], wide, small, 0, 1, row)
        loss, hit = outcome(row, 1, label)
        row_losses[i], row_hits[i] = loss * weight, hit
        row[0] = (row[0] - np.float32(label)) * (weight / np.float32(size))


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


@inlined_kernel
def _columns_part(  # type: ignore[no-untyped-def]
    part, mask, begin, size, indptr, indices, values, slopes, table, slots, totals, place, kind, wide, wide_first,
    wide_second, rate,
):  # fmt: skip
    """Add up the gradients of the columns that a part owns, listed from `place` on, and move their weights."""
    count = place
    for i in range(size):
        slope = slopes[i, 0]
        for j in range(indptr[begin + i], indptr[begin + i + 1]):
            column, value = indices[j], values[j]
            if (column & mask) != part or value == 0:
                continue
            slot = table[column]
            if slot < 0:
                slot = count
                count += 1
                table[column] = slot
                slots[slot] = column
                totals[slot] = np.float32(0)
            totals[slot] += value * slope
    for slot in range(place, count):
        column = slots[slot]
        table[column] = -1
        _move(kind, wide, column, wide_first, wide_second, totals[slot], rate)


@fast_kernel
def train_one_logit(  # type: ignore[no-untyped-def]
    thread, gate, parts, indptr, indices, values, bounds, y, class_weights, wide, wide_first, wide_second, small,
    small_first, small_second, slopes, table, slots, totals, kind, rates, row_losses, row_hits, losses, hits,
):  # fmt: skip
    """Train on the batches of a group, one step each; all threads call it with the same arrays.

    Args:
        thread: number of this thread.
        gate: (2,) int64: NOTHING and 0; where parts are offered.
        parts: into which each phase is divided, a power of two.
        indptr: of the group's rows.
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
        slopes: (rows of a batch, 1), for logits and their gradients.
        table: (features,), -1 everywhere, before and after.
        slots: (parts * columns that may occur,).
        totals: likewise.
        kind: of the optimizer, any but ADAM.
        rates: (batches,): learning rate of each step.
        row_losses: (rows of a batch,).
        row_hits: (rows of a batch,).
        losses: (batches,), gets the mean loss of each, weighted.
        hits: (batches,), gets how many rows of each were classified rightly.
    """
    phases = 2 * (len(bounds) - 1)
    phase, looked = 0, 0
    if thread == 0:
        offer_parts(gate, 0)
    while phase < phases:
        phase, part = take_part(gate, parts, phases)
        batch = phase // 2
        if part < 0:
            if thread == 0:
                await_parts(gate, parts)
                if phase % 2 == 0:
                    losses[batch], hits[batch] = totals_of(row_losses, row_hits, bounds[batch + 1] - bounds[batch])
                phase += 1
                offer_parts(gate, phase)
            else:
                looked = wait_a_little(looked)
            continue
        looked = 0
        begin, size = bounds[batch], bounds[batch + 1] - bounds[batch]
        if phase % 2 == 0:
            _rows_part(
                part, parts, begin, size, indptr, indices, values, y, class_weights, wide, small, slopes, row_losses,
                row_hits,
            )  # fmt: skip
        else:
            _columns_part(
                part, parts - 1, begin, size, indptr, indices, values, slopes, table, slots, totals,
                part * (len(slots) // parts), kind, wide, wide_first, wide_second, rates[batch],
            )  # fmt: skip
            if part == 0:
                total = np.float32(0)
                for i in range(size):
                    total += slopes[i, 0]
                _move(kind, small, 0, small_first, small_second, total, rates[batch])
        add_shared(gate.ctypes.data + 8, 1)
