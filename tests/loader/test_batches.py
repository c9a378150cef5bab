"""Batches: every example once an epoch, whole and in step, as views of the file wherever the rows are contiguous."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.handmade import dense, make_rows, write_shards
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.errors import UsageError
from shardtrain.loader.options import SHUFFLES
from shardtrain.loader.order import BLOCK_ROWS, WINDOW_BLOCKS
from shardtrain.loader.shards import open_shards

KINDS = ("ngram", "sequence")
NUM_CLASSES = 3
SIZES = (40_000, 1, 31_000)  # more than one window of rows, and borders of shards inside blocks
NUM_ROWS = sum(SIZES)


def ids_of(x) -> np.ndarray:
    """Which rows these are: `make_rows` writes it into the features (of n-grams, every fourth row has none: -1)."""
    if not isinstance(x, Csr):
        return x[:, -1].astype(np.int64) - 1
    found = np.full(len(x), -1, np.int64)
    filled = np.flatnonzero(np.diff(x.indptr))
    found[filled] = x.data[x.indptr[filled]].astype(np.int64) - 1
    return found


def drain(batches) -> np.ndarray:
    """Row ids of all batches in order, after checking that features and labels belong together."""
    found = [np.zeros(0, np.int64)]
    for x, y in batches:
        assert len(x) == len(y)
        ids = ids_of(x)
        np.testing.assert_array_equal(y[ids >= 0], ids[ids >= 0] % NUM_CLASSES)
        found.append(ids)
    return np.concatenate(found)


def all_ids(kind: str, count: int) -> list[int]:
    ids = np.arange(count)
    return sorted(np.where(ids % 4 == 0, -1, ids).tolist() if kind == "ngram" else ids.tolist())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Shards of both kinds that fill more than one window."""
    assert NUM_ROWS > BLOCK_ROWS * WINDOW_BLOCKS
    folder = tmp_path_factory.mktemp("batches")
    for kind in KINDS:
        write_shards(folder / kind, make_rows(kind, NUM_ROWS), SIZES)
    return folder


@pytest.fixture(params=KINDS)
def split(request, folders):
    with open_shards(folders / request.param) as shards:
        yield shards.train


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_every_example_comes_exactly_once_an_epoch_from_shards_of_any_size(data):
    kind = data.draw(st.sampled_from(KINDS))
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), make_rows(kind, sum(sizes)), sizes)
        with open_shards(folder) as shards:
            for shuffle in SHUFFLES:
                batches = shards.train.batches(
                    data.draw(st.integers(1, sum(sizes) + 5)),
                    seed=data.draw(st.integers(0, 99)),
                    epoch=data.draw(st.integers(0, 9)),
                    shuffle=shuffle,
                )
                assert sorted(drain(batches).tolist()) == all_ids(kind, sum(sizes))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("batch_size", sampled([128, 1000, BLOCK_ROWS + 1, NUM_ROWS, 3 * NUM_ROWS], (1, 2)))
def test_every_example_comes_exactly_once_an_epoch_over_many_windows(split, shuffle, batch_size):
    for epoch in range(2):
        batches = split.batches(batch_size, seed=3, epoch=epoch, shuffle=shuffle)
        assert sorted(drain(batches).tolist()) == all_ids(split.kind, NUM_ROWS)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_whole_rows_arrive_with_all_their_features(shuffle, tmp_path):
    rows = make_rows("ngram", 90)
    write_shards(tmp_path, rows, [50, 40])
    expected = dense(rows.x)
    with open_shards(tmp_path) as shards:
        x = np.concatenate([dense(x) for x, _ in shards.train.batches(7, shuffle=shuffle)])
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("batch_size", [128, 1000, NUM_ROWS, NUM_ROWS + 1])
@pytest.mark.parametrize("drop", [False, True], ids=["keeping the remainder", "dropping the remainder"])
def test_batches_are_full_but_for_the_last_and_as_many_as_said(split, shuffle, batch_size, drop):
    full, rest = divmod(NUM_ROWS, batch_size)
    batches = split.batches(batch_size, shuffle=shuffle, drop_remainder=drop)
    lengths = [len(y) for _, y in batches]
    assert lengths == [batch_size] * full + ([rest] if rest and not drop else [])
    assert len(batches) == split.steps_per_epoch(batch_size, drop) == len(lengths)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_dropping_the_remainder_leaves_the_other_batches_as_they_are(split, shuffle):
    whole = drain(split.batches(1000, seed=1, shuffle=shuffle))
    full = drain(split.batches(999, seed=1, shuffle=shuffle, drop_remainder=True))
    kept = NUM_ROWS // 999 * 999
    assert len(full) == kept
    if shuffle != "blocks":  # whose blocks are a whole number of batches long
        np.testing.assert_array_equal(full, whole[:kept])


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("step", sampled([0, 1, 31, 64, 65, 70, 71, 500], (1, 4, 6)))
def test_an_epoch_begun_at_a_step_goes_on_exactly(split, shuffle, step):
    options = {"seed": 5, "epoch": 2, "shuffle": shuffle}
    whole = list(split.batches(1000, **options))
    later = split.batches(1000, start_step=step, **options)
    rest = list(later)
    assert len(later) == len(rest) == max(0, 71 + 1 - step)
    for (x, y), (same_x, same_y) in zip(rest, whole[step:], strict=True):
        np.testing.assert_array_equal(y, same_y)
        for part in ("data", "indices", "indptr") if isinstance(x, Csr) else ("T",):
            np.testing.assert_array_equal(getattr(x, part), getattr(same_x, part))


