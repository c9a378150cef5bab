"""Shows what a folder of shards holds: `python -m shardtrain inspect`, as a script beside a checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from shardtrain.cli.main import main as shardtrain

    return shardtrain(["inspect", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
