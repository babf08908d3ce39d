"""Record what a function reads from outside: files, folders, environment variables.

Python reports every opened file and listed folder to audit hooks (PEP 578). It does not report environment variables,
and questions whether a file exists: `os.environ`, `os.stat` and `os.access` are wrapped. `tensorflow_reads` wraps what
TensorFlow and HDF5 open themselves. Only a process that runs a model's code is wrapped. What cannot be seen is said.

Not recorded are Python's own files, installed packages, caches, devices, what the function itself has written, and what
a library reads while it is imported: their versions count instead.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import site
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib.util import source_from_cache
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.inputs import FOLDER, State, state_of

MOST_READS = 10_000
_CLOCK_NS = 20_000_000  # time stamps of files come from a clock that may be so much behind
# Variables that Python's library reads for purposes of its own: folders, language, terminal, proxies.
_OF_PYTHON = (
    r"(?i)HOME|TMPDIR|TEMP|TMP|PATH|PWD|USER|LOGNAME|LNAME|USERNAME|TZ|COLUMNS|LINES|TERM|NO_COLOR|FORCE_COLOR"
    r"|REQUEST_METHOD|LANG|LANGUAGE|(LC|XDG|PYTHON|SSL_CERT)_?\w*|\w+_proxy"
)
_PACKAGE = str(Path(__file__).resolve().parents[1])
_DEVICES = ("/dev", "/proc", "/sys")
_IMPORTERS = ("<frozen importlib._bootstrap_external>", "<frozen zipimport>")
_FILE_FUNCTIONS = ("/tensorflow/python/lib/io/file_io.py", "/pipeline/workers/tensorflow_reads.py")  # they only ask


@dataclass(frozen=True)
class Watch:
    """What to record of a function's reads.

    Args:
        code: folders, or single files, of a model's own code; only files are recorded if empty.
        ignored: folders and files that do not count.
        environment: the environment variables to run with; those of the process if None.
        journal: a file that gets a line for each read, for runs that may be interrupted; see `read_journal`.
    """

    code: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    journal: Path | None = None


@dataclass
class Reads:
    """What a function has read.

    Args:
        files: the state of each file when it was opened, by path; None for a file that was looked for and missing,
            `FOLDER` for a folder whose existence was asked for. A path is absolute, or begins with `./` if the function
            gave it relative to the working folder.
        changed: files and links that were opened in two states.
        links: the target of each link that the model's code followed by itself, by path.
        folders: the names in each folder that the model's code listed, by path.
        variables: the hash of each environment variable that the model's code read, by name; None if it was not set.
        modules: the state of each file of code that was imported, and is no library.
        for_graph: the paths among the files that a graph holds, and reads again whenever it runs.
        unwatched: sentences about what could not be recorded.
    """

    files: dict[str, State | None] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    folders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    variables: dict[str, str | None] = field(default_factory=dict)
    modules: dict[str, State] = field(default_factory=dict)
    for_graph: set[str] = field(default_factory=set)
    unwatched: list[str] = field(default_factory=list)


def call_recorded(function: Callable[..., Any], watch: Watch, *args: Any) -> tuple[Any, Reads]:
    """Call a function and record what it reads; for a process that serves no other call afterwards."""
    if watch.environment is not None:
        _take_environment(watch.environment)
    if watch.code:
        _wrap_python()
    if "tensorflow" in sys.modules:  # imported by its name, because Luigi's process imports this module too
        importlib.import_module("pipeline.workers.tensorflow_reads").wrap_tensorflow()
    with record_reads(watch) as reads:
        result = function(*args)
    return result, reads


def _take_environment(wanted: Mapping[str, str]) -> None:
    """Set the environment: that of a fork server is as old as the server. Variables that libraries have set stay."""
    preload = sys.modules.get("pipeline.workers.preload")
    set_by_libraries = preload.SET_BY_LIBRARIES if preload is not None else set(os.environ)
    for name in os.environ.keys() - wanted.keys() - set_by_libraries:
        del os.environ[name]
    os.environ.update(wanted)


def _wrap_python() -> None:
    """Wrap what the audit hooks do not report."""
    for environment in (os.environ, os.environb):
        environment.__class__ = _WatchedEnvironment  # the object itself stays: others hold it
    os.stat, os.access = _reporting(os.stat), _reporting(os.access)
    os.path.lexists = _reporting(os.path.lexists)
    os.readlink = _reporting(os.readlink, _Recorder.read_link)
    os.open = _reporting_in_folder(os.open)


@contextmanager
def record_reads(watch: Watch) -> Iterator[Reads]:
    """Record what this process reads until the end of the block."""
    _install_hook()
    recorder = _Recorder(watch)
    _recorders.append(recorder)
    try:
        yield recorder.reads
    finally:
        _recorders.remove(recorder)
        recorder.finish()


def hash_variable(value: str | None) -> str | None:
    """Return the sha256 of a variable's value, which may be a secret; None if it is not set."""
    return None if value is None else hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


