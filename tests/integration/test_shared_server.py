"""What the tests share: one fork server for all processes, and the marker of tests that load TensorFlow."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import PROJECT, SHARED_SERVER, clean, run, sharing_module
from kills import from_shared_server
from loading import loads_tensorflow

from pipeline.workers.child import run_in_subprocess

HERE = Path(__file__).resolve().parents[1]


@pytest.mark.tensorflow
def test_processes_of_the_pipeline_come_from_the_shared_server() -> None:
    assert run_in_subprocess("os:getpid") in from_shared_server(os.getsid(0))


@pytest.mark.stress
@pytest.mark.tensorflow
def test_so_do_those_of_commands_but_only_in_the_same_environment() -> None:
    asking = "from pipeline.workers.child import run_in_subprocess as run; print(run('os:getpid'), run('os:getsid', 0))"
    shared = [run(sys.executable, "-c", asking).stdout.split() for _ in range(2)]
    assert int(shared[0][0]) in from_shared_server(os.getsid(0))
    assert shared[0][1] == shared[1][1]
    assert run(sys.executable, "-c", asking, TF_ENABLE_ONEDNN_OPTS="1").stdout.split()[1] != shared[0][1]
    assert run(sys.executable, "-c", asking, PYTHONPATH=str(PROJECT)).stdout.split()[1] != shared[0][1]


@pytest.mark.parametrize(
    ("mine", "is_fit"),
    [
        ({}, True),
        ({"PWD": "/elsewhere", "LUIGI_CONFIG_PATH": "more.cfg"}, True),
        ({"TF_ENABLE_ONEDNN_OPTS": "1"}, False),
        ({"OMP_NUM_THREADS": "1"}, False),
        ({"GITHUB_TOKEN": "secret"}, False),
        ({"PYTHONHASHSEED": "1"}, False),
    ],
)
def test_a_process_in_another_environment_has_a_server_of_its_own(mine: dict[str, str], is_fit: bool) -> None:
    servers = {"PATH": "/bin", "TF_ENABLE_ONEDNN_OPTS": "0"}
    sharing: Any = sharing_module()
    assert sharing.is_fit({**servers, **mine}, servers) is is_fit
    assert not sharing.is_fit({"PATH": "/bin"}, servers)


def test_the_servers_are_described_for_this_process_and_for_commands() -> None:
    described = json.loads(Path(os.environ["PIPELINE_TEST_FORK_SERVER"], "servers.json").read_text())
    assert [each["TF_ENABLE_ONEDNN_OPTS"] for each in described["environments"]][1:] == ["0", "1"]
    wanted = clean({})
    assert all(described["environments"][1][name] == wanted[name] for name in ("PATH", "HOME"))
    assert wanted["PYTHONPATH"] == SHARED_SERVER


@pytest.mark.parametrize(
    ("file", "loads"),
    [
        ("test_signature", False),
        ("test_settings", False),
        ("test_keras_training", True),
        ("test_batch", True),  # by the helper `batches`
        ("test_faults", True),  # by commands that run stages
    ],
)
def test_imports_tell_whether_a_file_loads_tensorflow(file: str, loads: bool) -> None:
    [path] = HERE.rglob(f"{file}.py")
    assert loads_tensorflow(path) is loads


def test_an_import_in_a_function_and_one_by_a_helper_count(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text("def test_x():\n    import tensorflow.compat.v1 as v1\n")
    assert loads_tensorflow(file)
    (tmp_path / "helper.py").write_text("import keras\n")
    other = tmp_path / "test_y.py"
    other.write_text("from typing import TYPE_CHECKING\n")
    assert not loads_tensorflow(other)
