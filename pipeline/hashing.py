"""Hash values, files, and the code of a module with everything that it imports.

A hash of values starts with their kind and is taken over a canonical encoding in which types
count: `1`, `1.0`, `True` and `"1"` all differ; the order of a mapping's keys does not count.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

from .errors import StoreError


def hash_values(kind: str, value: Any) -> str:
    """Return the sha256 of a kind and a value, as 64 hex digits.

    Args:
        kind: what the value is, so that equal values of different kinds have different hashes.
        value: None, bool, int, float, str, bytes, and sequences and mappings (with str keys) of these.

    Raises:
        TypeError: `value` holds anything else.
    """
    return hashlib.sha256(_encode(kind) + _encode(value)).hexdigest()


def _encode(value: Any) -> bytes:
    match value:
        case None:
            return b"n"
        case bool():
            return b"b1" if value else b"b0"
        case int():
            return _add_tag(b"i", str(value).encode())
        case float():
            return b"f" + struct.pack(">d", value)
        case str():
            return _add_tag(b"s", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _add_tag(b"y", value)
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("only str keys can be hashed")
            return _add_tag(b"m", b"".join(_encode(key) + _encode(value[key]) for key in sorted(value)))
        case Sequence():
            return _add_tag(b"l", b"".join(map(_encode, value)))
    raise TypeError(f"a {type(value).__name__} cannot be hashed: {value!r}")


def _add_tag(tag: bytes, body: bytes) -> bytes:
    return tag + str(len(body)).encode() + b":" + body


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, as 64 hex digits.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise StoreError("the file cannot be read", where=path, got=exc.strerror) from exc


def hash_code(start: Path, roots: Sequence[Path]) -> dict[str, str]:
    """Hash a module's source and every local module that it imports, directly or indirectly.

    Imports are read from the source text; nothing is executed. Files that are not Python but lie
    in the folder of an imported package (templates) count as its code.

    Args:
        start: the module's file.
        roots: folders under which an absolute import is local; other imports are libraries, which
            count by their versions instead. In a folder of installed packages only this package and the
            importing module's own package are local.

    Returns:
        sha256 by path, relative to the first root that holds it.

    Raises:
        StoreError: a source file cannot be read.
    """
    found: dict[str, str] = {}
    tops = tuple(os.path.realpath(root) for root in roots)
    waiting, seen = [os.path.realpath(start)], set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        source = _read_source(path)
        found[_label(path, tops)] = source.digest
        waiting.extend(_imported_files(path, source.imports, tops))
        if os.path.basename(path) == "__init__.py":
            package = os.path.dirname(path)
            data = (f"{package}/{name}" for name in _names_in(package) if not name.endswith((".py", ".pyc")))
            waiting.extend(filter(os.path.isfile, data))
    return dict(sorted(found.items()))


def _label(path: str, roots: Sequence[str]) -> str:
    for root in roots:
        folder = root.rstrip("/") + "/"
        if path.startswith(folder):
            return path[len(folder) :]
    return os.path.basename(path)


class _Source(NamedTuple):
    """Facts about a source file that `hash_code` needs.

    Args:
        state: size, time of change, time of change of its inode, and inode number of the file when it was read.
        imports: modules that it may import, with their leading dots (`..store.manifest`); none if it is not Python.
    """

    state: tuple[int, ...]
    digest: str
    imports: tuple[str, ...]


_RECENT_NS = 2_000_000_000  # a file changed so recently may change again within the resolution of its time stamps


class _SourceCache:
    """Sources that were read before and have not changed since.

    Those of this package are kept between runs in a file, beside its bytecode and under the same conditions
    (PYTHONDONTWRITEBYTECODE). A file that is missing, damaged or written by another version of this module is ignored.
    """

    def __init__(self, package: str, file: str) -> None:
        self._package, self._file = package, file
        self._sources: dict[str, _Source] | None = None
        self._has_news = False

    def find(self, path: str, state: tuple[int, ...]) -> _Source | None:
        """Return the source of a file, if it was read in this very state."""
        if self._sources is None:
            self._sources = self._load()
        source = self._sources.get(path)
        return source if source is not None and source.state == state else None

    def add(self, path: str, source: _Source) -> None:
        """Remember the source of a file."""
        assert self._sources is not None  # `find` was called before
        self._sources[path] = source
        if not self._has_news and path.startswith(f"{self._package}/") and not sys.dont_write_bytecode:
            self._has_news = True
            atexit.register(self.save)

    def save(self) -> None:
        """Write the sources of this package to the file, in one step; give up where that is not possible."""
        newest = time.time_ns() - _RECENT_NS
        kept = {
            path: source
            for path, source in (self._sources or {}).items()
            if path.startswith(f"{self._package}/") and max(source.state[1:3]) < newest
        }
        text = json.dumps(kept)
        working = f"{self._file}.{os.getpid()}"
        try:
            with open(working, "w", encoding="utf-8") as file:
                file.write(f"{self._checksum(text)}\n{text}")
            os.replace(working, self._file)
        except OSError:
            with suppress(OSError):
                os.unlink(working)

    def _load(self) -> dict[str, _Source]:
        try:
            with open(self._file, encoding="utf-8") as file:
                checksum, _, text = file.read().partition("\n")
            entries = json.loads(text) if checksum == self._checksum(text) else {}
        except (OSError, ValueError):
            return {}
        return {path: _Source(tuple(state), digest, tuple(names)) for path, (state, digest, names) in entries.items()}

    @staticmethod
    def _checksum(text: str) -> str:
        """Return the sha256 of a text and of this module, which decides what the text means."""
        return hashlib.sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()


_cache = _SourceCache(
    package=os.path.dirname(os.path.realpath(__file__)),
    file=os.path.join(os.path.dirname(cache_from_source(os.path.realpath(__file__))), "sources.json"),
)


def _read_source(path: str) -> _Source:
    try:
        stat = os.stat(path)
    except OSError:
        hash_file(Path(path))  # raises the error that says what is wrong
        raise
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    source = _cache.find(path, state)
    if source is None:
        imports = _imports(Path(path)) if path.endswith(".py") else ()
        source = _Source(state, hash_file(Path(path)), tuple(sorted(imports)))
        _cache.add(path, source)
    return source


@lru_cache(maxsize=1024)
def _imported_files(path: str, imports: tuple[str, ...], roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return the local files among the imports of a file."""
    names_in = cache(_names_in)  # a file's imports are mostly in the same few folders
    found = []
    for name in imports:
        module = name.lstrip(".")
        level = len(name) - len(module)
        parts = module.split(".")
        for base in (path.rsplit("/", level)[0],) if level else roots:
            if not level and not _is_local(base, parts[0], path):
                continue
            file = _file_of(base, parts, names_in)
            if file is not None:
                found.append(file)
    return tuple(found)