_recorders: list[_Recorder] = []
_inside = threading.local()


@cache
def _install_hook() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    handle = _EVENTS.get(event)
    if handle is not None and _recorders:
        report(handle, *args)


def report(handle: Callable[..., None], *args: Any) -> None:
    """Tell the recorders of an event, unless it comes from a recorder itself."""
    if getattr(_inside, "recorder", False):
        return
    _inside.recorder = True
    try:
        for recorder in tuple(_recorders):
            with suppress(OSError, ValueError):  # such as a path that is none
                handle(recorder, *args)
    finally:
        _inside.recorder = False


class _Recorder:
    def __init__(self, watch: Watch) -> None:
        self._watch, self.reads = watch, Reads()
        self._cwd = os.getcwd()
        self._written: set[str] = set()
        self._updated: set[str] = set()  # opened to be read and perhaps written
        self._made_folders: list[str] = []
        self._ensured_folders: list[str] = []  # they would be made if they were not there
        self._kinds: dict[str, str] = {}
        self._started_ns = time.time_ns() - _CLOCK_NS

    # Files

    def open(self, path: Any, mode: str | None, flags: int) -> None:
        """Note a file that Python opens."""
        if isinstance(path, int):
            return
        given = os.fsdecode(path)
        if mode is None and not os.path.isabs(given) and state_of(given) is None:
            return  # a new file, or one in the folder of `dir_fd`, which `os.open` tells
        if (flags or 0) & os.O_ACCMODE == os.O_WRONLY:
            self.write(given)
        elif self._is_import():
            self._note_module(given)
        elif (flags or 0) & os.O_CREAT and state_of(given) is None:
            self.write(given)
        else:
            self.read(given)
            if (flags or 0) & os.O_ACCMODE == os.O_RDWR:
                self._updated.add(os.path.abspath(given))

    def open_in_folder(self, name: Any, flags: int, folder: int) -> None:
        """Note a file that Python opens in an open folder."""
        if not os.path.isabs(os.fsdecode(name)):
            self.open(os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(name)), None, flags)

    def read(self, given: Any, is_for_graph: bool = False, is_asked: bool = False) -> None:
        """Note a file that is read, or a folder if its existence is asked for."""
        given = os.fsdecode(given)
        path = os.path.abspath(given)
        if self._is_ignored(path) or self._is_made(path):
            return
        state = state_of(path)
        if state == FOLDER and (not is_asked or self._is_ignored(f"{path}/")):
            return
        asker = self._asker()
        if not (asker.is_model if state is None else not asker.is_import):
            return
        label = self._label(given, path)
        if label not in self.reads.files:
            if self._has_room():
                self.reads.files[label] = state
                self._write_journal("file", label, state)
        elif self.reads.files[label] != state:
            self.reads.changed.add(label)
        if is_for_graph:
            self.reads.for_graph.add(label)

    def ask(self, given: Any) -> None:
        """Note a file whose existence the model's code asks for."""
        if isinstance(given, str | bytes | os.PathLike) and self._asker().is_own:
            self.read(given, is_asked=True)

    def read_link(self, given: Any) -> None:
        """Note a link whose target the model's code reads, not one on the way to what is no input."""
        given = os.fsdecode(given)
        path = os.path.abspath(given)
        is_foreign = any(folder.startswith(f"{path}/") for folder in _foreign_folders())
        if is_foreign or self._is_ignored(path) or self._is_made(path) or not self._asker().is_own:
            return
        label, target = self._label(given, path), quietly(os.readlink, path)
        if label not in self.reads.links and self._has_room():
            self.reads.links[label] = target
            self._write_journal("link", label, target)
        elif self.reads.links.get(label) != target:
            self.reads.changed.add(label)

    def write(self, given: Any) -> None:
        """Note a file that the function writes: it is no input."""
        self._written.add(os.path.abspath(os.fsdecode(given)))

    def make_folder(self, path: Any, *_: Any) -> None:
        """Note a folder that the function makes: what is in it is no input."""
        folders = self._ensured_folders if os.path.exists(path) else self._made_folders
        folders.append(os.path.abspath(os.fsdecode(path)) + "/")

    def remove(self, path: Any, folder: int = -1) -> None:
        """Note a file or a folder that the function removes: its place is no input."""
        if folder == -1 and not isinstance(path, int):
            place = os.path.abspath(os.fsdecode(path))
            if os.path.isdir(place) and not os.path.islink(place):
                self._made_folders.append(f"{place}/")
            else:
                self._written.add(place)

    def move(self, source: Any, target: Any, *_: Any) -> None:
        """Note the new name of a file or a folder."""
        if os.path.isdir(source):
            self._made_folders.append(os.path.abspath(os.fsdecode(target)) + "/")
        else:
            self.write(target)

    def open_database(self, path: Any, *_: Any) -> None:
        """Note a database of SQLite, which opens it itself."""
        if isinstance(path, str | bytes | os.PathLike) and os.path.exists(path):
            self.read(path)

    def load_library(self, name: Any, *_: Any) -> None:
        """Note a shared library that is loaded by its path."""
        if isinstance(name, str) and os.path.isabs(name):
            self.read(name)

    def import_module(self, _module: str, file: str | None, *_: Any) -> None:
        """Note a compiled module; those of Python are opened as files."""
        if file:
            self._note_module(file)

    def _note_module(self, given: str) -> None:
        is_cached = given.endswith(".pyc") and os.path.basename(os.path.dirname(given)) == "__pycache__"
        path = os.path.abspath(source_from_cache(given) if is_cached else given)
        state = state_of(path)
        if state is None or self._is_foreign(path):
            return
        if self.reads.modules.setdefault(path, state) != state:
            self.reads.changed.add(path)
        self._write_journal("module", path, state)

    # Folders, variables, and what cannot be seen

    def list_folder(self, given: Any = None, *_: Any) -> None:
        """Note a folder whose names are read."""
        if self._is_import() or not self._watch.code:
            return
        if isinstance(given, int):
            if not self._asker().is_direct:  # not `shutil.rmtree`
                return
            given = os.readlink(f"/proc/self/fd/{given}")
        given = "." if given is None else os.fsdecode(given)
        path = os.path.abspath(given)
        if self._is_ignored(f"{path}/") or f"{path}/".startswith(tuple(self._made_folders)):
            return
        if self._asker().is_model and self._has_room():
            with suppress(FileNotFoundError, NotADirectoryError):
                self.reads.folders.setdefault(self._label(given, path), names_in(path))

    def read_variable(self, name: str, value: str | None) -> None:
        """Note an environment variable that the model's code reads, not one by which Python's library finds its way."""
        asker = self._asker()
        is_wanted = asker.is_direct or (asker.is_own and not re.fullmatch(_OF_PYTHON, name))
        if is_wanted and name not in self.reads.variables:
            self.reads.variables[name] = hash_variable(value)
            self._write_journal("variable", name, hash_variable(value))

    def read_environment(self) -> None:
        """Say that all variables are read."""
        if self._asker().is_direct:
            self._say("all environment variables together: only those that are read by name count")

    def start_process(self, what: Any = "", *_: Any) -> None:
        """Say that another process is started."""
        if self._asker().is_model:
            name = os.fsdecode(what) if isinstance(what, str | bytes | os.PathLike) else ""
            self._say(f"what another program reads that it starts{f': {name}' if name else ''}")

    def connect(self, _socket: Any, address: Any) -> None:
        """Say that another host is asked."""
        if self._asker().is_model:
            place = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else os.fsdecode(address)
            self._say(f"what comes over the network from {place}")

    def read_unseen(self, what: str) -> None:
        """Say what is read unseen."""
        if self._asker().is_model:
            self._say(what)

    def finish(self) -> None:
        """Remove what the function itself has written."""
        reads = self.reads
        inner, ensured = tuple(self._made_folders), (*self._made_folders, *self._ensured_folders)
        reads.links = {label: target for label, target in reads.links.items() if not self._is_made(label)}
        for label, state in list(reads.files.items()):
            path = os.path.abspath(label)
            is_written = path in self._written or (path in self._updated and state_of(path) != state)
            was_temporary = state is not None and state[-1:] > (self._started_ns,) and not os.path.exists(path)
            is_ensured = state == FOLDER and any(folder.startswith(f"{path}/") for folder in ensured)
            if is_written or f"{path}/".startswith(inner):
                if state:
                    self._say(f"{label}, which it reads and writes itself")
            elif not was_temporary and not is_ensured:
                continue
            del reads.files[label]
            reads.changed.discard(label)
        made = [path.rstrip("/") for path in (*self._written, *self._made_folders)]
        for label, names in reads.folders.items():
            own = {os.path.basename(path) for path in made if os.path.dirname(path) == os.path.abspath(label)}
            reads.folders[label] = tuple(sorted({*names, *(name for name in own if name in names_in(label))}))

    def _say(self, sentence: str) -> None:
        if self._watch.code and sentence not in self.reads.unwatched:
            self.reads.unwatched.append(sentence)

    def _has_room(self) -> bool:
        if len(self.reads.files) + len(self.reads.folders) < MOST_READS:
            return True
        self._say(f"more than {MOST_READS} files and folders")
        return False

    def _write_journal(self, kind: str, name: str, value: State | str | None) -> None:
        if self._watch.journal is not None:
            with self._watch.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([kind, name, value]) + "\n")

    # Who asks, and whose file it is

    def _is_made(self, given: str) -> bool:
        """Return True for what the function itself has written, made or removed."""
        path = os.path.abspath(given)
        return path in self._written or f"{path}/".startswith(tuple(self._made_folders))

    def _label(self, given: str, path: str) -> str:
        if os.path.isabs(given) or os.getcwd() != self._cwd:
            return path
        return f"./{os.path.normpath(given)}"

    def _is_ignored(self, path: str) -> bool:
        if path.startswith(self._watch.ignored):
            return True
        return "/__pycache__/" in path or self._is_foreign(path)

    def _is_own_code(self, path: str) -> bool:
        return path.startswith(self._watch.code) and not self._is_foreign(path)

    def _is_foreign(self, path: str) -> bool:
        return path.startswith(_foreign_folders()) and not self._is_in_package(path)

    def _is_in_package(self, path: str) -> bool:
        """Return True if a path is in a folder of the model's code that is itself inside of a foreign one."""
        return any(folder.startswith(_foreign_folders()) and path.startswith(folder) for folder in self._watch.code)

    def _is_import(self) -> bool:
        """Return True if Python's import system asks."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename in _IMPORTERS

    def _asker(self) -> _Asker:
        """Find out from the stack on whose behalf something is read."""
        frame: FrameType | None = sys._getframe(1)
        between = list[str]()
        while frame is not None:
            kind = self._kind_of(frame.f_code.co_filename)
            if kind == "import":
                return _Asker(is_import=True)
            if kind == "model":
                libraries = [each for each in between if each != "standard"]
                is_own = libraries[:1] != ["tensorflow"]
                return _Asker(is_model=True, is_own=is_own, is_direct=is_own and between[:1] != ["standard"])
            if kind:
                between.append(kind)
            frame = frame.f_back
        return _Asker()

    def _kind_of(self, file: str) -> str:
        """Return whose a source file is: model, import, tensorflow, library, standard; empty for what only asks."""
        if file not in self._kinds:
            self._kinds[file] = self._find_kind(file)
        return self._kinds[file]

    def _find_kind(self, file: str) -> str:
        if file == "<frozen importlib._bootstrap>":
            return "import"
        if self._is_own_code(file):
            return "model"
        if file in (__file__, "<frozen os>", "<frozen _collections_abc>") or file.endswith(_FILE_FUNCTIONS):
            return ""
        is_installed = file.startswith(_installed_packages())
        if file.startswith("<") or (file.startswith(_standard_library()) and not is_installed):
            return "standard"
        return "tensorflow" if "/tensorflow/" in file or "/keras/" in file else "library"


@dataclass(frozen=True)
class _Asker:
    """On whose behalf something is read.

    Args:
        is_import: a library that is being imported.
        is_model: the model's code, at any depth of calls.
        is_own: the model's code, not TensorFlow or Keras on its behalf.
        is_direct: the same, and not Python's library on its behalf.
    """

    is_import: bool = False
    is_model: bool = False
    is_own: bool = False
    is_direct: bool = False


def names_in(folder: str) -> tuple[str, ...]:
    """Return the names in a folder, sorted, without Python's cache."""
    return tuple(sorted(name for name in os.listdir(folder) if name != "__pycache__"))


