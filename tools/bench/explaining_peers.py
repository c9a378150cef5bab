"""Explain texts with LIME, for `explaining.py`; print JSON.

A program of its own, for a Python that has LIME and NumPy but not shardtrain: the model is the bundle of a run, read by
the reader that comes with it.

    python tools/bench/explaining_peers.py BUNDLE READER TEXTS SAMPLES WORDS

TEXTS is a JSON list of texts with the class to explain. Printed is a list of the seconds that each text took, those
that the model took of them, and LIME's weights of its words.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any


def reader_at(path: Path) -> Any:
    """Return the module of a bundle's reader."""
    spec = importlib.util.spec_from_file_location("bundle_reader", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Explain the texts."""
    from lime.lime_text import LimeTextExplainer

    path, reader, given, samples, words = sys.argv[1:]
    bundle = reader_at(Path(reader)).load(path)
    explainer = LimeTextExplainer(class_names=list(bundle.class_names), random_state=1)
    spent = [0.0]

    def classify(texts: list[str]) -> Any:
        began = time.perf_counter()
        found = bundle.probabilities(texts)
        spent[0] += time.perf_counter() - began
        return found

    classify(["warm"])
    found = []
    for text, code in json.loads(Path(given).read_text(encoding="utf-8")):
        spent[0] = 0.0
        began = time.perf_counter()
        explanation = explainer.explain_instance(
            text, classify, labels=[code], num_features=int(words), num_samples=int(samples)
        )
        seconds = time.perf_counter() - began
        found.append({"seconds": seconds, "model": spent[0], "weights": explanation.as_list(label=code)})
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
