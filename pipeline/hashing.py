"""Hash values, files, and the code of a module with everything that it imports.

A hash of values starts with their kind and is taken over a canonical encoding in which types
count: `1`, `1.0`, `True` and `"1"` all differ; the order of a mapping's keys does not count.

Code is hashed by its meaning: the syntax tree without docstrings. Comments and formatting do not count.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import json
import os
import re
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

from .errors import StoreError
from .inputs import open_file


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
    if type(value) is str:  # by far the most, so they come first
        body = value.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(body), body)
    if type(value) is dict and set(map(type, value)) == {str}:
        body = b"".join([part for key in sorted(value) for part in (_encode(key), _encode(value[key]))])
        return b"m%d:%b" % (len(body), body)
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
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise StoreError("the file cannot be read", where=path, got=exc.strerror) from exc


class CodeDigest(str):
    """The sha256 of a file of code, as 64 hex digits.

    Args:
        of_bytes: the sha256 of its bytes, by which artifacts of version 0.2 and before record the same file.
    """

    of_bytes: str

    def __new__(cls, digest: str, of_bytes: str) -> CodeDigest:
        made = super().__new__(cls, digest)
        made.of_bytes = of_bytes
        return made


def hash_code(start: Path | Sequence[Path], roots: Sequence[Path]) -> dict[str, CodeDigest]:
    """Hash a module's source and every local module that it imports, directly or indirectly.

    Nothing is executed. A file is hashed by its meaning: its syntax tree, without docstrings, comments and formatting.
    Hashed by bytes are files that are no valid Python, files that are not Python but lie in the folder of an imported
    package (templates), and all files if one of them reads docstrings or source text (`_TEXT_READERS`).

    Args:
        start: the module's file, or several.
        roots: folders under which an absolute import is local; other imports are libraries, which
            count by their versions instead. In a folder of installed packages only this package and the
            importing module's own package are local.

    Returns:
        The digest by path, relative to the first root that holds it.

    Raises:
        StoreError: a source file cannot be read.
    """
    found: dict[str, _Source] = {}
    tops = tuple(os.path.realpath(root) for root in roots)
    waiting = [os.path.realpath(path) for path in ([start] if isinstance(start, Path) else start)]
    # Somebody may put a module beside a model's code while a run lasts, not into this package.
    find_imported = _imported_files if tops == (_ROOT,) else _imported_files.__wrapped__
    seen = set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        source = _read_source(path)
        found[_label(path, tops)] = source
        waiting.extend(find_imported(path, source.imports, tops))
        if os.path.basename(path) == "__init__.py":
            package = os.path.dirname(path)
            data = (f"{package}/{name}" for name in _names_in(package) if not name.endswith((".py", ".pyc")))
            waiting.extend(filter(os.path.isfile, data))
    is_text_read = any(source.reads_text for source in found.values())
    return {
        label: CodeDigest(source.of_bytes if is_text_read else source.digest, source.of_bytes)
        for label, source in sorted(found.items())
    }


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
        digest: the sha256 of its meaning; of its bytes if it is not Python.
        of_bytes: the sha256 of its bytes.
        imports: modules that it may import, with their leading dots (`..store.manifest`); none if it is not Python.
        reads_text: whether it reads docstrings or source text, so that these count.
    """

    state: tuple[int, ...]
    digest: str
    of_bytes: str
    imports: tuple[str, ...]
    reads_text: bool


_RECENT_NS = 2_000_000_000  # a file changed so recently may change again within the resolution of its time stamps


class _SourceCache:
    """Sources that were read before and have not changed since.

    Those of this package are kept between runs in a file, beside its bytecode and under the same conditions
    (PYTHONDONTWRITEBYTECODE). A file that is missing, damaged or written by another version of this module is ignored.

    Args:
        package: the folder of the package.
        files: where to keep them: the first that can be written; all are read.
    """

    def __init__(self, package: str, *files: str) -> None:
        self._package, self._files = package, files
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
        for file in self._files:
            working = f"{file}.{os.getpid()}"
            try:
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with open(working, "w", encoding="utf-8") as opened:
                    opened.write(f"{self._checksum(text)}\n{text}")
                os.replace(working, file)
                return
            except OSError:
                with suppress(OSError):
                    os.unlink(working)

    def _load(self) -> dict[str, _Source]:
        found: dict[str, _Source] = {}
        for file in self._files:
            try:
                with open(file, encoding="utf-8") as opened:
                    checksum, _, text = opened.read().partition("\n")
                entries = json.loads(text) if checksum == self._checksum(text) else {}
            except (OSError, ValueError):
                continue
            for path, (state, digest, of_bytes, names, reads_text) in entries.items():
                found[path] = _Source(tuple(state), digest, of_bytes, tuple(names), reads_text)
        return found

    @staticmethod
    def _checksum(text: str) -> str:
        """Return the sha256 of a text, and of this module and Python, which decide what the text means."""
        return hashlib.sha256(f"{text}{sys.hexversion}".encode() + Path(__file__).read_bytes()).hexdigest()