@cache
def _standard_library() -> tuple[str, ...]:
    import sysconfig  # not needed in a run in which everything is complete

    return _folders(sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))


@cache
def _installed_packages() -> tuple[str, ...]:
    import sysconfig

    on_path = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    given = [*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))]
    return _folders(*given, *on_path)


@cache
def _foreign_folders() -> tuple[str, ...]:
    """Return the folders of Python, installed packages, this package, caches and devices."""
    environment = [sys.prefix] if sys.prefix != sys.base_prefix else []
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    others = [_PACKAGE, *environment, f"{sys.base_prefix}/share/locale", caches, *_DEVICES]
    return (*_standard_library(), *_installed_packages(), *_folders(*others))


def _folders(*paths: str) -> tuple[str, ...]:
    """Return folders with a slash at the end, each as given and without links."""
    return tuple(dict.fromkeys(f"{path}/" for given in paths for path in (given, os.path.realpath(given))))


class _WatchedEnvironment(os._Environ):  # type: ignore[type-arg]
    """`os.environ`, and its bytes, whose readers are noted."""

    def __getitem__(self, key: Any) -> Any:
        try:
            value = super().__getitem__(key)
        except KeyError:
            self._note(key, None)
            raise
        self._note(key, value)
        return value

    def __iter__(self) -> Iterator[Any]:
        _inside.whole = _instruction(sys._getframe(1))
        report(_Recorder.read_environment)
        return super().__iter__()

    def __setitem__(self, key: Any, value: Any) -> None:
        _set_here.add(os.fsdecode(key))
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        _set_here.add(os.fsdecode(key))
        super().__delitem__(key)

    @staticmethod
    def _note(key: Any, value: Any) -> None:
        # dict(os.environ) and its like ask for each variable within the instruction that asks for all names.
        if isinstance(key, str | bytes) and _instruction(sys._getframe(2)) != getattr(_inside, "whole", None):
            name = os.fsdecode(key)
            if name not in _set_here:
                report(_Recorder.read_variable, name, None if value is None else os.fsdecode(value))


