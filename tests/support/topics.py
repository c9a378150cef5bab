"""Write a small corpus whose topics differ in their words; with texts to classify and their topics."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

TOPICS = {
    "cooking": ("oven", "butter", "flour", "bake", "sugar", "knead"),
    "sailing": ("mast", "harbour", "wind", "keel", "rudder", "anchor"),
    "chess": ("rook", "bishop", "gambit", "castle", "pawn", "endgame"),
}


COMMON = ("the", "and", "with", "after", "before", "some", "one", "then")


def write_corpus(folder: Path, topics: tuple[str, ...], documents: int = 240) -> Path:
    """Write a corpus whose topics differ in their words."""
    rng = np.random.default_rng(len(topics))
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("".join(f"{topic}\n" for topic in topics))
    for name, count in (("train.csv", documents), ("test.csv", documents // 4)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            for number in range(count):
                label = number % len(topics)
                words = rng.choice(TOPICS[topics[label]] + COMMON, rng.integers(6, 15))
                writer.writerow([label + 1, f"note {number}", " ".join(words)])
    return folder


TEXTS = ["bake the flour with butter", "anchor in the harbour and the wind", "a rook, a pawn and the endgame"]


EXPECTED = ["cooking", "sailing", "chess"]
