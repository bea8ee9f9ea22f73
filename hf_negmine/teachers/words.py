"""The words of a text in any script, for teachers that compare words."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import regex

VERSION = 1
"""Changed whenever a text may get other words; part of the fingerprint of every teacher that uses them."""

UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}\p{Bopomofo}\p{Yi}\p{Hangul}"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}"
)
"""Scripts without spaces between words. Hangul has spaces, but only around a word together with its endings."""

PLAIN = re.compile(r"[\0-\u02ff\u0370-\u0482\u048a-\u0590\u1e00-\u1eff\u2000-\u20cf\u2100-\u2bff]*")
"""Latin, Greek and Cyrillic without combining marks, punctuation and symbols: most texts, for which `re` is faster."""
PLAIN_WORD = re.compile(r"\b\w\w+\b")
"""As in bm25s and scikit-learn."""

WIDE = re.compile("[\uff01-\uffee]+")
"""Full-width Latin, half-width Katakana and Hangul."""
UNWRITTEN = regex.compile(
    r"""[[\p{Block=Hebrew}\p{Block=Arabic}]&&\p{M}]|\N{ARABIC TATWEEL}  # vowel points: few texts have them
    |\p{Variation_Selector}                                             # another look of the same character
    |\N{ZERO WIDTH JOINER}|(?<=\p{M})\N{ZERO WIDTH NON-JOINER}          # within words of India
    |(?<=i)\N{COMBINING DOT ABOVE}                                      # what lower() makes of a Turkish capital
    """,
    regex.VERSION1 | regex.VERBOSE,
)
MARK = r"\p{Mn}\p{Mc}"
CHARACTER = regex.compile(rf".[{MARK}]*")
PIECE = regex.compile(
    rf"((?:[[{UNSPACED}]&&[\p{{L}}\p{{N}}]][{MARK}]*)+)"
    rf"|[[\p{{L}}\p{{N}}_]--[{UNSPACED}]][[\p{{L}}\p{{N}}_{MARK}]--[{UNSPACED}]]+",
    regex.VERSION1,
)
r"""A run of unspaced script, or a word of two characters or more: those that `re` matches by ``\w``, and the marks on
them, which `re` takes for the end of a word."""


def words_of(text: str) -> list[str]:
    """The words of ``text`` in lower case, in their order.

    In scripts with spaces the words are those that bm25s finds: two or more letters, digits or underscores; marks on
    letters are part of the word. A run of text without spaces (Chinese, Japanese, Thai, …) or of Hangul gives every
    pair of neighboring characters, or its only character.
    """
    text = text.lower()
    if PLAIN.fullmatch(text):
        return PLAIN_WORD.findall(text)
    text = WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]).lower(), text)
    text = UNWRITTEN.sub("", unicodedata.normalize("NFC", text))
    words: list[str] = []
    for piece in PIECE.finditer(text):
        if piece[1] is None:
            words.append(piece[0])
        else:
            characters = CHARACTER.findall(piece[1])
            words += [one + other for one, other in pairwise(characters)] or characters
    return words
