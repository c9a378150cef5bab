"""What `evaluate` does with each row beside summing it up: a file of wrong rows, and thresholds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import UsageError
from shardtrain.runtime.progress import say, warn
from shardtrain.runtime.terminal import aligned

if TYPE_CHECKING:
    from shardtrain.inference.answered import Observer
    from shardtrain.inference.options import EvaluateOptions
    from shardtrain.inference.run import Run
    from shardtrain.inference.thresholds import DecidedCounts
    from shardtrain.loader.shards import Shards
    from shardtrain.metrics.thresholds import Confidences, Rule, Thresholds

NONE = "none"  # the rule that removes thresholds


class Watched:
    """The observers of an evaluation, and what they found.

    Args:
        run: that is evaluated.
        options: of the evaluation.
        data: its shards or corpus.

    Raises:
        UsageError: there is no such rule for thresholds, or it would be chosen on training rows; or the file of errors
            is one that is read.
        RunError: the thresholds of the run are damaged.
    """

    def __init__(self, run: Run, options: EvaluateOptions, data: Path) -> None:
        from shardtrain.inference.thresholds import check_name
        from shardtrain.metrics.thresholds import Rule, check_number

        self._run, self._options, self._data = run, options, data
        self._rule: Rule | None = None
        self._removes = options.choose_threshold == NONE
        if options.choose_threshold is not None and not self._removes:
            self._rule = Rule.parse(options.choose_threshold)
            if options.split == "train":
                raise UsageError(
                    "--choose-threshold on the training rows, of which the model is too sure; choose it on validation"
                )
            check_name(run)
            check_number(self._rule, run.description.num_classes)
        if options.errors is not None:
            _refuse_inputs(Path(options.errors), data, run.path)
        self._known: Thresholds | None = None if options.choose_threshold is not None else run.thresholds
        self._confidences: Confidences | None = None
        self._counts: DecidedCounts | None = None
        self._errors: int | None = None

    @contextlib.contextmanager
    def observers(self, rows: tuple[Shards, str] | None = None) -> Iterator[list[Observer]]:
        """Yield the observers; `rows` are shards and the name of their split, if these are evaluated."""
        from shardtrain.inference.errors_file import errors_file
        from shardtrain.inference.thresholds import DecidedCounts
        from shardtrain.metrics.thresholds import Confidences

        options, found = self._options, list[Any]()
        with contextlib.ExitStack() as files:
            if options.errors is not None:
                how = {"overwrite": options.overwrite, "csv_safe": options.csv_safe}
                writer = files.enter_context(errors_file(Path(options.errors), self._run, rows=rows, **how))
                found.append(writer)
            if self._rule is not None:
                confidences = self._confidences = Confidences(self._run.description.num_classes)
                found.append(lambda y, probabilities, rows: confidences.add(y, probabilities, rows.weights))
            if self._known is not None:
                self._counts = DecidedCounts(self._known)
                found.append(self._counts)
            yield found
        if options.errors is not None:
            self._errors = writer.num_errors

    def finish(self, split: str | None) -> None:
        """Choose and save thresholds, or remove them, if that was asked for; `split` is what was evaluated.

        Raises:
            ModelError: no threshold fulfils the rule.
        """
        from shardtrain.inference.thresholds import save_thresholds

        if self._removes:
            save_thresholds(self._run, None, data="")
            say(f"'{self._run.path}' has no thresholds now")
        if self._rule is None or self._confidences is None:
            return
        if split == "test":
            warn("thresholds that are chosen on the test split look better on it than they are; choose on validation")
        self._known = self._confidences.choose(self._rule)
        save_thresholds(self._run, self._known, data=f"{split or 'all'} of {self._data}")

    def facts(self) -> dict[str, Any]:
        """Return what was found as JSON values."""
        facts: dict[str, Any] = {}
        if self._errors is not None:
            facts |= {"errors": self._options.errors, "num_errors": self._errors}
        if self._known is not None:
            facts["thresholds"] = {"rule": str(self._known.rule), "values": self._known.values, **self._outcome()}
        if self._confidences is not None:
            facts["coverages"] = [vars(each) for each in self._confidences.outcomes()]
        return facts

    def lines(self) -> Iterator[str]:
        """Yield what was found as lines of text."""
        if self._confidences is not None:
            yield ""
            yield "the surer, the better: what a threshold does"
            rows = [("threshold", "decided", "of these right", "examples")]
            for each in self._confidences.outcomes():
                shown = f"{each.threshold:.4f}", f"{each.coverage:.1%}", f"{each.precision:.4f}", f"{each.rows:,}"
                rows.append(shown)
            yield from (f"  {line}" for line in aligned(rows, text=0))
        if self._known is not None:
            yield ""
            yield self._decided()
        if self._errors is not None:
            yield f"{self._errors:,} wrong rows: {self._options.errors}"

    def _outcome(self) -> dict[str, Any]:
        from shardtrain.metrics.intervals import wilson_interval

        assert self._known is not None
        if self._confidences is not None:
            rows = self._confidences.effective_rows(self._known)
            coverage, precision = self._known.coverage, self._known.precision if rows else None
        else:
            assert self._counts is not None
            rows, coverage, precision = self._counts.effective_rows, self._counts.coverage, self._counts.precision
        interval = wilson_interval(precision, rows) if precision is not None else (0.0, 1.0)
        return {"coverage": coverage, "precision": precision, "precision_interval": list(interval)}

    def _decided(self) -> str:
        """Return the line of what the thresholds of the run do to these rows."""
        assert self._known is not None
        outcome = self._outcome()
        low, high = outcome["precision_interval"]
        precision = "-" if outcome["precision"] is None else f"{outcome['precision']:.4f} ({low:.4f} to {high:.4f})"
        values = [value for value in dict.fromkeys(self._known.values) if value <= 1]
        shown = f"{values[0]:.4f}" if len(values) == 1 else f"{min(values):.4f} to {max(values):.4f}"
        saved = f", saved with '{self._run.path}'" if self._confidences is not None else ""
        return (
            f"threshold {shown} ({self._known.rule}){saved}: {outcome['coverage']:.1%} decided, "
            f"{precision} of these right"
        )


def _refuse_inputs(errors: Path, data: Path, run: Path) -> None:
    """Refuse a file of errors that exists and is the corpus, or lies in its folder or in that of the run.

    Raises:
        UsageError: it is one of these.
    """
    if not errors.exists():
        return
    for read in (data, run):
        inside = errors.resolve().is_relative_to(read.resolve())
        if inside or (read.exists() and errors.samefile(read)):
            raise UsageError(
                f"--errors '{errors}' would replace a file of '{read}', which is read; choose another name"
            )
