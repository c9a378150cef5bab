"""Train fastText or Vowpal Wabbit on files of `training_ways.py`; print seconds, accuracy and the version as JSON.

A program of its own, which needs the peer alone, so that any Python that has it can run it. Each peer trains twice,
for one pass and for `passes` more, and the difference of their seconds is what the passes took, without reading the
text, making the dictionary and the first weights.

    python tools/bench/training_peers.py fasttext FOLDER CLASSES PASSES THREADS UNITS RATE
    python tools/bench/training_peers.py vw FOLDER CLASSES PASSES BITS RATE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def fast_text(folder: Path, passes: int, threads: int, units: int, rate: float) -> dict[str, Any]:
    """Train on train.ft and test on test.ft."""
    import fasttext

    def train(epochs: int) -> tuple[float, Any]:
        began = time.perf_counter()
        model = fasttext.train_supervised(
            str(folder / "train.ft"), lr=rate, epoch=epochs, dim=units, wordNgrams=1, thread=threads, verbose=0
        )
        return time.perf_counter() - began, model

    short, _ = train(1)
    long, model = train(1 + passes)
    return {"seconds": long - short, "accuracy": model.test(str(folder / "test.ft"))[1]}


def vowpal_wabbit(folder: Path, classes: int, passes: int, bits: int, rate: float) -> dict[str, Any]:
    """Train on train.vw and test on test.vw; two classes are one logistic regression, more are one against all."""
    from vowpalwabbit import Workspace, __version__

    kind = "" if classes == 2 else f"--oaa {classes}"

    def train(epochs: int) -> float:
        began = time.perf_counter()
        options = f"{kind} --loss_function logistic -b {bits} -l {rate} --holdout_off --quiet"
        files = f"-d {folder / 'train.vw'} -c -k --cache_file {folder / 'cache'} -f {folder / 'model.vw'}"
        Workspace(f"{options} {files} --passes {epochs}").finish()
        return time.perf_counter() - began

    short, long = train(1), train(1 + passes)
    said = folder / "said"
    Workspace(f"-t -i {folder / 'model.vw'} -d {folder / 'test.vw'} -p {said} --quiet").finish()
    labels = [line.split(" ", 1)[0] for line in (folder / "test.vw").read_text().splitlines()]
    answers = [float(line.split()[0]) for line in said.read_text().splitlines()]
    right = [
        (answer > 0) == (int(label) > 0) if classes == 2 else round(answer) == int(label)
        for label, answer in zip(labels, answers, strict=True)
    ]
    return {"seconds": long - short, "accuracy": sum(right) / len(right), "version": __version__}


def main() -> int:
    """Run one peer."""
    name, folder, classes, passes, *rest = sys.argv[1:]
    if name == "fasttext":
        threads, units, rate = rest
        result = fast_text(Path(folder), int(passes), int(threads), int(units), float(rate))
    else:
        bits, rate = rest
        result = vowpal_wabbit(Path(folder), int(classes), int(passes), int(bits), float(rate))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
