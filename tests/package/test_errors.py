"""A message is written once, with flags; Python shows it with the keywords that a program passed."""

from __future__ import annotations

import pytest

from shardtrain.errors import UsageError


@pytest.mark.parametrize(
    ("written", "in_python"),
    [
        ("lower --memory-limit or omit --out", "lower memory_limit or omit out"),
        (
            "build with --workers 1 and --memory-limit 512MiB, or",
            "build with workers 1 and memory_limit 512MiB, or",
        ),
        ("use --min-df 1 and --max-df 1.0", "use min_df 1 and max_df 1.0"),
        ("values, such as --learning-rate 1e-3 1e-2", "values, such as learning_rate 1e-3 1e-2"),
        ("use a local copy with --from FILE", "use a local copy with file FILE"),
        ("by checksums; omit --no-verify", "by checksums; omit verify=False"),
        (
            "train with `python -m shardtrain fit SHARDS --seed 1`",
            "train with `python -m shardtrain fit SHARDS --seed 1`",
        ),
    ],
)
def test_flags_become_keywords(written: str, in_python: str):
    error = UsageError(written)
    assert str(error) == in_python
    assert error.on_command_line == written