_set_here: set[str] = set()  # variables that this process has set


def _instruction(frame: FrameType | None) -> tuple[int, int] | None:
    """Return what identifies a running instruction, outside of the classes of mappings."""
    while frame is not None and frame.f_code.co_filename in ("<frozen _collections_abc>", "<frozen os>", __file__):
        frame = frame.f_back
    return (id(frame), frame.f_lasti) if frame is not None else None


def _reporting(ask: Callable[..., Any], handle: Callable[..., None] = _Recorder.ask) -> Callable[..., Any]:
    @wraps(ask)
    def noted(path: Any, *args: Any, **options: Any) -> Any:
        if options.get("dir_fd") is None:
            report(handle, path)
        return ask(path, *args, **options)

    return _replace(ask, noted)


def _reporting_in_folder(open_file: Callable[..., int]) -> Callable[..., int]:
    """Report what is opened in an open folder: the audit hook is told the name alone."""

    @wraps(open_file)
    def noted(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            report(_Recorder.open_in_folder, path, flags, dir_fd)
        return open_file(path, flags, mode, dir_fd=dir_fd)

    return _replace(open_file, noted)


def _replace(ask: Callable[..., Any], noted: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function be able to do what the one that it replaces can."""
    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if ask in able:
            able.add(noted)
    return noted


def quietly(ask: Callable[..., Any], *args: Any) -> Any:
    """Ask the file system without being noted."""
    before = getattr(_inside, "recorder", False)
    _inside.recorder = True
    try:
        return ask(*args)
    finally:
        _inside.recorder = before


def read_journal(path: Path) -> list[tuple[str, str, Any]]:
    """Return kind, name and value of what an interrupted run had read: the state of a `file` (its path as in `Reads`)
    or `module`, the target of a `link`, the hash of a `variable`. A line that is cut off is left out.
    """
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):
            kind, name, value = json.loads(line)
            entries.append((kind, name, tuple(value) if isinstance(value, list) else value))
    return entries


def note_read(path: Any, is_for_graph: bool = False) -> None:
    """Note a file that compiled code opens."""
    report(_Recorder.read, path, is_for_graph)


def note_asked(path: Any) -> None:
    """Note a file or a folder whose existence compiled code asks for."""
    report(_Recorder.ask, path)


def note_written(path: Any) -> None:
    """Note a file that compiled code writes."""
    report(_Recorder.write, path)


def note_listed(path: Any) -> None:
    """Note a folder that compiled code lists."""
    report(_Recorder.list_folder, path)


def note_made_folder(path: Any) -> None:
    """Note a folder that compiled code makes."""
    report(_Recorder.make_folder, path)


def note_unseen(what: str) -> None:
    """Note what compiled code reads unseen."""
    report(_Recorder.read_unseen, what)


_EVENTS: dict[str, Callable[..., None]] = {
    "open": _Recorder.open,
    "os.listdir": _Recorder.list_folder,
    "os.scandir": _Recorder.list_folder,
    "os.mkdir": _Recorder.make_folder,
    "os.remove": _Recorder.remove,
    "os.rmdir": _Recorder.remove,
    "shutil.rmtree": _Recorder.remove,
    "os.rename": _Recorder.move,
    "os.link": _Recorder.move,
    "os.symlink": _Recorder.move,
    "sqlite3.connect": _Recorder.open_database,
    "ctypes.dlopen": _Recorder.load_library,
    "import": _Recorder.import_module,
    "subprocess.Popen": _Recorder.start_process,
    "os.system": _Recorder.start_process,
    "os.posix_spawn": _Recorder.start_process,
    "os.exec": _Recorder.start_process,
    "os.fork": _Recorder.start_process,
    "os.forkpty": _Recorder.start_process,
    "socket.connect": _Recorder.connect,
}
