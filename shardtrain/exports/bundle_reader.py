"""Classify texts with a bundle, the one file that `shardtrain export RUN --to bundle` writes; needs numpy alone.

Copy this file to where the bundle is used:

    from bundle_reader import load
    bundle = load("model.bundle")
    bundle.predict(["a text", "another one"])  # names of classes
    bundle.probabilities(["a text"])           # (texts, classes) float32

It repeats in numpy the rules by which shardtrain makes rows of texts (`vectorize.text`, `tokens`, `new_rows`,
`hashed`) and probabilities of rows (`engine.kernels`), for whole batches of texts at a time; tests/exports hold both
together. What Unicode says of characters is in the bundle, so answers do not depend on the version of Python. A bundle
is data: nothing of it is run. docs/export.md specifies the format.
"""

from __future__ import annotations

import hashlib
import json
import operator
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

MAGIC = b"STBUNDLE"
VERSIONS = (1, 2)  # 2: n-grams are known by 96 bits, or counted beyond 32
HEAD = struct.Struct("<8sIIQ32s")  # magic, version, bytes of the header, bytes of the file, SHA-256 of all else
CODE_POINTS = 0x110000
ANALYZERS = ("word", "char", "char_wb")
KINDS = ("candidates", "hashed")  # how n-grams become rows
WEIGHTS = {"int8": "|i1", "float16": "<f2", "float32": "<f4"}  # types of the first kernel
CHECK_BITS = 8  # of a column's hash, below its key
MOST_DOCUMENTS = 1 << 53
NARROW = 1 << 32  # documents below this number are counted in 32 bits
MOST_KEY_BITS = 64 - CHECK_BITS
MOST_EQUAL = 8  # candidates with one key
SIGMA, FINAL_SIGMA = 0x3A3, 0x3C2  # the only character whose lower case depends on its neighbours
CASED, IGNORABLE = 1, 2  # what a character means for a sigma near it
MOST_NGRAM = 1000
MOST_FOLDED = 64  # characters that one becomes; Unicode has 18

_BATCH_TEXTS, _BATCH_CHARACTERS = 1024, 1 << 17  # at a time; a longer text is a batch of its own
_UNITS = 1 << 23  # sums of a layer for the texts of a batch, at most, but for a single text
_PIECE = 1 << 17  # values of gathered weights at a time: 512 KiB
_FEW = 8  # spans of bytes that are hashed one by one, rather than a byte of each at a time
_MOST_RATIO = 1032  # that zlib reaches
_64 = (1 << 64) - 1
_K1, _K2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_K3, _K4 = 0x100000001B3, 0xC2B2AE3D27D4EB4F
_32 = np.uint64(32)

Array = Any  # of numpy


class BundleError(ValueError):
    """A file that is no bundle, or a damaged one."""


def load(path: Any) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: the file is no bundle, is of another version, is truncated or damaged, or makes no sense.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return Bundle(*_parts_of(content))
    except (BundleError, RecursionError) as error:
        raise BundleError(f"'{path}' {error}; export the run again or restore the file from a copy") from None


