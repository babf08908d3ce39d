"""Hashes: equal for the same things, different for all others, and stable for ever."""

from __future__ import annotations

import ast
import hashlib
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.hashing import _SourceCache, hash_code, hash_file, hash_values


def typed(value: Any) -> Any:
    """The value in a form in which Python itself tells types and the signs of zeros apart."""
    if isinstance(value, list):
        return ("list", [typed(item) for item in value])
    if isinstance(value, dict):
        return ("dict", {key: typed(item) for key, item in value.items()})
    return (type(value).__name__, repr(value))


@pytest.mark.parametrize(
    ("kind", "value", "digest"),
    [
        ("setting", None, "fcf7cc9192c267781476173018658dee5801afcf13d1e6254f2e84470a944670"),
        ("setting", 1, "12e93b2d74f9dbb6182d442be56f82d2c70c2eef470ad5e1007c478e84191b51"),
        (
            "setting",
            {"steps": 600, "rate": 1e-3, "on": True, "name": "spam", "raw": b"\0"},
            "2275c49df4a2d58ccf1211cc3ea09ca39b6bb4053a161151a4e65d1dc278f448",
        ),
        ("stage graph", [[], {}, "", b"", -0.0], "cf4595176f7726e72eb9201fd9b7d041191b49744181abb711cb670230583e69"),
    ],
)
def test_digests_are_the_same_for_ever(kind: str, value: Any, digest: str) -> None:
    assert hash_values(kind, value) == digest


def test_a_digest_is_the_sha256_of_tagged_values() -> None:
    # A kind, then a mapping of 13 bytes: each value with its tag, and its length where that may vary.
    assert hash_values("k", {"b": None, "a": 1}) == hashlib.sha256(b"s1:km13:s1:ai1:1s1:bn").hexdigest()


@given(strategies.nested(strategies.scalars), strategies.nested(strategies.scalars))
@example(1, True)
@example(1, 1.0)
@example(1, "1")
@example("1", b"1")
@example(0.0, -0.0)
@example(None, "")
@example([], {})
@example(["a", "b"], ["ab"])
@example([["a"], "b"], ["a", ["b"]])
@example({"a": 1}, ["a", 1])
def test_digests_are_equal_exactly_where_values_and_types_are(one: Any, other: Any) -> None:
    assert (hash_values("k", one) == hash_values("k", other)) == (typed(one) == typed(other))


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_equal_values_of_different_kinds_differ(one: str, other: str, value: str) -> None:
    assert (hash_values(one, value) == hash_values(other, value)) == (one == other)


def test_a_kind_does_not_run_into_its_value() -> None:
    assert hash_values("ab", "c") != hash_values("a", "bc")