def _cache_files() -> tuple[str, str]:
    """Return where the sources of this package are kept: beside its bytecode; if that is read-only, for the user."""
    own = os.path.realpath(__file__)
    place = hashlib.sha256(own.encode()).hexdigest()[:8]
    of_user = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (
        os.path.join(os.path.dirname(cache_from_source(own)), "sources.json"),
        os.path.join(of_user, "freeze-pipeline", f"sources-{place}.json"),
    )


_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # the folder of this package's folder
_cache = _SourceCache(os.path.dirname(os.path.realpath(__file__)), *_cache_files())


def _read_source(path: str) -> _Source:
    try:
        stat = os.stat(path)
    except OSError:
        hash_file(Path(path))  # raises the error that says what is wrong
        raise
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    source = _cache.find(path, state)
    if source is None:
        source = _understand(path, state)
        _cache.add(path, source)
    return source


def _understand(path: str, state: tuple[int, ...]) -> _Source:
    try:
        content = Path(path).read_bytes()
    except OSError:
        hash_file(Path(path))  # raises the error that says what is wrong
        raise
    of_bytes = hashlib.sha256(content).hexdigest()
    if not path.endswith(".py"):
        return _Source(state, of_bytes, of_bytes, (), False)
    try:
        with warnings.catch_warnings(action="ignore"):  # of its strings, which concern its author
            code = _Code(ast.parse(content))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not Python, or not of this version
        imports = _imports(content.decode(errors="replace"))
        return _Source(state, of_bytes, of_bytes, tuple(sorted(imports)), False)
    return _Source(state, code.digest, of_bytes, tuple(sorted(code.imports)), code.reads_text)


# Names by which code reads docstrings, source text and line numbers. In one string, because this module reads none.
_TEXT_READERS = frozenset(
    "__doc__ getdoc get_docstring getcomments getsource getsourcelines findsource get_source linecache "  # noqa: SIM905
    "pydoc doctest co_firstlineno f_lineno".split()
)
# Fields of syntax trees that follow from the others, or mean nothing.
_MEANINGLESS = frozenset(["ctx", "kind", "type_comment", "type_ignores"])
_NOTED = frozenset([ast.Name, ast.Attribute, ast.Constant, ast.Import, ast.ImportFrom])


class _Code:
    """A syntax tree without what means nothing, in a form that does not depend on the version of Python.

    A node is written as its name, the number of its fields, and each field's name and value; absent values and empty
    lists are left out, so that a field that a later version adds changes nothing.

    Attributes:
        imports: as those of `_Source`; also those of statements in strings that are not docstrings.
        reads_text: as that of `_Source`.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.imports: set[str] = set()
        self.reads_text = False
        # Not recursive: whether a deep tree is too deep would depend on the caller. One loop: there are many nodes.
        written: list[str] = []
        waiting: list[Any] = [tree]
        while waiting:
            value = waiting.pop()
            kind = type(value)
            if kind is list:
                written.append(str(len(value)))
                waiting += reversed(value)
            elif issubclass(kind, ast.AST):
                header, inside = kind.__name__, []
                for name in kind._fields:
                    inner = getattr(value, name, None)
                    if type(inner) is list:
                        inner = [item for item in inner if not _does_nothing(item, kind)] or None
                    if inner is not None and name not in _MEANINGLESS:
                        header += f" {name}"
                        inside.append(inner)
                written.append(header)
                waiting += reversed(inside)
                if kind in _NOTED:
                    self._note(value)
            else:
                written.append(hex(value) if kind is int else repr(value))
        self.digest = hash_values("code", "\n".join(written))

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                self.reads_text |= name in _TEXT_READERS
                return
            case ast.Constant(value=str(text)):
                used = [text]
                self.imports |= _imports(text) if "import" in text else set()
            case ast.Import(names=names):
                used = [alias.name for alias in names]
                self.imports |= set(used)
            case ast.ImportFrom(names=names, module=module, level=level):
                base = "." * level + (module or "")
                used = [f"{base}.{alias.name}" if module else base + alias.name for alias in names]
                self.imports |= {*used, *([base] if module else [])}
            case _:
                return
        self.reads_text |= any(not _TEXT_READERS.isdisjoint(each.split(".")) for each in used)


def _does_nothing(node: Any, parent: type) -> bool:
    """Return True for `pass`, and for a string that stands alone: a docstring, or one in place of a comment."""
    kind = type(node)
    if kind is ast.Expr:
        return type(node.value) is ast.Constant and isinstance(node.value.value, str)
    # Python 3.12.1 has empty strings between the parts of f-strings, other versions have none.
    return kind is ast.Pass or (parent is ast.JoinedStr and kind is ast.Constant and node.value == "")


@lru_cache(maxsize=1024)
def _imported_files(path: str, imports: tuple[str, ...], roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return the local files among the imports of a file."""
    find = _file_of_own if roots == (_ROOT,) else partial(_file_of, names_in=cache(_names_in))
    found = []
    for name in imports:
        module = name.lstrip(".")
        level = len(name) - len(module)
        for base in (path.rsplit("/", level)[0],) if level else roots:
            if not level and not _is_local(base, module.partition(".")[0], path):
                continue
            file = find(base, module)
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


