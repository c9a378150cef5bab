"""An epoch visits every row once, in an order that follows from (seed, epoch, position) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.errors import UsageError
from shardtrain.loader.options import SHUFFLES
from shardtrain.loader.order import EpochPlan, document_keys, keys, mix64, permutation, permuted

LAWS = settings(max_examples=80, deadline=None, derandomize=True)
PLANS = st.builds(
    EpochPlan,
    num_rows=st.integers(0, 300),
    mode=st.sampled_from(SHUFFLES),
    seed=st.integers(-(1 << 70), 1 << 70),
    epoch=st.integers(0, 1 << 40),
    block_rows=st.integers(1, 40),
    window_blocks=st.integers(1, 8),
)


def rows_of(window) -> np.ndarray:
    """The rows of a window in the order they are visited."""
    rows = np.concatenate([np.arange(start, stop) for start, stop in window.segments])
    return rows if window.order is None else rows[window.order]


def order_of(plan: EpochPlan) -> list[int]:
    return [int(row) for window in plan.windows() for row in rows_of(window)]


def plan_of(num_rows: int, mode: str, seed: int = 1, epoch: int = 0, **sizes: int) -> EpochPlan:
    return EpochPlan(num_rows=num_rows, mode=mode, seed=seed, epoch=epoch, **sizes)


@LAWS
@given(PLANS)
def test_an_epoch_visits_every_row_exactly_once(plan):
    assert sorted(order_of(plan)) == list(range(plan.num_rows))


@LAWS
@given(PLANS)
def test_windows_begin_where_the_one_before_ends_and_all_but_the_last_are_full(plan):
    position = 0
    windows = list(plan.windows())
    for window in windows:
        assert window.start == position
        assert len(window) == len(rows_of(window))
        position += len(window)
    assert [len(rows_of(window)) for window in windows[:-1]] == [plan.window_rows] * len(windows[:-1])


@LAWS
@given(PLANS, st.data())
def test_any_position_is_found_without_replaying_those_before(plan, data):
    start = data.draw(st.integers(0, max(plan.num_rows - 1, 0)))
    later = list(plan.windows(start))
    whole = [window for window in plan.windows() if window.start + len(rows_of(window)) > start]
    assert [(window.start, rows_of(window).tolist()) for window in later] == [
        (window.start, rows_of(window).tolist()) for window in whole
    ]


@LAWS
@given(PLANS)
def test_without_shuffle_the_rows_come_as_they_lie(plan):
    in_order = plan_of(plan.num_rows, "none", plan.seed, plan.epoch, block_rows=plan.block_rows)
    assert order_of(in_order) == list(range(plan.num_rows))


@pytest.mark.parametrize("mode", ["blocks", "window", "global"])
def test_the_same_seed_and_epoch_give_the_same_order_and_others_give_another(mode):
    orders = {
        (seed, epoch): tuple(order_of(plan_of(1000, mode, seed, epoch, block_rows=50, window_blocks=4)))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(set(orders.values())) == 25
    assert orders[3, 4] == tuple(order_of(plan_of(1000, mode, 3, 4, block_rows=50, window_blocks=4)))


@pytest.mark.parametrize("mode", ["blocks", "window"])
def test_the_short_block_at_the_end_holds_other_rows_in_other_epochs(mode):
    ends = {
        tuple(sorted(order_of(plan_of(109, mode, 1, epoch, block_rows=10, window_blocks=2))[-9:])) for epoch in range(9)
    }
    assert len(ends) > 5


def test_blocks_stay_contiguous_but_for_the_one_that_wraps_around():
    plan = plan_of(1000, "blocks", block_rows=100)
    lengths = [len(window.segments) for window in plan.windows()]
    assert sorted(lengths) in ([1] * 10, [1] * 9 + [2])
    assert all(window.order is None for window in plan.windows())


GOLDEN_ORDERS = {
    ("blocks", 1, 0): [865, 866, 867, 868, 869, 870, 871, 872, 873, 874, 875, 876],
    ("blocks", 1, 1): [768, 769, 770, 771, 772, 773, 774, 775, 776, 777, 778, 779],
    ("blocks", 2, 0): [418, 419, 420, 421, 422, 423, 424, 425, 426, 427, 428, 429],
    ("window", 1, 0): [880, 44, 927, 655, 27, 26, 869, 640, 626, 642, 643, 23],
    ("window", 1, 1): [811, 992, 83, 822, 769, 7, 966, 57, 777, 968, 14, 50],
    ("window", 2, 0): [442, 211, 418, 449, 213, 178, 443, 188, 209, 455, 164, 32],
    ("global", 1, 0): [241, 975, 676, 290, 682, 540, 656, 266, 814, 987, 801, 169],
    ("global", 1, 1): [435, 158, 770, 590, 303, 442, 645, 731, 995, 622, 169, 676],
    ("global", 2, 0): [669, 308, 218, 769, 40, 135, 635, 843, 87, 128, 612, 987],
}


@pytest.mark.parametrize(("mode", "seed", "epoch"), GOLDEN_ORDERS)
def test_the_order_of_rows_is_frozen(mode, seed, epoch):
    plan = plan_of(1000, mode, seed, epoch, block_rows=64, window_blocks=3)
    assert order_of(plan)[:12] == GOLDEN_ORDERS[mode, seed, epoch]


def test_the_order_of_rows_at_default_sizes_is_frozen():
    plan = plan_of(200_000, "window", 1, 0)
    rows = order_of(plan)
    assert rows[:6] == [91149, 148262, 147556, 180660, 83691, 8151]
    assert rows[-3:] == [187187, 187001, 186241]


def test_the_places_of_documents_are_frozen():
    assert document_keys(np.arange(3), 1).tolist() == [
        2564942664318599299,
        6301985355436268297,
        11240987831504082782,
    ]
    assert permutation(10, 1, 0, 3).tolist() == [9, 5, 0, 8, 2, 7, 4, 6, 3, 1]


def test_keys_are_splitmix64():
    # the first outputs for the seed 1234567, as the reference implementation and Rosetta Code have them
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + golden * np.arange(1, 4, dtype=np.uint64)
    assert mix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def documented_key(document: int, seed: int) -> int:
    """The key of a document as docs/format.md has it, in plain integers."""
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z & mask) ^ (z & mask) >> 30
        z = z * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    base = mix((mix(seed + golden) ^ 1) + golden)
    return mix(base + golden * document)


@LAWS
@given(st.integers(0, (1 << 63) - 1), st.integers(-(1 << 70), 1 << 70))
def test_keys_of_documents_are_those_of_the_format(document, seed):
    assert document_keys(np.array([document]), seed).tolist() == [documented_key(document, seed)]


def test_mixing_bits_is_a_bijection_and_leaves_its_argument_alone():
    values = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix64(values))) == len(values)
    np.testing.assert_array_equal(values, np.arange(100_000, dtype=np.uint64))


@LAWS
@given(st.integers(0, 500), st.integers(-(1 << 70), 1 << 70), st.lists(st.integers(0, 1 << 70), max_size=3))
def test_a_permutation_has_every_number_once(count, seed, stream):
    assert sorted(permutation(count, seed, *stream).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 8191, 8192, 8193, 40_000])
def test_a_permutation_has_numbers_in_the_order_of_their_keys(count):
    ranks = keys(np.arange(count), 3, 1, 4) >> np.uint64((count - 1).bit_length())
    assert permutation(count, 3, 1, 4).tolist() == sorted(range(count), key=lambda number: (ranks[number], number))


def test_a_key_depends_on_its_number_alone():
    numbers = np.random.default_rng(2).integers(0, 1 << 62, (3, 7001))
    expected = [[int(keys(numbers[i, j : j + 1], 9, 5)[0]) for j in range(0, 7001, 500)] for i in range(3)]
    assert keys(numbers, 9, 5)[:, ::500].tolist() == expected
    assert keys(np.asfortranarray(numbers), 9, 5)[:, ::500].tolist() == expected


@LAWS
@given(st.integers(1, 500), st.integers(-(1 << 70), 1 << 70), st.lists(st.integers(0, 1 << 70), max_size=3), st.data())
def test_places_are_scattered_as_a_permutation_each_by_itself(count, seed, stream, data):
    whole = permuted(np.arange(count), count, seed, *stream)
    assert sorted(whole.tolist()) == list(range(count))
    some = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    assert permuted(np.array(some, np.int64), count, seed, *stream).tolist() == whole[some].tolist()


def test_scattered_places_look_like_a_permutation_drawn_by_chance():
    count = 40_000
    for epoch in range(5):
        found = permuted(np.arange(count), count, 1, epoch)
        assert abs(np.corrcoef(found, np.arange(count))[0, 1]) < 5 / count**0.5
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / count**0.5
        table = np.histogram2d(np.arange(count), found, bins=20)[0]
        chi_square = ((table - 100.0) ** 2 / 100.0).sum()
        assert abs(chi_square - 361) < 6 * (2 * 361) ** 0.5  # 19 * 19 degrees of freedom
        assert np.count_nonzero(np.abs(np.diff(found)) == 1) < 20  # 2 are expected
    first = [permuted(np.arange(3), 3, seed).tolist() for seed in range(600)]
    counts = [first.count(order) for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])]
    assert min(counts) > 50


def test_keys_are_spread_evenly_so_that_a_threshold_cuts_a_fraction():
    drawn = keys(np.arange(100_000), 7, 1)
    for fraction in (0.01, 0.1, 0.5):
        below = np.count_nonzero(drawn < np.uint64(int(fraction * 2**64)))
        deviation = (fraction * (1 - fraction) * 100_000) ** 0.5
        assert abs(below - fraction * 100_000) < 5 * deviation


def classes_a_batch(mode: str, labels: np.ndarray, batch_size: int = 100) -> float:
    """The mean number of different classes in a batch."""
    visited = labels[order_of(plan_of(len(labels), mode, 1, 0, block_rows=500, window_blocks=16))]
    batches = visited[: len(visited) // batch_size * batch_size].reshape(-1, batch_size)
    return float(np.mean([len(np.unique(batch)) for batch in batches]))


def test_rows_sorted_by_class_are_mixed_by_window_and_not_by_blocks():
    labels = np.repeat(np.arange(14), 2000)  # four blocks a class, sixteen blocks a window
    assert classes_a_batch("none", labels) == 1.0
    assert classes_a_batch("blocks", labels) < 1.2
    assert classes_a_batch("window", labels) > 8.0
    assert classes_a_batch("global", labels) > 13.9


def test_window_mixes_a_window_evenly():
    labels = np.repeat(np.arange(4), 2000)  # one window holds all
    visited = labels[order_of(plan_of(8000, "window", 1, 0, block_rows=500, window_blocks=16))]
    counts = np.stack([np.bincount(batch, minlength=4) for batch in visited.reshape(-1, 100)])
    chi_square = ((counts - 25.0) ** 2 / 25.0).sum(axis=1)
    assert abs(chi_square.mean() - 3.0) < 1.0  # three degrees of freedom
    same_class_as_before = np.mean(visited[1:] == visited[:-1])
    assert abs(same_class_as_before - 0.25) < 0.03


@pytest.mark.parametrize(
    ("mode", "sizes", "reason"),
    [
        ("random", {}, "choose one of none, blocks, window, global"),
        ("blocks", {"block_rows": 0}, "block_rows is 0"),
        ("window", {"window_blocks": -1}, "window_blocks is -1"),
    ],
)
def test_what_is_no_plan_is_refused(mode, sizes, reason):
    with pytest.raises(UsageError, match=reason):
        plan_of(10, mode, **sizes)
