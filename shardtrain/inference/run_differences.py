"""Find what differs in how runs were trained: their options, their data and features, and the packages that they used.

Only what differs is returned, each with one value per run; None where a run does not record it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardtrain.inference.run import Run

Differing = dict[str, tuple[Any, ...]]  # values by name, one per run


def option_differences(runs: Sequence[Run]) -> Differing:
    """Return the options that differ; those of a model's sizes as `mlp.units`."""
    return _differing([_flat(run.config["options"]) for run in runs])


def version_differences(runs: Sequence[Run]) -> Differing:
    """Return the versions of packages that differ."""
    return _differing([run.config.get("versions", {}) for run in runs])


def data_differences(runs: Sequence[Run]) -> Differing:
    """Return what differs in the shards and in the corpus that they were trained on, and in how features were made.

    Raises:
        VectorizerError: the vectorizer of a run is missing or damaged.
        RunError: it is not the one that the run was trained with.
    """
    features = len({run.description.vectorizer for run in runs}) > 1
    return _differing([{**_data(run), **(_features(run) if features else {})} for run in runs])


def _data(run: Run) -> dict[str, Any]:
    about, corpus = run.description, run.config.get("corpus")
    found = corpus if isinstance(corpus, Mapping) else {}
    return {
        "shards": run.config.get("shards"),
        "shards fingerprint": about.fingerprint,
        "corpus": found.get("name"),
        "corpus bytes": found.get("bytes"),
        "text columns": found.get("text_columns"),
        "training examples": about.num_train,
        "validation examples": about.num_validation,
        "order of classes": list(about.class_names),
        "features": about.num_features,
        "kind of features": about.kind,
    }


def _features(run: Run) -> dict[str, Any]:
    """Return the settings of a run's vectorizer; those that only numbers hashes are left out."""
    if not run.description.vectorizer:
        return {}
    settings = _flat(run.load_vectorizer().describe()["settings"])
    return {name: value for name, value in settings.items() if not name.startswith("hashing.")}


def _flat(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _differing(records: Sequence[Mapping[str, Any]]) -> Differing:
    names = dict.fromkeys(name for record in records for name in record)
    values = {name: tuple(record.get(name) for record in records) for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}
