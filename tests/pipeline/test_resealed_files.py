"""Files of shards whose content was changed and whose seals fit again: an error of ours, or a right result.

Each file is changed at every place, in every way of `support.mutations`. Then it is read, and used by the commands that
use it. What a reused vectorizer makes must pass `verify`. `make soak` tries all changes, `make test` a spread.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import resealing
from support.mutations import array_mutations, mutations

from shardtrain.errors import ShardtrainError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.summary import summarize_shards
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

pytestmark = pytest.mark.usefixtures("quiet")
KINDS = {
    "n-grams": BuildOptions(vectorizer="ngram", max_features=30, workers=1, validation_fraction=0.2),
    "sequences": BuildOptions(vectorizer="sequence", max_features=20, max_length=8, workers=1, validation_fraction=0.2),
    "hashed n-grams": BuildOptions(vectorizer="hashing", max_features=64, workers=1, validation_fraction=0.2),
}
SECONDS = 30  # for one use of one changed file: more is a hang
SPREAD = 23  # of so many changes one is tried in `make test`

Use = Callable[[Path], None]


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
        build(corpus, folder / kind, options)
    return {kind: folder / kind for kind in KINDS}


@dataclass(frozen=True)
class Changed:
    """A way to change a file: its path in the folder, what there is to write, and the function that writes it."""

    file: str
    values: Callable[[Path], Iterator[tuple[str, Any]]]
    write: Callable[[Path, Any], None]


def of_json(file: str, write: Callable[[Path, Any], None]) -> Changed:
    return Changed(file, lambda path: mutations(json.loads(path.read_bytes())), write)


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
    "sequences": [*VECTORIZER, ARRAYS[0], *HEADER],
    "hashed n-grams": VECTORIZER,
}


def unforeseen(folder: Path, changes: list[Changed], uses: list[Use], scratch: Path, *, every: int) -> list[str]:
    """Return what else than an error of ours came of the uses, by change."""
    found, count = [], 0
    for change in changes:
        for name, value in change.values(folder / change.file):
            count += 1
            if count % every:
                continue
            copy = scratch / "copy"
            shutil.copytree(folder, copy)
            change.write(copy / change.file, value)
            for use in uses:
                if said := outcome(use, copy):
                    found.append(f"{change.file}: {name}: {said}")
            shutil.rmtree(copy)
    assert count > every
    return found


def outcome(use: Use, folder: Path) -> str:
    """Return the exception that is no error of ours, or the message that is not one line; empty: all is well."""
    signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        use(folder)
    except ShardtrainError as error:
        said = error.on_command_line
        return f"a message of several lines: {said!r}" if "\n" in said or "\x1b" in said or len(said) > 1000 else ""
    except Exception as error:
        return f"{use.__name__}: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return ""


def hung(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def assert_verified(folder: Path) -> None:
    faults = verify_shards(folder, advance=lambda num_bytes: None, workers=1).faults
    assert not faults, faults[0]


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
        build(corpus, folder, BuildOptions(append=True, workers=1))
        assert_verified(folder)

    return append


def check_vectorizers(kind: str, made: dict[str, Path], corpus: Path, scratch: Path, *, every: int) -> None:
    uses = [transforms, reuses(corpus)]
    assert unforeseen(made[kind], VECTORIZERS[kind], uses, scratch, every=every) == []


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_resealed_vectorizer_is_refused_or_makes_shards_that_verify(
    kind: str, made: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    check_vectorizers(kind, made, corpus, tmp_path, every=SPREAD)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_resealed_vectorizer_is_refused_or_makes_shards_that_verify(
    kind: str, made: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    check_vectorizers(kind, made, corpus, tmp_path, every=1)
