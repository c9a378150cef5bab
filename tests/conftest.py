"""Fixtures shared by the tests: real corpora where they are there, and small corpora written on the spot."""

from __future__ import annotations

import csv
import gc
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.forked import Forking, forking

TESTS = Path(__file__).resolve().parent
DATA = TESTS.parents[1] / "shared" / "data"

# The files that take longest are taken first, so that at the end no process is alone with one.
LONGEST_FIRST = (
    "faults/test_faults.py",
    "engine/test_engine.py",
    "training/test_options.py",
    "training/test_resume.py",
    "training/test_fit.py",
    "training/test_test_split.py",
    "pipeline/test_build.py",
    "inference/test_predict_file.py",
    "pipeline/test_reuse.py",
    "pipeline/test_resume.py",
    "vectorize/test_options_equal_scikit_learn.py",
    "report/test_pages.py",
    "vectorize/test_features_equal_oracles.py",
    "training/test_tune.py",
    "training/test_devices.py",
    "training/test_workers.py",
    "training/test_fused.py",
    "cli/test_surroundings.py",
    "cli/test_executors.py",
    "exports/test_export.py",
    "exports/test_bundle.py",
    "training/test_user_outputs.py",
    "vectorize/test_ties.py",
    "shards/test_compressed.py",
    "pipeline/test_index.py",
    "models/test_adapters.py",
    "runtime/test_atomic.py",
    "inference/test_predict.py",
    "inference/test_networks.py",
    "package/test_sklearn.py",
    "package/test_api.py",
    "loader/test_reading_faults.py",
    "inference/test_explain.py",
    "documents/test_jobs.py",
    "pipeline/test_shared_storage.py",
    "pipeline/test_convert.py",
    "documents/test_readme.py",
    "documents/test_tutorial.py",
)

# The examples of `make test` are the same in every run, so that it fails for a change and not by chance; `make soak`
# draws others each time.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job; processes that tests start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Wait for the disk only in `make soak` and in processes that tests start; what a kill leaves is the same."""
    if config.option.markexpr != "slow":
        os.fsync, os.sync = (lambda descriptor: None), (lambda: None)
    gc.disable()  # while modules and tests are collected, all of which stay


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"the real corpora are not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def systems() -> Path:
    """Imitations of other systems that were not written for these tests."""
    folder = DATA.parent / "cases" / "other-systems"
    if not folder.is_dir():
        pytest.skip(f"the known imitations of other systems are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Runs code in new processes that have TensorFlow imported."""
    with forking(tmp_path_factory.mktemp("forked")) as server:
        yield server


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str, Iterable[Iterable[str]]], Path]:
    """Write rows as a quoted CSV file without header, the way the published sets are."""

    def write(name: str, rows: Iterable[Iterable[str]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def read_csv() -> Callable[[Path], tuple[list[str], list[str]]]:
    """Labels and texts of a published set, read with Python's csv module alone."""

    def read(path: Path) -> tuple[list[str], list[str]]:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        return [row[0] for row in rows], [", ".join(row[1:]) for row in rows]

    return read
