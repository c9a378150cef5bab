"""Change a manifest and seal it again."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash


def reseal(folder: Path, change) -> None:
    """Change a manifest and give it the checksum that docs/format.md describes."""
    body = json.loads((folder / "manifest.json").read_bytes())
    del body["checksum"]
    body = change(body) or body
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["checksum"] = xxhash.xxh3_64_hexdigest(canonical)
    (folder / "manifest.json").write_text(json.dumps(body))


def at(*keys):
    """A change that puts `value` at the end of a path of keys; of a shard, at the first training shard."""

    def put(value):
        def change(body):
            where = body
            for key in keys[:-1]:
                where = where[key]
            where[keys[-1]] = value

        return change

    return put