def _is_local(base: str, top: str, importer: str) -> bool:
    """Return False for a library: among installed packages only this one and the importing module's own are local."""
    if not _holds_installed_packages(base):
        return True
    own = importer.removeprefix(f"{base}/").partition("/")[0] if importer.startswith(f"{base}/") else ""
    return top in (__name__.partition(".")[0], own.removesuffix(".py"))


@lru_cache(maxsize=256)
def _holds_installed_packages(folder: str) -> bool:
    return any(name.endswith(".dist-info") for name in _names_in(folder))


def _file_of(base: str, parts: Sequence[str], names_in: Callable[[str], frozenset[str]]) -> str | None:
    """Return the file of a module below a folder. Paths are strings: there are many, and Path is much slower."""
    *packages, name = parts
    for package in packages:
        if package not in names_in(base):
            return None
        base = f"{base}/{package}"
    names = names_in(base)
    if f"{name}.py" in names:
        return f"{base}/{name}.py"
    return f"{base}/{name}/__init__.py" if name in names and "__init__.py" in names_in(f"{base}/{name}") else None


def _names_in(folder: str) -> frozenset[str]:
    """Return the names in a folder; none if there is no such folder."""
    try:
        return _names_as_of(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return frozenset()


@lru_cache(maxsize=256)
def _names_as_of(folder: str, _changed_ns: int) -> frozenset[str]:
    return frozenset(os.listdir(folder))


# Parsing every file would take longer than the rest of a run in which all is complete. The pattern finds every import
# statement, and at worst one inside a string: then one file too many is hashed, never one too few.
_COMMENT = re.compile(r"#.*")
_IMPORT = re.compile(
    r"\bfrom\b\s*(?P<dots>\.*)(?P<module>[\w.]*?)\s*\bimport\b\s*(?:\((?P<block>[^)]*)\)|(?P<line>[^\n;]+))"
    r"|\bimport\b\s*(?P<plain>[^\n;]+)"
)


def _imports(path: Path) -> set[str]:
    """Return the modules that a file may import, with their leading dots."""
    source = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    found: set[str] = set()
    statements = list(_statements(source))
    if any("#" in (match["block"] or "") for match in statements):
        # A `)` in a comment would end the block early, so comments are removed; but a `#` may also stand in a string.
        statements += _statements(_COMMENT.sub("", source))
    for match in statements:
        if match["plain"] is not None:
            found.update(_names(match["plain"]))
            continue
        module = match["dots"] + match["module"]
        found |= {module} if match["module"] else set()
        prefix = f"{module}." if match["module"] else module
        found |= {prefix + name for name in _names(match["block"] or match["line"])}
    return found


def _statements(source: str) -> Iterator[re.Match[str]]:
    """Find the import statements: from the word `from` of the line if it has one, else from `import`."""
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
    """Return the names of `a, b as c`."""
    return [found[1] for item in listed.split(",") if (found := re.match(r"\s*(\w[\w.]*)", item))]


_LIBRARIES = ("tensorflow", "numpy")


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that every stage's output depends on."""
    return {library: version(library) for library in _LIBRARIES}


def extra_versions(extras: Iterable[str]) -> dict[str, str]:
    """Return the versions of the libraries that a format needs in addition."""
    return {extra: version(extra) for extra in extras}