def test_every_iteration_begins_again(split):
    batches = split.batches(1000, seed=1, shuffle="window")
    first = drain(islice(batches, 3))
    np.testing.assert_array_equal(first, drain(batches)[:3000])


@pytest.mark.parametrize("shuffle", ["blocks", "window"])
def test_another_seed_or_epoch_gives_another_order_and_the_same_ones_the_same(split, shuffle):
    orders = {
        (seed, epoch): drain(split.batches(1000, seed=seed, epoch=epoch, shuffle=shuffle)).tobytes()
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert drain(split.batches(1000, seed=2, epoch=1, shuffle=shuffle)).tobytes() == orders[2, 1]


def test_the_order_of_window_does_not_depend_on_the_batch_size(split):
    expected = drain(split.batches(1000, seed=1, shuffle="window"))
    for batch_size in (128, 4097):
        np.testing.assert_array_equal(drain(split.batches(batch_size, seed=1, shuffle="window")), expected)


def test_without_shuffle_the_order_is_that_of_the_rows(folders):
    with open_shards(folders / "sequence") as shards:
        np.testing.assert_array_equal(drain(shards.train.batches(1000)), np.arange(NUM_ROWS))


def test_the_first_rows_of_an_epoch_are_frozen(folders):
    with open_shards(folders / "sequence") as shards:
        found = {
            (shuffle, seed, epoch): drain(
                islice(shards.train.batches(1000, seed=seed, epoch=epoch, shuffle=shuffle), 6)
            )[[0, 1, 2, 4999, 5000]].tolist()
            for shuffle in ("blocks", "window")
            for seed, epoch in ((1, 0), (1, 1), (2, 0))
        }
    assert found == GOLDEN_ROWS


GOLDEN_ROWS = {
    ("blocks", 1, 0): [32760, 32761, 32762, 37759, 42760],
    ("blocks", 1, 1): [46287, 46288, 46289, 51286, 61287],
    ("blocks", 2, 0): [16797, 16798, 16799, 21796, 52798],
    ("window", 1, 0): [1508, 46333, 45627, 48384, 32675],
    ("window", 1, 1): [20470, 67048, 48096, 68928, 47241],
    ("window", 2, 0): [43123, 14786, 60923, 62222, 15870],
}


def contiguous(split, plan, size) -> int:
    """How many rows of an epoch are in batches that are one run of rows of one shard."""
    rows = np.concatenate([np.arange(*segment) for window in plan.windows() for segment in window.segments])
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    runs = [batch for batch in batches if np.all(np.diff(batch) == 1)]
    return sum(len(run) for run in runs if len(list(split.pieces(int(run[0]), int(run[-1]) + 1))) == 1)


@pytest.mark.parametrize("shuffle", ["none", "blocks"])
def test_a_batch_that_is_one_run_of_rows_of_one_shard_is_the_file_itself(split, shuffle):
    views = 0
    batches = split.batches(1000, seed=1, shuffle=shuffle)
    for x, y in batches:
        shard = next((shard for shard in split.shards if np.shares_memory(y, mapping(shard))), None)
        if shard is None:
            continue
        views += len(y)
        first = (address(y) - address(shard.y(0, 1))) // y.itemsize
        parts = {"y": (y, first)}
        if isinstance(x, Csr):
            nonzero = int(shard.arrays["x/indptr"].read(first, first + 1)[0])
            parts |= {"x/data": (x.data, nonzero), "x/indices": (x.indices, nonzero)}
        else:
            parts |= {"x": (x, first)}
        for name, (part, position) in parts.items():
            where = shard.entry.datasets[name]
            offset = where.offset + position * (where.bytes // where.shape[0])
            if not part.size:  # the last batch of n-grams: one row, without any
                continue
            assert np.shares_memory(part, mapping(shard))
            assert address(part) - address(mapping(shard)) == offset
            with open(shard.path, "rb") as file:
                file.seek(offset)
                assert file.read(part.nbytes) == part.tobytes()
    assert views == contiguous(split, batches.plan, 1000) > 0.9 * NUM_ROWS


def mapping(shard) -> np.ndarray:
    return shard.file.bytes(0, shard.entry.bytes)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_batches_of_a_window_are_views_of_one_gathered_window(split):
    batches = list(split.batches(1000, seed=1, shuffle="window"))
    part = [x.data if isinstance(x, Csr) else x for x, _ in batches[:3]]
    base = part[0].base
    assert base is not None
    assert all(np.shares_memory(each, base) for each in part)
    assert not any(np.shares_memory(part[0], mapping(shard)) for shard in split.shards)


def test_later_epochs_use_the_memory_of_the_first(split):
    def epoch(number: int) -> dict[int, int]:
        batches = split.batches(1024, seed=1, epoch=number, shuffle="window", prefetch=0)
        return {address(y.base): y.base.nbytes for _, y in batches}

    first = epoch(0)
    others = [np.ones(size, np.uint8) for size in first.values() for _ in range(9)]  # take what would be free
    assert epoch(1).keys() <= first.keys()
    assert not {address(other) for other in others} & first.keys()


def test_batches_that_are_kept_stay_as_they_are_in_later_epochs(split):
    kept = list(islice(split.batches(1000, seed=1, shuffle="window"), 20))
    copies = [(ids_of(x).copy(), y.copy()) for x, y in kept]
    for epoch in (1, 2):
        drain(split.batches(1000, seed=1, epoch=epoch, shuffle="window"))
    for (x, y), (ids, labels) in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(ids_of(x), ids)
        np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_the_generator_loops_for_ever_and_ends_each_epoch_with_the_partial_batch(split, shuffle):
    steps = split.steps_per_epoch(2000)
    drawn = list(islice(split.generator(2000, seed=4, shuffle=shuffle), 2 * steps + 3))
    assert [len(y) for _, y in drawn] == ([2000] * (steps - 1) + [NUM_ROWS % 2000]) * 2 + [2000] * 3
    for epoch in range(3):
        found = drain(drawn[epoch * steps : (epoch + 1) * steps])
        expected = drain(split.batches(2000, seed=4, epoch=epoch, shuffle=shuffle))
        np.testing.assert_array_equal(found, expected[: len(found)])


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "dropped"), [(1, 1, 1, 1), (1, 2, 1, 0), (10, 5, 2, 2), (11, 5, 3, 2)]
)
def test_steps_per_epoch_counts_the_last_shorter_batch_unless_dropped(rows, batch_size, steps, dropped, tmp_path):
    write_shards(tmp_path, make_rows("sequence", rows), [rows])
    with open_shards(tmp_path) as shards:
        assert shards.train.steps_per_epoch(batch_size) == steps
        assert shards.train.steps_per_epoch(batch_size, drop_remainder=True) == dropped
        assert len(list(shards.train.batches(batch_size))) == steps
        assert len(list(shards.train.batches(batch_size, drop_remainder=True))) == dropped


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"batch_size": 8, "start_step": -1}, "start_step -1"),
        ({"batch_size": 8, "epoch": -1}, "epoch -1"),
        ({"batch_size": 8, "shuffle": "batch"}, "shuffle is 'batch'"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(split, options, reason):
    with pytest.raises(UsageError, match=reason):
        split.batches(**options)
