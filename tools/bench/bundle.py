"""Exports of a run against the run itself and fastText's quantised model: size, accuracy, speed, equal labels.

Of each corpus a run is trained with `train`, everything at its default, and exported as bundles of int8 and float16
weights and as an ONNX graph. Each way classifies the texts of the test file in one thread; of three times the least
counts. The graph takes our rows, made dense in batches, so making rows is not in its time. fastText is trained as for
`end_to_end.py` (bigrams, five epochs, words in lower case, the rate that is best on the test file) and quantised as its
documentation shows (`qnorm`, `retrain`, and `cutoff`: how many words and n-grams are kept). What a bundle takes from a
cold start to its first answer is the processor time of a process that has the reader's file and numpy.

The program fails if int8 loses more than 0.3 points, if 20,000 features, 64 units and four classes take more than 2 MB,
or if on hostile texts a label of the float16 bundle is not that of `Run.predict` although two probabilities are not
tied within the rounding of float16.

    python tools/bench/bundle.py --corpus data/ag_news --peers .venv-fasttext/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from end_to_end import RATES, shardtrain, split
from end_to_end_peers import read
from hostile_unicode import hostile_texts

import shardtrain as package
from shardtrain.arrays.csr import Csr
from shardtrain.datasets.demo import write_demo
from shardtrain.exports import bundle_reader
from shardtrain.inference.run import Run, load_run

PEERS = Path(__file__).with_name("bundle_peers.py")
REPETITIONS = 3
ONNX_ROWS = 256  # made dense at a time
HOSTILE_AT_ONCE = 5_000
HOSTILE_WORDS = 3_000
MOST_LOST = 0.003  # of the accuracy, by int8
MOST_BYTES, BOUNDED = 2_000_000, (20_000, 64, 4)  # features, units, classes at most
TIED = 0.001  # difference of probabilities that the rounding of float16 may turn round
COLD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from bundle_reader import load; load(sys.argv[2]).predict(['a text'])"
)


@dataclass(frozen=True)
class Way:
    """A way to classify, and what it took.

    Attributes:
        name: for the table.
        num_bytes: of its file or folder.
        accuracy: on the test file.
        per_second: texts.
    """

    name: str
    num_bytes: int
    accuracy: float
    per_second: float


def main() -> int:
    """Measure and print; exit code 1 if a law is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", action="append", default=[], type=Path, metavar="PATH", help="as end_to_end.py has it (the demo)"
    )
    parser.add_argument("--hostile-texts", type=int, default=100_000, metavar="N", help="whose labels are compared")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="that has fastText (this one)")
    args = parser.parse_args()
    peers = not subprocess.run([args.peers, "-c", "import fasttext"], capture_output=True).returncode
    if not peers:
        print("fastText is left out: install it with `pip install --group bench-end-to-end`, or name a --peers")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        scratch = Path(name)
        corpora = [split(path, scratch) for path in args.corpus]
        if not corpora:
            corpora.append(scratch / "demo")
            write_demo(corpora[0])
        broken = [
            f"{corpus.name}: {each}"
            for corpus in corpora
            for each in compare(corpus, scratch, args.hostile_texts, args.peers if peers else None)
        ]
    for each in broken:
        print(each)
    return 1 if broken else 0


def compare(corpus: Path, scratch: Path, num_hostile: int, peers: str | None) -> list[str]:
    """Measure all ways on a corpus, print the tables, and return which laws are broken."""
    shardtrain("train", corpus, "--out", scratch / f"{corpus.name}-run", "--test", "test.csv")
    run = load_run(scratch / f"{corpus.name}-run")
    labels, texts = read(corpus, "test")
    exported = {
        weights: package.export(run, out=scratch / f"{corpus.name}-{weights}.bundle", weights=weights)
        for weights in ("int8", "float16")
    }
    right = np.array([run.labels[label] for label in labels])
    ways = {"Run.predict": measured("Run.predict", run.path, right, lambda: run.predict(texts).probabilities)}
    bundles = {weights: bundle_reader.load(path) for weights, path in exported.items()}
    for weights, path in exported.items():
        bundle = bundles[weights]
        ways[weights] = measured(f"bundle, {weights}", path, right, partial(bundle.probabilities, texts))
    ways["onnx"] = of_onnx(run, scratch / f"{corpus.name}.onnx", right, texts)
    if peers is not None:
        ways |= of_fasttext(peers, corpus, scratch)
    print(f"\n{corpus.name}, {len(texts):,} texts of {np.mean([len(text) for text in texts]):.0f} characters")
    print(f"  {'':<22}{'MB':>9}{'accuracy':>10}{'texts/s':>12}")
    for way in ways.values():
        print(f"  {way.name:<22}{way.num_bytes / 1e6:>9.2f}{way.accuracy:>10.4f}{way.per_second:>12,.0f}", flush=True)
    print(f"  from a cold start to the first answer: {cold(exported['int8'], scratch):.2f} s of processor time")
    broken = list(broken_by_hostile_texts(run, bundles, num_hostile))
    lost = ways["Run.predict"].accuracy - ways["int8"].accuracy
    if lost > MOST_LOST:
        broken.append(f"int8 loses {lost:.4f} of the accuracy, at most {MOST_LOST} is allowed")
    return broken + too_large(run, ways["int8"].num_bytes)


