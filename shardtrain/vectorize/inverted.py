"""Index the n-grams of a block: the documents they occur in, ordered by hash, as postings hold them.

N-grams are first scattered into parts by the top bits of their hash, then each part is indexed alone: its table, its
sort and its lists stay in the processor's cache, which makes it two to three times as fast as one table for the block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.settings import Hashing
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import Tokenizer, hashed_words, mix, split_words, word_buffers

_PART_BITS = np.uint64(7)
_SHIFT = np.uint64(64) - _PART_BITS
_32 = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Inverted:
    """The terms of a block by ascending hash, each with its documents.

    Attributes:
        hashes, checks: (terms,) uint64 and uint32.
        first: increases with first appearance in the block, (terms,) uint32.
        indptr: term t has the entries [indptr[t], indptr[t + 1]), (terms + 1,) int64.
        documents: of each entry, ascending within a term, (entries,) uint32.
        times: how often the term occurs in that document, (entries,) uint32.
        collided: whether two terms of the block have one hash.
    """

    hashes: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint32]
    first: npt.NDArray[np.uint32]
    indptr: npt.NDArray[np.int64]
    documents: npt.NDArray[np.uint32]
    times: npt.NDArray[np.uint32]
    collided: bool


def invert_block(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing) -> Inverted:
    """Find the terms of a block and the documents they occur in."""
    low, high = tokenizer.ngram_range
    grams = _scatter(
        *_walk(
            block.data,
            block.bounds,
            block.offsets,
            tokenizer.characters,
            tokenizer.min_chars,
            hashed_words(tokenizer.stop_words, hashing.seed),
            low,
            high,
            tokenizer.short_whole,
            np.uint64(hashing.seed),
            np.uint64(hashing.mask),
        )
    )
    hashes, checks, first, indptr, documents, times, collided = _invert(*grams)
    return Inverted(hashes, checks, first, indptr, documents, times, bool(collided))


@kernel
def _walk(data, bounds, offsets, characters, min_chars, stop_words, low, high, short, seed, mask):  # type: ignore[no-untyped-def]
    """Compute the hash and check of every n-gram in order, and how many n-grams there are up to each document's end."""
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    most = (len(data) // (min_chars + 1) + len(bounds)) * (high - low + 1)  # what is not used takes no memory
    hashes = np.empty(most, np.uint64)
    checks = np.empty(most, np.uint32)
    ends = np.zeros(len(offsets), np.int64)
    position = 0
    # Invariant: hashes[:position] and checks[:position] are of the n-grams of the documents before d: in each segment
    # by length, then by first word.
    for d in range(len(offsets) - 1):
        for s in range(offsets[d], offsets[d + 1]):
            words = split_words(
                data,
                bounds[s],
                bounds[s + 1],
                characters,
                min_chars,
                stop_words,
                seed,
                word_hash,
                word_check,
                word_start,
                word_end,
            )
            least = min(low, max(words, 1)) if short else low
            for n in range(least, high + 1):
                for i in range(words - n + 1):
                    h = word_hash[i]
                    c = word_check[i]
                    for j in range(i + 1, i + n):
                        h = mix(h, word_hash[j])
                        c = mix(c, word_check[j])
                    hashes[position] = h & mask
                    checks[position] = c >> _32
                    position += 1
        ends[d + 1] = position
    return hashes[:position], checks[:position], ends


@kernel
def _scatter(hashes, checks, ends):  # type: ignore[no-untyped-def]
    """Group hash, check, document and position of every n-gram by part; return them and where the parts begin."""
    starts = np.zeros((1 << _PART_BITS) + 1, np.int64)
    for h in hashes:
        starts[np.int64(h >> _SHIFT) + 1] += 1
    starts = np.cumsum(starts)
    place = starts.copy()
    part_hashes = np.empty(len(hashes), np.uint64)
    part_checks = np.empty(len(hashes), np.uint32)
    documents = np.empty(len(hashes), np.uint32)
    positions = np.empty(len(hashes), np.uint32)
    # Invariant: [starts[part], place[part]) holds the part's n-grams of the documents before d, in order.
    for d in range(len(ends) - 1):
        for position in range(ends[d], ends[d + 1]):
            part = np.int64(hashes[position] >> _SHIFT)
            at = place[part]
            part_hashes[at] = hashes[position]
            part_checks[at] = checks[position]
            documents[at] = d
            positions[at] = position
            place[part] = at + 1
    return part_hashes, part_checks, documents, positions, starts


@kernel
def _invert(hashes, checks, documents, positions, starts):  # type: ignore[no-untyped-def]
    """Index the n-grams of all parts; the arrays are allocated for as many terms as n-grams and cut at the end."""
    total = len(hashes)
    term_hash = np.empty(total, np.uint64)
    term_check = np.empty(total, np.uint32)
    term_first = np.empty(total, np.uint32)
    indptr = np.zeros(total + 1, np.int64)
    entry_document = np.empty(total, np.uint32)
    entry_times = np.empty(total, np.uint32)
    terms = 0
    collided = False
    # Invariant: the first `terms` terms are those of the parts before `part`, by ascending hash; the first
    # indptr[terms] entries are theirs.
    for part in range(len(starts) - 1):
        begin, end = starts[part], starts[part + 1]
        found, of_entry, document, times, clash = _index_part(
            hashes[begin:end], checks[begin:end], documents[begin:end]
        )
        collided |= clash
        order = ordered(hashes[begin:end], found, _PART_BITS)
        counts = np.zeros(len(found), np.uint32)
        for entry in range(len(of_entry)):
            counts[of_entry[entry]] += np.uint32(1)
        place = np.empty(len(found), np.int64)
        for i in range(len(order)):
            gram = begin + np.int64(found[order[i]])
            term_hash[terms] = hashes[gram]
            term_check[terms] = checks[gram]
            term_first[terms] = positions[gram]
            place[order[i]] = indptr[terms]
            indptr[terms + 1] = indptr[terms] + counts[order[i]]
            terms += 1
        # Invariant: place[t] is where the next entry of the part's term t belongs; documents ascend within a term.
        for entry in range(len(of_entry)):
            at = place[of_entry[entry]]
            entry_document[at] = document[entry]
            entry_times[at] = times[entry]
            place[of_entry[entry]] = at + 1
    entries = indptr[terms]
    return (
        term_hash[:terms].copy(),
        term_check[:terms].copy(),
        term_first[:terms].copy(),
        indptr[: terms + 1].copy(),
        entry_document[:entries].copy(),
        entry_times[:entries].copy(),
        collided,
    )


@kernel
def ordered(hashes, found, shared):  # type: ignore[no-untyped-def]
    """Sort the places `found` by ascending hash: by leading bits, then by insertion, since hashes are uniform.

    All of them have the first `shared` bits in common, a uint64 below 64.
    """
    bits = np.uint64(1)
    while (1 << bits) < len(found):
        bits += np.uint64(1)
    starts = np.zeros((1 << bits) + 1, np.int64)
    for gram in found:
        starts[np.int64((hashes[gram] << shared) >> (np.uint64(64) - bits)) + 1] += 1
    place = np.cumsum(starts)
    order = np.empty(len(found), np.uint32)
    for i in range(len(found)):
        digit = np.int64((hashes[found[i]] << shared) >> (np.uint64(64) - bits))
        order[place[digit]] = i
        place[digit] += 1
    # Invariant: order[:i] ascends by hash; a place moves only among those of equal digit, which are few.
    for i in range(1, len(order)):
        moved = order[i]
        j = i
        while j > 0 and hashes[found[order[j - 1]]] > hashes[found[moved]]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = moved
    return order


@kernel
def _index_part(hashes, checks, documents):  # type: ignore[no-untyped-def]
    """Index the n-grams of one part, which are in document order.

    Returns:
        The n-gram at which each term appears first; of every entry (a term in a document) the term, the document and
        the times it occurs there, in order; and whether two terms have one hash.
    """
    size = 16
    while size < 2 * len(hashes):
        size *= 2
    slots = np.zeros(size, np.uint32)  # open addressing: term + 1, or 0
    wrap = np.uint64(len(slots) - 1)
    found = np.empty(len(hashes), np.uint32)
    last = np.empty(len(hashes), np.uint32)  # the latest entry of each term
    of_entry = np.empty(len(hashes), np.uint32)
    document = np.empty(len(hashes), np.uint32)
    times = np.empty(len(hashes), np.uint32)
    terms = 0
    entries = 0
    collided = False
    # Invariant: found[:terms] is where each distinct term before `gram` appears first; the first `entries` entries are
    # their documents so far, ascending, and last[t] is the latest of term t.
    for gram in range(len(hashes)):
        slot = hashes[gram] & wrap
        while slots[slot] and hashes[found[slots[slot] - 1]] != hashes[gram]:
            slot = (slot + np.uint64(1)) & wrap
        if slots[slot] == 0:
            found[terms] = gram
            terms += 1
            slots[slot] = terms
        else:
            term = slots[slot] - 1
            collided |= checks[found[term]] != checks[gram]
            if document[last[term]] == documents[gram]:
                times[last[term]] += np.uint32(1)
                continue
        term = slots[slot] - 1
        last[term] = entries
        of_entry[entries] = term
        document[entries] = documents[gram]
        times[entries] = 1
        entries += 1
    return found[:terms], of_entry[:entries], document[:entries], times[:entries], collided
