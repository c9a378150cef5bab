"""Train fastText on the CSV files of a folder and quantise its best model, for `bundle.py`; print JSON.

A program of its own, which needs fastText alone, so that any Python that has it can run it.

    python tools/bench/bundle_peers.py CORPUS SCRATCH THREADS RATE [RATE ...]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from end_to_end_peers import fast_text_lines

REPETITIONS = 3
CUTOFFS = (
    100_000,
    20_000,
)  # words and n-grams kept by a quantised model: as in fastText's documentation, and as many as ours


def main() -> int:
    """Train, quantise and measure."""
    import fasttext

    corpus, scratch, threads, *rates = sys.argv[1:]
    paths = {name: str(fast_text_lines(Path(corpus), Path(scratch), name)) for name in ("train", "test")}

    def trained(rate: str) -> Any:
        how = {"lr": float(rate), "epoch": 5, "wordNgrams": 2, "thread": int(threads), "verbose": 0}
        return fasttext.train_supervised(paths["train"], **how)

    accuracies = {rate: trained(rate).test(paths["test"])[1] for rate in rates}
    best = max(accuracies, key=lambda rate: accuracies[rate])
    lines = Path(paths["test"]).read_text(encoding="utf-8").splitlines(keepends=True)
    found = {}
    for cutoff in (None, *CUTOFFS):
        model, path = trained(best), Path(scratch) / f"model-{cutoff}"
        if cutoff is not None:
            model.quantize(input=paths["train"], qnorm=True, retrain=True, cutoff=cutoff, verbose=0)
        model.save_model(str(path))
        name = "fastText" if cutoff is None else f"fastText, {cutoff:,} terms"
        accuracy = model.test(paths["test"])[1]
        found[name] = {"num_bytes": path.stat().st_size, "accuracy": accuracy, "per_second": speed(model, lines)}
    print(json.dumps(found))
    return 0


def speed(model: Any, lines: Sequence[str]) -> float:
    """Return lines classified per second in one thread; the labels in them are words of no weight."""
    seconds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        for line in lines:
            model.f.predict(line, 1, 0.0, "strict")  # model.predict fails with numpy 2
        seconds.append(time.perf_counter() - began)
    return len(lines) / min(seconds)


if __name__ == "__main__":
    sys.exit(main())
