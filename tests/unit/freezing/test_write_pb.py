"""How large files are written: refused before any weight is read, told of on the way."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from commands import SHARED_SERVER
from mapped import files_of, graph_of

from pipeline.checkpoint.bundle import Bundle, open_checkpoint
from pipeline.errors import FreezeError
from pipeline.freezing.freeze import LARGE_BYTES, ByteProgress
from pipeline.freezing.write import pb
from pipeline.freezing.write.constants import Constant, FrozenGraph
from pipeline.freezing.write.mmap import write_mmap
from pipeline.freezing.write.pb import write_pb
from pipeline.graph.protos import DataType

PROJECT = Path(__file__).resolve().parents[3]
FLOAT, INT32 = DataType.Value("DT_FLOAT"), DataType.Value("DT_INT32")


def huge(prefix: Path, elements: int, dtype: int = FLOAT) -> tuple[FrozenGraph, Bundle]:
    """A variable that an index tells of, in a data file of holes: its checksum is wrong, if it were read."""
    checkpoints.write_index(prefix, {b"w": checkpoints.proto(shape=[elements], size=4 * elements, dtype=dtype)})
    os.truncate(checkpoints.data_of(prefix), 4 * elements)
    bundle = open_checkpoint(prefix)
    return graph_of([Constant("w", bundle.tensors["w"])]), bundle


def test_a_model_beyond_two_gigabytes_is_refused_with_its_size_and_the_ways_on_before_it_is_read(
    tmp_path: Path,
) -> None:
    graph, bundle = huge(tmp_path / "ckpt", 600_000_000)
    with pytest.raises(FreezeError, match="too large") as error:
        write_pb(graph, bundle, tmp_path / "model.pb")
    assert re.fullmatch(r"24000\d{5} bytes \(2\.40 GB\)", error.value.got or "")
    assert error.value.wanted == "at most 2147483647 bytes (2.15 GB), what protobuf can read"
    assert "--format mmap" in (error.value.next_step or "")
    assert re.search(r"--weights float16, which takes 12000\d{5} bytes \(1\.20 GB\)", error.value.next_step or "")
    assert not (tmp_path / "model.pb").exists()


@pytest.mark.parametrize(("elements", "dtype"), [(1_200_000_000, FLOAT), (600_000_000, INT32)])
def test_float16_is_offered_only_where_it_would_do(elements: int, dtype: int, tmp_path: Path) -> None:
    graph, bundle = huge(tmp_path / "ckpt", elements, dtype)
    with pytest.raises(FreezeError, match="--format mmap") as error:
        write_pb(graph, bundle, tmp_path / "model.pb")
    assert "float16" not in (error.value.next_step or "")


def test_the_size_that_float16_would_have_is_the_size_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", {"w": np.ones(1000, np.float32)}))
    graph = graph_of([Constant("w", bundle.tensors["w"])])
    with monkeypatch.context() as small:
        small.setattr(pb, "MAX_PB_BYTES", 3000)
        with pytest.raises(FreezeError) as error:
            write_pb(graph, bundle, tmp_path / "model.pb")
    [size] = re.findall(r"takes (\d+) bytes", error.value.next_step or "")
    write_pb(pb.convert_to_float16(graph), bundle, tmp_path / "half.pb")
    assert (tmp_path / "half.pb").stat().st_size == int(size)
    write_pb(graph, bundle, tmp_path / "model.pb")
    assert error.value.got == f"{(tmp_path / 'model.pb').stat().st_size} bytes (0.00 GB)"


@pytest.mark.parametrize("is_halved", [False, True])
@pytest.mark.parametrize("format", ["pb", "mmap"])
def test_who_wants_to_know_is_told_of_every_piece_up_to_the_size_of_the_files(
    format: str, is_halved: bool, tmp_path: Path
) -> None:
    tensors = {key: np.ones((3, 1 << 18), np.float32) for key in "ab"}
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", tensors))
    graph = graph_of([Constant(key, bundle.tensors[key]) for key in tensors])
    graph = pb.convert_to_float16(graph) if is_halved else graph
    (tmp_path / "made").mkdir()
    told: list[tuple[int, int]] = []
    if format == "pb":
        write_pb(graph, bundle, tmp_path / "made" / "model.pb", lambda *numbers: told.append(numbers))
    else:
        write_mmap(graph, bundle, tmp_path / "made", lambda *numbers: told.append(numbers))
    total = sum(map(len, files_of(tmp_path / "made").values()))
    assert {each for _, each in told} == {total}
    done = [number for number, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert len(set(done)) >= 7


def test_a_small_file_is_written_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with ByteProgress("model.pb") as progress:
        progress(0, LARGE_BYTES - 1)
        progress(LARGE_BYTES - 1, LARGE_BYTES - 1)
    assert capsys.readouterr() == ("", "")


def test_in_a_log_a_large_file_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with ByteProgress("model.pb") as progress:
        for done in range(0, 3 * LARGE_BYTES + 1, 1 << 20):
            progress(done, 3 * LARGE_BYTES)
    assert log.getvalue() == "writing 300000000 bytes (0.30 GB) to model.pb\n"


WRITE = """
import sys
from pipeline.freezing.freeze import ByteProgress
with ByteProgress("model.pb") as progress:
    for done in range(0, {size} + 1, {size} // 10):
        progress(done, {size})
print("tqdm" in sys.modules)
"""


def everything(terminal: int) -> str:
    """What was written to a terminal whose other side is closed."""
    shown = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as file:
        while piece := file.read(1 << 16):
            shown += piece
    return shown.decode()


@pytest.mark.parametrize(("size", "has_bar"), [(10_000_000, False), (2_000_000_000, True)])
def test_in_a_terminal_a_large_file_gets_a_bar_and_only_then_is_its_library_loaded(size: int, has_bar: bool) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    done = subprocess.run(
        [sys.executable, "-c", WRITE.format(size=size)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([SHARED_SERVER, str(PROJECT)]), "TERM": "xterm"},
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    os.close(theirs)
    assert done.stdout.strip() == str(has_bar)
    shown = everything(ours)
    assert ("writing model.pb: 100%" in shown) == has_bar
    assert ("2.00G/2.00G" in shown) == has_bar
    assert ("B/s]" in shown) == has_bar
