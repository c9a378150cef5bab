"""Draw texts whose characters are hostile to a tokenizer: what Unicode has that programs get wrong.

Each text mixes words of a vocabulary, so that it has features, with one or more kinds of hostility. The same seed gives
the same texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

MARKS = "\u0301\u0308\u0327\u0345\u0591\u093c\u20d0\ufe0f\U000e0101\u0300\u035f"
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e"
CONTROLS = "\0\x01\x07\x08\x1b\x7f\x80\x9f\u200c\u200d\u200e\u202e\u2066\u2069\ufffe\uffff\U000e0001\U000e007f"
SIGMAS = "ΣσςΑα.'\u00ad\u0301:\u2019 \u0345ᾼϹ𝚺"
EMOJI = "👩🏽‍🚀🇪🇺👍🏿❤️🏴\U000e0067\U000e007f😀"
ODD = "İıIiſßẞŉǰΐﬁﬀﬆĲĳǅǆՙև℮K™Åªº²½①Ⅷⅷ㍿㈎Ａａ０ｱｶﾞ가각힣각ẛ̣ᾳῼ\u1e9b\ufb2a\U0001d49c\U0001f100\u0d4e\u0e33"
SCRIPTS = ((0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF), (0x10A0, 0x10FF),
           (0x1100, 0x11FF), (0x13A0, 0x13FF), (0x1E00, 0x1FFF), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xD7FF),
           (0xFB00, 0xFDFF), (0xFF00, 0xFFEF), (0x10400, 0x104FF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F),
           (0x2F800, 0x2FA1F))  # fmt: skip
LONG = (300, 4_000)  # characters of very long words, from and to


def hostile_texts(words: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """Yield texts made of some words and of hostile characters.

    Args:
        words: to mix in.
        count: of texts.
        seed: of the draws.
    """
    draw = random.Random(seed)
    for _ in range(count):
        parts = [draw.choice(words) for _ in range(draw.randrange(12))]
        for _ in range(draw.randrange(3)):
            parts.insert(draw.randrange(len(parts) + 1), draw.choice(KINDS)(draw, words))
        yield draw.choice((" ", " ", " ", "", "\n", "  ")).join(parts)


def _marked(draw: random.Random, words: Sequence[str]) -> str:
    """A word with combining marks between its letters."""
    return "".join(letter + draw.choice(MARKS) * draw.randrange(2) for letter in draw.choice(words))


def _cased(draw: random.Random, words: Sequence[str]) -> str:
    """A word with some letters in capitals, or replaced by letters that lower-case or decompose to others."""
    swaps = {"i": "İ", "k": "\u212a", "s": "ſ", "f": "\ufb01", "a": "Å", "e": "é", "o": "ｏ", "n": "ñ", "t": "𝐓"}
    return "".join(
        draw.choice((letter, letter.upper(), swaps.get(letter, letter), chr(0xFEE0 + ord(letter) % 94 + 33)))
        for letter in draw.choice(words)
    )


def _among(alphabet: str, most: int = 12) -> Callable[[random.Random, Sequence[str]], str]:
    def drawn(draw: random.Random, words: Sequence[str]) -> str:
        return "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, most))) + draw.choice(words)

    return drawn


def _any(draw: random.Random, words: Sequence[str]) -> str:
    """Code points of all planes: letters, unassigned ones, private ones and halves of surrogate pairs."""
    most = draw.choice((0x2FF, 0xFFFF, 0x2FFFF, 0x10FFFF))
    return "".join(chr(draw.randrange(most + 1)) for _ in range(draw.randrange(1, 20)))


def _surrogates(draw: random.Random, words: Sequence[str]) -> str:
    """Halves of surrogate pairs, in and out of order, within a word."""
    halves = "".join(chr(draw.randrange(0xD800, 0xE000)) for _ in range(draw.randrange(1, 6)))
    return draw.choice(words) + halves + draw.choice(words)


def _script(draw: random.Random, words: Sequence[str]) -> str:
    """Characters of one script, some of which may be unassigned."""
    low, high = draw.choice(SCRIPTS)
    return "".join(chr(draw.randint(low, high)) for _ in range(draw.randrange(1, 15)))


def _long(draw: random.Random, words: Sequence[str]) -> str:
    """A very long word, rarely; else an ordinary one."""
    if draw.random() > 0.02:
        return draw.choice(words)
    return draw.choice(("a", "é", "字", "ß", "\u0301", "x\u0327")) * draw.randint(*LONG)


KINDS = (
    *(_marked, _cased, _any, _surrogates, _script, _long),
    *map(_among, (SPACES, CONTROLS, SIGMAS, EMOJI, ODD, MARKS)),
)
