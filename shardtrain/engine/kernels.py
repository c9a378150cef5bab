"""The kernels of the fused engine: forward pass, loss, gradient and optimizer step of a network over sparse rows.

Several threads run `train` on the same group of batches. A step has two phases. In the first, rows are computed one by
one: activations, losses, and the gradient of every layer's sums. In the second, columns of the gradient are added up
one by one, rows in order, and their weights updated. A phase is divided into parts, which the threads take as they are
free; thread 0 begins a phase when all parts of the one before are done. A thread that the system lets wait therefore
holds up at most the part that it has taken. No sum is divided, so the result has the same bits for any number of
threads.

Arrays of a group:

    spans, indices, values      sparse rows after dropout: the range of each row's entries, their columns and values
    bounds                      (batches + 1,): the first row of each batch
    slots, starts, rows, entries    the transposed batches, as `transpose` writes them

A network has one sparse layer, whose kernel `wide` is (features, width of the layer), and dense ones after it. `dims`
holds the width of each layer. The other weights are rows of `small`, (rows, widest layer), whose rest is unused: from
row `places[l, 0]` on the kernel of dense layer l, in row `places[l, 1]` the bias of layer l.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from shardtrain.runtime.intrinsics import add_shared, prefetch, read_shared, write_shared
from shardtrain.runtime.kernels import fast_kernel, inlined_kernel, kernel

SGD, ADAGRAD, ROW_ADAGRAD, ADAM, LAZY_ADAM = range(5)
EPSILON = np.float32(1e-7)  # Keras' default of all optimizers
BETA_1, BETA_2 = np.float32(0.9), np.float32(0.999)

_ENTRIES_AHEAD, _COLUMNS_AHEAD, _SLOTS_AHEAD = 24, 16, 32  # how far weights and slots are prefetched
_LINE = 64  # bytes of a line of the cache
_PATIENCE = 4000  # times a thread looks whether there is something to do before it lets the system run others
_PART_BITS, _PART_MASK = 32, (1 << 32) - 1  # of the number that offers parts: the phase, and the next part of it
NOTHING = _PART_MASK >> 1  # that number before the first phase
_yield = types.ExternalFunction("sched_yield", types.int32())


@inlined_kernel
def _offer(gate, phase):  # type: ignore[no-untyped-def]
    """Offer the parts of a phase to all threads."""
    place = gate.ctypes.data
    write_shared(place + 8, 0)
    write_shared(place, phase << _PART_BITS)


@inlined_kernel
def _take(gate, parts, phases):  # type: ignore[no-untyped-def]
    """Return the current phase, and the number of a part of it that is now the caller's; -1 where all are taken."""
    place = gate.ctypes.data
    offered = read_shared(place)
    phase = offered >> _PART_BITS
    if (offered & _PART_MASK) >= parts or phase >= phases:
        return phase, -1
    offered = add_shared(place, 1)
    phase, part = offered >> _PART_BITS, offered & _PART_MASK
    return phase, part if part < parts and phase < phases else -1


@inlined_kernel
def _await(gate, parts):  # type: ignore[no-untyped-def]
    """Wait until all parts are done."""
    place, looked = gate.ctypes.data + 8, 0
    while read_shared(place) < parts:
        looked += 1
        if looked > _PATIENCE:
            _yield()


@inlined_kernel
def _share(count, part, parts):  # type: ignore[no-untyped-def]
    """Return the half-open range of `count` things that is a part's."""
    return count * part // parts, count * (part + 1) // parts


@inlined_kernel
def _random(seed, number):  # type: ignore[no-untyped-def]
    """Return 32 random bits for a number (the finalizer of SplitMix64, Steele, Lea and Flood, OOPSLA 2014)."""
    bits = seed + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.uint32((bits ^ (bits >> np.uint64(31))) >> np.uint64(32))


