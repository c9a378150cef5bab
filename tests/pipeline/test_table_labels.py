"""Labels of tables follow the rules of a corpus: equal numbers are one class, and some words are missing labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from shardtrain.errors import LabelError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import ConvertOptions, IndexOptions
from shardtrain.shards.layout import Manifest


def table(path: Path, labels: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.zeros((len(labels), 2), "f4"), np.array(labels, "S")
    return path


def made(command: str, folder: Path, rows: list[str], others: list[str] | None = None, **options: Any) -> Manifest:
    files = [table(folder / "train.h5", rows)]
    if others:
        options["validation"] = (table(folder / "validation.h5", others),)
    if command == "index":
        return index(files, folder / "out", IndexOptions(x="x", y="y", **options))
    return convert(files, folder / "out", ConvertOptions(x="x", y=("y",), **options))


@pytest.mark.parametrize("command", ["convert", "index"])
def test_equal_numbers_are_one_class_in_both_splits(command: str, tmp_path: Path) -> None:
    manifest = made(command, tmp_path, ["1", "1.0", "2.50", "10", "2.5"] * 4, ["01", "2.500", "1e1"])
    assert manifest.class_names == ("1", "2.5", "10")
    assert {name: split.class_counts for name, split in manifest.splits.items()} == {
        "train": (8, 8, 4),
        "validation": (1, 1, 1),
    }
    with open_shards(tmp_path / "out") as shards:
        assert np.bincount(shards.train.labels()).tolist() == [8, 8, 4]


@pytest.mark.parametrize("command", ["convert", "index"])
def test_names_are_literal_on_request_and_missing_ones_are_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="labels are missing: 4 rows have 'nan'; omit them, or add labels names"):
        made(command, tmp_path, ["1", "1.0", "nan"] * 4)
    manifest = made(command, tmp_path, ["1", "1.0", "nan"] * 4, labels="names", validation_fraction=0.0)
    assert manifest.class_names == ("1", "1.0", "nan")


@pytest.mark.parametrize("command", ["convert", "index"])
def test_a_class_is_rare_by_all_of_its_spellings(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [*["1", "2"] * 30, "1.0", "01", "1.00", "+1", "1e0", "2.0", "02", "2.00", "+2", "2e0"]
    manifest = made(command, tmp_path, labels, validation_fraction=0.5)  # some spellings are held out only
    assert manifest.class_names == ("1", "2")
    assert "stays in training" not in capsys.readouterr().err
