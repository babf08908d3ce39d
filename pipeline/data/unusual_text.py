"""Texts that normalisation should catch, and that two implementations of it may catch differently.

The variants follow the forms of Unicode Standard Annex 15 (composed, decomposed, compatible) and the classes of
characters that are not seen: soft hyphens, joiners, marks of direction, blanks of other widths.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping

_ACUTE, _FULL_WIDTH, _BOLD = "\u0301", 0xFEE0, 0x1D41A


def _inside(mark: str) -> Callable[[str], str]:
    return lambda word: word[: (len(word) + 1) // 2] + mark + word[(len(word) + 1) // 2 :]


def _behind(mark: str) -> Callable[[str], str]:
    return lambda word: word + mark


def _shifted(letters: str, by: int) -> Callable[[str], str]:
    return lambda word: "".join(chr(ord(each) + by) if each in letters else each for each in word)


def _swapped(old: str, new: str) -> Callable[[str], str]:
    return lambda word: word.replace(old, new) if old in word else word + new


_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_SMALL = "abcdefghijklmnopqrstuvwxyz"
# What becomes of each word.
_WORDS: Mapping[str, Callable[[str], str]] = {
    "soft hyphen": _inside("\u00ad"),
    "zero width space": _inside("\u200b"),
    "zero width non-joiner": _inside("\u200c"),
    "zero width joiner": _inside("\u200d"),
    "word joiner": _inside("\u2060"),
    "byte order mark": lambda word: f"\ufeff{word}",
    "right-to-left mark": _inside("\u200f"),
    "override of direction": lambda word: f"\u202e{word}\u202c",
    "variation selector": _behind("\ufe0f"),
    "combining acute": lambda word: "".join(each + _ACUTE if each in "aeiou" else each for each in word) + _ACUTE,
    "composed": lambda word: unicodedata.normalize("NFC", _behind("e" + _ACUTE)(word)),
    "decomposed": lambda word: unicodedata.normalize("NFD", f"{word}é"),
    "many marks": _behind(_ACUTE * 40),
    "full width": _shifted(_ASCII, _FULL_WIDTH),
    "mathematical bold": lambda word: "".join(
        chr(_BOLD + _SMALL.index(each)) if each in _SMALL else each for each in word
    ),
    "ligature": _swapped("fi", "\ufb01"),
    "upper case": str.upper,
    "title case": str.title,
    "swapped case": str.swapcase,
    "dotless i": _swapped("i", "\u0131"),
    "dotted capital I": _swapped("i", "\u0130"),
    "sharp s": _swapped("ss", "\u00df"),
    "capital sharp s": _swapped("ss", "\u1e9e"),
    "long s": _swapped("s", "\u017f"),
    "final sigma": _behind("\u03a3\u03c2"),
    "Kelvin sign": _swapped("k", "\u212a"),
    "Cyrillic a": _swapped("a", "\u0430"),
    "superscript": _behind("\u00b2"),
    "other digits": _behind("\u0663\u0967\uff11"),
    "private use": _behind("\ue000"),
    "unassigned": _behind("\u0378"),
    "no character": _behind("\uffff"),
    "curly quotes": lambda word: f"\u201c{word}\u2019s\u201d",
    "doubled": lambda word: word + word,
}
# What stands between words.
_BLANKS = {
    "no-break space": "\u00a0",
    "narrow no-break space": "\u202f",
    "thin space": "\u2009",
    "ideographic space": "\u3000",
    "next line": "\u0085",
    "line separator": "\u2028",
    "vertical tab": "\x0b",
    "two spaces": "  ",
    "hyphens": "-",
    "long dashes": "\u2014",
    "no space": "",
}
# What is no UTF-8, behind each word.
_BYTES = {
    "surrogate": b"\xed\xa0\x80",
    "overlong": b"\xc0\xaf",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "cut off": b"\xe2\x82",
}


def unusual_texts(words: Iterable[str]) -> dict[str, bytes]:
    """Returns by its name a text for each way in which words can be written otherwise.

    Args:
        words: some that the model knows.
    """
    known = list(words)
    found = {name: " ".join(map(change, known)).encode() for name, change in _WORDS.items()}
    found |= {name: blank.join(known).encode() for name, blank in _BLANKS.items()}
    return found | {name: b" ".join(word.encode() + tail for word in known) for name, tail in _BYTES.items()}