class Bundle:
    """A classifier of texts.

    Args:
        header: what the bundle says of itself.
        arrays: its arrays, by name.

    Attributes:
        class_names: in the order of the columns of probabilities.
        header: see above.
    """

    def __init__(self, header: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.header = header
        self.class_names: list[str] = _checked(header, "classes", list, _are_names)
        self._terms = _Terms(_checked(header, "terms", dict), arrays)
        self._network = _Network(header, arrays, self._terms.features, len(self.class_names))

    def predict(self, texts: Iterable[str]) -> list[str]:
        """Return the name of the most probable class of each text."""
        return [self.class_names[best] for best in self.probabilities(texts).argmax(axis=1)]

    def probabilities(self, texts: Iterable[str]) -> Array:
        """Return the probability of each class for each text, (texts, classes) float32.

        Raises:
            TypeError: these are no texts.
        """
        if isinstance(texts, (str, bytes)):
            raise TypeError("expected a list of texts, not a single one; put it into a list")
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        batches = _batches(texts, self._terms.density, min(_BATCH_TEXTS, max(1, _UNITS // self._network.widest)))
        parts += [self._network(*self._terms.rows(batch), len(batch)) for batch in batches]
        return np.concatenate(parts)


def _batches(texts: Iterable[str], density: int, most_texts: int) -> Iterator[list[str]]:
    """Cut texts into batches; characters of a batch are fewer where a text has many n-grams per character."""
    most, size = max(1, _BATCH_CHARACTERS // density), 0
    batch: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"expected texts, found {type(text).__name__}")
        if batch and (len(batch) == most_texts or size + len(text) > most):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


# The file


def _parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and arrays of the content of a file, after all that can be checked of it alone was checked."""
    if len(content) < HEAD.size or not content.startswith(MAGIC):
        raise BundleError(f"is no bundle: expected {HEAD.size} bytes or more that begin with {MAGIC.decode()}")
    _, version, header_size, size, digest = HEAD.unpack_from(content)
    if version not in VERSIONS:
        expected = " or ".join(map(str, VERSIONS))
        raise BundleError(f"is a bundle of version {version}, expected {expected}: use the reader of that version")
    if size != len(content):
        raise BundleError(f"is truncated or damaged: expected {size:,} bytes, it has {len(content):,}")
    if digest_of(content) != digest:
        raise BundleError("is damaged: its SHA-256 is not the expected one, which is in its first bytes")
    begin = HEAD.size + header_size
    try:
        header = json.loads(content[HEAD.size : begin])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"has a header that is not JSON: {error}") from None
    if type(header) is not dict:
        raise BundleError("has a header that is not an object of JSON")
    arrays: dict[str, Array] = {}
    for section in _checked(header, "sections", list):
        name, found, begin = _array(section, content, begin)
        arrays[name] = found
    if begin != len(content):
        raise BundleError(f"holds {len(content):,} bytes, expected {begin:,} by its sections")
    return header, arrays


def digest_of(content: bytes) -> bytes:
    """Compute the SHA-256 of a bundle's bytes without those that hold it."""
    found = hashlib.sha256(content[: HEAD.size - 32])
    found.update(memoryview(content)[HEAD.size :])
    return found.digest()


def _array(section: Any, content: bytes, begin: int) -> tuple[str, Array, int]:
    """Unpack the array of a section that begins at a byte; return its name, its values and where the section ends."""
    if type(section) is not list or [type(part) for part in section] != [str, str, list, int]:
        raise BundleError(f"has a section {section!r:.80}, expected name, type, shape and bytes")
    name, kind, shape, size = section
    if kind not in ("|u1", "|i1", "<u4", "<u8", "<f2", "<f4"):
        raise BundleError(f"has the array '{name}' of type {kind!r:.20}, which is unknown")
    if not 1 <= len(shape) <= 2 or not all(type(length) is int and 0 <= length < 1 << 40 for length in shape):
        raise BundleError(f"has the array '{name}' of shape {shape!r:.60}, expected one or two lengths")
    dtype, count = np.dtype(kind), shape[0] * (shape[1] if len(shape) == 2 else 1)
    raw = count * dtype.itemsize
    if not 0 <= size <= len(content) - begin or raw > _MOST_RATIO * size:
        raise BundleError(
            f"has the array '{name}' of {raw:,} bytes in {size:,}, of which {len(content) - begin:,} are there"
        )
    planes = np.empty((dtype.itemsize, count), np.uint8)
    rest = content[begin : begin + size]
    for plane in planes:
        stream = zlib.decompressobj()
        try:
            unpacked = stream.decompress(rest, count + 1)
        except zlib.error as error:
            raise BundleError(f"has the array '{name}', which cannot be unpacked: {error}") from None
        if len(unpacked) != count or not stream.eof:
            raise BundleError(f"has the array '{name}', which does not unpack to {raw:,} bytes")
        plane[:], rest = np.frombuffer(unpacked, np.uint8), stream.unused_data
    if rest:
        raise BundleError(f"has the array '{name}' with {len(rest):,} bytes after its end")
    return name, np.ascontiguousarray(planes.T).view(dtype).reshape(shape), begin + size


def _checked(record: dict[str, Any], name: str, kind: type, test: Callable[[Any], Any] = lambda value: True) -> Any:
    """Return a value of the header that has a type and passes a test."""
    value = record.get(name)
    if type(value) is not kind or not test(value):
        raise BundleError(f"says {name} is {value!r:.60}, expected one of type {kind.__name__} within its range")
    return value


def _are_names(found: list[Any]) -> bool:
    return len(found) >= 2 and all(type(name) is str for name in found)


def _integer(record: dict[str, Any], name: str, least: int, most: int) -> int:
    value: int = _checked(record, name, int, lambda value: least <= value <= most)
    return value


def _named(arrays: dict[str, Array], name: str, kind: str, *shape: int | None) -> Array:
    """Return an array of a type and shape, of which None may be any length."""
    found = arrays.get(name)
    if found is None or found.dtype.str != kind or found.ndim != len(shape):
        raise BundleError(f"lacks the array '{name}' of type {kind} with {len(shape)} dimensions")
    if any(length not in (None, there) for length, there in zip(shape, found.shape)):  # noqa: B905 - equal lengths
        raise BundleError(f"has the array '{name}' of shape {found.shape}, expected {shape}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise BundleError(f"has the array '{name}' with values that are not finite")
    return found


def _ascending(
    arrays: dict[str, Array], name: str, kind: str, limit: int, *, strictly: bool, length: int | None = None
) -> Array:
    """Return the sums of an array of differences, which are below a limit."""
    steps = _named(arrays, name, kind, length)
    sums = np.cumsum(steps, dtype=np.uint64)
    wrong = len(sums) and (int(sums[-1]) >= limit or (sums[1:] < sums[:-1]).any() or (strictly and not steps[1:].all()))
    if wrong:
        raise BundleError(f"has the array '{name}', which does not ascend below {limit:,}")
    return sums


def _by_code_point(arrays: dict[str, Array], name: str) -> Array:
    """Return a table of all code points, (CODE_POINTS,) uint8, from the runs of equal values."""
    starts = _ascending(arrays, f"{name}_starts", "<u4", CODE_POINTS, strictly=True).astype(np.int64)
    values = _named(arrays, f"{name}_values", "|u1", len(starts))
    if not len(starts) or starts[0] or int(values.max()) > 2:
        raise BundleError(f"has runs '{name}' that do not begin at 0 or have other values than 0, 1 and 2")
    return np.repeat(values, np.diff(starts, append=CODE_POINTS))


# Texts to rows


class _Terms:
    """Finds which rows of weights belong to texts, and by which values they are multiplied.

    Attributes:
        features: number of rows.
        density: n-grams that begin at a character, at most.
    """

    def __init__(self, about: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.features = _integer(about, "features", 1, (1 << 31) - 1)
        self._analyzer: str = _checked(about, "analyzer", str, lambda name: name in ANALYZERS)
        self._low, self._high = _checked(about, "ngram_range", list, _is_range)
        self.density = self._high
        self._seed = _integer(about, "hash_seed", 0, _64)
        self._fold = _Fold(arrays)
        kinds = "word" if self._analyzer == "word" else "white"
        self._kinds = _by_code_point(arrays, kinds).astype(bool)
        self._stop_words = _named(arrays, "stop_words", "<u8", None)
        kind = _checked(about, "kind", str, lambda kind: kind in KINDS)
        self._weigh = _Candidates(about, arrays) if kind == "candidates" else _Hashed(about)

    def rows(self, texts: list[str]) -> tuple[Array, Array, Array]:
        """Return text, row of weights and value of each entry, by ascending text, (entries,) each."""
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
        codes, offsets = self._fold(codes, _offsets(np.fromiter(map(len, texts), np.int64, len(texts))))
        units = _SPLITS[self._analyzer](codes, offsets, self._kinds)
        if len(self._stop_words) or self._weigh.needs_hashes:
            units.hashes = _hashes(units, self._seed, operator.xor, _K3, _K4)
        if self._weigh.needs_checks:
            units.checks = _hashes(units, self._seed ^ _64, operator.add, _K4, _K3)
        if len(self._stop_words):
            units.keep(~np.isin(units.hashes, self._stop_words))
        lengths = list(_grams(units.segments, self._low, self._high, short_whole=self._analyzer == "char_wb"))
        owners = [units.texts[units.segments[starts]] for starts in lengths]
        separated = self._analyzer == "word"
        entries: tuple[Array, Array, Array] = self._weigh(
            units, lengths, np.concatenate([np.zeros(0, np.int64), *owners]), len(texts), separated=separated
        )
        return entries


def _is_range(found: list[Any]) -> bool:
    return [type(n) for n in found] == [int, int] and 1 <= found[0] <= found[1] <= MOST_NGRAM


def _offsets(lengths: Array) -> Array:
    """Return where each of some adjacent ranges begins, and where the last one ends, (ranges + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class _Fold:
    """Lower-cases characters and strips accents, as the bundle's table says; the table of a sigma's neighbours too."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        codes = _ascending(arrays, "fold_codes", "<u4", CODE_POINTS, strictly=True).astype(np.int64)
        lengths = _named(arrays, "fold_lengths", "|u1", len(codes))
        if len(lengths) and int(lengths.max()) > MOST_FOLDED:
            raise BundleError(f"has a character of {int(lengths.max())} others, expected at most {MOST_FOLDED}")
        starts = _offsets(lengths)
        self._pool = _named(arrays, "fold_pool", "<u4", int(starts[-1]))
        if len(self._pool) and int(self._pool.max()) >= CODE_POINTS:
            raise BundleError("has the array 'fold_pool' with values that are no code points")
        self._single = np.arange(CODE_POINTS, dtype=np.uint32)
        self._single[codes[lengths == 1]] = self._pool[starts[:-1][lengths == 1]]
        self._lengths = np.ones(CODE_POINTS, np.uint8)
        self._lengths[codes] = lengths
        self._starts = np.zeros(CODE_POINTS, np.int32)
        self._starts[codes] = starts[:-1]
        self._around = _by_code_point(arrays, "around_sigma")

    def __call__(self, codes: Array, offsets: Array) -> tuple[Array, Array]:
        """Return the characters of texts that take the place of `codes`, and where each text begins among them."""
        folded = self._single[codes]
        sigmas = np.flatnonzero(codes == SIGMA)
        if len(sigmas):
            folded[sigmas[self._are_final(sigmas, self._around[codes], offsets)]] = FINAL_SIGMA
        lengths = self._lengths[codes]
        if (lengths == 1).all():
            return folded, offsets
        places = _offsets(lengths)
        sources = np.repeat(np.arange(len(codes)), lengths)
        out = folded[sources]
        many = np.flatnonzero(lengths[sources] > 1)
        sources = sources[many]
        out[many] = self._pool[self._starts[codes[sources]] + many - places[sources]]
        return out, places[offsets]

    @staticmethod
    def _are_final(sigmas: Array, around: Array, offsets: Array) -> Array:
        """Select the sigmas after a cased character and not before one; ignorable characters between do not count."""
        count = len(around)
        counts = around != IGNORABLE
        before = np.maximum.accumulate(np.where(counts, np.arange(count), -1))
        after = np.minimum.accumulate(np.where(counts, np.arange(count), count)[::-1])[::-1]
        before = np.where(sigmas > 0, before[sigmas - 1], -1)
        after = np.append(after, count)[sigmas + 1]
        texts = np.searchsorted(offsets, sigmas, side="right") - 1
        cased = np.append(around == CASED, False)
        return (before >= offsets[texts]) & cased[before] & ~((after < offsets[texts + 1]) & cased[after])


class _Units:
    """Words or characters, of which n-grams are made.

    Attributes:
        data: UTF-8 of all characters, (bytes,) uint8.
        begins, ends: unit u is the bytes [begins[u], ends[u]), (units,).
        segments: in which each is, ascending, (units,); no n-gram crosses the end of a segment.
        texts: in which each segment is, (segments,).
        hashes, checks: of each, where they are needed, (units,) uint64.
    """

    def __init__(self, codes: Array, begins: Array, ends: Array, segments: Array, texts: Array) -> None:
        widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
        in_utf8 = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogatepass")
        places = _offsets(widths)
        self.data = np.frombuffer(in_utf8, np.uint8)
        self.begins, self.ends, self.segments, self.texts = places[begins], places[ends], segments, texts
        self.hashes = self.checks = np.zeros(0, np.uint64)

    def keep(self, chosen: Array) -> None:
        """Remove the units that are not chosen, as if the texts did not contain them."""
        self.begins, self.ends, self.segments = self.begins[chosen], self.ends[chosen], self.segments[chosen]
        self.hashes = self.hashes[chosen]
        self.checks = self.checks[chosen] if len(self.checks) else self.checks


def _runs(inside: Array, offsets: Array) -> tuple[Array, Array, Array]:
    """Return begin, end and text of each longest run of characters that are `inside`; texts end runs."""
    first = np.zeros(len(inside) + 1, np.bool_)
    first[offsets] = True
    padded = np.concatenate([inside, [False]])
    continued = padded & np.concatenate([[False], inside]) & ~first
    begins = np.flatnonzero(padded & ~continued)
    ends = np.flatnonzero(inside & ~continued[1:]) + 1
    return begins, ends, np.searchsorted(offsets, begins, side="right") - 1


def _words(codes: Array, offsets: Array, word: Array) -> _Units:
    r"""Return the words of two or more characters, `\w\w+`; each text is a segment."""
    begins, ends, texts = _runs(word[codes], offsets)
    long = ends - begins >= 2
    return _Units(codes, begins[long], ends[long], texts[long], np.arange(len(offsets) - 1))


def _characters(codes: Array, offsets: Array, white: Array) -> _Units:
    """Return all characters, of which two or more of white space are one space; each text is a segment."""
    begins, ends, _ = _runs(white[codes], offsets)
    long = ends - begins >= 2
    codes, kept = codes.copy(), np.ones(len(codes) + 1, np.int64)
    codes[begins[long]] = ord(" ")
    removed = ends[long] - begins[long] - 1
    kept[
        np.repeat(begins[long] + 1, removed) + np.arange(removed.sum()) - np.repeat(_offsets(removed)[:-1], removed)
    ] = 0
    codes = codes[kept[:-1] > 0]
    offsets = _offsets(kept)[offsets]
    places = np.arange(len(codes))
    texts = np.arange(len(offsets) - 1)
    return _Units(codes, places, places + 1, np.repeat(texts, np.diff(offsets)), texts)


def _characters_of_words(codes: Array, offsets: Array, white: Array) -> _Units:
    """Return all characters but white space; each word is a segment, with a space before and after it."""
    begins, ends, texts = _runs(~white[codes], offsets)
    words = np.arange(len(begins))
    lengths = ends - begins
    padded = np.full(len(begins) * 2 + int(lengths.sum()), ord(" "), np.uint32)
    padded[np.arange(lengths.sum()) + 2 * np.repeat(words, lengths) + 1] = codes[~white[codes]]
    places = np.arange(len(padded))
    return _Units(padded, places, places + 1, np.repeat(words, lengths + 2), texts)


_SPLITS = {"word": _words, "char": _characters, "char_wb": _characters_of_words}


def _grams(segments: Array, low: int, high: int, *, short_whole: bool) -> Iterator[Array]:
    """Yield the first units of the n-grams of 1 unit, 2 units, ... up to `high`; those below `low` are empty.

    With `short_whole` a segment of fewer units than `low` is an n-gram as a whole.
    """
    ends = np.append(segments[1:] != segments[:-1], True) if len(segments) else np.zeros(0, np.bool_)
    for n in range(1, min(high, len(segments)) + 1):
        inside = segments[: len(segments) - n + 1] == segments[n - 1 :]
        if not inside.any():
            return
        if n < low:
            inside &= short_whole & ends[n - 1 :] & np.append(True, ends)[: len(inside)]
        yield np.flatnonzero(inside)


def _longest_first(sizes: Array) -> Array:
    """Return the order of spans by falling size; sizes below 65,536 are sorted by their digits."""
    most = int(sizes.max(initial=0))
    small = np.uint16 if most < 1 << 16 else np.int64
    return np.argsort((most - sizes).astype(small), kind="stable")


def _hashes(units: _Units, start: int, combine: Callable[[Any, Any], Any], factor: int, last: int) -> Array:
    """Hash the bytes of units, (units,) uint64: each is combined with the state, which is multiplied; then mixed."""
    sizes = units.ends - units.begins
    order = _longest_first(sizes)
    begins, ascending = units.begins[order], sizes[order][::-1]
    states = np.full(len(order), start, np.uint64)
    byte, alive = 0, len(order)
    # Invariant: the first `alive` spans have more than `byte` bytes, of which `byte` are hashed; the others are done.
    while (alive := len(order) - int(np.searchsorted(ascending, byte, side="right"))) > _FEW:
        states[:alive] = combine(states[:alive], units.data[begins[:alive] + byte]) * np.uint64(factor)
        byte += 1
    for span in range(alive):
        state, begin = int(states[span]), int(begins[span])
        for each in units.data[begin + byte : begin + int(ascending[-1 - span])].tobytes():
            state = combine(state, each) * factor & _64
        states[span] = state
    hashes = np.empty(len(order), np.uint64)
    hashes[order] = mixed(states, np.full(1, last, np.uint64))
    return hashes


def mixed(states: Array, hashes: Array) -> Array:
    """Combine the hash of an n-gram with that of its next unit."""
    found = states * _K1 + hashes
    found ^= found >> _32
    found *= _K2
    found ^= found >> _32
    return found


class _Candidates:
    """Looks n-grams up among the candidates of a vocabulary, and weighs them; norms are over all candidates.

    A candidate is known by the leading bits of its hash, its key. Where it has a row of weights, the next `CHECK_BITS`
    must fit as well; those without rows come last among candidates with one key. In a bundle of version 2 the hash is
    mixed with the check of the n-gram, an independent hash.
    """

    needs_hashes = True

    def __init__(self, about: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.needs_checks = "hash_mask" in about
        self._mask = np.uint64(_integer(about, "hash_mask", 0, _64) if self.needs_checks else _64)
        bits = _integer(about, "key_bits", 1, MOST_KEY_BITS)
        features, documents = about["features"], _integer(about, "num_documents", 1, MOST_DOCUMENTS)
        self._binary, self._sublinear, idf, self._norm = (
            _checked(about, name, bool) for name in ("binary", "sublinear_tf", "idf", "norm")
        )
        keys = _ascending(arrays, "keys", "<u8", 1 << bits, strictly=False)
        if (keys[MOST_EQUAL:] == keys[:-MOST_EQUAL]).any():
            raise BundleError(f"has the array 'keys' with more than {MOST_EQUAL} equal ones")
        self._keys = keys.astype(np.uint32) if bits <= 32 else keys
        self._shift = np.uint64(64 - bits)
        self._check_shift = np.uint64(64 - bits - CHECK_BITS)
        selected = _ascending(arrays, "selected", "<u4", len(keys), strictly=True, length=features)
        self._checks = _named(arrays, "checks", "|u1", features)
        self._row_of = np.full(len(keys), -1, np.int64)
        self._row_of[selected.astype(np.int64)] = np.arange(features)
        frequencies = _named(arrays, "frequencies", "<u4" if documents < NARROW else "<u8", len(keys))
        if not 1 <= int(frequencies.min()) <= int(frequencies.max()) <= documents:
            raise BundleError(f"has the array 'frequencies' with values outside 1 to {documents:,}")
        self._weights = np.log((documents + 1) / (frequencies + 1.0)) + 1 if idf else np.ones(len(keys))

    def __call__(
        self, units: _Units, lengths: list[Array], owners: Array, num_texts: int, *, separated: bool
    ) -> tuple[Array, Array, Array]:
        """Return text, row and value of each entry; `owners` are the texts of the n-grams, `lengths` their units."""
        grams, states, checks = [np.zeros(0, np.uint64)], units.hashes, units.checks
        for n, starts in enumerate(lengths):
            states = mixed(states[:-1], units.hashes[n:]) if n else states
            found = states[starts] & self._mask
            if self.needs_checks:
                checks = mixed(checks[:-1], units.checks[n:]) if n else checks
                found = mixed(found, checks[starts] >> _32)
            grams.append(found)
        texts, places = self._found(np.concatenate(grams), owners)
        pairs, times = np.unique(texts * len(self._keys) + places, return_counts=True)
        texts, places = np.divmod(pairs, len(self._keys))
        values = self._worth(times) * self._weights[places]
        if self._norm:
            values /= np.sqrt(np.bincount(texts, values * values, num_texts))[texts]
        rows = self._row_of[places]
        chosen = rows >= 0
        return texts[chosen], rows[chosen], values[chosen].astype(np.float32)

    def _found(self, grams: Array, owners: Array) -> tuple[Array, Array]:
        """Return text and place among the candidates of each n-gram that is one."""
        wanted = (grams >> self._shift).astype(self._keys.dtype)
        checks = (grams >> self._check_shift).astype(np.uint8)
        places = np.searchsorted(self._keys, wanted)
        # Invariant: the candidates before places[i] are not the n-gram i.
        for _ in range(MOST_EQUAL):
            places = np.minimum(places, len(self._keys) - 1)
            rows = self._row_of[places]
            same = self._keys[places] == wanted
            fits = (rows < 0) | (self._checks[rows] == checks)
            if not (same & ~fits).any():
                break
            places = places + (same & ~fits)
        return owners[same & fits], places[same & fits]

    def _worth(self, times: Array) -> Array:
        """Return what it is worth to occur so many times in a text."""
        worth = np.minimum(times, 1.0) if self._binary else times.astype(np.float64)
        return np.log(worth) + 1 if self._sublinear else worth


class _Hashed:
    """Computes the rows of n-grams by MurmurHash3 of their bytes, and the signs of their values."""

    needs_hashes = needs_checks = False

    def __init__(self, about: dict[str, Any]) -> None:
        self._columns = about["features"]
        self._binary = _checked(about, "binary", bool)

    def __call__(
        self, units: _Units, lengths: list[Array], owners: Array, num_texts: int, *, separated: bool
    ) -> tuple[Array, Array, Array]:
        """Return text, row and value of each entry; units of an n-gram that are `separated` have a space between."""
        data, begins, ends = _with_spaces(units) if separated else (units.data, units.begins, units.ends)
        firsts = np.concatenate([np.zeros(0, np.int64), *(begins[starts] for starts in lengths)])
        lasts = np.concatenate([np.zeros(0, np.int64), *(ends[starts + n] for n, starts in enumerate(lengths))])
        hashes = _murmur(data, firsts, lasts - firsts).astype(np.int64)
        positive = hashes < 1 << 31
        magnitudes = np.where(positive, hashes, (1 << 32) - hashes)
        magnitudes[magnitudes == 1 << 31] = (1 << 31) - self._columns  # where the negative does not fit 32 bits
        pairs, entries = np.unique(owners * self._columns + magnitudes % self._columns, return_inverse=True)
        texts, rows = np.divmod(pairs, self._columns)
        sums = np.bincount(entries.ravel(), np.where(positive, 1.0, -1.0), len(pairs))
        values = np.ones(len(pairs)) if self._binary else sums
        squares = np.bincount(texts, values * values, num_texts)
        values = values / np.sqrt(np.where(squares > 0, squares, 1.0))[texts]
        return texts, rows, values.astype(np.float32)


def _with_spaces(units: _Units) -> tuple[Array, Array, Array]:
    """Return the bytes of units with a space after each, and where each begins and ends there."""
    sizes = units.ends - units.begins
    places = _offsets(sizes + 1)
    data = np.full(places[-1], ord(" "), np.uint8)
    inside = np.arange(sizes.sum()) - np.repeat(_offsets(sizes)[:-1], sizes)
    data[np.repeat(places[:-1], sizes) + inside] = units.data[np.repeat(units.begins, sizes) + inside]
    return data, places[:-1], places[:-1] + sizes


def _murmur(data: Array, begins: Array, sizes: Array) -> Array:
    """Compute MurmurHash3_x86_32 with seed 0 of spans of bytes, (spans,) uint32."""
    padded = np.concatenate([data, np.zeros(4, np.uint8)]).astype(np.uint32)
    fours = padded[:-3] | padded[1:-2] << np.uint32(8) | padded[2:-1] << np.uint32(16) | padded[3:] << np.uint32(24)
    order = _longest_first(sizes)
    begins, sizes = begins[order], sizes[order]
    ascending = (sizes // 4)[::-1]
    states = np.zeros(len(order), np.uint32)
    block = 0
    # Invariant: all blocks of four bytes before `block` are hashed.
    while alive := len(order) - int(np.searchsorted(ascending, block, side="right")):
        found = states[:alive] ^ _scrambled(fours[begins[:alive] + 4 * block])
        states[:alive] = _rotated(found, 13) * np.uint32(5) + np.uint32(0xE6546B64)
        block += 1
    rest = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], np.uint32)[sizes % 4]
    states ^= _scrambled(fours[begins + sizes // 4 * 4] & rest)
    states ^= sizes.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        states = (states ^ states >> np.uint32(shift)) * np.uint32(factor)
    hashes = np.empty(len(order), np.uint32)
    hashes[order] = states
    return hashes


def _scrambled(blocks: Array) -> Array:
    return _rotated(blocks * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(values: Array, bits: int) -> Array:
    return values << np.uint32(bits) | values >> np.uint32(32 - bits)


# Rows to probabilities


class _Network:
    """The weights: a kernel of which texts take rows, and dense layers with relu between them."""

    def __init__(self, header: dict[str, Any], arrays: dict[str, Array], features: int, classes: int) -> None:
        dims = _checked(
            header, "dims", list, lambda dims: dims and all(type(n) is int and 0 < n <= 1 << 20 for n in dims)
        )
        if max(2, dims[-1]) != classes:
            raise BundleError(f"has a last layer of width {dims[-1]} for {classes} classes")
        kind = WEIGHTS[_checked(header, "weights", str, lambda name: name in WEIGHTS)]
        self.widest = max(dims)
        self._kernel = _named(arrays, "kernel", kind, features, dims[0])
        self._scales = _named(arrays, "scales", "<f4", dims[0])
        self._biases = [_named(arrays, f"bias_{layer}", "<f4", width) for layer, width in enumerate(dims)]
        self._kernels = [
            _named(arrays, f"kernel_{layer}", "<f4", dims[layer - 1], dims[layer]) for layer in range(1, len(dims))
        ]

    def __call__(self, texts: Array, rows: Array, values: Array, num_texts: int) -> Array:
        """Return the probability of each class, (num_texts, classes) float32; of weights too large NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _probabilities(self._sums(texts, rows, values, num_texts))

    def _sums(self, texts: Array, rows: Array, values: Array, num_texts: int) -> Array:
        """Return the sums of the last layer, (num_texts, width)."""
        width = self._kernel.shape[1]
        sums = np.zeros((num_texts, width), np.float32)
        step = max(1, _PIECE // width)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            products = self._kernel[rows[part]].astype(np.float32)
            products *= values[part, None]
            present, firsts = np.unique(texts[part], return_index=True)
            sums[present] += np.add.reduceat(products, firsts, axis=0)
        found = sums * self._scales + self._biases[0]
        for kernel, bias in zip(self._kernels, self._biases[1:]):  # noqa: B905 - equal lengths
            found = np.maximum(found, 0) @ kernel + bias
        return found


def _probabilities(sums: Array) -> Array:
    """Return softmax of sums, or of one column, the logit of class 1, both classes' probabilities."""
    if sums.shape[1] == 1:
        part = np.exp(-np.abs(sums))
        one = np.where(sums >= 0, 1 / (1 + part), part / (1 + part))
        return np.concatenate([1 - one, one], axis=1)
    parts = np.exp(sums - sums.max(axis=1, keepdims=True))
    return parts / parts.sum(axis=1, keepdims=True)
