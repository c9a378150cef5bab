"""Write the files of shards, runs and builds with other content and with seals that fit it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import xxhash


def _digest(content: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(content)


def write_plain(path: Path, value: Any) -> None:
    """Write a JSON file that has no seal."""
    path.write_text(json.dumps(value))


def write_metrics(path: Path, metrics: Any) -> None:
    """Write the metrics of a run and their seal."""
    if isinstance(metrics, dict):
        metrics = {name: value for name, value in metrics.items() if name != "checksum"}
        canonical = json.dumps(metrics, sort_keys=True, separators=(",", ":")).encode()
        metrics = {**metrics, "checksum": _digest(canonical)}
    path.write_text(json.dumps(metrics))


def write_config(path: Path, config: Any) -> None:
    """Write the configuration of a finished run, and its checksum in the metrics."""
    path.write_text(json.dumps(config))
    metrics = path.parent / "metrics.json"
    seal = hashlib.sha256(path.read_bytes()).hexdigest()
    write_metrics(metrics, {**json.loads(metrics.read_bytes()), "config_sha256": seal})


def write_manifest(path: Path, body: Any) -> None:
    """Write a manifest and its seal."""
    if isinstance(body, dict):
        body.pop("checksum", None)
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        body = {**body, "checksum": _digest(canonical)}
    path.write_text(json.dumps(body))


def write_description(path: Path, description: Any) -> None:
    """Write vectorizer.json and its fingerprint."""
    if isinstance(description, dict):
        description.pop("fingerprint", None)
        description = {**description, "fingerprint": _digest(json.dumps(description, sort_keys=True).encode())}
    path.write_text(json.dumps(description))


def write_terms(path: Path, terms: Any) -> None:
    """Write the terms of a vectorizer, and the seals over them."""
    path.write_text(json.dumps(terms))
    _reseal_vectorizer(path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array of a vectorizer, and the seals over it."""
    np.save(path, array)
    _reseal_vectorizer(path)


def write_bytes_of_vectorizer(path: Path, content: bytes) -> None:
    """Write any bytes as a file of a vectorizer, and the seals over them."""
    path.write_bytes(content)
    _reseal_vectorizer(path)


def _reseal_vectorizer(path: Path) -> None:
    description = json.loads((path.parent / "vectorizer.json").read_bytes())
    description["files"][path.name] = _digest(path.read_bytes())
    write_description(path.parent / "vectorizer.json", description)


def read_header(path: Path) -> Any:
    """Read the second line of a checkpoint."""
    return json.loads(path.read_bytes().split(b"\n", 2)[1])


def write_header(path: Path, header: Any) -> None:
    """Write the second line of a checkpoint and the seal at its end."""
    magic, _, rest = path.read_bytes().split(b"\n", 2)
    body = magic + b"\n" + json.dumps(header).encode() + b"\n" + rest[:-16]
    path.write_bytes(body + _digest(body).encode())


def write_records(path: Path, records: Any) -> None:
    """Write the records of tasks, each a line with its checksum."""
    lines = [json.dumps(record).encode() for record in records]
    path.write_bytes(b"".join(_digest(line).encode() + b" " + line + b"\n" for line in lines))