@given(st.dictionaries(st.text(max_size=4), strategies.scalars, min_size=2, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_count(values: dict[str, Any], random: Any) -> None:
    items = list(values.items())
    random.shuffle(items)
    assert hash_values("k", dict(items)) == hash_values("k", values)


def test_the_order_of_a_list_counts() -> None:
    assert hash_values("k", [1, 2]) != hash_values("k", [2, 1])


def test_a_tuple_is_a_list_as_json_has_no_tuples() -> None:
    assert hash_values("k", (1, "a")) == hash_values("k", [1, "a"])


def test_text_that_is_no_unicode_can_be_hashed() -> None:
    assert hash_values("k", "\ud800") != hash_values("k", "\ud801")


@pytest.mark.parametrize("value", [{1, 2}, object(), Path("a"), 1j, {"a": {3}}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash_values("k", value)


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(TypeError, match="str keys"):
        hash_values("k", {1: "a"})


@given(st.binary(max_size=64))
def test_a_files_digest_is_that_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "some.bin"
    path.write_bytes(raw)
    assert hash_file(path) == hashlib.sha256(raw).hexdigest()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent: the file cannot be read \(got No such file"):
        hash_file(tmp_path / "absent")
    with pytest.raises(StoreError, match="not a file but a folder"):
        hash_file(tmp_path)


def write(folder: Path, sources: dict[str, str]) -> Path:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


PACKAGE = {
    "top.py": "import os\nimport pack.deep\nfrom pack import near as n\n\ndef f():\n    from other import thing\n",
    "other.py": "import absent_library\n",
    "unused.py": "",
    "pack/__init__.py": "",
    "pack/near.py": "from . import sibling\nfrom .. import other\n",
    "pack/sibling.py": "from .sub.leaf import x\n",
    "pack/deep.py": "",
    "pack/alone.py": "",
    "pack/page.html.j2": "<p>",
    "pack/sub/leaf.py": "x = 1\n",
}


def test_code_is_followed_through_every_form_of_import(tmp_path: Path) -> None:
    found = hash_code(write(tmp_path, PACKAGE) / "top.py", [tmp_path])
    assert set(found) == set(PACKAGE) - {"unused.py", "pack/alone.py"}
    assert found["pack/page.html.j2"] == hashlib.sha256(b"<p>").hexdigest()


@pytest.mark.parametrize("name", sorted(set(PACKAGE) - {"unused.py", "pack/alone.py"}))
def test_a_changed_import_changes_the_code(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, PACKAGE)
    before = hash_code(folder / "top.py", [folder])
    (folder / name).write_text(PACKAGE[name] + "changed = 1\n")
    after = hash_code(folder / "top.py", [folder])
    assert {key for key in before if before[key] != after[key]} == {name}


def test_a_file_that_is_not_imported_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, PACKAGE)
    before = hash_code(folder / "top.py", [folder])
    (folder / "unused.py").write_text("changed = 1\n")
    assert hash_code(folder / "top.py", [folder]) == before


def test_code_is_not_executed(tmp_path: Path) -> None:
    write(tmp_path, {"top.py": "raise SystemExit(1)\n"})
    assert list(hash_code(tmp_path / "top.py", [tmp_path])) == ["top.py"]


def test_where_a_project_stands_does_not_count(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", PACKAGE), write(tmp_path / "two", PACKAGE)
    assert hash_code(one / "top.py", [one]) == hash_code(two / "top.py", [two])


def test_imports_are_found_under_every_root(tmp_path: Path) -> None:
    write(tmp_path, {"a/top.py": "import far\n", "b/far.py": "import back\n", "a/back.py": ""})
    assert list(hash_code(tmp_path / "a/top.py", [tmp_path / "a", tmp_path / "b"])) == ["back.py", "far.py", "top.py"]


def test_code_that_is_not_python_counts_too(tmp_path: Path) -> None:
    write(tmp_path, {"top.py": "import near\ny = (\n", "near.py": ""})
    assert list(hash_code(tmp_path / "top.py", [tmp_path])) == ["near.py", "top.py"]


@pytest.mark.parametrize(
    "source",
    [
        "import pack.near",
        "import pack.near as n, os",
        "import os, pack.near",
        "import os; import pack.near",
        "if True: import pack.near",
        "from pack import near",
        "from pack import (  # ) as it were\n    other,\n    near,\n)",
        "from pack import(near)",
        "from pack import other, \\\n    near",
        "from \\\n    pack import near as n",
        "from\tpack\timport\tnear",
        "from pack.near import *",
        "from .pack import near",
        "from.pack import near",
        "from .pack.near import x",
        "x = '#'; from pack import near",
        "x = '#fff' if import_it else 0; import pack.near  # why",
        "try:\n    from pack import near\nexcept ImportError:\n    near = None",
        "def f():\n    from pack.near import x\n    return x",
    ],
)
def test_every_way_to_write_an_import_is_seen(tmp_path: Path, source: str) -> None:
    write(tmp_path, {"pack/__init__.py": "", "pack/near.py": "", "pack/other.py": ""})
    # Parsed; not Python, so that a pattern has to find it; and in a string that may be code.
    for text in (source, f"{source}\ny = (", f"exec({source!r})"):
        write(tmp_path, {"top.py": f"{text}\n"})
        assert "pack/near.py" in hash_code(tmp_path / "top.py", [tmp_path]), text


@pytest.mark.parametrize(
    "source", ["from . import near", "from .import near", "from . import (near)", "from .near import x"]
)
def test_a_sibling_is_seen_however_it_is_imported(tmp_path: Path, source: str) -> None:
    write(tmp_path, {"pack/__init__.py": "", "pack/top.py": source + "\n", "pack/near.py": ""})
    assert "pack/near.py" in hash_code(tmp_path / "pack/top.py", [tmp_path])


@pytest.mark.parametrize(
    "text", ["the import / export of tables", "import /", "import .", "import ''", "from / import /"]
)
def test_prose_that_looks_like_an_import_does_no_harm(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"top.py": f'"""{text}"""\n'})
    assert list(hash_code(tmp_path / "top.py", [tmp_path])) == ["top.py"]


def test_a_word_in_a_comment_is_no_import(tmp_path: Path) -> None:
    write(tmp_path, {"top.py": "x = 1  # important: reimport near\nimporter = near = x\n", "near.py": ""})
    assert list(hash_code(tmp_path / "top.py", [tmp_path])) == ["top.py"]


def test_code_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent\.py"):
        hash_code(tmp_path / "absent.py", [tmp_path])


@pytest.mark.parametrize(
    "statement",
    [
        "from fromage import x",
        "a = 'from'; from fromage import x",
        "if True: import fromage",
        "import os, fromage as f",
        "from fromage import (  # why (or not)\n    a,\n    b,\n)",
        "from \\\n    fromage import x",
        "import important; import fromage",
        "def f(): from fromage import x",
        "x = 'no import'\nimport fromage",
    ],
)
def test_odd_forms_of_imports_are_seen(tmp_path: Path, statement: str) -> None:
    for text in (statement, f"{statement}\ny = ("):
        write(tmp_path, {"top.py": f"{text}\n", "fromage.py": "x = 1\n", "important.py": "y = 2\n"})
        assert "fromage.py" in hash_code(tmp_path / "top.py", [tmp_path]), text


def test_every_import_of_the_package_that_python_sees_is_seen() -> None:
    package = Path(__file__).resolve().parents[2] / "pipeline"
    for path in package.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        relative = [node for node in tree if isinstance(node, ast.ImportFrom) and node.level]
        wanted = {path.parents[node.level - 1].joinpath(*node.module.split(".")) for node in relative if node.module}
        files = {f"{place}.py" for place in wanted} | {str(place / "__init__.py") for place in wanted}
        seen = {str(package.parent / name) for name in hash_code(path, [package.parent])}
        assert {name for name in files if Path(name).is_file()} <= seen, path


def test_among_installed_packages_the_others_are_libraries(tmp_path: Path) -> None:
    for name, source in {
        "mine/model.py": "import mine.layers\nimport library\nimport pipeline.signature\n",
        "mine/layers.py": "import library.deep\n",
        "library/__init__.py": "",
        "library/deep.py": "",
        "pipeline/signature.py": "import library\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    everything = {"mine/model.py", "mine/layers.py", "library/__init__.py", "library/deep.py", "pipeline/signature.py"}
    assert set(hash_code(tmp_path / "mine/model.py", [tmp_path])) == everything
    installed = tmp_path.with_name("site-packages")
    tmp_path.rename(installed)
    (installed / "library-1.0.dist-info").mkdir()
    assert set(hash_code(installed / "mine/model.py", [installed])) == everything - {
        "library/__init__.py",
        "library/deep.py",
    }


# What code means

CODE = '''"""Layers of the model."""
import os  # for the environment


class Layer:
    """One layer."""

    width: int = 4

    def forward(self, x):
        """Multiply."""
        if x is None:
            pass
        return [x * 0.5,
                -1, "a#b", b"raw", 1e3, 2j, ..., {**x}]
'''
SAME = {
    "comments": CODE.replace("  # for the environment", "") + "# the end\n",
    "docstrings": CODE.replace("One layer.", "A layer that doubles.\n\n    from other import docs\n    "),
    "no docstrings": CODE.replace('"""Layers of the model."""\n', "").replace('        """Multiply."""\n', ""),
    "formatting": CODE.replace("[x * 0.5,\n                -1", "[(x*.5), -1").replace("\n\n\n", "\n"),
    "quotes": CODE.replace('"a#b"', "'a#b'").replace("1e3", "1_000.0"),
    "line ends": CODE.replace("\n", "\r\n"),
    "a string as a comment": CODE.replace("            pass", '            "nothing to do"'),
}
OTHER = {
    "a number": CODE.replace("0.5", "0.25"),
    "an equal number of another type": CODE.replace("1e3", "1000"),
    "a sign": CODE.replace("-1", "1"),
    "a string": CODE.replace('"a#b"', '"a#c"'),
    "the kind of a string": CODE.replace('"a#b"', 'b"a#b"'),
    "a name": CODE.replace("width", "height"),
    "an annotation": CODE.replace("width: int", "width: float"),
    "indentation": CODE.replace("        return", "            return"),
    "a decorator": CODE.replace("    def", "    @staticmethod\n    def"),
    "the order of arguments": CODE.replace("(self, x)", "(x, self)"),
    "what is unpacked": CODE.replace("{**x}", "{x: x}"),
    "an import": CODE.replace("import os", "import sys"),
    "an assertion": CODE.replace("pass", "assert x"),
}


def digest_of(folder: Path, text: str, **others: str) -> str:
    sources = {"top.py": text, "other.py": "", **{f"{name}.py": source for name, source in others.items()}}
    return hash_values("code", hash_code(write(folder, sources) / "top.py", [folder]))


@pytest.mark.parametrize("change", SAME)
def test_what_python_does_not_run_is_not_hashed(tmp_path: Path, change: str) -> None:
    assert SAME[change] != CODE
    assert digest_of(tmp_path, SAME[change]) == digest_of(tmp_path, CODE)


@pytest.mark.parametrize("change", OTHER)
def test_what_python_runs_is_hashed(tmp_path: Path, change: str) -> None:
    assert OTHER[change] != CODE
    assert digest_of(tmp_path, OTHER[change]) != digest_of(tmp_path, CODE)


def test_a_comment_that_decides_how_the_file_is_read_counts(tmp_path: Path) -> None:
    (tmp_path / "top.py").write_bytes(b"# coding: latin-1\nx = '\xc3\xa4'\n")
    before = hash_code(tmp_path / "top.py", [tmp_path])
    (tmp_path / "top.py").write_bytes(b"# coding: utf-8\nx = '\xc3\xa4'\n")
    assert hash_code(tmp_path / "top.py", [tmp_path]) != before


@pytest.mark.parametrize(
    "reader",
    [
        "VOCABULARY = __doc__.split()",
        "VOCABULARY = other.__doc__",
        "VOCABULARY = getattr(other, '__doc__')",
        "import inspect; inspect.getsource(other)",
        "from inspect import getdoc as words",
        "from linecache import getlines",
        "import pydoc; VOCABULARY = pydoc.render_doc(other)",
    ],
)
def test_where_docstrings_or_source_text_are_read_they_count(tmp_path: Path, reader: str) -> None:
    """They count in every file of that code: which module's text is read is known only when it runs."""
    top = f'"""One two."""\nimport other\n{reader}\n'
    before = digest_of(tmp_path, top, other='"""Three."""\n')
    assert digest_of(tmp_path, top.replace("One", "An"), other='"""Three."""\n') != before
    assert digest_of(tmp_path, top, other='"""Four."""\n') != before


def test_code_that_cannot_be_parsed_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    for text in ("x = (  # not closed\n", "x = 1\0\n", "print 'of Python 2'\n"):
        (tmp_path / "top.py").write_text(text)
        assert hash_code(tmp_path / "top.py", [tmp_path]) == {"top.py": sha256_of(tmp_path / "top.py")}


def test_the_digest_of_code_is_the_same_for_ever(tmp_path: Path) -> None:
    """A golden value: another one would make every artifact stale, as would one that depends on Python's version."""
    write(tmp_path, {"top.py": CODE, "typed.py": "def f(a, /, *b: int, c=None, **d) -> str: return f'{a!r:>{c}}'\n"})
    found = {name: str(hash_code(tmp_path / name, [tmp_path])[name]) for name in ("top.py", "typed.py")}
    assert found == {
        "top.py": "08eaf0b0bb5315cd2a618a1948462946f9675d47b2687b707f01bb53c000bc96",
        "typed.py": "76623678c475e5ced04737edc46efbfa31edccbf6c29cf12cbcfca7782759fb2",
    }


def test_a_deep_expression_is_hashed_the_same_from_any_depth(tmp_path: Path) -> None:
    write(tmp_path, {"top.py": f"x = {'+'.join('1' * 900)}\n"})

    def at(depth: int) -> str:
        return at(depth - 1) if depth else hash_code(tmp_path / "top.py", [tmp_path])["top.py"]

    shallow = at(0)
    os.utime(tmp_path / "top.py")
    assert at(200) == shallow
    assert shallow != sha256_of(tmp_path / "top.py")


def test_the_packages_own_code_is_hashed_by_its_meaning() -> None:
    """A name of `_TEXT_READERS` in a module that many import would make all of them depend on comments again."""
    from pipeline.tasks.chain.stages import STAGES

    package = Path(__file__).resolve().parents[2] / "pipeline"
    for stage in STAGES.values():
        found = hash_code([package / name for name in stage.code], [package.parent])
        assert {name for name, digest in found.items() if name.endswith(".py") and digest == digest.of_bytes} == set()


# Sources that were read in an earlier run


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose files have not changed for a while."""
    folder = write(tmp_path / "package", {"a.py": "import b\n", "b.py": "x = 1\n"})
    for path in folder.iterdir():
        os.utime(path, (1_000_000, 1_000_000))
    return folder


def cache_of(package: Path) -> _SourceCache:
    """The cache as a new process has it."""
    return _SourceCache(str(package), str(package / "sources.json"))


@pytest.fixture
def filled(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, after a run that has kept its sources."""
    monkeypatch.setattr("pipeline.hashing._RECENT_NS", -(10**18))  # its files are new, and kept all the same
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    cache = cache_of(package)
    monkeypatch.setattr("pipeline.hashing._cache", cache)
    hash_code(package / "a.py", [package])
    cache.save()
    return package


def state_of(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def found(package: Path, name: str = "a.py") -> Any:
    return cache_of(package).find(str(package / name), state_of(package / name))


def test_a_source_is_read_once_as_long_as_it_stays(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = hash_code(filled / "a.py", [filled])
    monkeypatch.setattr("pipeline.hashing._cache", cache_of(filled))
    monkeypatch.setattr("pipeline.hashing._understand", None)  # reading a file again would be an error
    found = hash_code(filled / "a.py", [filled])
    assert found == wanted
    assert {name: digest.of_bytes for name, digest in found.items()} == {
        name: sha256_of(filled / name) for name in ("a.py", "b.py")
    }


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_changed_source_is_read_again_though_its_size_and_time_are_the_old_ones(filled: Path) -> None:
    before = (filled / "b.py").stat()
    (filled / "b.py").write_text("x = 2\n")
    os.utime(filled / "b.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(filled) is not None
    assert found(filled, "b.py") is None
    (filled / "a.py").unlink()
    (filled / "a.py").write_text("import b\n")  # another inode
    assert found(filled) is None


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other version", "missing", "folder", "binary"])
def test_a_cache_that_is_not_whole_is_ignored(filled: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = filled / "sources.json"
    text = file.read_text()
    assert found(filled) is not None
    match damage:
        case "empty":
            file.write_text("")
        case "cut":
            file.write_text(text[:-1])
        case "flipped":
            digest = sha256_of(filled / "a.py")
            assert digest in text
            file.write_text(text.replace(digest, digest[::-1]))
        case "other version":
            monkeypatch.setattr("pipeline.hashing.__file__", str(filled / "b.py"))
        case "missing":
            file.unlink()
        case "folder":
            file.unlink()
            file.mkdir()
        case "binary":
            file.write_bytes(b"\xff\xfe")
    assert found(filled) is None


def test_a_cache_is_written_only_if_a_source_is_new(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    monkeypatch.setattr("pipeline.hashing._cache", cache_of(filled))
    hash_code(filled / "a.py", [filled])
    assert registered == []
    (filled / "b.py").write_text("x = 3\n")
    hash_code(filled / "a.py", [filled])
    assert len(registered) == 1
    (filled / "a.py").write_text("import b  # changed\n")
    hash_code(filled / "a.py", [filled])
    assert len(registered) == 1


def test_a_source_that_has_just_changed_is_not_kept(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.hashing._RECENT_NS", 60 * 10**9)
    cache = cache_of(filled)
    assert cache.find(str(filled / "a.py"), state_of(filled / "a.py")) is not None
    cache.save()
    assert found(filled) is None


def test_no_cache_is_written_where_no_bytecode_is(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    monkeypatch.setattr("pipeline.hashing._cache", cache_of(package))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    hash_code(package / "a.py", [package])
    assert registered == []


def test_sources_outside_the_package_are_not_kept(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr("pipeline.hashing._cache", _SourceCache(str(package / "inner"), str(package / "sources.json")))
    hash_code(package / "a.py", [package])
    assert registered == []


def test_a_cache_that_cannot_be_written_is_no_error(package: Path) -> None:
    cache = _SourceCache(str(package), str(package / "a.py/sources.json"))
    cache.save()
    assert sorted(path.name for path in package.iterdir()) == ["a.py", "b.py"]


def test_sources_of_a_read_only_package_are_kept_for_the_user(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing all of them at each start would take longer than the rest of a run in which all is complete."""
    files = [str(filled / "a.py/sources.json"), str(tmp_path / "user/freeze-pipeline/sources.json")]
    cache = _SourceCache(str(filled), *files)
    monkeypatch.setattr("pipeline.hashing._cache", cache)
    hash_code(filled / "a.py", [filled])
    cache.save()
    kept = _SourceCache(str(filled), *files).find(str(filled / "a.py"), state_of(filled / "a.py"))
    assert kept is not None


def test_a_module_that_appears_while_the_process_lasts_is_found_as_python_would_find_it(tmp_path: Path) -> None:
    write(tmp_path, {"model.py": "import near", "other.py": ""})
    assert set(hash_code(tmp_path / "model.py", [tmp_path])) == {"model.py"}
    suffix = EXTENSION_SUFFIXES[0]
    for name in ("near.py", f"near{suffix}", "near/__init__.py"):  # the later ones come first
        write(tmp_path, {name: ""})
        assert set(hash_code(tmp_path / "model.py", [tmp_path])) == {"model.py", name}
