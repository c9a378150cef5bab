"""Spell words of an invented language: pronounceable, all different, frequent ones short, some with accents.

A word is a number spelled in syllables, so no word list is stored and no two words are equal. Each has several written
forms, in which quotes are already doubled for CSV.
"""

from __future__ import annotations

from collections.abc import Sequence

PLAIN, WITH_COMMA, WITH_STOP, QUOTED, FIRST, TITLE = range(6)
NUM_FORMS = 6

_ONSETS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "dr", "kl", "tr"]
_VOWELS = "aeiou"
_CODAS = ("", "", "n", "s", "l")  # no letter that begins a cluster: a word has one reading, so no two are equal
_SYLLABLES = [onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in dict.fromkeys(_CODAS)]
_BY_LENGTH = ((1, 120), (2, 6_000), (3, 1 << 40))  # number of syllables, up to this rank
_STRIDE = 15_485_863  # a prime that divides no number of words, so that multiples of it reach every word once

_ACCENTS = str.maketrans("aeiou", "áéíöü")
_GREEK = str.maketrans("abdefghiklmnoprstuvwz", "αβδεφγηικλμνοπρστυβωζ")


def spell(number: int, key: int) -> list[str]:
    """Return `number` different words in order of falling frequency; `key` selects them."""
    words: list[str] = []
    for num_syllables, last in _BY_LENGTH:
        choices = len(_SYLLABLES) ** num_syllables
        for rank in range(len(words), min(last, number)):
            words.append(_with_accents(_spelled((key + rank * _STRIDE) % choices, num_syllables), rank))
    return words


def spelled_forms(word: str) -> Sequence[bytes]:
    """Return the written forms of a word, in the order of the form numbers."""
    forms = (
        f" {word}",
        f", {word}",
        f". {word.capitalize()}",
        f' ""{word}""',
        word.capitalize(),
        f" {word.capitalize()}",
    )
    return [form.encode() for form in forms]


def _spelled(number: int, num_syllables: int) -> str:
    word = ""
    for _ in range(num_syllables):
        number, syllable = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word


def _with_accents(word: str, rank: int) -> str:
    if rank % 401 == 200:
        return word.translate(_GREEK)
    return word.translate(_ACCENTS) if rank % 29 == 11 else word
