"""`Texts` equals the list of strings it was made from."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.arrays.texts import Texts

documents = st.lists(st.text(st.characters(codec=None), max_size=8), max_size=12)


@settings(max_examples=200, deadline=None)
@given(documents, st.data())
def test_indexing_slicing_and_taking_equal_those_of_a_list(texts, data):
    held = Texts.from_strings(texts)
    assert held == texts
    assert Texts.from_strings(held) is held
    assert held.to_list() == texts
    start, stop = (data.draw(st.integers(-3, len(texts) + 2)) for _ in range(2))
    assert held[start:stop] == texts[start:stop]
    assert held[start:stop].offsets[0] == 0
    assert held[::2] == texts[::2]
    if texts:
        chosen = data.draw(st.lists(st.integers(0, len(texts) - 1)))
        assert held.take(np.array(chosen, np.int64)) == [texts[i] for i in chosen]
        assert held[-1] == texts[-1]
