"""What tools/simulate_scale.py computes of a build is what a build does: its tasks, its files and their bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.sampled import sampled

from shardtrain.datasets.demo import write_demo
from shardtrain.pipeline import build as building
from shardtrain.pipeline import planning, titles
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes
from shardtrain.runtime.passes import Workers
from shardtrain.vectorize import groups

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import scale_measured  # noqa: E402
import scale_passes  # noqa: E402

SETTINGS: dict[str, dict[str, Any]] = {
    "n-grams": {"vectorizer": "ngram"},
    "sequences": {"vectorizer": "sequence"},
    "the most frequent n-grams": {"vectorizer": "ngram", "select": "none"},
}
SPREAD = {titles.SELECT: 0.15, titles.CHOOSE: 0.15}  # buckets differ in size by chance
KINDS = [(name, many) for name in SETTINGS for many in (False, True)]


@contextmanager
def shrunk(budget: int, *, many: bool) -> Iterator[None]:
    """Units of 4 KiB, little memory for each task, and with `many` groups of five units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "UNIT_BYTES", 1 << 12)
        for module in (groups, planning):
            patch.setattr(module, "GROUP_UNITS", 5)
        patch.setattr(groups, "MOST_FILES", 6 if many else 1 << 20)
        patch.setattr(passes.Workers, "task_budget", lambda *_: budget)
        yield


DOCUMENTS = {"n-grams": 700, "sequences": 1500, "the most frequent n-grams": 700}  # that make several buckets


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {documents: tmp_path_factory.mktemp("corpus") for documents in {*DOCUMENTS.values()}}
    for documents, folder in folders.items():
        write_demo(folder, documents=documents, classes=3, seed=4)
        (folder / "classes.txt").unlink()
    return {documents: folder / "train.csv" for documents, folder in folders.items()}


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "many"), sampled(KINDS, (1,)))
def test_it_computes_what_a_build_does(name: str, many: bool, corpora: dict[int, Path], tmp_path: Path) -> None:
    """From ratios of builds in few buckets and one shard, a build in many of both."""
    corpus = corpora[DOCUMENTS[name]]
    options = BuildOptions(max_features=300, workers=1, rows_per_shard=200, **SETTINGS[name])
    with shrunk(1 << 24, many=many):
        measured = scale_measured.measure(corpus, options, 1 << 30)
    with shrunk(1 << 18, many=many), scale_measured.observed() as seen:
        build(corpus, tmp_path / "out", options)
        simulation = scale_passes.Simulation(
            num_bytes=corpus.stat().st_size,
            document_bytes=corpus.stat().st_size / measured.documents,
            classes=3,
            options=options,
            cores=1,
            workers=Workers(),
            memory_limit=options.memory_limit,
            measured=measured,
        )
        found = {each.title: each for each in simulation.passes()}
    assert simulation.runs.grouped == many
    assert simulation.buckets == seen.tasks[titles.MERGE] > 4
    assert list(found) == list(seen.passes)
    for title, each in found.items():
        real = seen.passes[title]
        if title == titles.SCAN:
            continue
        if title == titles.NAMES:  # of which it knows no more than the most
            assert seen.tasks[title] <= each.tasks <= 300
            continue
        assert (each.tasks, each.made) == pytest.approx((seen.tasks[title], real.made), rel=SPREAD.get(title, 0)), title
        assert each.opened == pytest.approx(real.opened, rel=max(0.02, SPREAD.get(title, 0))), title
        # Of small shards most is padding, and how many ties are listed depends on the memory.
        if title != titles.CHOOSE and not title.startswith("writing"):
            written = sum(real.written.values()) + real.headers
            assert each.written == pytest.approx(written, rel=0.03, abs=4096), title


@pytest.mark.slow
def test_ratios_are_read_as_they_were_written(corpora: dict[int, Path], tmp_path: Path) -> None:
    with shrunk(1 << 24, many=False):
        measured = scale_measured.measure(corpora[700], BuildOptions(vectorizer="sequence", workers=1), 1 << 16)
    measured.save(tmp_path / "ratios.json")
    assert scale_measured.Measured.load(tmp_path / "ratios.json") == measured
