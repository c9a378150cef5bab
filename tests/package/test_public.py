"""The import paths that README and docs show are public: each can be imported and is in the API reference."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import shardtrain
from shardtrain import errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
PATHS = [
    *(f"shardtrain.{name}" for name in shardtrain.__all__),
    *(f"shardtrain.errors.{name}" for name, each in vars(errors).items() if inspect.isclass(each)),
    "shardtrain.cli.main.main",
    "shardtrain.datasets.demo.write_demo",
    "shardtrain.datasets.fetch.fetch",
    "shardtrain.datasets.fetch.find_dataset",
    "shardtrain.inference.compare.compare",
    "shardtrain.inference.options.PredictOptions",
    "shardtrain.inference.predict_file.predict_file",
    "shardtrain.inference.run_list.list_runs",
    "shardtrain.keras.FusedAdam",
    "shardtrain.keras.SparseDense",
    "shardtrain.keras.SparseDropout",
    "shardtrain.keras.to_pydataset",
    "shardtrain.keras.to_tf_dataset",
    "shardtrain.models.options.MlpOptions",
    "shardtrain.models.options.SepcnnOptions",
    "shardtrain.pipeline.options.BuildOptions",
    "shardtrain.sklearn.CountVectorizer",
    "shardtrain.sklearn.HashingVectorizer",
    "shardtrain.sklearn.ShardClassifier",
    "shardtrain.sklearn.TfidfVectorizer",
    "shardtrain.training.options.FitOptions",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_public_path_can_be_imported(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is not None


def test_the_module_for_keras_lists_all_it_has() -> None:
    ours = importlib.import_module("shardtrain.keras")
    assert {f"shardtrain.keras.{name}" for name in ours.__all__} == {each for each in PATHS if ".keras." in each}
    assert ours.__all__ == sorted(ours.__all__)


def test_every_import_that_the_docs_show_is_public() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    shown = {
        f"{module}.{name.strip()}"
        for page in pages
        for module, names in re.findall(r"^from (shardtrain[\w.]*) import (.+)$", page.read_text(), re.MULTILINE)
        for name in names.split(",")
    }
    assert shown
    assert shown <= set(PATHS)


def test_every_public_function_and_class_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    listed = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    for path in PATHS:
        module, _, name = path.rpartition(".")
        each = getattr(importlib.import_module(module), name)
        if inspect.isclass(each) or inspect.isfunction(each):
            home = f"{each.__module__}.{each.__qualname__}"
            assert home == "shardtrain.cli.main.main" or {home, each.__module__} & set(listed), path
