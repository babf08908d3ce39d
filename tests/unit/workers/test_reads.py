"""What a model's code reads is recorded, whoever opens it; what is Python's, the run's own or a library's is not."""

from __future__ import annotations

import os
import py_compile
import subprocess
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.inputs import FOLDER
from pipeline.workers.child import run_in_subprocess
from pipeline.workers.reads import Reads, Watch, hash_variable, record_reads

pytestmark = pytest.mark.tensorflow

HEAD = """
import os, sys
from pathlib import Path
HERE = Path(__file__).parent
"""


def execute(path: str) -> None:
    """Runs a file as a model's code, in the process that records."""
    source = Path(path).read_text(encoding="utf-8")
    exec(compile(source, path, "exec"), {"__file__": path, "__name__": "model"})


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Reads]:
    """Runs code of a model in a folder of its own and returns what was recorded."""

    def run(code: str, environment: dict[str, str] | None = None, **options: Any) -> Reads:
        file = tmp_path / "model.py"
        file.write_text(HEAD + textwrap.dedent(code), encoding="utf-8")
        folders = (f"{tmp_path}/",)
        watch = Watch(folders, environment={**os.environ, **(environment or {})}, **options)
        _, reads = run_in_subprocess(f"{__name__.rpartition('.')[2]}:execute", str(file), watch=watch)
        reads.files.pop(str(file))  # opened by `execute`
        assert isinstance(reads, Reads)
        return reads

    return run


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocabulary.txt"
    path.write_text("a\nb\n")
    return path


