"""Models by name: found without an import, refused with a reason, imported on demand."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import SHARED_SERVER

from pipeline.errors import ModelError
from pipeline.hashing import hash_code
from pipeline.training.models.source import BUNDLED, PROJECT, find_model, load_model

WHOLE = """
from pipeline.data import read_table
from pipeline.signature import Signature, TensorSpec

class Doubler:
    signature = Signature((TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "float32", (None,)),))
    data = "numbers.csv"

    def forward(self, inputs, training):
        return {"y": inputs["x"] * 2}

    def examples(self, path):
        return read_table(path, {"x": "float32"})

class Halver(Doubler):
    data: str = "halves.csv"
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file into the current folder; modules imported from there are unloaded afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write_file
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


# Finding


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_bundled_model_is_found_with_its_data(name: str) -> None:
    source = find_model(name)
    assert source.name == name
    assert source.file.is_relative_to(PROJECT / "pipeline" / "training" / "models")
    assert source.data is not None
    assert source.data.is_file()


def test_a_model_in_a_file_is_found(write: Write) -> None:
    path = write("sub/my model.v2.py", WHOLE)
    source = find_model("sub/my model.v2.py:Doubler")
    assert (source.file, source.class_name, source.module) == (path, "Doubler", None)
    assert source.name == "my_model.v2"
    assert source.roots == (path.parent, PROJECT)
    assert find_model(f"{path}:Doubler") == source


def test_a_model_in_a_package_is_found_from_the_current_folder(write: Write) -> None:
    write("zoo/__init__.py", "")
    path = write("zoo/cats.py", WHOLE)
    source = find_model("zoo.cats:Doubler")
    assert (source.file, source.module, source.name) == (path, "zoo.cats", "cats")
    assert source.roots[0] == path.parents[1]


@pytest.mark.parametrize("stem", ["...", "__", "-.-"])
def test_a_file_whose_name_is_no_folder_name_gets_another(write: Write, stem: str) -> None:
    write(f"{stem}.py", WHOLE)
    assert find_model(f"{stem}.py:Doubler").name == "model"


def test_finding_does_not_run_the_models_code(write: Write) -> None:
    write("model.py", WHOLE + "\nraise SystemExit('it was run')\n")
    assert find_model("model.py:Doubler").class_name == "Doubler"


def test_finding_does_not_run_the_code_of_the_models_package(write: Write) -> None:
    write("zoo_at_rest/__init__.py", "open('it_was_run', 'w').close()")
    write("zoo_at_rest/cats.py", WHOLE)
    find_model("zoo_at_rest.cats:Doubler")
    assert not Path("it_was_run").exists()


def test_a_package_that_does_not_import_is_refused_as_ours(write: Write) -> None:
    write("zoo_broken/__init__.py", "1 / 0")
    write("zoo_broken/cats.py", WHOLE)
    try:
        source = find_model("zoo_broken.cats:Doubler")
    except ModelError:
        return
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        load_model(source)


def test_data_beside_the_model_is_taken_before_data_of_the_project(write: Write) -> None:
    write("sub/model.py", WHOLE)
    assert find_model("sub/model.py:Doubler").data == PROJECT / "data" / "numbers.csv"
    beside = write("sub/numbers.csv", "x\n1\n")
    assert find_model("sub/model.py:Doubler").data == beside
    assert find_model("sub/model.py:Halver").data == PROJECT / "data" / "halves.csv"


def test_a_model_that_names_no_data_has_none(write: Write) -> None:
    write("model.py", "class Net:\n    data = None\n\ndef other(self):\n    data = 'local.csv'\n")
    assert find_model("model.py:Net").data is None