@lru_cache(maxsize=4096)
def _file_of_own(base: str, module: str) -> str | None:
    """Return the file of a module of this package, whose folders stay as they are: most are imported by many."""
    return _file_of(base, module, _names_in_own)


def _file_of(base: str, module: str, names_in: Callable[[str], frozenset[str]]) -> str | None:
    """Return the file of a module below a folder. Paths are strings: there are many, and Path is much slower."""
    *packages, name = module.split(".")
    for package in packages:
        if package not in names_in(base):
            return None
        base = f"{base}/{package}"
    names = names_in(base)
    if name in names and "__init__.py" in names_in(f"{base}/{name}"):  # Python takes it before a module of the name
        return f"{base}/{name}/__init__.py"
    return next((f"{base}/{name}{suffix}" for suffix in _SUFFIXES if f"{name}{suffix}" in names), None)


def _names_in(folder: str) -> frozenset[str]:
    """Return the names in a folder; none if there is no such folder."""
    try:
        changed_ns = os.stat(folder).st_mtime_ns
        names_as_of = _names_as_of if changed_ns < time.time_ns() - _RECENT_NS else _names_as_of.__wrapped__
        return names_as_of(folder, changed_ns)
    except OSError:
        return frozenset()


_names_in_own = lru_cache(maxsize=256)(_names_in)


@lru_cache(maxsize=256)
def _names_as_of(folder: str, _changed_ns: int) -> frozenset[str]:
    return frozenset(os.listdir(folder))


# For text that cannot be parsed: the pattern finds every import statement, and at worst one inside a string. Then one
# file too many is hashed, never one too few.
_COMMENT = r"#.*"
_IMPORT = (
    r"\bfrom\b\s*(?P<dots>\.*)(?P<module>[\w.]*?)\s*\bimport\b\s*(?:\((?P<block>[^)]*)\)|(?P<line>[^\n;]+))"
    r"|\bimport\b\s*(?P<plain>[^\n;]+)"
)


def _imports(text: str) -> set[str]:
    """Return the modules that a text may import, with their leading dots."""
    source = text.replace("\\\n", " ")
    found: set[str] = set()
    statements = list(_statements(source))
    if any("#" in (match["block"] or "") for match in statements):
        # A `)` in a comment would end the block early, so comments are removed; but a `#` may also stand in a string.
        statements += _statements(re.sub(_COMMENT, "", source))
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
    pattern, at = re.compile(_IMPORT), source.find("import")
    while at >= 0:
        match = pattern.match(source, at)
        start = source.find("from", source.rfind("\n", 0, at) + 1, at)
        while start >= 0:
            longer = pattern.match(source, start)
            match, start = (longer, -1) if longer else (match, source.find("from", start + 1, at))
        if match is not None:
            yield match
        at = source.find("import", max(at + 1, match.end() if match else 0))


def _names(listed: str) -> list[str]:
    """Return the names of `a, b as c`."""
    return [found[1] for item in listed.split(",") if (found := re.match(r"\s*(\w[\w.]*)", item))]


_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES)  # of modules, in the order in which Python looks for them
_LIBRARIES = ("tensorflow", "numpy")


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that every stage's output depends on."""
    return {library: version(library) for library in _LIBRARIES}


def runtime_versions(commands: Iterable[str]) -> dict[str, str]:
    """Return what decides the answers of other interpreters, without starting them: what is installed beside each.

    A command that is no path of a Python (one that starts a container, say) is decided by its text alone.
    """
    found = {}
    for command in commands:
        folders = Path(command).parent.parent.glob("lib/python3*/*-packages") if os.sep in command else ()
        names = sorted(one.name for folder in folders for one in folder.glob("*-info"))
        found[f"runtime {command}"] = hash_values("distributions", names)[:16]
    return found


def extra_versions(extras: Iterable[str]) -> dict[str, str]:
    """Return the versions of the libraries that a stage uses in addition, without those that are not installed."""
    found = {}
    for extra in extras:
        with suppress(PackageNotFoundError):
            found[extra] = version(extra)
    return found
