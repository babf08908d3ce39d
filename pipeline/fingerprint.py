"""Hashes that say whether two things are the same: values, files, and the code behind a module.

Every hash of values starts with its kind and is taken over a canonical encoding in which types
count: `1`, `1.0`, `True` and `"1"` all differ, and the order of a mapping's keys does not.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import StoreError


def digest_values(kind: str, value: Any) -> str:
    """The sha256 of a kind and a value, as 64 hex digits.

    Args:
        kind: what is hashed, so that equal values of different kinds never meet.
        value: None, bool, int, float, str, bytes, and sequences and mappings (with str keys) of these.

    Raises:
        TypeError: `value` holds anything else.
    """
    return hashlib.sha256(_encoded(kind) + _encoded(value)).hexdigest()


def _encoded(value: Any) -> bytes:
    match value:
        case None:
            return b"n"
        case bool():
            return b"b1" if value else b"b0"
        case int():
            return _tagged(b"i", str(value).encode())
        case float():
            return b"f" + struct.pack(">d", value)
        case str():
            return _tagged(b"s", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _tagged(b"y", value)
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("only str keys can be hashed")
            return _tagged(b"m", b"".join(_encoded(key) + _encoded(value[key]) for key in sorted(value)))
        case Sequence():
            return _tagged(b"l", b"".join(map(_encoded, value)))
    raise TypeError(f"a {type(value).__name__} cannot be hashed: {value!r}")


def _tagged(tag: bytes, body: bytes) -> bytes:
    return tag + str(len(body)).encode() + b":" + body


def digest_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise StoreError("the file cannot be read", where=path, got=exc.strerror) from exc


def digest_code(start: Path, roots: Sequence[Path]) -> dict[str, str]:
    """The sha256 of a module's source and of every local module that it imports, however deep.

    Imports are read from the source text, nothing is executed. Files that are not Python but lie
    in an imported package's folder (templates) count as its code.

    Args:
        start: the module's file.
        roots: folders under which an absolute import is local; others are libraries, which count
            by their versions instead.

    Returns:
        Digest by path, relative to the first root that holds it.

    Raises:
        StoreError: a source file cannot be read.
    """
    found: dict[str, str] = {}
    waiting, seen = [start.resolve()], set[Path]()
    tops = [root.resolve() for root in roots]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        found[_label(path, tops)] = digest_file(path)
        if path.suffix == ".py":
            waiting.extend(imported for root in tops for imported in _imported_files(path, root))
        if path.name == "__init__.py":
            waiting.extend(p for p in path.parent.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc"))
    return dict(sorted(found.items()))


def _label(path: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.name


@lru_cache(maxsize=1024)
def _imported_files(path: Path, root: Path) -> tuple[Path, ...]:
    source = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    # With comments and without: a `#` may stand in a string, and a `)` in a comment.
    source = f"{source}\n{_COMMENT.sub('', source)}"
    return tuple(
        file for parts, base in _imports(source, path, root) if (file := _module_file(base, parts)) is not None
    )


# Parsing every file takes longer than all else that a finished run has to do. A pattern sees every import
# statement too, and at worst one that stands in a string: a file too many, never one too few.
_COMMENT = re.compile(r"#.*")
_IMPORT = re.compile(
    r"\bfrom\b\s*(?P<dots>\.*)(?P<module>[\w.]*?)\s*\bimport\b\s*(?:\((?P<block>[^)]*)\)|(?P<line>[^\n;]+))"
    r"|\bimport\b\s*(?P<plain>[^\n;]+)"
)


def _imports(source: str, path: Path, root: Path) -> Iterator[tuple[list[str], Path]]:
    """Each imported module as its name's parts and the folder they start from."""
    for found in _IMPORT.finditer(source):
        if found["plain"] is not None:
            for name in _names(found["plain"]):
                yield name.split("."), root
            continue
        level = len(found["dots"])
        base = path.parents[level - 1] if level else root
        parts = found["module"].split(".") if found["module"] else []
        if parts:
            yield parts, base
        for name in _names(found["block"] or found["line"]):
            yield [*parts, name], base


def _names(listed: str) -> list[str]:
    """The names of `a, b as c`."""
    return [found[1] for item in listed.split(",") if (found := re.match(r"\s*(\w[\w.]*)", item))]


def _module_file(base: Path, parts: Sequence[str]) -> Path | None:
    target = base.joinpath(*parts)
    for candidate in (target.with_name(target.name + ".py"), target / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
