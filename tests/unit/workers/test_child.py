"""Work apart: its result, its errors, and its end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, PipelineError, StageCrashed, StoreError
from pipeline.tasks.console import DieWithParent
from pipeline.workers.child import Child, run_in_subprocess
from pipeline.workers.worker import as_pipeline_error, without_script

pytestmark = pytest.mark.tensorflow

HERE = Path(__file__).stem


# What runs apart


def add(one: Any, two: Any) -> Any:
    return one + two


def process_id() -> tuple[int, int]:
    return os.getpid(), os.getppid()


def fail_with_ours() -> None:
    raise DataError("unknown label", where="a.tsv:3", got="hum", wanted="ham", next_step="Correct it")


def fail_with(kind: type[Exception], *arguments: Any) -> None:
    raise kind(*arguments)


def open_file(path: str) -> None:
    with open(path, "w") as file:
        file.write("x")


def hash_of(text: str) -> int:
    return hash(text)


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def leave_politely(code: int) -> None:
    sys.exit(code)


def give_what_cannot_travel() -> Any:
    return lambda: None


def linger(path: str) -> None:
    Path(path).with_suffix(".new").write_text(str(os.getpid()))
    Path(path).with_suffix(".new").rename(path)
    time.sleep(600)


def leave_a_note(path: str) -> None:
    Path(path).with_suffix(".new").write_text(str(os.getpid()))
    Path(path).with_suffix(".new").rename(path)
    os._exit(3)


def talk(greeting: str, channel: Connection) -> str:
    channel.send(("result", greeting, None))
    while (message := channel.recv()) != "stop":
        channel.send(("result", message * 2, None))
    return "goodbye"


def talk_then_fail(channel: Connection) -> None:
    channel.send(("result", channel.recv(), None))
    raise DataError("enough")


# Results and errors


def test_a_result_comes_back() -> None:
    assert run_in_subprocess(f"{HERE}:add", {"a": [1]}.get("a"), [2]) == [1, 2]


def test_it_is_another_process_each_time_and_none_stays() -> None:
    processes = [run_in_subprocess(f"{HERE}:process_id")[0] for _ in range(2)]
    assert len({os.getpid(), *processes}) == 3
    assert not any(is_running(process) for process in processes)


def test_an_error_of_ours_arrives_as_itself_with_its_values() -> None:
    with pytest.raises(DataError) as caught:
        run_in_subprocess(f"{HERE}:fail_with_ours")
    assert type(caught.value) is DataError
    assert str(caught.value) == "a.tsv:3: unknown label (got hum, wanted ham). Correct it"
    assert (caught.value.where, caught.value.got, caught.value.wanted) == ("a.tsv:3", "hum", "ham")


def test_a_foreign_error_becomes_a_crash_that_names_its_type() -> None:
    with pytest.raises(StageCrashed, match="ValueError: first line") as caught:
        run_in_subprocess(f"{HERE}:fail_with", ValueError, "first line\nsecond line")
    assert caught.value.where == f"{HERE}:fail_with"
    assert "second line" not in str(caught.value)


@pytest.mark.parametrize("target", ["absent_module:add", f"{HERE}:absent"])
def test_a_target_that_is_not_there_is_a_crash_that_names_it(target: str) -> None:
    with pytest.raises(StageCrashed, match=r"(ModuleNotFound|Attribute)Error: .*absent"):
        run_in_subprocess(target)


def test_an_error_of_the_operating_system_is_one_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "file"
    with pytest.raises(StoreError, match="No such file or directory") as caught:
        run_in_subprocess(f"{HERE}:open_file", str(path))
    assert caught.value.where == str(path)


def test_a_full_disk_is_an_error_of_the_store() -> None:
    with pytest.raises(StoreError, match="No space left on device"):
        run_in_subprocess(f"{HERE}:open_file", "/dev/full")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_process_that_was_killed_is_a_crash_that_names_the_signal(number: signal.Signals) -> None:
    with pytest.raises(StageCrashed, match=f"got {number.name}") as caught:
        run_in_subprocess(f"{HERE}:kill_itself", number)
    assert ("out of memory" in str(caught.value)) == (number is signal.SIGKILL)


@pytest.mark.parametrize("way", ["leave", "leave_politely"])
def test_a_process_that_ended_without_an_answer_is_a_crash_that_names_its_code(way: str) -> None:
    with pytest.raises(StageCrashed, match=r"ended without an answer .*exit code 3"):
        run_in_subprocess(f"{HERE}:{way}", 3)


def test_a_result_that_cannot_travel_is_a_crash_that_says_so() -> None:
    with pytest.raises(StageCrashed, match=r"(?i)pickle"):
        run_in_subprocess(f"{HERE}:give_what_cannot_travel")


# Conversations


def test_a_talking_child_answers_many_times() -> None:
    with Child(f"{HERE}:talk", "hello", talks=True) as child:
        assert child.receive() == "hello"
        for message in ("a", 21):
            child.send(message)
            assert child.receive() == message * 2
        child.send("stop")
        assert child.receive() == "goodbye"


def test_a_conversation_may_end_in_an_error() -> None:
    with Child(f"{HERE}:talk_then_fail", talks=True) as child:
        child.send("hello")
        assert child.receive() == "hello"
        with pytest.raises(DataError, match="enough"):
            child.receive()


def test_a_message_to_a_child_that_is_gone_is_answered_by_the_reason(tmp_path: Path) -> None:
    with Child(f"{HERE}:leave_a_note", str(tmp_path / "pid")) as child:
        process = wait_for(tmp_path / "pid")
        while Path(f"/proc/{process}").exists():  # until its fork server has buried it
            time.sleep(0.01)
        child.send("hello")
        with pytest.raises(StageCrashed, match="exit code 3"):
            child.receive()


def test_closing_ends_a_child_at_work_at_once(tmp_path: Path) -> None:
    child = Child(f"{HERE}:linger", str(tmp_path / "pid"))
    process = wait_for(tmp_path / "pid")
    began = time.monotonic()
    child.close()
    assert time.monotonic() - began < 5
    assert not is_running(process)


def test_an_error_inside_the_with_block_ends_the_child(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), Child(f"{HERE}:linger", str(tmp_path / "pid")):
        process = wait_for(tmp_path / "pid")
        raise KeyboardInterrupt
    assert not is_running(process)


# The end of the process that asked


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(path: Path) -> int:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)
    return int(path.read_text())


ASK = """
import sys
from pipeline.workers.child import run_in_subprocess
if __name__ == "__main__":
    run_in_subprocess(sys.argv[1], sys.argv[2])
