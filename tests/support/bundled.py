"""Networks and vectorizers of every kind for exports, made without training."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from support.topics import TOPICS

from shardtrain.engine.network import Network, Shape
from shardtrain.exports.bundle import bundle_content
from shardtrain.inference.network_model import NetworkModel
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))
from hostile_unicode import hostile_texts

WORDS = sorted({word for words in TOPICS.values() for word in words})
NAMES = ("none", "two\nlines", "Größe", "\ud800")


def strange_texts(count: int, seed: int) -> list[str]:
    """Hostile texts, and those that are nothing."""
    return ["", " \t\n", "\0", "zz qq", *hostile_texts(WORDS, count, seed)]


def fitted(folder: Path, **options: Any) -> Vectorizer:
    """Fit a vectorizer on hostile texts."""
    with open(folder / "corpus.csv", "w", newline="", encoding="utf-8", errors="replace") as file:
        rows = [(number % 3, text.replace("\0", "")) for number, text in enumerate(hostile_texts(WORDS, 300, 1))]
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    with verbosity(QUIET):
        how = {"max_features": 300, "workers": 1, "label_column": 0, "header": False, **options}
        build(folder / "corpus.csv", folder / "out", BuildOptions(**how))
    return load_vectorizer(folder / "out" / "vectorizer")


def network_of(features: int, classes: int = 4, layers: int = 2) -> Network:
    """A network whose answers depend on its rows."""
    network = Network(Shape.of(features, classes, layers, 16))
    network.initialize(classes + layers)
    network.wide *= 8
    network.small += np.random.default_rng(3).normal(0, 0.5, network.small.shape).astype(np.float32)
    return network


def probabilities(network: Network, vectorizer: Vectorizer, texts: list[str]) -> Any:
    """What `Run.predict` gives for texts: a column per class."""
    found = NetworkModel(network)(vectorizer.transform(texts))
    return np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found


def write_bundle(path: Path, network: Network, vectorizer: Vectorizer, weights: str = "float32") -> Path:
    """Write a bundle of a network."""
    path.write_bytes(bundle_content(network, vectorizer, NAMES[: network.shape.classes], weights, {}))
    return path
