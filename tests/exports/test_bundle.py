"""Laws of bundles: the reader gives the probabilities of `Run.predict` for any text, and refuses what is no bundle."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundled import NAMES, WORDS, fitted, network_of, probabilities, strange_texts, write_bundle
from support.mutations import mutations
from support.sampled import sampled

from shardtrain.engine.network import Network, Shape
from shardtrain.errors import ModelError, VectorizerError
from shardtrain.exports import bundle_reader
from shardtrain.exports.bundle import bundle_content
from shardtrain.exports.bundle_file import packed
from shardtrain.exports.bundle_reader import HEAD, Bundle, BundleError, load
from shardtrain.vectorize.fitted import NgramVectorizer, Vectorizer
from shardtrain.vectorize.saved import SavedVectorizer
from shardtrain.vectorize.settings import HashedSettings, Hashing, NgramSettings

KINDS: dict[str, dict[str, Any]] = {
    "words": {},
    "words with accents, sublinear": {"strip_accents": "none", "sublinear_tf": True, "ngram_range": (2, 3)},
    "counts": {"vectorizer": "count"},
    "stop words, binary, long n-grams": {
        "stop_words": ("oven", "mast", "größe", "σας"),
        "binary": True,
        "sublinear_tf": True,
        "ngram_range": (1, 5),
    },
    "characters": {"analyzer": "char", "ngram_range": (1, 4), "select": "none"},
    "characters with accents": {"analyzer": "char", "ngram_range": (2, 2), "strip_accents": "none"},
    "characters of words": {"analyzer": "char_wb", "ngram_range": (2, 4)},
    "long n-grams of characters of words": {"analyzer": "char_wb", "ngram_range": (5, 7), "vectorizer": "count"},
    "hashed words": {"vectorizer": "hashing", "stop_words": ("oven", "mast"), "ngram_range": (1, 3)},
    "hashed words with accents, binary": {"vectorizer": "hashing", "strip_accents": "none", "binary": True},
    "hashed characters": {"vectorizer": "hashing", "analyzer": "char", "ngram_range": (1, 6)},
    "hashed characters of words": {"vectorizer": "hashing", "analyzer": "char_wb", "ngram_range": (4, 5)},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vectorizer:
    return fitted(tmp_path_factory.mktemp("kind"), **KINDS[request.param])


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Vectorizer:
    return fitted(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def small(words: Vectorizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = network_of(words.num_features)
    return write_bundle(tmp_path_factory.mktemp("small") / "a.bundle", network, words, "int8")


def test_every_setting_gives_the_probabilities_of_predict_for_hostile_texts(kind: Vectorizer, tmp_path: Path) -> None:
    network = network_of(kind.num_features)
    bundle, texts = load(write_bundle(tmp_path / "a.bundle", network, kind)), strange_texts(600, 2)
    expected = probabilities(network, kind, texts)
    found = bundle.probabilities(texts)
    assert len(np.unique(expected.round(4), axis=0)) > len(texts) / 4
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 4e-6
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
    assert bundle.predict(texts) == [NAMES[best] for best in found.argmax(axis=1)]


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_every_network_is_as_close_as_its_weights(
    words: Vectorizer, tmp_path: Path, layers: int, classes: int, weights: str
) -> None:
    network, texts = network_of(words.num_features, classes, layers), strange_texts(300, 3)
    found = load(write_bundle(tmp_path / "a.bundle", network, words, weights)).probabilities(texts)
    atol = {"int8": 0.05, "float16": 0.002, "float32": 2e-6}[weights]
    np.testing.assert_allclose(found, probabilities(network, words, texts), rtol=0, atol=atol)


@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=20))
def test_any_texts_are_classified_as_by_predict(words: Vectorizer, bundles: dict[str, Any], texts: list[str]) -> None:
    expected = probabilities(bundles["network"], words, texts)
    np.testing.assert_allclose(bundles["bundle"].probabilities(texts), expected, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def bundles(words: Vectorizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    network = network_of(words.num_features)
    return {
        "network": network,
        "bundle": load(write_bundle(tmp_path_factory.mktemp("any") / "a.bundle", network, words)),
    }


def test_an_answer_does_not_depend_on_the_texts_around_it(
    kind: Vectorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, texts = load(write_bundle(tmp_path / "a.bundle", network_of(kind.num_features), kind)), strange_texts(60, 4)
    whole = bundle.probabilities(texts)
    alone = np.concatenate([bundle.probabilities([text]) for text in texts])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-6)
    for name, value in (("_BATCH_TEXTS", 7), ("_BATCH_CHARACTERS", 50), ("_PIECE", 20), ("_FEW", 0)):
        monkeypatch.setattr(bundle_reader, name, value)
        np.testing.assert_allclose(bundle.probabilities(iter(texts)), whole, rtol=0, atol=1e-6)


def test_very_long_words_and_texts_are_read(words: Vectorizer, bundles: dict[str, Any]) -> None:
    texts = ["oven " * 60_000, "x" * 150_000, "字\u0301" * 20_000 + " mast", "Σ" * 9_000, "\ufdfa" * 5_000]
    expected = probabilities(bundles["network"], words, texts)
    np.testing.assert_allclose(bundles["bundle"].probabilities(texts), expected, rtol=0, atol=2e-6)


ALONE = """
import importlib.util, json, sys
folder, packages = sys.argv[1:]
sys.path[:0], sys.path[len(sys.path):] = [folder], [packages]
import bundle_reader
found = bundle_reader.load(f"{folder}/a.bundle").predict(json.load(open(f"{folder}/texts.json")))
assert importlib.util.find_spec("shardtrain") is None
assert not {"unicodedata", "scipy", "numba"} & set(sys.modules)
json.dump(found, open(f"{folder}/found.json", "w"))
"""


def test_the_reader_s_file_alone_suffices(words: Vectorizer, small: Path, tmp_path: Path) -> None:
    texts = strange_texts(100, 5)
    ast.parse(Path(bundle_reader.__file__).read_text(), feature_version=(3, 9))
    shutil.copy(bundle_reader.__file__, tmp_path)
    shutil.copy(small, tmp_path / "a.bundle")
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    packages = str(Path(np.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", ALONE, str(tmp_path), packages]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found.json").read_text()) == load(small).predict(texts)


def test_no_setting_of_a_vectorizer_is_forgotten() -> None:
    """A new setting is one that decides rows of new texts, and belongs into bundles, or one of those that do not."""
    told = {"analyzer", "ngram_range", "stop_words", "binary", "sublinear_tf", "weighting", "strip_accents", "hashing"}
    of_fitting = {"min_df", "max_df", "select", "max_features"}
    names = {each.name for cls in (NgramSettings, HashedSettings) for each in fields(cls)}
    assert names == told | of_fitting


def test_characters_are_what_the_bundle_says_of_them(small: Path) -> None:
    """A later version of Unicode, or of Python, changes no answer."""
    header, arrays = parts(small)
    lowered = load(small).probabilities(["oven"])
    codes = np.cumsum(arrays["fold_codes"])
    arrays["fold_pool"] = np.where(arrays["fold_pool"] == ord("o"), ord("q"), arrays["fold_pool"]).astype(np.uint32)
    assert ord("O") in codes
    changed = Bundle(header, arrays)
    assert (changed.probabilities(["Oven"]) != lowered).any()
    np.testing.assert_array_equal(changed.probabilities(["oven"]), lowered)


def test_what_are_no_texts_is_refused(small: Path) -> None:
    bundle = load(small)
    for wrong in ("one text", [b"bytes"], ["a", None]):
        with pytest.raises(TypeError, match="text"):
            bundle.predict(wrong)  # type: ignore[arg-type]
    assert bundle.predict([]) == []
    assert bundle.probabilities([]).shape == (0, 4)


# Files


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return bundle_reader._parts_of(path.read_bytes())


def test_equal_runs_are_equal_bytes(words: Vectorizer, small: Path, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "b.bundle", network_of(words.num_features), words, "int8")
    assert again.read_bytes() == small.read_bytes()


def test_a_flipped_bit_anywhere_is_refused(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    path = tmp_path / "damaged.bundle"
    for place in (*range(HEAD.size + 40), *range(HEAD.size + 40, len(content), len(content) // 60), len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"damaged.bundle' is .*expected"):
            load(path)


def test_other_lengths_are_refused_with_the_expected_one(small: Path, tmp_path: Path) -> None:
    content, path = small.read_bytes(), tmp_path / "cut.bundle"
    for cut in (b"", content[:7], content[: HEAD.size - 1]):
        path.write_bytes(cut)
        with pytest.raises(BundleError, match=r"cut.bundle' is no bundle: expected 56 bytes or more that begin with"):
            load(path)
    for cut in (content[: HEAD.size], content[: len(content) // 2], content[:-1], content + b"\0"):
        path.write_bytes(cut)
        with pytest.raises(BundleError, match=rf"expected {len(content):,} bytes, it has {len(cut):,}; export the run"):
            load(path)


def resealed(header: Any, body: bytes) -> bytes:
    described = json.dumps(header).encode()
    head = HEAD.pack(bundle_reader.MAGIC, 1, len(described), HEAD.size + len(described) + len(body), b"")
    digest = bundle_reader.digest_of(head + described + body)
    return head[: HEAD.size - 32] + digest + described + body


@pytest.mark.parametrize("every", sampled([5, 1]))
def test_a_header_that_was_changed_and_sealed_again_is_refused_or_works(
    small: Path, tmp_path: Path, every: int
) -> None:
    content, path = small.read_bytes(), tmp_path / "sealed.bundle"
    size = int.from_bytes(content[12:16], "little")
    header, body = json.loads(content[HEAD.size : HEAD.size + size]), content[HEAD.size + size :]
    path.write_bytes(resealed(header, body))
    texts, worked, tried = strange_texts(5, 6), [], 0
    expected = load(path).predict(texts)
    for what, changed in islice(mutations(header), 0, None, every):
        tried += 1
        path.write_bytes(resealed(changed, body))
        try:
            load(path).predict(texts)
        except BundleError:
            continue
        worked.append(what)
    assert len(expected) == len(texts)
    assert tried > 500 // every
    assert len(worked) < tried / 3
    assert not [what for what in worked if "analyzer" in what or "kind" in what]


@pytest.mark.parametrize("every", sampled([3, 1]))
def test_arrays_that_were_changed_and_sealed_again_are_refused_or_work(small: Path, tmp_path: Path, every: int) -> None:
    header, arrays = parts(small)
    path, texts, draw = tmp_path / "sealed.bundle", strange_texts(5, 7), np.random.default_rng(1)
    refused, tried = 0, [*islice(arrays.items(), 0, None, every)]
    for name, array in tried:
        whole = np.iinfo(array.dtype) if array.dtype.kind != "f" else np.finfo(array.dtype)
        for value in (0, 1, whole.max, whole.min, np.nan if array.dtype.kind == "f" else 3):
            changed = array.copy()
            if changed.size:
                changed.flat[int(draw.integers(changed.size))] = value
            path.write_bytes(packed(header, {**arrays, name: changed}, 1))
            try:
                load(path).predict(texts)
            except BundleError:
                refused += 1
        for other in (array[:-1], array.astype("<u8").astype(np.uint64), array.reshape(-1)):
            path.write_bytes(packed(header, {**arrays, name: other}, 1))
            try:
                load(path).predict(texts)
            except BundleError:
                refused += 1
    assert refused > 2 * len(tried) > 6


def test_a_batch_has_few_texts_where_layers_are_wide(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, sizes = load(small), []
    called = bundle._network.__call__

    def network(texts: Any, rows: Any, values: Any, num_texts: int) -> Any:
        sizes.append(num_texts)
        return called(texts, rows, values, num_texts)

    network.widest = bundle_reader._UNITS // 4  # type: ignore[attr-defined]
    bundle._network = network
    texts = strange_texts(9, 5)
    assert len(bundle.predict(texts)) == len(texts)
    assert max(sizes) <= 4


# Sizes and refusals


def of_candidates(candidates: int, features: int, hashing: Hashing | None = None) -> NgramVectorizer:
    draw = np.random.default_rng(1)
    hashes = np.unique(draw.integers(0, 1 << 64, candidates, np.uint64))
    columns = np.full(len(hashes), -1, np.int32)
    columns[draw.choice(len(hashes), features, replace=False)] = draw.permutation(features)
    arrays = {
        "hashes": hashes,
        "counts": np.minimum(2 + draw.pareto(0.9, len(hashes)), 90_000).astype(np.uint32),
        "columns": columns,
    }
    settings = NgramSettings(hashing=hashing or Hashing())
    terms = [str(number) for number in range(features)]
    return NgramVectorizer(SavedVectorizer("ngram", {"num_documents": 120_000}, settings, terms, arrays))


@pytest.fixture(scope="module")
def large() -> tuple[Network, NgramVectorizer]:
    network = Network(Shape.of(20_000, 4, 2, 64))
    network.wide[:] = np.random.default_rng(2).normal(0, 0.1, network.wide.shape)
    return network, of_candidates(300_000, 20_000)


def test_20_000_features_64_units_and_four_classes_are_at_most_2_mb(
    large: tuple[Network, NgramVectorizer], tmp_path: Path
) -> None:
    content = bundle_content(*large, NAMES, "int8", {})
    assert len(content) <= 2_000_000
    path = tmp_path / "a.bundle"
    path.write_bytes(content)
    assert len(load(path).predict(WORDS)) == len(WORDS)


def test_unknown_n_grams_are_rarely_taken_for_candidates(large: tuple[Network, NgramVectorizer]) -> None:
    network, vectorizer = large
    header, arrays = bundle_reader._parts_of(bundle_content(network, vectorizer, NAMES, "int8", {}))
    terms = bundle_reader._Candidates(header["terms"], arrays)
    unknown = np.random.default_rng(3).integers(0, 1 << 64, 300_000, np.uint64)
    _, places = terms._found(unknown, np.zeros(len(unknown), np.int64))
    assert len(places) / len(unknown) < 1 / 8192
    assert (terms._row_of[places] >= 0).sum() <= 3
    known = np.asarray(vectorizer.arrays["hashes"])
    _, places = terms._found(known, np.zeros(len(known), np.int64))
    assert len(known) - len(places) < 100


def test_weights_that_cannot_be_stored_are_refused(words: Vectorizer, tmp_path: Path) -> None:
    for value, weights, said in (
        (1e6, "float16", "not finite in float16; export with --weights float32"),
        (np.nan, "int8", "not finite"),
        (np.inf, "float32", "not finite"),
    ):
        network = network_of(words.num_features)
        network.wide[3, 3] = value
        with pytest.raises(ModelError) as refused:
            write_bundle(tmp_path / "a.bundle", network, words, weights)
        assert refused.value.on_command_line.endswith(said)
    network = network_of(words.num_features)
    network.wide[:, 0] = 0
    assert load(write_bundle(tmp_path / "a.bundle", network, words, "int8")).predict(["oven"])


def test_shortened_or_equal_hashes_are_refused() -> None:
    network = network_of(20)
    with pytest.raises(VectorizerError, match="hashes are shortened"):
        bundle_content(network, of_candidates(40, 20, Hashing(mask=(1 << 30) - 1)), NAMES, "int8", {})
    close = of_candidates(40, 20)
    for hashes in (np.arange(40, dtype=np.uint64), np.arange(40, dtype=np.uint64) // 20 << np.uint64(30)):
        close.arrays["hashes"] = hashes + np.arange(40, dtype=np.uint64)
        with pytest.raises(VectorizerError, match="hashes are too much alike to be shortened"):
            bundle_content(network, close, NAMES, "int8", {})


def test_candidates_whose_keys_are_equal_are_told_apart() -> None:
    """Groups of eight hashes that differ only below the key: those with a column are found, the others as one."""
    vectorizer, network = of_candidates(400, 20), network_of(20)
    groups, members = np.arange(400, dtype=np.uint64) // 8, np.arange(400, dtype=np.uint64) % 8
    hashes = vectorizer.arrays["hashes"] = (groups << np.uint64(42)) + (members << np.uint64(34))
    header, arrays = bundle_reader._parts_of(bundle_content(network, vectorizer, NAMES, "int8", {}))
    terms = bundle_reader._Candidates({**header["terms"]}, arrays)
    assert len(np.unique(np.cumsum(arrays["keys"]))) == 50
    found, places = terms._found(hashes, np.arange(len(hashes)))
    columns = np.asarray(vectorizer.arrays["columns"])
    chosen = np.flatnonzero(columns >= 0)
    assert set(chosen) <= set(found)
    rows = dict(zip(found.tolist(), terms._row_of[places].tolist(), strict=True))
    for place in chosen:
        weights = arrays["kernel"][rows[place]] * arrays["scales"]
        np.testing.assert_allclose(weights, network.wide[columns[place]], atol=arrays["scales"].max())
    assert all(rows[place] < 0 for place in set(found.tolist()) - set(chosen.tolist()))
