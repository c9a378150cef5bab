"""Index the n-grams of a block: the documents they occur in, ordered by identity, as postings hold them.

N-grams are first scattered into parts by the top bits of their hash, then each part is indexed alone: its table, its
sort and its lists stay in the processor's cache, which makes it two to three times as fast as one table for the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.settings import Hashing
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import Tokenizer, hashed_words, mix, split_words

_GRAMS_PER_BYTE = 0.4  # that are indexed at once: more than text of natural words has
_PART_BITS = np.uint64(7)
_SHIFT = np.uint64(64) - _PART_BITS
_32 = np.uint64(32)
_FEW_TERMS = 1 << 15  # of a part, for which its table has room at first
_FEW_ALIKE = 64  # terms with the same leading bits that are sorted by insertion


@dataclass(frozen=True, eq=False)
class Inverted:
    """The terms of a block, ascending by hash and then check, each with its documents.

    Attributes:
        hashes, checks: (terms,) uint64 and uint32.
        first: increases with first appearance in the block, (terms,) uint32.
        indptr: term t has the entries [indptr[t], indptr[t + 1]), (terms + 1,) int64.
        documents: of each entry, ascending within a term, (entries,) uint32.
        times: how often the term occurs in that document, (entries,) uint32.
    """

    hashes: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint32]
    first: npt.NDArray[np.uint32]
    indptr: npt.NDArray[np.int64]
    documents: npt.NDArray[np.uint32]
    times: npt.NDArray[np.uint32]

    @property
    def ids(self) -> TermIds:
        """The identities of the terms."""
        return TermIds(self.hashes, self.checks)


def invert_block(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing) -> Inverted:
    """Find the terms of a block and the documents they occur in.

    Blocks of unusually many n-grams, such as of two-letter words alone, are indexed in groups of parts: each group
    takes another pass over the words, and memory stays in proportion to the block's bytes.
    """
    low, high = tokenizer.ngram_range
    mask = np.uint64(hashing.mask)
    hashes, checks, words = _hash_words(
        block.data,
        block.bounds,
        tokenizer.characters,
        tokenizer.min_chars,
        hashed_words(tokenizer.stop_words, hashing.seed),
        np.uint64(hashing.seed),
    )
    starts = _starts_of_parts(hashes, words, low, high, tokenizer.short_whole, mask)
    how = (block.offsets, low, high, tokenizer.short_whole, mask, starts)
    groups = _groups(starts, most=int(len(block.data) * _GRAMS_PER_BYTE))
    parts = [_copied(_of_parts(_scatter(hashes, checks, words, *how, *group), starts, *group)) for group in groups[:-1]]
    grams = _scatter(hashes, checks, words, *how, *groups[-1])
    del hashes, checks  # as much memory as the index takes
    parts.append(_of_parts(grams, starts, *groups[-1]))
    return parts[0] if len(parts) == 1 else _joined(parts)


def _of_parts(grams: tuple[Any, ...], starts: npt.NDArray[np.int64], first: int, last: int) -> Inverted:
    """Index the n-grams of the parts [first, last) in place."""
    return Inverted(*_invert(*grams, starts[first : last + 1] - starts[first]))


def _copied(part: Inverted) -> Inverted:
    """Return terms that do not hold the arrays of their n-grams."""
    return Inverted(**{name: value.copy() for name, value in vars(part).items()})


def _groups(starts: npt.NDArray[np.int64], *, most: int) -> list[tuple[int, int]]:
    """Group adjacent parts of at most `most` n-grams, unless one has more, as half-open ranges."""
    groups, first = [], 0
    for last in range(1, len(starts)):
        if last == len(starts) - 1 or starts[last + 1] - starts[first] > most:
            groups.append((first, last))
            first = last
    return groups


def _joined(parts: list[Inverted]) -> Inverted:
    """Join the terms of groups of parts, which ascend."""
    sizes = np.cumsum([0, *(len(part.documents) for part in parts[:-1])])
    indptr = [part.indptr[number > 0 :] + size for number, (part, size) in enumerate(zip(parts, sizes, strict=True))]
    return Inverted(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.checks for part in parts]),
        np.concatenate([part.first for part in parts]),
        np.concatenate(indptr),
        np.concatenate([part.documents for part in parts]),
        np.concatenate([part.times for part in parts]),
    )


@kernel
def _hash_words(data, bounds, characters, min_chars, stop_words, seed):  # type: ignore[no-untyped-def]
    """Compute hash and check of every word; the words of segment s are [words[s], words[s + 1])."""
    room = len(data) // (min_chars + 1) + 2 * len(bounds)  # what is not used takes no memory
    hashes, checks = np.empty(room, np.uint64), np.empty(room, np.uint64)
    places = np.empty(0, np.int64)  # which are not needed
    words = np.zeros(len(bounds), np.int64)
    # Invariant: hashes[:words[s]] and checks[:words[s]] are of the words of the segments before s.
    for s in range(len(bounds) - 1):
        words[s + 1] = words[s] + split_words(
            data,
            bounds[s],
            bounds[s + 1],
            characters,
            min_chars,
            stop_words,
            seed,
            hashes[words[s] :],
            checks[words[s] :],
            places,
            places,
        )
    return hashes, checks, words


@kernel
def _starts_of_parts(hashes, words, low, high, short, mask):  # type: ignore[no-untyped-def]
    """Count the n-grams of each part; part p has the n-grams [starts[p], starts[p + 1]) when they are grouped."""
    starts = np.zeros((1 << _PART_BITS) + 1, np.int64)
    for s in range(len(words) - 1):
        first, last = words[s], words[s + 1]
        least = min(low, max(last - first, 1)) if short else low
        for n in range(least, high + 1):
            for i in range(first, last - n + 1):
                h = hashes[i]
                for j in range(i + 1, i + n):
                    h = mix(h, hashes[j])
                starts[np.int64((h & mask) >> _SHIFT) + 1] += 1
    return np.cumsum(starts)


@kernel
def _scatter(hashes, checks, words, offsets, low, high, short, mask, starts, first_part, last_part):  # type: ignore[no-untyped-def]
    """Group hash, check, document and position of every n-gram of the parts [first_part, last_part) by part."""
    place = starts - starts[first_part]
    room = starts[last_part] - starts[first_part]
    part_hashes = np.empty(room, np.uint64)
    part_checks = np.empty(room, np.uint32)
    documents = np.empty(room, np.uint32)
    positions = np.empty(room, np.uint32)
    position = 0
    # Invariant: a part's entries before place[part] hold those of its n-grams that are among the first `position`: in
    # order of documents and their segments, in each segment by length, then by first word.
    for d in range(len(offsets) - 1):
        for s in range(offsets[d], offsets[d + 1]):
            first, last = words[s], words[s + 1]
            least = min(low, max(last - first, 1)) if short else low
            for n in range(least, high + 1):
                for i in range(first, last - n + 1):
                    h = hashes[i]
                    c = checks[i]
                    for j in range(i + 1, i + n):
                        h = mix(h, hashes[j])
                        c = mix(c, checks[j])
                    h &= mask
                    part = np.int64(h >> _SHIFT)
                    if first_part <= part < last_part:
                        at = place[part]
                        part_hashes[at] = h
                        part_checks[at] = c >> _32
                        documents[at] = d
                        positions[at] = position
                        place[part] = at + 1
                    position += 1
    return part_hashes, part_checks, documents, positions


@kernel
def _invert(hashes, checks, documents, positions, starts):  # type: ignore[no-untyped-def]
    """Index the n-grams of all parts, in place: a part has no more terms and entries than n-grams.

    What is returned of the n-grams' arrays are their beginnings, which then hold the terms and entries.
    """
    indptr = np.empty(len(hashes) + 1, np.int64)
    indptr[0] = 0
    entry_times = np.empty(len(hashes), np.uint32)
    terms = 0
    # Invariant: the first `terms` of hashes, checks and positions are the terms of the parts before `part`, in
    # ascending order; the first indptr[terms] of documents and times are their entries; from starts[part] on all arrays
    # still have n-grams.
    for part in range(len(starts) - 1):
        part_hashes = hashes[starts[part] : starts[part + 1]]
        part_checks = checks[starts[part] : starts[part + 1]]
        part_positions = positions[starts[part] : starts[part + 1]]
        part_documents = documents[starts[part] : starts[part + 1]]
        slots = slots_for(min(len(part_hashes), _FEW_TERMS))
        found, of_entry, document, times = _index_part(part_hashes, part_checks, part_documents, slots)
        if 2 * len(found) > len(slots):  # a large part of many terms, such as a very long document's
            slots = slots_for(len(part_hashes))
            found, of_entry, document, times = _index_part(part_hashes, part_checks, part_documents, slots)
        order = ordered(part_hashes, part_checks, found, _PART_BITS)
        counts = np.zeros(len(found), np.uint32)
        for entry in range(len(of_entry)):
            counts[of_entry[entry]] += np.uint32(1)
        place = np.empty(len(found), np.int64)
        term_hashes, term_checks = np.empty(len(found), np.uint64), np.empty(len(found), np.uint32)
        term_positions = np.empty(len(found), np.uint32)
        for i in range(len(order)):
            gram = found[order[i]]
            term_hashes[i] = part_hashes[gram]
            term_checks[i] = part_checks[gram]
            term_positions[i] = part_positions[gram]
            place[order[i]] = indptr[terms + i]
            indptr[terms + i + 1] = indptr[terms + i] + counts[order[i]]
        for i in range(len(order)):  # over n-grams of this part, which are not needed any more
            hashes[terms] = term_hashes[i]
            checks[terms] = term_checks[i]
            positions[terms] = term_positions[i]
            terms += 1
        # Invariant: place[t] is where the next entry of the part's term t belongs; documents ascend within a term.
        for entry in range(len(of_entry)):
            at = place[of_entry[entry]]
            documents[at] = document[entry]
            entry_times[at] = times[entry]
            place[of_entry[entry]] = at + 1
    entries = indptr[terms]
    return (
        hashes[:terms],
        checks[:terms],
        positions[:terms],
        indptr[: terms + 1],
        documents[:entries],
        entry_times[:entries],
    )


@kernel
def ordered(hashes, checks, found, shared):  # type: ignore[no-untyped-def]
    """Sort the places `found` by hash and check: by leading bits, then by insertion, since hashes are uniform.

    All of them have the first `shared` bits in common, a uint64 below 64. Where hashes are not uniform, because they
    are shortened, places are sorted by merging.
    """
    bits = np.uint64(1)
    while (1 << bits) < len(found):
        bits += np.uint64(1)
    starts = np.zeros((1 << bits) + 1, np.int64)
    for gram in found:
        starts[np.int64((hashes[gram] << shared) >> (np.uint64(64) - bits)) + 1] += 1
    if len(found) > _FEW_ALIKE and starts.max() > _FEW_ALIKE:
        return _sorted(hashes, checks, found)
    place = np.cumsum(starts)
    order = np.empty(len(found), np.uint32)
    for i in range(len(found)):
        digit = np.int64((hashes[found[i]] << shared) >> (np.uint64(64) - bits))
        order[place[digit]] = i
        place[digit] += 1
    # Invariant: order[:i] ascends; a place moves only among those of equal digit, which are few.
    for i in range(1, len(order)):
        moved = order[i]
        j = i
        h, c = hashes[found[moved]], checks[found[moved]]
        while j > 0:
            before = found[order[j - 1]]
            if hashes[before] < h or (hashes[before] == h and checks[before] < c):
                break
            order[j] = order[j - 1]
            j -= 1
        order[j] = moved
    return order


@kernel
def _sorted(hashes, checks, found):  # type: ignore[no-untyped-def]
    """Sort the places `found` by ascending hash and check, by merging."""
    order = np.arange(len(found)).astype(np.uint32)
    merged = np.empty_like(order)
    width = 1
    # Invariant: each run of `width` places, from a multiple of `width` on, ascends in `order`.
    while width < len(order):
        for start in range(0, len(order), 2 * width):
            left, middle = start, min(start + width, len(order))
            right, stop = middle, min(start + 2 * width, len(order))
            for at in range(start, stop):
                one = found[order[min(left, middle - 1)]]
                other = found[order[min(right, stop - 1)]]
                first = hashes[one] < hashes[other] or (hashes[one] == hashes[other] and checks[one] < checks[other])
                if right == stop or (left < middle and first):
                    merged[at] = order[left]
                    left += 1
                else:
                    merged[at] = order[right]
                    right += 1
        order[:] = merged
        width *= 2
    return order


@kernel
def slots_for(terms):  # type: ignore[no-untyped-def]
    """Return the slots of an empty table that is at most half full with so many terms."""
    size = 16
    while size < 2 * terms:
        size *= 2
    return np.zeros(size, np.uint32)  # open addressing: term + 1, or 0


@kernel
def _index_part(hashes, checks, documents, slots):  # type: ignore[no-untyped-def]
    """Index the n-grams of one part, which are in document order, until the table of slots is more than half full.

    Returns:
        The n-gram at which each term appears first; of every entry (a term in a document) the term, the document and
        the times it occurs there, in order.
    """
    wrap = np.uint64(len(slots) - 1)
    found = np.empty(len(hashes), np.uint32)
    last = np.empty(len(hashes), np.uint32)  # the latest entry of each term
    of_entry = np.empty(len(hashes), np.uint32)
    document = np.empty(len(hashes), np.uint32)
    times = np.empty(len(hashes), np.uint32)
    terms = 0
    entries = 0
    # Invariant: found[:terms] is where each distinct term before `gram` appears first; the first `entries` entries are
    # their documents so far, ascending, and last[t] is the latest of term t.
    for gram in range(len(hashes)):
        h, c = hashes[gram], checks[gram]
        slot = (h ^ np.uint64(c)) & wrap
        while slots[slot]:
            known = found[slots[slot] - 1]
            if hashes[known] == h and checks[known] == c:
                break
            slot = (slot + np.uint64(1)) & wrap
        if slots[slot] == 0:
            found[terms] = gram
            terms += 1
            slots[slot] = terms
            if 2 * terms > len(slots):
                break
        else:
            term = slots[slot] - 1
            if document[last[term]] == documents[gram]:
                times[last[term]] += np.uint32(1)
                continue
        term = slots[slot] - 1
        last[term] = entries
        of_entry[entries] = term
        document[entries] = documents[gram]
        times[entries] = 1
        entries += 1
    return found[:terms], of_entry[:entries], document[:entries], times[:entries]
