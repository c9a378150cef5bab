"""Laws of progress lines: a rate is that of the work done now, and no number is rounded to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardtrain.runtime.executors import Serial
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.progress import progress, short
from shardtrain.runtime.quantities import size
from shardtrain.runtime.schema import Integer


@pytest.mark.parametrize(
    ("skipped", "added", "said"),
    [
        (0, 4_000_000, "counting: 4.0 MB in "),
        (3_000_000, 1_000_000, "counting: 4.0 MB, 3.0 MB of it before the interruption, in "),
        (4_000_000, 0, "counting: 4.0 MB, all done before the interruption\n"),
    ],
    ids=["all now", "some before", "all before"],
)
def test_work_done_before_an_interruption_is_not_part_of_the_rate(
    skipped: int, added: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((10.0, 12.0))
    monkeypatch.setattr("shardtrain.runtime.progress.time.perf_counter", lambda: next(times, 12.0))
    with progress("counting", total=4_000_000) as shown:
        if skipped:
            shown.skip(skipped)
        if added:
            shown.add(added)
    err = capsys.readouterr().err
    assert err.startswith(said)
    if added:
        assert err.endswith(f" in 2.0 s ({size(added / 2)}/s)\n")


def test_a_pass_that_is_run_again_skips_what_is_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def square(task: int) -> int:
        done.append(task)
        return task * task

    passes = Passes(Serial(), tmp_path, 1 << 20)
    assert passes.run("squares", square, [2, 3], [5, 5], name="squares", unit="rows", schema=Integer()) == [
        4,
        9,
    ]
    assert passes.run("squares", square, [2, 3], [5, 5], name="squares", unit="rows", schema=Integer()) == [
        4,
        9,
    ]
    assert done == [2, 3]
    assert "squares: 10 rows, all done before the interruption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5000"), (0.00001234, "1.2e-05"), (0.0, "0.0000"), (0.001, "0.0010")]
)
def test_small_numbers_keep_two_digits(value: float, shown: str) -> None:
    assert short(value) == shown
