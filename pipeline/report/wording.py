"""Formats numbers, times and third-party text for readers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import printable as printable

NOTHING = "–"
LONGEST_VALUE = 160
FEWEST_DIGITS, MOST_DIGITS = 6, 17
# A number of many decimals; not the part of a version, of a name or of an address.
_LONG_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d{6,}(?:e[+-]?\d+)?(?![\w.]*\w)")


def shorten(value: Any) -> str:
    """Converts a value of the model to text, and shortens long text: a string output may be a whole document."""
    text = NOTHING if value is None else str(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}… ({number(len(text))} characters)"


def round_numbers(text: str, write: Callable[[str, str], str] = lambda full, short: short) -> str:
    """Rounds the numbers of many decimals in a text to as few digits as tell them from each other, and at least six.

    Args:
        write: returns what stands for a number, given in full and rounded.
    """
    found = set(_LONG_NUMBER.findall(text))
    shown = dict[str, str]()
    for digits in range(FEWEST_DIGITS, MOST_DIGITS + 1):
        shown = {full: f"{float(full):.{digits}g}" for full in found}
        if len(set(shown.values())) == len({float(full) for full in found}):
            break
    return _LONG_NUMBER.sub(lambda match: write(match[0], shown[match[0]]), text)


def number(value: int) -> str:
    """Formats 1115 as `1,115`."""
    return f"{value:,}"


def whole(text: str) -> str:
    """Formats `9881231.0`, from results.csv, as `9,881,231`; other text is unchanged, empty text becomes `–`."""
    digits = text.removesuffix(".0")
    return number(int(digits)) if digits.isdecimal() else digits or NOTHING


def count_noun(value: int, noun: str) -> str:
    """Formats a number with its noun: `1 row`, `1,115 rows`."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def difference(value: Any) -> str:
    """Formats a difference or tolerance: `0` only for exactly zero, `–` if none was measured."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return number(value)
    return "0" if value == 0 else f"{value:.3g}"


def metric(value: Any) -> str:
    """Formats a metric: a fraction with four decimals, a count with separators."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return number(value) if isinstance(value, int) else f"{value:.4f}"


def size(size_bytes: int) -> str:
    """Formats 1048576 as `1.0 MiB`."""
    value = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Formats 0.0041 as `4.10 ms`, 0.41 as `0.41 s`, 754 as `12 min 34 s`."""
    if seconds is None:
        return NOTHING
    if 0 < seconds < 0.05:
        return milliseconds(seconds * 1000)
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def join_names(names: Sequence[str]) -> str:
    """Joins names: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def milliseconds(value: float) -> str:
    """Formats 0.7 as `0.700 ms`, 1234.5 as `1,234 ms`: three digits, so that numbers in a column can be compared."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def date(moment: str | None) -> str:
    """Formats `2026-11-25T21:38:02+00:00` as `2026-11-25 21:38 UTC`."""
    if not moment:
        return NOTHING
    return f"{moment[:16].replace('T', ' ')}{' UTC' if moment.endswith(('+00:00', 'Z')) else ''}"