@fast_kernel
def drop(indices, values, first, last, spans, seed, threshold, scale):  # type: ignore[no-untyped-def]
    """Drop entries of rows [first, last) with 32 random bits below `threshold`, scale the others and close the gaps.

    A branch on random bits would be foreseen wrongly as often as not, so every entry is written.

    Args:
        indices: column of each entry.
        values: of each entry.
        first: row; its entries and those up to the last row's follow each other.
        last: row.
        spans: (rows, 2): the half-open range of each row's entries, which changes.
        seed: of the random bits.
        threshold: see above.
        scale: of entries that are kept.
    """
    begin = place = spans[first, 0]
    for i in range(first, last):
        start, stop = spans[i, 0], spans[i, 1]
        spans[i, 0] = place
        for j in range(start, stop):
            kept = _random(seed, j - begin) >= threshold
            indices[place] = indices[j]
            values[place] = values[j] * scale
            place += kept
        spans[i, 1] = place


@kernel
def count(indptr, indices, values, y, counts, squares):  # type: ignore[no-untyped-def]
    """Add, for each column, the rows of each class in which it is not 0, and the sum of its squares.

    Args:
        indptr: (rows + 1,).
        indices: column of each entry.
        values: of each entry.
        y: class of each row.
        counts: (features, classes), added to.
        squares: (features,), added to.
    """
    for i in range(len(y)):
        for j in range(indptr[i], indptr[i + 1]):
            if values[j] != 0:
                counts[indices[j], y[i]] += 1
                squares[indices[j]] += np.float64(values[j]) * values[j]


@kernel
def scale(values, indices, start, stop, scales):  # type: ignore[no-untyped-def]
    """Multiply each of values[start:stop] by the scale of its column."""
    for j in range(start, stop):
        values[j] *= scales[indices[j]]


@fast_kernel
def transpose(spans, indices, values, first, last, table, slots, starts, rows, entries):  # type: ignore[no-untyped-def]
    """Transpose rows [first, last): list the entries of each column that occurs, by rows in order.

    Args:
        spans: (rows, 2): the half-open range of each row's entries.
        indices: column of each entry.
        values: of each entry.
        first: row.
        last: row.
        table: (features,), -1 everywhere, before and after.
        slots: gets the columns that occur, as many as there are.
        starts: gets the first entry of each, and their number at the end.
        rows: gets the row of each entry, from 0.
        entries: gets its value.

    Returns:
        The number of columns that occur.
    """
    count = total = 0
    for slot in range(spans[last - 1, 1] - spans[first, 0] + 1):
        starts[slot] = 0
    for i in range(first, last):
        for j in range(spans[i, 0], spans[i, 1]):
            soon = indices[min(j + _SLOTS_AHEAD, len(indices) - 1)]
            prefetch(table.ctypes.data + table.itemsize * soon)
            column = indices[j]
            slot = table[column]
            new = slot < 0  # half of them are, so a branch would often be foreseen wrongly
            slot = count if new else slot
            table[column] = slot
            slots[count] = column  # kept if it is new
            count += new
            starts[slot] += 1
    for slot in range(count):  # from numbers of entries to where each column's begin
        total, starts[slot] = total + starts[slot], total
    for i in range(first, last):
        for j in range(spans[i, 0], spans[i, 1]):
            slot = table[indices[j]]
            place = starts[slot]
            starts[slot] = place + 1
            rows[place] = i - first
            entries[place] = values[j]
    for slot in range(count - 1, 0, -1):
        starts[slot] = starts[slot - 1]
    starts[0] = 0
    starts[count] = total
    for slot in range(count):
        table[slots[slot]] = -1
    return count


@inlined_kernel
def _fetch(weights, row):  # type: ignore[no-untyped-def]
    """Prefetch a row of weights: where there are millions of rows, few are in the processor's cache."""
    place = weights.ctypes.data + row * weights.strides[0]
    for line in range(0, weights.strides[0], _LINE):
        prefetch(place + line)


