"""What a saved vectorizer may hold is declared for every setting, and nothing else is read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from shardtrain.errors import VectorizerError
from shardtrain.vectorize.fitted import load_vectorizer, save_vectorizer
from shardtrain.vectorize.saved import SETTINGS, read_terms
from shardtrain.vectorize.settings import HashedSettings, NgramSettings, SequenceSettings

CLASSES = {"ngram": NgramSettings, "sequence": SequenceSettings, "hashing": HashedSettings}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_setting_has_a_schema(kind: str) -> None:
    declared = SETTINGS[kind]
    assert {*declared.required, *declared.optional} == {each.name for each in fields(CLASSES[kind])}


@pytest.mark.parametrize("place", [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 20) + 999])
def test_hashes_that_do_not_ascend_are_found_at_every_border_of_the_pieces(place: int, tmp_path: Path) -> None:
    hashes = np.arange(5, (1 << 20) + 1005, dtype=np.uint64)
    hashes[place] = hashes[place - 1] - 1
    count = len(hashes)
    columns = np.full(count, -1, np.int32)
    columns[7] = 0
    arrays = {"hashes": [hashes], "counts": [np.ones(count)], "columns": [columns], "scores": [np.ones(1)]}
    with pytest.raises(VectorizerError, match=rf"`hashes.npy\[{place}\]` is {place + 3}, expected more than the one"):
        save_vectorizer(tmp_path, NgramSettings(), {"num_documents": 3}, ["a"], arrays)


def test_terms_are_read_without_the_arrays(tmp_path: Path) -> None:
    words = ["b", "a"]
    facts = {"num_words": 2, "length": 3}
    save_vectorizer(tmp_path, SequenceSettings(), facts, words, {"hashes": [np.array([5, 2], np.uint64)]})
    (tmp_path / "hashes.npy").unlink()
    assert read_terms(tmp_path) == words
    with pytest.raises(VectorizerError, match=r"hashes\.npy' cannot be read"):
        load_vectorizer(tmp_path)