WAYS = {
    "open": "open(HERE / 'vocabulary.txt').read()",
    "os.open": "os.close(os.open(HERE / 'vocabulary.txt', os.O_RDONLY))",
    "numpy": "import numpy; numpy.loadtxt(HERE / 'vocabulary.txt', str)",
    "numpy.fromfile": "import numpy; numpy.fromfile(HERE / 'vocabulary.txt', 'u1')",
    "pandas": "import pandas; pandas.read_csv(HERE / 'vocabulary.txt')",
    "mmap": "import mmap\n"
    "with open(HERE / 'vocabulary.txt', 'rb') as file: mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)",
    "gfile": "import tensorflow as tf; tf.io.gfile.GFile(str(HERE / 'vocabulary.txt')).read()",
    "gfile.copy": "import tensorflow as tf; tf.io.gfile.copy(str(HERE / 'vocabulary.txt'), str(HERE / 'copy'))",
    "read_file": "import tensorflow as tf; tf.io.read_file(str(HERE / 'vocabulary.txt'))",
    "raw op": "import tensorflow as tf; tf.raw_ops.ReadFile(filename=str(HERE / 'vocabulary.txt'))",
    "tf.data": "import tensorflow as tf; list(tf.data.TextLineDataset([str(HERE / 'vocabulary.txt')]))",
    "tf.data, mapped": "import tensorflow as tf\n"
    "list(tf.data.Dataset.from_tensor_slices([str(HERE / 'vocabulary.txt')]).map(tf.io.read_file))",
    "list_files": "import tensorflow as tf; list(tf.data.Dataset.list_files(str(HERE / 'vocab*.txt')))",
    "sqlite": "import sqlite3; sqlite3.connect(HERE / 'vocabulary.txt')",
    "thread": "from concurrent.futures import ThreadPoolExecutor as Pool\n"
    "with Pool() as pool: list(pool.map(Path.read_text, [HERE / 'vocabulary.txt']))",
    "memmap": "import numpy; numpy.memmap(HERE / 'vocabulary.txt')",
    "dir_fd": "os.close(os.open('vocabulary.txt', os.O_RDONLY, dir_fd=os.open(HERE, os.O_RDONLY)))",
    "gfile.exists": "import tensorflow as tf; tf.io.gfile.exists(str(HERE / 'vocabulary.txt'))",
    "gfile.stat": "import tensorflow as tf; tf.io.gfile.stat(str(HERE / 'vocabulary.txt')).length",
    "glob of a name": "import glob; glob.glob(str(HERE / 'vocabulary.txt'))",
    "library": "import contextlib, tensorflow as tf\n"
    "with contextlib.suppress(tf.errors.NotFoundError): tf.load_op_library(str(HERE / 'vocabulary.txt'))",
    "keras": "import keras; keras.layers.StringLookup(vocabulary=str(HERE / 'vocabulary.txt'))",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_recorded_whoever_opens_it(read: Callable[..., Reads], vocabulary: Path, way: str) -> None:
    stat = vocabulary.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    reads = read(WAYS[way])
    assert reads.files == {str(vocabulary): state}
    assert not reads.changed


def test_a_file_of_hdf5_is_recorded(read: Callable[..., Reads], tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["w"] = [1.0]
    code = "import h5py\nh5py.File(HERE / 'weights.h5')['w'][0]"
    assert set(read(code).files) == {str(tmp_path / "weights.h5")}


def test_a_file_that_a_graph_reads_when_it_runs_is_recorded_as_such(
    read: Callable[..., Reads], vocabulary: Path
) -> None:
    code = """
    import tensorflow as tf
    with tf.Graph().as_default():
        index = tf.lookup.TextFileIndex
        path = str(HERE / "vocabulary.txt")
        tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(path, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER), -1)
    """
    reads = read(code)
    assert set(reads.files) == reads.for_graph == {str(vocabulary)}


def test_a_file_that_is_looked_for_and_missing_is_recorded(read: Callable[..., Reads], tmp_path: Path) -> None:
    code = """
    import contextlib
    import tensorflow as tf
    with contextlib.suppress(OSError):
        open(HERE / "one.txt")
    os.path.exists(HERE / "two.txt"), (HERE / "three.txt").is_file(), tf.io.gfile.exists(str(HERE / "four.txt"))
    """
    assert read(code).files == {str(tmp_path / f"{name}.txt"): None for name in ("one", "two", "three", "four")}


def test_a_listed_folder_counts_by_its_names(read: Callable[..., Reads], tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").touch()
    reads = read(
        "import tensorflow as tf\nos.listdir(HERE / 'one'), list((HERE / 'two').glob('*'))\n"
        "tf.io.gfile.listdir(str(HERE / 'three'))"
    )
    assert reads.folders == {str(tmp_path / folder): ("a",) for folder in ("one", "two", "three")}


def test_a_folder_counts_if_its_existence_is_asked_for(read: Callable[..., Reads], tmp_path: Path) -> None:
    for name in ("one", "two", "three", "logs"):
        (tmp_path / name).mkdir()
    code = """
    import shutil, tensorflow as tf
    (HERE / "one").is_dir(), os.path.exists(HERE / "two"), tf.io.gfile.isdir(str(HERE / "three"))
    os.makedirs(HERE / "logs" / "run", exist_ok=True)
    if (HERE / "logs").exists():
        shutil.rmtree(HERE / "logs")
    (HERE / "logs" / "run").mkdir(parents=True, exist_ok=True)
    """
    assert read(code).files == {str(tmp_path / name): FOLDER for name in ("one", "two", "three")}
    assert read(code).files == {str(tmp_path / name): FOLDER for name in ("one", "two", "three")}


def test_a_folder_that_is_open_counts_by_its_names(read: Callable[..., Reads], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    reads = read("os.listdir(os.open(HERE / 'one', os.O_RDONLY))")
    assert reads.folders == {str(tmp_path / "one"): ()}


@pytest.mark.parametrize("code", ["(HERE / 'current').resolve()", "os.readlink(HERE / 'current')"])
def test_a_link_counts_by_its_target_if_that_is_read(read: Callable[..., Reads], tmp_path: Path, code: str) -> None:
    (tmp_path / "current").symlink_to("v1")
    reads = read(f"{code}\nos.symlink('v2', HERE / 'made')\nos.readlink(HERE / 'made')")
    (tmp_path / "made").unlink()
    assert reads.links == {str(tmp_path / "current"): "v1"}
    assert not reads.changed


def test_a_relative_path_is_kept_relative(read: Callable[..., Reads], monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.path.relpath(__file__)
    reads = read(f"open({here!r})")
    assert set(reads.files) == {f"./{here}"}


def test_variables_are_recorded_by_the_hash_of_their_values(read: Callable[..., Reads]) -> None:
    code = """
    os.environ["ONE"], os.getenv("TWO"), os.environ.get("MISSING"), os.environb[b"THREE"], "FOUR" in os.environ
    os.environ["SET_HERE"] = "1"
    os.environ["SET_HERE"]
    import argparse, tempfile, urllib.request
    os.path.expandvars("$FIVE"), argparse.ArgumentParser().parse_args([]), urllib.request.getproxies()
    tempfile.gettempdir(), os.path.expanduser("~"), tempfile.mkdtemp()
    """
    reads = read(code, {"ONE": "1", "TWO": "secret", "THREE": "3", "FOUR": "4", "FIVE": "5"})
    values = {"ONE": "1", "TWO": "secret", "THREE": "3", "FOUR": "4", "FIVE": "5", "MISSING": None}
    assert reads.variables == {name: hash_variable(value) for name, value in values.items()}
    assert "secret" not in repr(reads)
    assert (reads.files, reads.unwatched) == ({}, [])


def test_a_variable_is_that_of_the_caller_although_the_worker_is_a_child_of_an_older_server(
    read: Callable[..., Reads], tmp_path: Path
) -> None:
    read("(HERE / 'seen').write_text(os.environ['NEW_ONE'])", {"NEW_ONE": "now"})
    assert (tmp_path / "seen").read_text() == "now"


def test_all_variables_at_once_are_no_input_and_this_is_said(read: Callable[..., Reads]) -> None:
    for code in ("dict(os.environ)", "os.environ.copy()", "{**os.environ}", "list(os.environ.items())"):
        reads = read(code, {"SOME": "1"})
        assert reads.variables == {}
        assert ["all environment variables" in sentence for sentence in reads.unwatched] == [True]


def test_what_the_code_itself_writes_is_no_input(read: Callable[..., Reads], tmp_path: Path) -> None:
    code = """
    import shutil, tempfile
    for name in ("a", "b"):
        os.makedirs(HERE / "made", exist_ok=True)
        (HERE / "made" / name).write_text("x")
        (HERE / "made" / name).read_text()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_text("x")
        os.rename(Path(folder) / "x", HERE / "y")
    (HERE / "y").read_text()
    if not (HERE / "cache").exists():
        (HERE / "cache").write_text("x")
    (HERE / "cache").read_text()
    with tempfile.NamedTemporaryFile() as file:
        open(file.name).read()
    """
    reads = read(code)
    assert (reads.files, reads.folders, reads.unwatched) == ({}, {}, [])


def test_what_is_pythons_or_a_librarys_is_no_input(read: Callable[..., Reads]) -> None:
    code = """
    import inspect, json, this, unittest.mock, tensorflow as tf, keras
    open(json.__file__), open(tf.__file__), open("/proc/self/status"), open("/dev/null"), inspect.getsource(keras)
    cache = Path.home() / ".cache"
    if cache.is_dir(): os.listdir(cache)
    @tf.function
    def double(x):
        if x > 0: x = x * 2
        return x
    double(tf.constant(2.0))
    """
    reads = read(code)
    assert (reads.files, reads.folders, reads.unwatched, reads.variables) == ({}, {}, [], {})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import subprocess; subprocess.run(['true'])", "another program reads that it starts: true"),
        ("os.system('true')", "another program"),
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "over the network from 127.0.0.1:9"),
        (
            "import tensorflow as tf\n"
            "list(tf.data.Dataset.from_tensors(str(HERE)).map(lambda path: tf.io.read_file(path + '/model.py')))",
            "whose names a graph computes",
        ),
    ],
)
def test_what_cannot_be_seen_is_said(read: Callable[..., Reads], code: str, said: str) -> None:
    [sentence] = read(code).unwatched
    assert said in sentence


def test_a_module_that_is_named_only_when_it_runs_is_recorded_wherever_it_is(
    read: Callable[..., Reads], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "part_a.py").write_text("X = 1")
    (elsewhere / "part_b.py").write_text("X = 1")
    code = f"""
    import importlib
    sys.path[:0] = [str(HERE), {str(elsewhere)!r}]
    for letter in "ab":
        importlib.import_module("part_" + letter)
    """
    assert set(read(code).modules) == {str(tmp_path / "part_a.py"), str(elsewhere / "part_b.py")}


def test_modules_in_an_archive_and_without_source_are_recorded(read: Callable[..., Reads], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part_c.py", "X = 1")
    (tmp_path / "part_d.py").write_text("X = 1")
    py_compile.compile(str(tmp_path / "part_d.py"), cfile=str(tmp_path / "part_d.pyc"))
    (tmp_path / "part_d.py").unlink()
    reads = read("sys.path[:0] = [str(HERE), str(HERE / 'parts.zip')]\nimport part_c, part_d")
    assert set(reads.modules) == {str(tmp_path / "parts.zip"), str(tmp_path / "part_d.pyc")}


def test_a_models_checkpoint_counts_by_its_own_files(read: Callable[..., Reads], tmp_path: Path) -> None:
    import tensorflow as tf

    tf.raw_ops.SaveV2(prefix=str(tmp_path / "c"), tensor_names=["w"], shape_and_slices=[""], tensors=[tf.ones(2)])
    reads = read("import tensorflow as tf; tf.train.load_checkpoint(str(HERE / 'c')).get_tensor('w')")
    assert set(reads.files) == {str(tmp_path / "c.index"), str(tmp_path / "c.data-00000-of-00001")}
    assert reads.folders == {}


def test_a_file_that_was_another_one_for_a_moment_has_changed(read: Callable[..., Reads], vocabulary: Path) -> None:
    other = vocabulary.with_name("other.txt")
    other.write_text("c\n")
    with record_reads(Watch()) as reads:
        vocabulary.read_text()
        subprocess.run(["cp", other, vocabulary], check=True)
        vocabulary.read_text()
    assert reads.changed == {str(vocabulary)}


def test_recording_costs_nothing_noticeable(tmp_path: Path) -> None:
    import timeit

    path = tmp_path / "x"
    path.write_text("x")
    with record_reads(Watch()):
        seconds = min(timeit.repeat(path.read_text, number=200, repeat=5)) / 200
    assert seconds < 0.002
