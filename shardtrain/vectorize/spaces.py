"""Recognise texts without spaces between words, of which features made of words are of no use.

Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words, unless a program has divided the text.
Texts of other alphabets, such as codes, are recognised if each is a single long word.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese characters
)
_LETTER = re.compile(r"[^\W\d_]")
# Runs of these characters between spaces: words of divided texts have 1 to 3 (Chinese, Japanese) or 4 to 7 (Thai,
# Khmer); undivided texts have 8 and more, because spaces separate clauses, unless a text is short and has none.
_LONG_RUN = 8.0
_SHORT_RUN = 3.5
_LONG_WORD = 24  # characters; longer than words of a language


def lack_spaces(texts: Iterable[str]) -> bool:
    """Tell whether texts, taken together, have nearly no spaces between words; blank ones do not count."""
    words = [found for text in texts if (found := text.split())]
    if not words:
        return False
    per_text = statistics.median(map(len, words))
    others = [word for found in words for word in found if not word.isascii()]
    runs = [number for word in others if (number := len(_UNSPACED.findall(word)))]
    if runs and sum(runs) > sum(len(_LETTER.findall(word)) for found in words for word in found) / 2:
        usual = sum(number**2 for number in runs) / sum(runs)  # length of the run in which a character stands, mean
        return usual >= _LONG_RUN or (per_text <= 1 and usual >= _SHORT_RUN)
    return per_text <= 1 and statistics.median(len("".join(found)) for found in words) >= _LONG_WORD
