"""Explaining: what the terms of documents add to the logit of their class, by us and by LIME on the same model.

A linear model and an mlp are trained with the defaults. Ours explains all documents, and LIME (Ribeiro et al., KDD
2016; 5,000 samples per text, its default) the first of them. LIME needs a function from texts to probabilities: it gets
the model as a bundle with float32 weights. Printed are milliseconds per document, of LIME's also those that the model
took, and how often LIME's largest words have our sign, and how far the order of all its words is ours. For that an
n-gram is divided equally among its words. LIME explains a probability and we a logit, so what a word adds to the logits
of all classes, weighted by their probabilities, is subtracted from what it adds to that of the class.

It fails if the parts of an explanation do not sum to the logit within 1e-5, if softmax or sigmoid of the logits is not
what `predict` says within 1e-5, or if fewer than nine in ten of LIME's five largest words have our sign.

    python tools/bench/explaining.py --corpus data/ag_news --peers PYTHON    # that has LIME: pip install lime
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import mean, median

import numpy as np
from end_to_end import shardtrain
from synthetic import write_synthetic

import shardtrain.exports.bundle_reader as reader
from shardtrain.inference.explanations import Explanation
from shardtrain.inference.run import Run, load_run

WITHIN = 1e-5
SIGNS = 0.9
TOP = 5  # words of LIME whose signs are compared
SHOWN = 10  # terms of ours and words of LIME
GENERATED = 20_000  # documents
PEERS = Path(__file__).with_name("explaining_peers.py")
WORD = re.compile(r"\w+")  # LIME splits at everything else


def main() -> int:
    """Measure and print; exit code 1 if the parts do not sum to the logits or the signs are not LIME's."""
    csv.field_size_limit(1 << 30)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="with train.csv and test.csv (a generated corpus)")
    parser.add_argument("--documents", type=int, default=10_000, metavar="N", help="whose parts are summed (10,000)")
    parser.add_argument("--lime-documents", type=int, default=50, metavar="N", help="that LIME explains (50)")
    parser.add_argument("--samples", type=int, default=5000, metavar="N", help="of LIME, per text (5,000)")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="that has LIME (this one)")
    args = parser.parse_args()
    if subprocess.run([args.peers, "-c", "import lime"], capture_output=True).returncode:
        sys.exit("LIME is not installed; install it with `pip install lime` in an environment, and give its --peers")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    good = True
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        corpus = args.corpus or scratch / "synthetic"
        if args.corpus is None:
            write_synthetic(corpus, documents=GENERATED)
        texts = texts_of(corpus, args.documents)
        shardtrain("build", corpus, "--out", scratch / "shards")
        for model in ("linear", "mlp"):
            shardtrain("fit", scratch / "shards", "--out", scratch / model, "--model", model)
            run = load_run(scratch / model)
            print(f"\n{model}, {len(texts):,} documents")
            good &= sums(run, texts)
            good &= beside_lime(run, texts[: args.lime_documents], args.samples, args.peers, scratch)
    return 0 if good else 1


def texts_of(corpus: Path, most: int) -> list[str]:
    """Return texts of the test file, then of the training file."""
    texts: list[str] = []
    for name in ("test.csv", "train.csv"):
        with open(corpus / name, newline="", encoding="utf-8") as file:
            texts += [", ".join(columns) for _, *columns in islice(csv.reader(file), most - len(texts))]
    return texts


def sums(run: Run, texts: Sequence[str]) -> bool:
    """Print what explaining takes, and how far the parts are from the logits."""
    explainer = run.explainer(SHOWN)
    explainer(texts[:SHOWN])
    began = time.perf_counter()
    found = explainer(texts)
    took = time.perf_counter() - began
    classifier = run.classifier()
    classifier(texts[:SHOWN])
    began = time.perf_counter()
    expected = classifier(texts).probabilities
    alone = time.perf_counter() - began
    logits = explainer.scores(explainer.vectorizer.transform(texts))
    chosen = logits[np.arange(len(texts)), expected.argmax(axis=1)]
    whole = run.explainer(None)(texts).explanations
    off = max(
        abs(total(each) - logit)
        for every in (found.explanations, whole)
        for each, logit in zip(every, chosen, strict=True)
    )
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    if run.description.num_classes == 2:
        powers = np.exp(-np.logaddexp(0, -logits))
    far = np.abs(powers / powers.sum(axis=1, keepdims=True) - expected).max()
    print(
        f"  {took / len(texts) * 1e3:.3f} ms per document with {SHOWN} terms, {alone / len(texts) * 1e3:.3f} ms to "
        f"classify alone\n  the parts are within {off:.1e} of the logits, and these within {far:.1e} of predict"
    )
    return bool(off <= WITHIN and far <= WITHIN and np.array_equal(found.probabilities, expected))


def total(explanation: Explanation) -> float:
    """Return the sum of the parts of an explanation."""
    return sum(each.contribution for each in explanation.reasons) + explanation.others + explanation.rest


def beside_lime(run: Run, texts: Sequence[str], samples: int, python: str, scratch: Path) -> bool:
    """Print what LIME takes for the same model, and how far it agrees."""
    bundle, given = scratch / f"{run.path.name}.bundle", scratch / "texts.json"
    shardtrain("export", run.path, "--weights", "float32", "--out", bundle)
    predictions = run.predict(texts)
    best = predictions.probabilities.argmax(axis=1).tolist()
    given.write_text(json.dumps(list(zip(texts, best, strict=True))), encoding="utf-8")
    words = [str(bundle), str(reader.__file__), str(given), str(samples), str(SHOWN)]
    done = subprocess.run([python, str(PEERS), *words], stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout)
    signs, orders = [], []
    ours = [run.explain(texts, n=None, label=name) for name in run.description.class_names]
    for number, (text, code, each) in enumerate(zip(texts, best, found, strict=True)):
        of_words = slopes([of[number] for of in ours], predictions.probabilities[number], code, text)
        pairs = [(weight, of_words.get(word, 0.0)) for word, weight in each["weights"]]
        signs += [weight * value > 0 for weight, value in pairs[:TOP]]
        orders.append(rank_correlation(*np.transpose(pairs)))
    print(
        f"  LIME: {median(each['seconds'] for each in found) * 1e3:,.0f} ms per document, of which the model took "
        f"{median(each['model'] for each in found) * 1e3:,.0f}\n  {mean(signs):.1%} of its {TOP} largest words have "
        f"our sign; rank correlation of its {SHOWN} words with ours {mean(orders):.2f}"
    )
    return bool(mean(signs) >= SIGNS)


def slopes(explanations: Sequence[Explanation], probabilities: np.ndarray, code: int, text: str) -> dict[str, float]:
    """Return what each word adds to the logit of a class, less what it adds to all classes by their probability."""
    found: dict[str, float] = defaultdict(float)
    for place, explanation in enumerate(explanations):
        weight = float(place == code) - float(probabilities[place])
        for reason in explanation.reasons:
            there = [WORD.findall(text[start:stop]) for start, stop in reason.places]
            size = sum(map(len, there))
            for word in (word for each in there for word in each):
                found[word] += weight * reason.contribution / size
    return found


def rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Return Spearman's rank correlation of numbers without many ties."""
    first, second = (np.argsort(np.argsort(each)) for each in (one, two))
    return float(np.corrcoef(first, second)[0, 1])


if __name__ == "__main__":
    sys.exit(main())
