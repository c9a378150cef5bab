"""Write shards of synthetic features from which a model can learn the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shardtrain.arrays.csr import Csr
from shardtrain.shards.layout import Manifest, SplitEntry
from shardtrain.shards.manifest import write_manifest
from shardtrain.shards.write import ShardShape, new_shard


def write_shards(
    folder: Path,
    *,
    kind: str = "ngram",
    rows: int = 300,
    validation_rows: int = 100,
    test_rows: int = 0,
    num_features: int = 40,
    num_classes: int = 3,
    vocabulary_size: int = 50,
    seed: int = 0,
    noise: float = 0.0,
) -> Path:
    """Write shards of synthetic features that depend on the class; a share `noise` of the labels is random."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    splits = {}
    for name, count in (("train", rows), ("validation", validation_rows), ("test", test_rows)):
        if not count:
            continue
        classes = rng.integers(0, num_classes, count)
        x = _ngrams(rng, classes, num_features, num_classes)
        if kind == "sequence":
            words = rng.integers(1, vocabulary_size // num_classes, (count, num_features)) * num_classes
            x = (words + classes[:, None] - num_classes + 1).clip(1, vocabulary_size - 1).astype(np.uint8)
            x[:, : num_features // 3] = 0
        y = np.where(rng.random(count) < noise, rng.integers(0, num_classes, count), classes)
        nonzeros = len(x.data) if isinstance(x, Csr) else 0
        shape = ShardShape(
            kind=kind,
            rows=count,
            num_features=num_features,
            nonzeros=nonzeros,
            num_classes=num_classes,
            vocabulary_size=vocabulary_size,
        )
        with new_shard(folder / f"{name}-00000.h5", shape) as writer:
            writer.append(x, y, np.arange(count))
        counts = tuple(np.bincount(y, minlength=num_classes).tolist())
        splits[name] = SplitEntry(examples=count, nonzeros=nonzeros, class_counts=counts, shards=(writer.entry,))
    (folder / "vectorizer").mkdir()
    (folder / "vectorizer" / "terms.json").write_text("[]\n")
    manifest = Manifest(
        kind=kind,
        num_features=num_features,
        vocabulary_size=num_features if kind == "ngram" else vocabulary_size,
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        seed=seed,
        fingerprint=f"shards {seed}",
        splits=splits,
        files={},
        vectorizer={"fingerprint": f"vectorizer {kind}"},
    )
    write_manifest(folder, manifest)
    return folder


def _ngrams(rng: np.random.Generator, classes: np.ndarray, num_features: int, num_classes: int) -> Csr:
    """Return rows in which the features of the row's class are more likely; every tenth row is empty."""
    likely = np.where(np.arange(num_features) % num_classes == classes[:, None], 0.5, 0.1)
    dense = (rng.random(likely.shape) < likely) * (0.1 + rng.random(likely.shape))
    dense[::10] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Csr(dense[rows, columns].astype(np.float32), columns.astype(np.int32), indptr, dense.shape)