@inlined_kernel
def first_layer(indices, values, start, stop, wide, small, bias, width, out):  # type: ignore[no-untyped-def]
    """Compute the sums of the sparse layer for one row: its bias, and its values times the rows of the kernel."""
    if width == 1:
        total = small[bias, 0]
        for j in range(start, stop):
            total += values[j] * wide[indices[j], 0]
        out[0] = total
        return
    for k in range(width):
        out[k] = small[bias, k]
    whole = start + (stop - start) // 4 * 4
    for j in range(start, whole, 4):  # four at a time: `out` is read and written once for all
        for ahead in range(j + _ENTRIES_AHEAD, j + _ENTRIES_AHEAD + 4):  # also of the next row
            _fetch(wide, indices[min(ahead, len(indices) - 1)])
        a, b, c, d = indices[j], indices[j + 1], indices[j + 2], indices[j + 3]
        by_a, by_b, by_c, by_d = values[j], values[j + 1], values[j + 2], values[j + 3]
        for k in range(width):
            out[k] += (by_a * wide[a, k] + by_b * wide[b, k]) + (by_c * wide[c, k] + by_d * wide[d, k])
    for j in range(whole, stop):
        value, column = values[j], indices[j]
        for k in range(width):
            out[k] += value * wide[column, k]


@inlined_kernel
def _next_layer(before, width, small, kernel, bias, units, out):  # type: ignore[no-untyped-def]
    """Compute the sums of a dense layer for one row."""
    for k in range(units):
        out[k] = small[bias, k]
    for i in range(width):
        value = before[i]
        if value != 0:
            for k in range(units):
                out[k] += value * small[kernel + i, k]


@inlined_kernel
def _activate(sums, width, seed, number, threshold, scale):  # type: ignore[no-untyped-def]
    """Apply relu and dropout in place."""
    for k in range(width):
        value = max(sums[k], np.float32(0))
        if threshold > 0:
            value = np.float32(0) if _random(seed, number + k) < threshold else value * scale
        sums[k] = value


@inlined_kernel
def outcome(sums, width, label):  # type: ignore[no-untyped-def]
    """Replace the sums of the output layer by probabilities; return the loss and whether the label has the highest.

    One unit is the logit of class 1. The loss is that of Keras, which computes it from the sums where it knows them.
    """
    if width == 1:
        logit = sums[0]
        sums[0] = np.float32(1) / (np.float32(1) + math.exp(-logit))
        loss = max(logit, np.float32(0)) - logit * label + math.log1p(math.exp(-abs(logit)))
        return loss, (logit > 0) == (label == 1)
    highest, best = sums[0], 0
    for k in range(1, width):
        if sums[k] > highest:
            highest, best = sums[k], k
    if not math.isfinite(highest):
        return np.float32(highest - highest), False  # NaN
    total, own = np.float32(0), sums[label] - highest
    for k in range(width):
        sums[k] = math.exp(sums[k] - highest)
        total += sums[k]
    for k in range(width):
        sums[k] /= total
    return math.log(total) - own, best == label


@fast_kernel
def evaluate(thread, gate, parts, indptr, indices, values, y, wide, small, dims, places, sums, losses, right):  # type: ignore[no-untyped-def]
    """Compute losses, hits and probabilities of rows; all threads call it with the same arrays.

    Args:
        thread: number of this thread.
        gate: (2,) int64: NOTHING and 0; where parts are offered.
        parts: into which the rows are divided.
        indptr: of the rows.
        indices: of the rows.
        values: of the rows.
        y: class of each row.
        wide: kernel of the sparse layer.
        small: other weights.
        dims: width of each layer.
        places: of the other weights.
        sums: (layers, rows, widest); the last layer gets the probabilities.
        losses: (rows,), gets the loss of each.
        right: (rows,), gets whether the class of each has the highest probability.
    """
    layers = len(dims)
    if thread == 0:
        _offer(gate, 0)
    while True:
        _, part = _take(gate, parts, 1)
        if part < 0:
            break
        first, last = _share(len(y), part, parts)
        for i in range(first, last):
            out = sums[0, i]
            first_layer(indices, values, indptr[i], indptr[i + 1], wide, small, places[0, 1], dims[0], out)
            for layer in range(1, layers):
                _activate(out, dims[layer - 1], np.uint64(0), 0, np.uint32(0), np.float32(1))
                after = sums[layer, i]
                _next_layer(out, dims[layer - 1], small, places[layer, 0], places[layer, 1], dims[layer], after)
                out = after
            losses[i], right[i] = outcome(out, dims[layers - 1], y[i])
        add_shared(gate.ctypes.data + 8, 1)
    if thread == 0:
        _await(gate, parts)