def measured(name: str, path: Path, right: Any, probabilities: Callable[[], Any]) -> Way:
    """Time a way and compare its classes with the right ones."""
    seconds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        found = probabilities()
        seconds.append(time.perf_counter() - began)
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    hits = np.mean(found.argmax(axis=1) == right)
    return Way(name, sum(each.stat().st_size for each in files), float(hits), len(right) / min(seconds))


def of_onnx(run: Run, path: Path, right: Any, texts: Sequence[str]) -> Way:
    """Measure the graph in onnxruntime, from rows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(package.export(run, to="onnx", out=path), options)
    rows = run.load_vectorizer().transform(texts)
    assert isinstance(rows, Csr)

    def probabilities() -> Any:
        parts = [rows.rows(start, min(start + ONNX_ROWS, len(rows))) for start in range(0, len(rows), ONNX_ROWS)]
        return np.concatenate([session.run(["probabilities"], {"rows": part.toarray()})[0] for part in parts])

    return measured("ONNX, from rows", path, right, probabilities)


def of_fasttext(peers: str, corpus: Path, scratch: Path) -> dict[str, Way]:
    """Train fastText with each rate and measure its best model, quantised and as it is."""
    command = [peers, str(PEERS), str(corpus), str(scratch), str(os.cpu_count()), *RATES]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"fastText failed:\n{done.stderr}")
    return {name: Way(name, **found) for name, found in json.loads(done.stdout).items()}


def cold(bundle: Path, scratch: Path) -> float:
    """Return the processor seconds of a process that loads a bundle and classifies one text; the least of three."""
    folder = scratch / "alone"
    folder.mkdir(exist_ok=True)
    shutil.copy(bundle_reader.__file__, folder)
    seconds = []
    for _ in range(REPETITIONS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", COLD, str(folder), str(bundle)], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def broken_by_hostile_texts(run: Run, bundles: dict[str, bundle_reader.Bundle], count: int) -> list[str]:
    """Compare the labels of bundles with the run's on hostile texts, print the result, and return what is wrong."""
    terms = run.load_vectorizer().terms
    words = [term for term in terms if " " not in term and len(term) > 1][:HOSTILE_WORDS] or ["word", "another"]
    texts = hostile_texts(words, count, seed=1)
    other, largest = dict.fromkeys(bundles, 0), dict.fromkeys(bundles, 0.0)
    wrong = 0
    while batch := list(islice(texts, HOSTILE_AT_ONCE)):
        expected = run.predict(batch).probabilities
        for weights, bundle in bundles.items():
            found = bundle.probabilities(batch)
            differ = found.argmax(axis=1) != expected.argmax(axis=1)
            other[weights] += int(differ.sum())
            largest[weights] = max(largest[weights], float(np.abs(found - expected).max()))
            if weights == "float16":
                ordered = np.sort(expected, axis=1)
                wrong += int((differ & (ordered[:, -1] - ordered[:, -2] > TIED)).sum())
    for weights in bundles:
        print(
            f"  {count:,} hostile texts: {other[weights]:,} labels of {weights} differ; "
            f"probabilities by at most {largest[weights]:.1e}"
        )
    return [f"{wrong:,} labels of float16 differ on hostile texts although no probabilities tie"] if wrong else []


def too_large(run: Run, num_bytes: int) -> list[str]:
    """Return whether an int8 bundle exceeds the bound, where it holds."""
    network = run.load_network()
    assert network is not None
    sizes = (network.shape.features, network.shape.dims[0], network.shape.classes)
    bounded = all(size <= most for size, most in zip(sizes, BOUNDED, strict=True))
    return [f"int8 takes {num_bytes:,} bytes, at most {MOST_BYTES:,}"] if bounded and num_bytes > MOST_BYTES else []


if __name__ == "__main__":
    sys.exit(main())
