"""Hashes that say whether two things are the same: values, files, and the code behind a module.

Every hash of values starts with its kind and is taken over a canonical encoding in which types
count: `1`, `1.0`, `True` and `"1"` all differ, and the order of a mapping's keys does not.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import StoreError


def hash_values(kind: str, value: Any) -> str:
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


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise StoreError("the file cannot be read", where=path, got=exc.strerror) from exc


def hash_code(start: Path, roots: Sequence[Path]) -> dict[str, str]:
    """The sha256 of a module's source and of every local module that it imports, however deep.

    Imports are read from the source text, nothing is executed. Files that are not Python but lie
    in an imported package's folder (templates) count as its code.

    Args:
        start: the module's file.
        roots: folders under which an absolute import is local; others are libraries, which count
            by their versions instead. In a folder of installed packages only this package and the
            importing module's own package are local.

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
        digest = found[_label(path, tops)] = _digest_code_file(path)
        if path.suffix == ".py":
            waiting.extend(_imported_files(path, digest, tuple(tops)))
        if path.name == "__init__.py":
            waiting.extend(p for p in path.parent.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc"))
    return dict(sorted(found.items()))


def _digest_code_file(path: Path) -> str:
    """A source file's digest; stages share most of their code, so each file is read once as long as it stays."""
    try:
        stat = path.stat()
    except OSError:
        return hash_file(path)  # which says what is wrong
    return _digest_as_of(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=1024)
def _digest_as_of(path: Path, *_changes: int) -> str:
    return hash_file(path)


def _label(path: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.name


@lru_cache(maxsize=1024)
def _imported_files(path: Path, digest: str, roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """The local files that a module with this digest imports."""
    bases = {0: [str(root) for root in roots]}
    found = []
    for level, parts in _imports(path):
        for base in bases.setdefault(level, [str(path.parents[level - 1])] if level else []):
            if level == 0 and not _is_local(base, parts[0], path):
                continue
            file = _file_of(base, parts)
            if file is not None:
                found.append(Path(file))
    return tuple(found)


def _is_local(base: str, top: str, importer: Path) -> bool:
    """Return False for a library: among installed packages only this one and the importing module's own are local."""
    if not _holds_installed_packages(base):
        return True
    own = importer.relative_to(base).parts[0] if importer.is_relative_to(base) else ""
    return top in (__name__.partition(".")[0], own.removesuffix(".py"))


@lru_cache(maxsize=256)
def _holds_installed_packages(folder: str) -> bool:
    return any(name.endswith(".dist-info") for name in _names_in(folder))


def _file_of(base: str, parts: Sequence[str]) -> str | None:
    """The file of a module below a folder. Strings, for there are many: paths as objects take much longer."""
    *packages, name = parts
    for package in packages:
        if package not in _names_in(base):
            return None
        base = f"{base}/{package}"
    names = _names_in(base)
    if f"{name}.py" in names:
        return f"{base}/{name}.py"
    return f"{base}/{name}/__init__.py" if name in names and "__init__.py" in _names_in(f"{base}/{name}") else None


def _names_in(folder: str) -> frozenset[str]:
    """The names in a folder; none if there is no such folder."""
    try:
        return _names_as_of(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return frozenset()


@lru_cache(maxsize=256)
def _names_as_of(folder: str, _changed_ns: int) -> frozenset[str]:
    return frozenset(os.listdir(folder))


# Parsing every file takes longer than all else that a finished run has to do. A pattern sees every import
# statement too, and at worst one that stands in a string: a file too many, never one too few.
_COMMENT = re.compile(r"#.*")
_IMPORT = re.compile(
    r"\bfrom\b\s*(?P<dots>\.*)(?P<module>[\w.]*?)\s*\bimport\b\s*(?:\((?P<block>[^)]*)\)|(?P<line>[^\n;]+))"
    r"|\bimport\b\s*(?P<plain>[^\n;]+)"
)


def _imports(path: Path) -> set[tuple[int, tuple[str, ...]]]:
    """The imports of a file: the number of leading dots, and the name's parts."""
    source = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    found: set[tuple[int, tuple[str, ...]]] = set()
    statements = list(_statements(source))
    if any("#" in (match["block"] or "") for match in statements):
        # A `)` in a comment would end it early; without comments too, then, but not only: a `#` may stand in a string.
        statements += _statements(_COMMENT.sub("", source))
    for match in statements:
        if match["plain"] is not None:
            found |= {(0, tuple(name.split("."))) for name in _names(match["plain"])}
            continue
        level = len(match["dots"])
        parts = tuple(match["module"].split(".")) if match["module"] else ()
        found |= {(level, parts)} if parts else set()
        found |= {(level, (*parts, name)) for name in _names(match["block"] or match["line"])}
    return found


def _statements(source: str) -> Iterator[re.Match[str]]:
    """The import statements: where a line says `import`, from its `from` on if it has one."""
    at = source.find("import")
    while at >= 0:
        match = _IMPORT.match(source, at)
        start = source.find("from", source.rfind("\n", 0, at) + 1, at)
        while start >= 0:
            longer = _IMPORT.match(source, start)
            match, start = (longer, -1) if longer else (match, source.find("from", start + 1, at))
        if match is not None:
            yield match
        at = source.find("import", max(at + 1, match.end() if match else 0))


def _names(listed: str) -> list[str]:
    """The names of `a, b as c`."""
    return [found[1] for item in listed.split(",") if (found := re.match(r"\s*(\w[\w.]*)", item))]


_LIBRARIES = ("tensorflow", "numpy")


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """The libraries that decide what is made."""
    return {library: version(library) for library in _LIBRARIES}


def extra_versions(extras: Iterable[str]) -> dict[str, str]:
    """Those that a format needs besides."""
    return {extra: version(extra) for extra in extras}