@inlined_kernel
def _update(kind, weights, row, first, second, kept, gradient, width, rate):  # type: ignore[no-untyped-def]
    """Move a row of weights by one step of the optimizer.

    Each loop reads and writes few arrays, because a loop over many, which might overlap, is not vectorized.

    Args:
        kind: of the optimizer.
        weights: (rows, width or more).
        row: that is moved.
        first: what the optimizer keeps of each weight, or in column 0 of each row.
        second: the second number that it keeps of each weight.
        kept: the row in these; 0 where nothing is kept.
        gradient: of the weights, (width or more,); overwritten.
        width: how many weights are moved.
        rate: learning rate; of Adam with its correction for the first steps.
    """
    if kind == SGD:
        for k in range(width):
            weights[row, k] -= rate * gradient[k]
    elif kind == ADAGRAD:
        for k in range(width):
            first[kept, k] += gradient[k] * gradient[k]
        for k in range(width):
            gradient[k] /= np.sqrt(first[kept, k] + EPSILON)
        for k in range(width):
            weights[row, k] -= rate * gradient[k]
    elif kind == ROW_ADAGRAD:
        squares = np.float32(0)
        for k in range(width):
            squares += gradient[k] * gradient[k]
        squares = first[kept, 0] + squares / np.float32(width)
        first[kept, 0] = squares
        scale = rate / np.sqrt(squares + EPSILON)
        for k in range(width):
            weights[row, k] -= scale * gradient[k]
    else:
        for k in range(width):
            second[kept, k] += (gradient[k] * gradient[k] - second[kept, k]) * (np.float32(1) - BETA_2)
        for k in range(width):
            gradient[k] = first[kept, k] + (gradient[k] - first[kept, k]) * (np.float32(1) - BETA_1)
        for k in range(width):
            first[kept, k] = gradient[k]
        for k in range(width):
            gradient[k] /= np.sqrt(second[kept, k]) + EPSILON
        for k in range(width):
            weights[row, k] -= rate * gradient[k]


@inlined_kernel
def _add_column(start, stop, rows, entries, upstream, width, gradient):  # type: ignore[no-untyped-def]
    """Add up the gradient of one row of the sparse layer's kernel: entries [start, stop) times the rows' gradients."""
    row, value = rows[start], entries[start]
    for k in range(width):
        gradient[k] = value * upstream[0, row, k]
    whole = start + 1 + (stop - start - 1) // 4 * 4
    for j in range(start + 1, whole, 4):
        a, b, c, d = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        by_a, by_b, by_c, by_d = entries[j], entries[j + 1], entries[j + 2], entries[j + 3]
        for k in range(width):
            gradient[k] += (by_a * upstream[0, a, k] + by_b * upstream[0, b, k]) + (
                by_c * upstream[0, c, k] + by_d * upstream[0, d, k]
            )
    for j in range(whole, stop):
        row, value = rows[j], entries[j]
        for k in range(width):
            gradient[k] += value * upstream[0, row, k]


