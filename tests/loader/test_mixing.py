"""The default shuffle mixes like a true permutation, also what was sorted by class; the measure can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.handmade import make_rows, write_shards

from shardtrain.loader.mixing import Mixing, measure, measure_chance, visited_rows
from shardtrain.loader.options import SHUFFLES
from shardtrain.loader.order import EpochPlan, document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

ROOT = Path(__file__).resolve().parents[2]
SORTED = np.repeat(np.arange(14), 3000)  # 42,000 rows


def test_a_sorted_order_is_as_far_from_chance_as_can_be():
    found = measure(np.arange(len(SORTED)), SORTED, 100)
    assert found.class_distance == pytest.approx(13 / 14)
    assert found.disk_neighbours == 1
    assert found.same_class == pytest.approx(1, abs=1e-3)


def test_chance_itself_is_near_what_is_expected_of_it():
    found = measure_chance(SORTED, 100)
    assert found.same_class == pytest.approx(1 / 14, rel=0.05)
    assert found.disk_neighbours < 1e-3


@pytest.mark.parametrize("mode", SHUFFLES)
def test_all_rows_are_visited(mode):
    order = visited_rows(EpochPlan(num_rows=5000, mode=mode, seed=1, epoch=2, block_rows=100, window_blocks=4))
    assert sorted(order.tolist()) == list(range(5000))


def mean_over_epochs(plans, labels, batch_size: int) -> Mixing:
    found = [measure(visited_rows(plan), labels, batch_size) for plan in plans]
    return Mixing(**{name: np.mean([getattr(each, name) for each in found]) for name in vars(found[0])})


def assert_as_by_chance(found: Mixing, labels, batch_size: int) -> None:
    chance = measure_chance(labels, batch_size, samples=10)
    assert found.class_distance == pytest.approx(chance.class_distance, rel=0.05)
    assert found.same_class == pytest.approx(chance.same_class, rel=0.05)
    assert found.disk_neighbours < 0.001


def test_window_shuffle_of_shards_built_from_a_sorted_corpus_is_within_5_percent_of_a_permutation(data, tmp_path):
    """Rows lie in a shuffled order on disk already; what is measured is both together, as training sees it."""
    build(data / "dbpedia" / "train.csv", tmp_path / "shards", BuildOptions(workers=1, max_features=50))
    with open_shards(tmp_path / "shards") as shards:
        labels = shards.train.labels()
        plans = [shards.train.batches(128, seed=1, epoch=epoch, shuffle="window").plan for epoch in range(8)]
        assert_as_by_chance(mean_over_epochs(plans, labels, 128), labels, 128)


def test_window_shuffle_over_many_windows_is_within_5_percent_of_a_permutation():
    """The labels lie where `build` would put the documents of a sorted corpus; an epoch has five windows."""
    labels = np.repeat(np.arange(14), 20_000)
    labels = labels[np.argsort(document_keys(np.arange(len(labels)), 1))]
    plans = [EpochPlan(num_rows=len(labels), mode="window", seed=1, epoch=epoch) for epoch in range(2)]
    assert_as_by_chance(mean_over_epochs(plans, labels, 128), labels, 128)


def test_global_shuffle_mixes_rows_that_are_sorted_on_disk_and_blocks_does_not():
    chance = measure_chance(SORTED, 100)
    for mode, near in (("global", True), ("blocks", False), ("none", False)):
        found = measure(visited_rows(EpochPlan(num_rows=len(SORTED), mode=mode, seed=1, epoch=0)), SORTED, 100)
        assert (abs(found.class_distance - chance.class_distance) < 0.05 * chance.class_distance) is near


def test_the_script_shows_every_shuffle_against_chance(tmp_path):
    write_shards(tmp_path, make_rows("sequence", 20_000), [12_000, 8000])
    command = [sys.executable, "tools/inspect_shards.py", str(tmp_path), "--shuffle-quality", "--batch-size", "100"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    values = json.loads(found.stdout)
    assert list(values) == [*SHUFFLES, "chance"]
    assert values["none"]["disk_neighbours"] == 1
    assert values["window"]["class_distance"] == pytest.approx(values["chance"]["class_distance"], rel=0.1)
    lines = shown.splitlines()
    assert "20,000 training rows, batches of 100" in lines[0]
    assert sum(line.startswith("  window") for line in lines) == 3
    assert next(line for line in lines if "neighbours on disk" in line)
    assert "1.0000  " + 40 * "#" in shown
