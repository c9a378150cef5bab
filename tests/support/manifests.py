"""Modify a manifest and update its checksum."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash


def reseal(folder: Path, change) -> None:
    """Apply `change` to a manifest and write the checksum that docs/format.md describes."""
    body = json.loads((folder / "manifest.json").read_bytes())
    del body["checksum"]
    body = change(body) or body
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["checksum"] = xxhash.xxh3_64_hexdigest(canonical)
    (folder / "manifest.json").write_text(json.dumps(body))


def at(*keys):
    """Return a function of a value, which returns a change that sets the entry at a path of keys to it."""

    def put(value):
        def change(body):
            where = body
            for key in keys[:-1]:
                where = where[key]
            where[keys[-1]] = value

        return change

    return put