@inlined_kernel
def _row_pass(  # type: ignore[no-untyped-def]
    i, start, stop, indices, values, label, weight, wide, small, dims, places, sums, upstream, seed, threshold, scale
):
    """Compute the activations of a batch's row i, whose entries are [start, stop), and the gradient of all its sums.

    `weight` is that of its loss in the gradient; `seed`, `threshold` and `scale` are of the dropout of hidden layers.

    Returns:
        Its loss, and whether its label has the highest probability.
    """
    layers, widest = len(dims), sums.shape[2]
    out = sums[0, i]
    first_layer(indices, values, start, stop, wide, small, places[0, 1], dims[0], out)
    for layer in range(1, layers):
        number = (i * layers + layer) * widest
        _activate(out, dims[layer - 1], seed, number, threshold, scale)
        after = sums[layer, i]
        _next_layer(out, dims[layer - 1], small, places[layer, 0], places[layer, 1], dims[layer], after)
        out = after
    width = dims[layers - 1]
    loss, hit = outcome(out, width, label)
    gradient = upstream[layers - 1, i]
    if width == 1:
        gradient[0] = (out[0] - np.float32(label)) * weight
    else:
        for k in range(width):
            gradient[k] = out[k] * weight
        gradient[label] -= weight
    for layer in range(layers - 1, 0, -1):
        below, units, kernel = upstream[layer - 1, i], dims[layer], places[layer, 0]
        for h in range(dims[layer - 1]):
            total = np.float32(0)
            if sums[layer - 1, i, h] > 0:  # neither dropped nor cut off by relu
                for k in range(units):
                    total += gradient[k] * small[kernel + h, k]
                total *= scale
            below[h] = total
        gradient = below
    return loss, hit


