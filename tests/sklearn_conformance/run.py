"""Run scikit-learn's own tests of its text module against shardtrain's classes of the same names.

The tests come with scikit-learn's installation; none of them is copied. Their module is imported while the names in
`sklearn.feature_extraction.text` are ours, so everything in it, its tables of parameters included, uses our classes.
Prints how many test functions pass, and every other one with its reason; fails if one is not in `REASONS`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator

import pytest
from sklearn.feature_extraction import text

import shardtrain.sklearn as ours

MODULE = "sklearn.feature_extraction.tests.test_text"
NAMES = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
REASONS: dict[str, str] = {}  # by test function: why it does not pass


class Outcomes:
    """A plugin of pytest that notes whether each test function passed, in all its cases."""

    def __init__(self) -> None:
        self.passed: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("::")[-1].split("[")[0]
        if report.when == "call" or not report.passed:
            self.passed[name] = self.passed.get(name, True) and report.passed


@contextlib.contextmanager
def our_names() -> Iterator[None]:
    """Hold our classes under scikit-learn's names."""
    originals = {name: getattr(text, name) for name in NAMES}
    try:
        for name in NAMES:
            setattr(text, name, getattr(ours, name))
        yield
    finally:
        for name, original in originals.items():
            setattr(text, name, original)


def main(arguments: list[str]) -> int:
    """Run the tests and print the outcome; arguments are pytest's. It may be called by a test."""
    sys.modules.pop(MODULE, None)
    with our_names():
        module = importlib.import_module(MODULE)
    assert all(getattr(module, name) is getattr(ours, name) for name in NAMES)
    outcomes, output = Outcomes(), io.StringIO()
    options = [
        "--pyargs",
        MODULE,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-q",
        "-c",
        "/dev/null",
        "-W",
        "ignore",
        "--noconftest",
        "--assert=plain",
        "-p",
        "no:faulthandler",
        "--capture=no",
    ]
    with contextlib.redirect_stdout(sys.stdout if arguments else output), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # none is needed, and some take seconds to import
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        pytest.main([*options, *arguments], plugins=[outcomes])
    passed = sorted(name for name, good in outcomes.passed.items() if good)
    failed = sorted(set(outcomes.passed) - set(passed))
    print(f"{len(passed)} of {len(outcomes.passed)} test functions pass")
    for name in failed:
        print(f"{name}: {REASONS.get(name, 'FAILED, and not in the table of reasons')}")
    return 0 if outcomes.passed and set(failed) <= set(REASONS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