def test_a_name_that_is_assigned_or_imported_is_a_model_too(write: Write) -> None:
    write("model.py", WHOLE + "\nAlias = Doubler\n")
    assert find_model("model.py:Alias").class_name == "Alias"
    write("again.py", "from model import Doubler\nfrom model import Halver as Half\n")
    assert find_model("again.py:Doubler").class_name == "Doubler"
    assert find_model("again.py:Half").class_name == "Half"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("spma", "unknown model .*'spam'"),
        ("", "unknown model"),
        (":Net", "unknown model"),
        ("model.py", "the class is missing .*--model model.py:Doubler"),
        ("modle.py:Doubler", r"no such model file\. .*'model\.py'"),
        (
            "absent/model.py:Doubler",
            r"no such model file\. There is no folder .*absent: a path starts at the current folder",
        ),
        ("model.py:Dubler", "no such class .*--model model.py:Doubler"),
        ("absent_package.module:Net", "no such module"),
        ("json.absent:Net", "no such module"),
        ("sys:Net", "no such module"),
        ("..relative:Net", "no such module"),
        ("broken.py:Net", r"broken\.py:2: the model's file is not Python"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(write: Write, reference: str, sentence: str) -> None:
    write("model.py", WHOLE)
    write("broken.py", "x = 1\nclass Net(:\n")
    with pytest.raises(ModelError, match=f"(?i){sentence}"):
        find_model(reference)


@pytest.mark.parametrize("reference", ["zoo_of_one:Net", "zoo_of_one.sub:Net"])
def test_the_code_of_a_models_own_package_counts(write: Write, reference: str) -> None:
    for package in ("zoo_of_one", "zoo_of_one/sub"):
        write(f"{package}/__init__.py", "from zoo_of_one.parts import size\n\nclass Net:\n    pass\n")
    write("zoo_of_one/parts.py", "size = 1\n")
    source = find_model(reference)
    assert source.name == reference.rpartition(":")[0].rpartition(".")[2]
    assert "zoo_of_one/parts.py" in hash_code(source.file, source.roots)


# Loading


def test_a_model_of_a_file_is_made_and_works(write: Write) -> None:
    write("sub/model.py", WHOLE)
    model = load_model(find_model("sub/model.py:Doubler"))
    assert model.signature.inputs[0].name == "x"
    assert model.forward({"x": np.float32(4)}, training=False) == {"y": 8}  # type: ignore[dict-item]
    assert model.examples(write("numbers.csv", "x\n1\n")).inputs["x"].tolist() == [1]


def test_a_model_of_a_package_is_made(write: Write) -> None:
    write("zoo_to_load/__init__.py", "")
    write("zoo_to_load/cats.py", WHOLE)
    assert load_model(find_model("zoo_to_load.cats:Halver")).signature.outputs[0].name == "y"


def test_a_model_may_import_what_lies_beside_it(write: Write) -> None:
    write("sub/parts_beside.py", WHOLE)
    write("sub/model.py", "from parts_beside import Doubler\n\nclass Net(Doubler):\n    pass\n")
    path = list(sys.path)
    assert load_model(find_model("sub/model.py:Net")).signature.inputs[0].name == "x"
    assert sys.path == path


def test_a_model_that_raised_leaves_the_path_as_it_was(write: Write) -> None:
    write("model.py", "class Net:\n    pass\n1 / 0\n")
    path = list(sys.path)
    with pytest.raises(ModelError):
        load_model(find_model("model.py:Net"))
    assert sys.path == path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("class Net:\n    pass\nx = 1 / 0\n", r"ZeroDivisionError: division by zero \(at .*model\.py:3\)"),
        ("import absent_library\nclass Net:\n    pass\n", r"ModuleNotFoundError: .*absent_library.*model\.py:1"),
        ("class Net:\n    pass\ndel Net\n", "AttributeError: .*Net"),
        ("class Net:\n    pass\n", "has no signature"),
        (
            "class Net:\n    def __init__(self, net, rate=1):\n        pass\n",
            r"needs arguments.*got Net\(net\), wanted Net",
        ),
        ("import tensorflow as tf\nclass Net(tf.Module):\n    pass\n", r"no signature.*Checkpoint\(net=net\)\.restore"),
        ("class Net:\n    signature = 'x'\n", "has no signature"),
        (WHOLE + "\nclass Net(Doubler):\n    forward = None\n", "no method forward"),
        (WHOLE + "\nclass Net(Doubler):\n    examples = 3\n", "no method examples"),
        (
            "from pipeline.signature import *\nclass Net:\n    signature = Signature((), ())\n",
            r"ModelError: .*at least one output .*signature\.py",
        ),
        (
            "from pipeline.signature import *\nclass Net:\n    signature = Signature((), (TensorSpec('y', 'int8'),))\n",
            "signature needs at least one input",
        ),
    ],
)
def test_a_model_that_does_not_keep_the_contract_is_refused(write: Write, text: str, sentence: str) -> None:
    path = write("model.py", text)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_model(find_model("model.py:Net"))
    assert caught.value.where == f"{path}:Net"


def test_the_same_file_name_in_two_folders_is_two_models(write: Write) -> None:
    write("a/model.py", WHOLE)
    write("b/model.py", WHOLE.replace("* 2", "* 3"))
    made = [load_model(find_model(f"{folder}/model.py:Doubler")) for folder in "ab"]
    assert [model.forward({"x": 1}, False)["y"] for model in made] == [2, 3]  # type: ignore[dict-item]


def test_a_bundled_model_is_found_from_any_folder_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.training.models.source import find_model as f; "
        "f('spam'); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([SHARED_SERVER, str(PROJECT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False", done.stderr
