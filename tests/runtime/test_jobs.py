"""Laws of jobs: the first difference is named as the command line writes it."""

from __future__ import annotations

from typing import Any

import pytest

from shardtrain.runtime.jobs import Job


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"embeddings": None}, {"embeddings": "a.txt"}, "--embeddings was none, it is a.txt now"),
        ({"ngram_range": [1, 2]}, {"ngram_range": [1, 3]}, "--ngram-range was 1 2, it is 1 3 now"),
        ({"devices": []}, {"devices": ["GPU:0"]}, "--devices was none, it is GPU:0 now"),
        ({"binary": False}, {"binary": True}, "--binary was false, it is true now"),
        ({"space": {"units": [4]}}, {"space": {"units": [4, 8]}}, "--units was 4, it is 4 8 now"),
        ({"space": {"units": [4]}}, {"space": {"rate": [4]}}, "--units was 4, it is none now"),
        (
            {"space": {"units": {"low": 4, "high": 8}}},
            {"space": {"units": {"low": 2, "high": 8}}},
            "--units was 4:8, it is 2:8 now",
        ),
        ({"space": {"units": [4, 8]}}, {"space": {"units": {"low": 4, "high": 8}}}, "--units was 4 8, it is 4:8 now"),
        ({"seed": 1}, {"seed": 1}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_is_written_as_options_are(before: dict[str, Any], now: dict[str, Any], said: str) -> None:
    assert Job(record={"options": now}).differs_from({"options": before}) == said
