"""What is read of a file of records is what was added, whatever a kill or a bad disk made of its other lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.errors import StorageError
from shardtrain.runtime.records import Records
from shardtrain.runtime.schema import ANYTHING, Integer

RESULTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def written(path: Path, results: list[Any]) -> None:
    with Records(path, ANYTHING) as records:
        for number, result in enumerate(results):
            records.add(number, result)


def read(path: Path) -> list[tuple[int, Any]]:
    return list(Records(path, ANYTHING).read())


@settings(deadline=None, max_examples=60)
@given(st.lists(RESULTS, max_size=6), st.lists(RESULTS, max_size=3), st.data())
def test_records_survive_a_line_that_was_cut_off_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, results: list[Any], later: list[Any], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("records") / "a.records"
    written(path, results)
    path.touch()
    assert read(path) == list(enumerate(results))
    content = path.read_bytes()
    size = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:size])  # a kill, or a full disk
    whole = content[:size].count(b"\n")
    assert read(path) == list(enumerate(results))[:whole]
    written(path, later)
    whole += bool(later) and content[size : size + 1] == b"\n"  # a record that lacks only its end, which it gets now
    assert read(path) == list(enumerate(results))[:whole] + list(enumerate(later))


@settings(deadline=None, max_examples=60)
@given(st.lists(RESULTS, min_size=1, max_size=4), st.data())
def test_a_flipped_bit_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, results: list[Any], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("records") / "a.records"
    written(path, results)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    found, expected = read(path), list(enumerate(results))
    assert all(record in expected for record in found)
    assert len(found) >= len(expected) - 2  # a line end that is gone costs two


def test_a_result_that_does_not_fit_is_refused_and_one_of_another_version_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.records"
    with Records(path, Integer()) as records:
        records.add(0, 5)
        with pytest.raises(ValueError, match="integer"):
            records.add(1, "5")
    assert list(Records(path, Integer()).read()) == [(0, 5)]
    written(path, ["another"])
    assert list(Records(path, Integer()).read()) == [(0, 5)]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.records"
    path.symlink_to(tmp_path / "elsewhere")
    with Records(path, ANYTHING) as records, pytest.raises(StorageError, match=r"a\.records"):
        records.add(0, 1)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["folder", "link", "unreadable"])
def test_a_file_that_cannot_be_read_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.records"
    if kind == "folder":
        path.mkdir()
    else:
        written(tmp_path / "elsewhere", [1])
        (path.symlink_to if kind == "link" else path.hardlink_to)(tmp_path / "elsewhere")
    if kind == "unreadable":
        monkeypatch.setattr(Records, "_parsed", unreadable)
    with pytest.raises(StorageError, match=r"a\.records"):
        read(path)


def unreadable(*_: Any) -> Any:
    raise OSError(5, "Input/output error")


def test_a_pipe_in_the_place_of_records_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.records")
    assert read(tmp_path / "a.records") == []