"""


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that waits for a child, and the child's number; its fork server has nothing heavy to import."""
    (tmp_path / "light").mkdir()
    for name in ("tensorflow", "pandas"):
        (tmp_path / "light" / f"{name}.py").touch()
    (tmp_path / "ask.py").write_text(ASK)
    folders = [tmp_path / "light", Path(__file__).parent, Path(__file__).resolve().parents[3], *map(Path, sys.path)]
    asker = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(tmp_path / "ask.py"), f"{HERE}:linger", str(tmp_path / "pid")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
    )
    child = wait_for(tmp_path / "pid")
    yield asker, child
    asker.kill()
    asker.wait()
    if is_running(child):
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_the_process_that_asked_for_it(
    asking: tuple[subprocess.Popen[bytes], int], number: signal.Signals
) -> None:
    asker, child = asking
    assert is_running(child)
    asker.send_signal(number)
    asker.wait(timeout=20)
    until = time.monotonic() + 5
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(child)


FORK = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from pipeline.tasks.console import DieWithParent
if os.fork() == 0:
    with DieWithParent(SimpleNamespace(use_multiprocessing=True)):
        Path(sys.argv[1] + ".new").write_text(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(600)
time.sleep(600)
"""


def test_a_forked_worker_dies_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "pid")])
    worker = wait_for(tmp_path / "pid")
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(worker)


def test_the_main_process_does_not_hang_on_its_own_parent() -> None:
    class Worker:
        use_multiprocessing = False

    with DieWithParent(Worker()):
        import ctypes

        number = ctypes.c_int(-1)
        ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
        assert number.value == 0


# Errors at the door


@pytest.mark.parametrize(
    ("foreign", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), StoreError, "a.bin: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), StoreError, "here: Permission denied"),
        (RuntimeError("write failed; No space left on device"), StoreError, "no space left on device"),
        (RuntimeError("x" * 1000), StageCrashed, r"RuntimeError: x{599}…\)"),
        (OSError("odd"), StageCrashed, "OSError: odd"),
        (KeyError("k"), StageCrashed, "KeyError: 'k'"),
        (MemoryError(), StageCrashed, "MemoryError"),
    ],
)
def test_a_foreign_error_becomes_one_of_ours(foreign: Exception, kind: type[PipelineError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        raise as_pipeline_error(foreign, "here")


def test_an_error_of_ours_stays_itself() -> None:
    error = DataError("x")
    assert as_pipeline_error(error, "here") is error


def test_processes_of_a_name_start_without_the_script_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import spawn

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)

    def parts_of_the_script(name: str) -> list[str]:
        return [key for key in spawn.get_preparation_data(name) if key.startswith("init_main_from_")]

    with without_script("worker of a cluster"):
        assert parts_of_the_script("worker of a cluster") == parts_of_the_script("pipeline worker") == []
        assert len(parts_of_the_script("another process")) == 1
    assert len(parts_of_the_script("worker of a cluster")) == 1


def test_sets_of_strings_have_the_same_order_in_each_run() -> None:
    """Otherwise the same code gives other bytes, and a resumed training another order of rows."""
    command = [sys.executable, "-c", "print(hash('word'))"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    wanted = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert run_in_subprocess(f"{HERE}:hash_of", "word") == int(wanted)