@inlined_kernel
def _cut(starts, first, count, part, parts):  # type: ignore[no-untyped-def]
    """Return the first column of a part; `count` after the last."""
    wanted = starts[first + count] * part // parts
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if starts[first + middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if part < parts else count


@inlined_kernel
def _columns_of(starts, first, count, part, parts):  # type: ignore[no-untyped-def]
    """Return the half-open range of columns that is a part's, so that each part has about as many entries."""
    return _cut(starts, first, count, part, parts), _cut(starts, first, count, part + 1, parts)


@inlined_kernel
def _small_gradient(row, size, small_rows, sums, upstream, gradient):  # type: ignore[no-untyped-def]
    """Add up the gradient of one row of `small` over the rows of a batch, in order."""
    layer, unit, width = small_rows[row, 0], small_rows[row, 1], small_rows[row, 2]
    for k in range(width):
        gradient[row, k] = np.float32(0)
    for i in range(size):
        value = np.float32(1) if unit < 0 else sums[layer - 1, i, unit]
        if value != 0:
            for k in range(width):
                gradient[row, k] += value * upstream[layer, i, k]


@inlined_kernel
def _squares(gradient, row, width):  # type: ignore[no-untyped-def]
    """Return the sum of the squares of a row."""
    total = np.float64(0)
    for k in range(width):
        total += np.float64(gradient[row, k]) * np.float64(gradient[row, k])
    return total


@inlined_kernel
def _length(squares, small_squares, count):  # type: ignore[no-untyped-def]
    """Return the length of the gradient, from the sum of squares of each of its rows."""
    total = np.float64(0)
    for slot in range(count):
        total += squares[slot]
    for row in range(len(small_squares)):
        total += small_squares[row]
    return math.sqrt(total)


@inlined_kernel
def totals_of(row_losses, row_hits, size):  # type: ignore[no-untyped-def]
    """Return the mean loss of the rows of a batch and the number of hits."""
    total, right = np.float64(0), 0
    for i in range(size):
        total += row_losses[i]
        right += row_hits[i]
    return total / size, right


@fast_kernel
def _gradient_part(  # type: ignore[no-untyped-def]
    part, parts, at_once, clip, kind, count, entry, at, slots, starts, rows, entries, wide, wide_first, wide_second,
    small, small_first, small_second, width, small_rows, sums, upstream, mine, columns, squares, small_gradient,
    small_squares, table, rate, size,
):  # fmt: skip
    """Add up a part of the gradient of a batch, and move its weights where they need not wait for the rest of it."""
    keeps = kind != SGD
    first, last = _columns_of(starts, at, count, part, parts)
    for slot in range(first, last):
        start, stop, column = entry + starts[at + slot], entry + starts[at + slot + 1], slots[entry + slot]
        if at_once:
            soon = slots[entry + min(slot + _COLUMNS_AHEAD, count - 1)]
            _fetch(wide, soon)
            if keeps:
                _fetch(wide_first, soon)
            if kind == LAZY_ADAM:
                _fetch(wide_second, soon)
            _add_column(start, stop, rows, entries, upstream, width, mine)
            _update(kind, wide, column, wide_first, wide_second, column if keeps else 0, mine, width, rate)
            continue
        _add_column(start, stop, rows, entries, upstream, width, columns[slot])
        squares[slot] = _squares(columns, slot, width)
        if kind == ADAM:
            table[column] = slot
    first, last = _share(len(small_rows), part, parts)
    for row in range(first, last):
        _small_gradient(row, size, small_rows, sums, upstream, small_gradient)
        if clip > 0:
            small_squares[row] = _squares(small_gradient, row, small_rows[row, 2])
            continue
        kept = row if keeps else 0
        _update(kind, small, row, small_first, small_second, kept, small_gradient[row], small_rows[row, 2], rate)


@fast_kernel
def _late_part(  # type: ignore[no-untyped-def]
    part, parts, clip, kind, factor, count, entry, at, slots, starts, wide, wide_first, wide_second, small, small_first,
    small_second, width, small_rows, mine, columns, small_gradient, table, rate,
):  # fmt: skip
    """Move a part of the weights by a gradient that is known, shortened by `factor`."""
    keeps = kind != SGD
    if clip > 0:
        first, last = _share(len(small_rows), part, parts)
        for row in range(first, last):
            for k in range(small_rows[row, 2]):
                small_gradient[row, k] *= factor
            kept = row if keeps else 0
            _update(kind, small, row, small_first, small_second, kept, small_gradient[row], small_rows[row, 2], rate)
    if kind == ADAM:
        first, last = _share(wide.shape[0], part, parts)
        for column in range(first, last):
            slot = table[column]
            for k in range(width):
                mine[k] = columns[slot, k] * factor if slot >= 0 else np.float32(0)
            table[column] = -1
            _update(kind, wide, column, wide_first, wide_second, column, mine, width, rate)
        return
    first, last = _columns_of(starts, at, count, part, parts)
    for slot in range(first, last):
        column = slots[entry + slot]
        for k in range(width):
            mine[k] = columns[slot, k] * factor
        _update(kind, wide, column, wide_first, wide_second, column if keeps else 0, mine, width, rate)


@fast_kernel
def train(  # type: ignore[no-untyped-def]
    thread, gate, parts, indptr, spans, indices, values, bounds, y, class_weights, counts, slots, starts, rows, entries,
    wide, wide_first, wide_second, small, small_first, small_second, dims, places, small_rows, sums, upstream, own,
    columns, squares, small_gradient, small_squares, table, kind, rates, seeds, threshold, scale, clip, row_losses,
    row_hits, losses, hits, shared,
):  # fmt: skip
    """Train on the batches of a group, one step each; all threads call it with the same arrays.

    Args:
        thread: number of this thread.
        gate: (2,) int64: NOTHING and 0; where parts are offered.
        parts: into which each phase is divided.
        indptr: of the group before dropout, as are `bounds`, `slots`, `starts`, `rows` and `entries`.
        spans: (rows, 2): the half-open range of each row's entries.
        indices: see the module.
        values: see the module.
        bounds: see the module.
        y: class of each row.
        class_weights: of each class in the loss, or empty.
        counts: (batches,): columns that occur in each.
        slots: those of batch b from entry `indptr[bounds[b]]` on, as are `rows` and `entries`.
        starts: those of batch b from entry `indptr[bounds[b]] + b` on.
        rows: see the module.
        entries: see the module.
        wide: see the module.
        wide_first: (features, width): the first number that the optimizer keeps of each weight; (features, 1) if it
            keeps one of each row, (1, width) if it keeps none.
        wide_second: likewise the second.
        small: see the module.
        small_first: like `wide_first` of the rows of `small`.
        small_second: likewise.
        dims: see the module.
        places: see the module.
        small_rows: (rows, 3): layer, unit of the layer before or -1 for a bias, and width of each row of `small`.
        sums: (layers, rows of a batch, widest).
        upstream: likewise; the gradient of the sums.
        own: (threads, width of the sparse layer): a row of the gradient.
        columns: (columns that occur, width): the gradient, where it must be known before weights move, else empty.
        squares: (columns that occur,): of its rows.
        small_gradient: like `small`.
        small_squares: like `small_rows`.
        table: (features,), -1 everywhere, before and after; only ADAM uses it.
        kind: of the optimizer.
        rates: (batches,): learning rate of each step.
        seeds: (batches,): of the dropout of each step.
        threshold: of 32 random bits below which a unit is dropped.
        scale: of units that are not.
        clip: the length to which a longer gradient is shortened; 0: none is.
        row_losses: (rows of a batch,).
        row_hits: (rows of a batch,).
        losses: (batches,), gets the mean loss of each, weighted.
        hits: (batches,), gets how many rows of each were classified rightly.
        shared: (1,): the factor by which the gradient is shortened.
    """
    at_once = clip == 0 and kind != ADAM
    each = 2 if at_once else 3  # phases of a step
    phases = each * (len(bounds) - 1)
    phase, looked = 0, 0
    if thread == 0:
        _offer(gate, 0)
    while phase < phases:
        phase, part = _take(gate, parts, phases)
        if part < 0:
            if thread == 0:
                _await(gate, parts)
                b, stage = phase // each, phase % each
                size = bounds[b + 1] - bounds[b]
                if stage == 0:
                    losses[b], hits[b] = totals_of(row_losses, row_hits, size)
                elif stage == 1 and clip > 0:
                    length = _length(squares, small_squares, counts[b])
                    shared[0] = np.float32(clip / length) if length > clip else np.float32(1)
                phase += 1
                _offer(gate, phase)
            else:
                looked += 1
                if looked > _PATIENCE:
                    _yield()
            continue
        looked = 0
        b, stage = phase // each, phase % each
        begin, size, entry = bounds[b], bounds[b + 1] - bounds[b], indptr[bounds[b]]
        if stage == 0:
            first, last = _share(size, part, parts)
            for i in range(first, last):
                label = y[begin + i]
                weight = class_weights[label] if len(class_weights) else np.float32(1)
                loss, hit = _row_pass(
                    i, spans[begin + i, 0], spans[begin + i, 1], indices, values, label, weight / np.float32(size),
                    wide, small, dims, places, sums, upstream, seeds[b], threshold, scale,
                )  # fmt: skip
                row_losses[i], row_hits[i] = loss * weight, hit
        elif stage == 1:
            _gradient_part(
                part, parts, at_once, clip, kind, counts[b], entry, entry + b, slots, starts, rows, entries, wide,
                wide_first, wide_second, small, small_first, small_second, dims[0], small_rows, sums, upstream,
                own[thread], columns, squares, small_gradient, small_squares, table, rates[b], size,
            )  # fmt: skip
        else:
            _late_part(
                part, parts, clip, kind, shared[0], counts[b], entry, entry + b, slots, starts, wide, wide_first,
                wide_second, small, small_first, small_second, dims[0], small_rows, own[thread], columns,
                small_gradient, table, rates[b],
            )  # fmt: skip
        add_shared(gate.ctypes.data + 8, 1)
