"""Laws of checkpoints: what is read is what was saved, damage is noticed wherever it is, and two are kept."""

from __future__ import annotations

import errno
import json
import math
import random
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.disk import small_disk

from shardtrain.errors import CheckpointError, DiskFullError, UsageError
from shardtrain.runtime.atomic import commit_bytes, committed
from shardtrain.training import checkpoint
from shardtrain.training.checkpoint import Checkpoints, packed, read_checkpoint, write_checkpoint
from shardtrain.training.options import CheckpointInterval, parse_interval

KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none())
PLAIN = st.one_of(KEYS, st.floats(allow_nan=False))
VALUES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner))
)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in the type of everything."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    return bool(one == other)


@pytest.mark.heavy
@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_plain_values_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "plain"
    write_checkpoint(path, packed(value))
    assert same(read_checkpoint(path), value)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)], ids=str)
def test_arrays_and_scalars_of_every_type_come_back_in_every_bit(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    pytest.importorskip("ml_dtypes")  # numpy knows bfloat16 through it
    array = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    values = array.view(dtype)[..., 0] if dtype != "bool" else array[..., 0] > 99
    state = {"one": [values, values[..., None].T], "scalar": np.dtype(dtype).type(1)}
    write_checkpoint(tmp_path / "c", packed(state))
    assert same(read_checkpoint(tmp_path / "c"), state)


def test_numbers_that_json_does_not_have_come_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", packed([math.inf, -math.inf, math.nan, 10**40]))
    first, second, third, large = read_checkpoint(tmp_path / "c")
    assert (first, second, large) == (math.inf, -math.inf, 10**40)
    assert math.isnan(third)


@pytest.mark.parametrize(
    "value",
    [len, object(), {1, 2}, [{"a": b"bytes"}], np.array([None]), defaultdict(list)],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold a"):
        packed(value)


def test_a_packed_state_does_not_follow_later_changes() -> None:
    array, names = np.zeros(3), ["a"]
    state = packed([array, names])
    array[:] = 1
    names.append("b")
    np.testing.assert_array_equal(state.arrays[0], np.zeros(3))
    assert state.tree[1] == ["a"]


def test_a_file_begins_with_what_it_says_it_does(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", packed({"x": np.arange(3, dtype=np.int16)}))
    magic, header, rest = (tmp_path / "c").read_bytes().split(b"\n", 2)
    assert magic == b"shardtrain-checkpoint 1"
    assert json.loads(header) == {
        "arrays": [{"dtype": "int16", "shape": [3]}],
        "state": {"dict": [["x", {"array": 0}]]},
    }
    assert rest[:-16] == b"\0\0\1\0\2\0"


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, packed({"x": np.arange(5), "y": [1, "two"]}))
    whole = path.read_bytes()
    damages = [whole[:length] for length in range(len(whole))]
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << random.Random(position).randrange(8)
        damages.append(bytes(flipped))
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(path)


def test_reading_a_checkpoint_needs_no_pickle_no_hdf5_and_no_tensorflow(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", packed({"x": np.arange(5)}))
    script = (
        "import sys\nfrom pathlib import Path\nfrom shardtrain.training.checkpoint import read_checkpoint\n"
        f"print(len(read_checkpoint(Path({str(tmp_path / 'c')!r}))['x']))\n"
        "print({'h5py', 'tensorflow', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "5\nset()\n"


def saved(folder: Path, *states: Any) -> list[Path]:
    with Checkpoints(folder) as checkpoints:
        for state in states:
            checkpoints.save(packed(state))
            checkpoints.finish()
    return sorted(folder.iterdir())


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None
    paths = saved(tmp_path / "c", 1, 2, 3, 4)
    assert [read_checkpoint(path) for path in paths] == [3, 4]
    assert Checkpoints(tmp_path / "c").newest() == 4


def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = saved(tmp_path / "c", "older", "newest")
    newest.write_bytes(newest.read_bytes()[:-20])
    assert Checkpoints(tmp_path / "c").newest() == "older"
    said = capsys.readouterr().err
    assert str(newest) in said
    assert f"resuming from the one before, '{older.name}'" in said
    assert saved(tmp_path / "c", "next")[0] == older  # the damaged one does not count among the two
    older.write_bytes(b"")
    for path in saved(tmp_path / "c"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no undamaged checkpoint is left, start again with overwrite"):
        Checkpoints(tmp_path / "c").newest()


def test_saving_returns_while_a_slow_disk_writes_and_the_latest_state_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on, written = threading.Event(), threading.Event(), []

    def slow(path: Path, state: Any) -> None:
        started.set()
        go_on.wait()
        written.append(state.tree)
        write_checkpoint(path, state)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slow)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(packed(0))
        started.wait()
        for number in (1, 2, 3):
            checkpoints.save(packed(number))
        go_on.set()
        checkpoints.finish()
        assert checkpoints.newest() == 3
    assert written == [0, 3]


def test_a_full_disk_is_told_and_keeps_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "c", "older")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(tmp_path / "c") as checkpoints:
        with monkeypatch.context() as patched:
            patched.setattr("shardtrain.runtime.atomic.os.fsync", full)
            for _ in range(3):
                checkpoints.save(packed("too large"))
                with pytest.raises(DiskFullError, match="no room left"):
                    checkpoints.finish()
        assert capsys.readouterr().err.count("training continues without it: no room left on the disk") == 1
        assert checkpoints.newest() == "older"
        checkpoints.save(packed("newer"))
        checkpoints.finish()
        assert checkpoints.newest() == "newer"


def test_a_state_that_does_not_fit_costs_no_other_file_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, tried = threading.Event(), threading.Event()

    def fill(path: Path, state: Any) -> None:
        """Fill the disk, and stay there until another file was tried."""
        with committed(path) as file:
            try:
                while True:
                    file.raw.write(bytes(1 << 12))
            finally:
                full.set()
                tried.wait()

    def write() -> None:
        try:
            commit_bytes(disk / "history.csv", b"epoch\n" * 700)
        finally:
            tried.set()

    monkeypatch.setattr(checkpoint, "write_checkpoint", fill)
    with small_disk(tmp_path / "disk", 1 << 20) as disk, Checkpoints(disk / "c") as checkpoints:
        checkpoints.save(packed("too large"))
        full.wait()
        checkpoints.beside(write)
        assert (disk / "history.csv").stat().st_size == 4200
        (disk / "filler").write_bytes(bytes((1 << 20) - (1 << 15)))
        with pytest.raises(DiskFullError):
            checkpoints.beside(lambda: commit_bytes(disk / "large", bytes(1 << 18)))


def test_removing_leaves_nothing_and_drops_what_waits(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.remove()
        for number in range(5):
            checkpoints.save(packed(number))
        checkpoints.remove()
    assert not (tmp_path / "c").exists()


def test_what_is_no_checkpoint_stays_and_hinders_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    (folder / "checkpoint-00000007").mkdir(parents=True)
    (folder / ".DS_Store").write_text("of a file manager")
    before = sorted(folder.iterdir())
    with Checkpoints(folder) as checkpoints:
        for number in range(3):
            checkpoints.save(packed(number))
            checkpoints.finish()
        assert checkpoints.newest() == 2
        checkpoints.remove()
    assert sorted(folder.iterdir()) == before
    assert f"'{folder / '.DS_Store'}' is no checkpoint, so it stays" in capsys.readouterr().err


def test_a_folder_of_checkpoints_on_another_disk_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "c").symlink_to("elsewhere")
    assert saved(tmp_path / "c", 1)
    Checkpoints(tmp_path / "c").remove()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("60s", CheckpointInterval(60, "s")),
        ("5", CheckpointInterval(5, "s")),
        ("500steps", CheckpointInterval(500, "steps")),
        ("1 epoch", CheckpointInterval(1, "epochs")),
    ],
)
def test_how_often_is_read_from_text(text: str, every: CheckpointInterval) -> None:
    assert parse_interval(text) == every


@pytest.mark.parametrize("text", ["", "s", "-1s", "1.5s", "0s", "0epochs", "3minutes"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_interval(text)


def test_what_is_due_when() -> None:
    seconds, steps, epochs = (
        CheckpointInterval(60, "s"),
        CheckpointInterval(500, "steps"),
        CheckpointInterval(3, "epochs"),
    )
    assert [seconds.within_epoch(passed, 10**6) for passed in (59.9, 60.0)] == [False, True]
    assert [steps.within_epoch(10**6, passed) for passed in (499, 500)] == [False, True]
    assert not epochs.within_epoch(10**6, 10**6)
    assert [[every.after_epoch(ended) for ended in (1, 2, 3)] for every in (seconds, steps, epochs)] == [
        [True, True, True],
        [False, False, False],
        [False, False, True],
    ]
