"""Measure accuracy by analyzer in languages without spaces, and by accents in languages whose words they distinguish.

Texts are invented: words of a topic among words of every topic. In Chinese and Thai the words of all topics are made of
the same characters and syllables, so only combinations tell topics apart. Where accents matter, the words of a topic
differ from those of its twin in accents only. Each corpus is built and trained on with every setting; printed is the
accuracy on its test split.

    python tools/bench/languages.py
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import shardtrain

SPREAD = [1 / (rank + 3) for rank in range(400)]  # Zipf-like frequencies of words
TOPIC_SHARE = 0.12  # of the words of a text
WORD, CHAR, CHAR_WB = ({"analyzer": name} for name in ("word", "char", "char_wb"))
ANALYZERS: list[dict[str, Any]] = [
    {**WORD, "min_df": 1},
    {**CHAR, "ngram_range": (1, 1)},
    {**CHAR, "ngram_range": (1, 2)},
    {**CHAR, "ngram_range": (1, 3)},
    {**CHAR, "ngram_range": (2, 4)},
    {**CHAR_WB, "ngram_range": (2, 4)},
]
ACCENTS: list[dict[str, Any]] = [{"strip_accents": "unicode"}, {"strip_accents": "none"}]
TWINS = {  # words that only accents tell apart
    "German": (
        "schon zahlen fordern drucken wurde konnte lauten achten",
        "schön zählen fördern drücken würde könnte läuten ächten",
    ),
    "Spanish": ("papa ano termino esta si el hablo", "papá año terminó está sí él habló"),
    "Vietnamese": ("ma ban cam đau muon noi", "má bạn cảm đầu muốn nói"),
    "Hindi": ("कल सजा राज बल फन जरा", "काल सज़ा राज़ बाल फ़न ज़रा"),
    "Japanese": ("かき はは ちち こま たい くし", "がぎ ばば ぢぢ ごま だい ぐし"),
}


def main() -> int:
    """Print a line per corpus and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3_000, metavar="N", help="to train on, per corpus (3,000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, write in {"Chinese": chinese, "Thai": thai}.items():
            measure(name, write, ANALYZERS, args.documents, Path(folder))
        for name in TWINS:
            settings = ACCENTS
            if name == "Hindi":  # vowel signs are no letters for scikit-learn's words
                settings = [*ACCENTS, *({**CHAR_WB, "ngram_range": (2, 4), **each} for each in ACCENTS)]
            measure(name, partial(twins, name), settings, args.documents, Path(folder))
    return 0


Words = tuple[list[str], list[list[str]], str]  # of every topic, of each topic, and what stands between words


def chinese(rng: random.Random) -> Words:
    """Make words of one to two characters; topics have the same characters in other combinations."""
    characters = [chr(0x4E00 + 7 * number) for number in range(700)]
    rng.shuffle(characters)
    common = characters[:80] + ["".join(rng.sample(characters[80:], 2)) for _ in range(320)]
    firsts, seconds = characters[80:120], characters[120:160]
    return common, [[a + seconds[(i + 10 * topic) % 40] for i, a in enumerate(firsts)] for topic in range(4)], ""


def thai(rng: random.Random) -> Words:
    """Make words of one to three syllables; topics have the same syllables in other combinations."""
    syllables = [a + b + c for a, b, c in product("กขคงจชดตทนบปพมยรลวสห", "ะาิีุู", ("", "น", "ง", "ก", "ม"))]
    rng.shuffle(syllables)
    common = ["".join(rng.sample(syllables, rng.choice((1, 2, 3)))) for _ in range(400)]
    firsts, seconds = syllables[:40], syllables[40:80]
    return common, [[a + seconds[(i + 10 * topic) % 40] for i, a in enumerate(firsts)] for topic in range(4)], ""


def twins(name: str, rng: random.Random) -> Words:
    """Make two topics whose words only accents tell apart."""
    topics = [words.split() for words in TWINS[name]]
    return [f"w{number}" for number in rng.sample(range(1_000), 400)], topics, " "


def measure(
    name: str,
    words: Callable[[random.Random], Words],
    settings: list[dict[str, Any]],
    documents: int,
    folder: Path,
) -> None:
    """Write a corpus, and print the accuracy that each setting reaches on its test split."""
    rng = random.Random(1)
    common, topics, between = words(rng)
    corpus = folder / name
    corpus.mkdir()
    for file, number in (("train.csv", documents), ("test.csv", documents // 3)):
        with open(corpus / file, "w", newline="", encoding="utf-8") as opened:
            for _ in range(number):
                label = rng.randrange(len(topics))
                csv.writer(opened).writerow([label, between.join(a_text(rng, common, topics, label))])
    for number, options in enumerate(settings):
        shards = shardtrain.build(corpus, folder / f"{name}-{number}", workers=1, **options)
        run = shardtrain.fit(shards, out=folder / f"{name}-run-{number}", model="linear", learning_rate=0.01)
        shown = ", ".join(f"{key} {value}" for key, value in options.items())
        print(
            f"{name}: {shown}: {shards.description.num_features:,} n-grams, accuracy {run.metrics['test_accuracy']:.3f}"
        )


def a_text(rng: random.Random, common: list[str], topics: list[list[str]], label: int) -> list[str]:
    """Draw the words of a text; a quarter of the topical words are of a random topic."""
    words = rng.choices(common, SPREAD, k=rng.randint(12, 40))
    for place in range(len(words)):
        if rng.random() < TOPIC_SHARE:
            topic = label if rng.random() < 0.75 else rng.randrange(len(topics))
            words[place] = rng.choice(topics[topic])
    return words


if __name__ == "__main__":
    raise SystemExit(main())
