"""Files of shards whose content was changed and whose seals fit again: an error of ours, or a right result.

Each file is changed at every place, in every way of `support.mutations`. Then it is read, and used by the commands that
use it. What a reused vectorizer makes must pass `verify`. `make soak` tries all changes, `make test` a spread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support import resealing
from support.hashes import shortened_hashes
from support.listed import lists_forced
from support.mutations import array_mutations, mutations
from support.outcomes import Changed, Use, of_json, unforeseen

from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import shards_job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.summary import summarize_shards
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.shards.layout import WORKING
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

pytestmark = pytest.mark.usefixtures("quiet")
KINDS = {
    "n-grams": BuildOptions(vectorizer="ngram", max_features=30, workers=1, validation_fraction=0.2),
    "n-grams that share hashes": BuildOptions(max_features=30, workers=1, validation_fraction=0.2),
    "sequences": BuildOptions(vectorizer="sequence", max_features=20, max_length=8, workers=1, validation_fraction=0.2),
    "hashed n-grams": BuildOptions(vectorizer="hashing", max_features=64, workers=1, validation_fraction=0.2),
}
# Of so many changes one is tried in `make test`.
LISTED = "a manifest with lists"
SPREAD = {
    **dict.fromkeys(KINDS, 59),
    "a manifest": 499,
    LISTED: 499,
    "a build record": 379,
    "an interrupted build": 499,
}


@pytest.fixture
def quiet() -> Iterator[None]:
    with verbosity(QUIET):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "a.csv"
    words = ["rook", "pawn", "endgame", "wind", "harbour", "anchor", "oven", "flour", "salt", "mast", "keel", "yeast"]
    rng = np.random.default_rng(5)
    lines = [f"{number % 3},{' '.join(rng.choice(words, 6))}" for number in range(60)]
    path.write_text("label,text\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    for kind, options in KINDS.items():
        with shortened_hashes(3) if kind == "n-grams that share hashes" else nullcontext():
            build(corpus, folder / kind, options)
    with lists_forced():
        build(corpus, folder / LISTED, replace(KINDS["n-grams"], compress="lz4"))
    return {kind: folder / kind for kind in (*KINDS, LISTED)}


def of_array(file: str) -> Changed:
    return Changed(file, lambda path: array_mutations(np.load(path)), resealing.write_array)


def raw(path: Path) -> Iterator[tuple[str, bytes]]:
    """Damages of the header of a .npy file."""
    whole = path.read_bytes()
    for length in (0, 5, 6, 9, 11, 40, 128):
        yield f"{length} bytes", whole[:length]
    for old, new in ((b"'<u8'", b"'|O8'"), (b"'<u8'", b"'<u9'"), (b"(", b"(-"), (b"}", b" "), (b"{", b"0")):
        yield f"{old!r} is {new!r}", whole.replace(old, new, 1)
    for byte in range(0, 80, 3):
        yield f"byte {byte}", whole[:byte] + b"\xff" + whole[byte + 1 :]
    yield "a pickle", b"\x80\x04N."
    yield "a zip", b"PK\x03\x04" + bytes(60)


VECTORIZER = [
    of_json("vectorizer/vectorizer.json", resealing.write_description),
    of_json("vectorizer/terms.json", resealing.write_terms),
]
ARRAYS = [of_array(f"vectorizer/{name}.npy") for name in ("hashes", "counts", "columns", "scores")]
HEADER = [Changed("vectorizer/hashes.npy", raw, resealing.write_bytes_of_vectorizer)]
VECTORIZERS = {
    "n-grams": [*VECTORIZER, *ARRAYS, *HEADER],
    "n-grams that share hashes": [*VECTORIZER, *ARRAYS, of_array("vectorizer/checks.npy")],
    "sequences": [*VECTORIZER, ARRAYS[0], *HEADER],
    "hashed n-grams": VECTORIZER,
}


def faults_of(folder: Path) -> tuple[str, ...]:
    return verify_shards(folder, advance=lambda num_bytes: None, workers=1).faults


def assert_verified(folder: Path) -> None:
    assert not faults_of(folder), faults_of(folder)[0]


def changed_records(path: Path) -> Iterator[tuple[str, list[object]]]:
    """Change one record at a time, at every place."""
    records = [json.loads(line[17:]) for line in path.read_bytes().splitlines()]
    for place, record in enumerate(records):
        for name, value in mutations(record):
            yield f"{place}: {name}", [*records[:place], value, *records[place + 1 :]]


def transforms(folder: Path) -> None:
    vectorizer = load_vectorizer(folder / "vectorizer")
    rows = vectorizer.transform(["rook pawn endgame wind", "", "nothing known"])
    assert rows.shape == (3, vectorizer.num_features)
    if vectorizer.terms:
        vectorizer.decode(rows[0] if isinstance(rows, np.ndarray) else rows.rows(0, 1))


def reuses(corpus: Path) -> Use:
    def reuse(folder: Path) -> None:
        out = folder / "again"
        build(corpus, out, BuildOptions(vectorizer_from=folder, workers=1, validation_fraction=0.2))
        assert_verified(out)

    return reuse


def reads(folder: Path) -> None:
    with open_shards(folder) as shards:
        for split in shards.splits.values():
            for _ in split.batches(7):
                pass


def shows(folder: Path) -> None:
    summarize_shards(folder, num_rows=1)


def appends(corpus: Path) -> Use:
    def append(folder: Path) -> None:
        sound = not faults_of(folder)
        build(corpus, folder, BuildOptions(append=True, workers=1))
        assert not sound or not faults_of(folder), faults_of(folder)[0]

    return append


def records(folder: Path) -> None:
    record = read_build_record(folder)
    if record is not None:
        with open_shards(folder) as shards:
            find_source_texts(shards, shards.train, [0], scratch=folder)


def resumes(corpus: Path) -> Use:
    def resume(folder: Path) -> None:
        build(corpus, folder, BuildOptions(max_features=30, workers=1, validation_fraction=0.2))
        assert_verified(folder)

    return resume


@dataclass(frozen=True)
class Law:
    """The files that are changed in a folder, and how the folder is used then."""

    changes: list[Changed]
    uses: list[Use]


@pytest.fixture(scope="module")
def interrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that was interrupted when all its work was on record, before it was published."""
    folder = tmp_path_factory.mktemp("interrupted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_job, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, folder, BuildOptions(max_features=30, workers=1, validation_fraction=0.2))
    (folder / WORKING / "manifest.json").unlink()
    return folder


def interrupt(*arguments: object, **keywords: object) -> None:
    raise KeyboardInterrupt


def law_of(name: str, corpus: Path, folder: Path) -> Law:
    if name in KINDS:
        return Law(VECTORIZERS[name], [transforms, reuses(corpus)])
    if name in ("a manifest", LISTED):
        uses = [reads, shows, records, appends(corpus), reuses(corpus)]
        return Law([of_json("manifest.json", resealing.write_manifest)], uses)
    if name == "a build record":
        return Law([of_json("build.json", resealing.write_plain)], [records, appends(corpus)])
    paths = sorted((folder / WORKING).glob("*/scratch/*.records"))
    files = [Changed(str(path.relative_to(folder)), changed_records, resealing.write_records) for path in paths]
    return Law([of_json(f"{WORKING}/job.json", resealing.write_plain), *files], [resumes(corpus)])


LAWS = [*KINDS, "a manifest", LISTED, "a build record", "an interrupted build"]


def check(name: str, made: dict[str, Path], corpus: Path, interrupted: Path, scratch: Path, *, every: int) -> list[str]:
    folder = interrupted if name == "an interrupted build" else made.get(name, made["n-grams"])
    law = law_of(name, corpus, folder)
    return unforeseen(folder, law.changes, law.uses, scratch, every=every)


@pytest.mark.heavy
@pytest.mark.parametrize("name", LAWS)
def test_a_resealed_file_is_refused_or_gives_shards_that_verify(
    name: str, made: dict[str, Path], corpus: Path, interrupted: Path, tmp_path: Path
) -> None:
    assert check(name, made, corpus, interrupted, tmp_path, every=SPREAD[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_every_resealed_file_is_refused_or_gives_shards_that_verify(
    name: str, made: dict[str, Path], corpus: Path, interrupted: Path, tmp_path: Path
) -> None:
    assert check(name, made, corpus, interrupted, tmp_path, every=1) == []
