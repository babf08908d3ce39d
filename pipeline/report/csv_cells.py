"""Writes and reads text in cells of CSV files, so that a spreadsheet that opens the file runs nothing.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and names of tensors, classes and models
come from other people (https://owasp.org/www-community/attacks/CSV_Injection). A text that could be taken for one, or
that holds control characters, is written behind an apostrophe, and those characters as Python writes them in a string:
`=1+1` is written `'=1+1`. Numbers and all other texts are written as they are.

`read_cell` returns the text as it was; with pandas: `table["output"].map(read_cell)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MARK = "'"
# Control characters, and marks that change the direction of text or break lines: they hide what a cell begins with.
_CONTROL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
# Where `;` separates the columns, the text behind it is a cell of its own.
_FORMULA = r"[\s'\"]*[=+\-@＝＋－＠]"
_RISKY = rf"^{MARK}|(?:^|;){_FORMULA}|[{_CONTROL}]"
_ESCAPED = rf"[{_CONTROL}\\]|(?<=;){_FORMULA}"
_ESCAPE = r"\\(?:(\\)|x([0-9a-f]{2})|u([0-9a-f]{4}))"


def write_cell(value: Any) -> Any:
    """Returns a text in the form in which a spreadsheet runs nothing; other values as they are."""
    if type(value) is not str or not re.search(_RISKY, value):
        return value
    return MARK + re.sub(_ESCAPED, _escape, value)


def write_cells(values: Iterable[Any]) -> list[Any]:
    """Returns a row with each text in the form of `write_cell`."""
    return [write_cell(value) for value in values]


def read_cell(cell: str) -> str:
    """Returns the text that `write_cell` was given."""
    if not cell.startswith(MARK):
        return cell
    return re.sub(_ESCAPE, lambda found: found[1] or chr(int(found[2] or found[3], 16)), cell[len(MARK) :])


def _escape(found: re.Match[str]) -> str:
    return "".join(
        "\\\\" if each == "\\" else f"\\x{ord(each):02x}" if ord(each) < 256 else f"\\u{ord(each):04x}"
        for each in found[0]
    )
