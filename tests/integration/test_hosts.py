"""Several hosts share a batch: a central scheduler, workers with a folder in common, one of which is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import batches
import pytest
import servers
from commands import BIN, luigi

MODELS = 4


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    prefixes = batches.make_checkpoints(tmp_path / "runs", MODELS)
    return batches.write_list(
        tmp_path / "models.csv",
        [{"name": prefix.parent.name, "checkpoint": prefix.relative_to(tmp_path)} for prefix in prefixes],
    )


def host(name: str, url: str, manifest: Path, root: Path, *more: str) -> subprocess.Popen[bytes]:
    """A host: a worker in a folder of its own."""
    folder = manifest.parent / name
    folder.mkdir()
    command = [str(BIN / "luigi"), "--module", "pipeline", "ConvertBatch", "--manifest", str(manifest)]
    command += ["--output-root", str(root), "--costs-seconds", "0", "--batch-shard-models", "2"]
    command += ["--scheduler-url", url, "--worker-keep-alive", *more]
    return servers.start(*command, cwd=folder, log=folder / "log")


def made(root: Path) -> int:
    return len(list(root.glob("*/report/report.html")))


def status_messages(url: str) -> list[str]:
    asked = '/api/task_list?data={"status":"RUNNING","upstream_status":""}'
    with urlopen(url + asked.replace('"', "%22")) as answer:
        tasks = json.load(answer)["response"]
    return [str(task["status_message"]) for task in tasks.values() if task.get("status_message")]


def test_when_a_host_is_lost_another_takes_over_within_a_minute(manifest: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with servers.central_scheduler(tmp_path) as url:
        one = host("one", url, manifest, shared)
        try:
            servers.wait_for(lambda: any("of 2 done" in message for message in status_messages(url)), what="a message")
            servers.wait_for(lambda: made(shared) >= 1, what="the first model")
            other = host("other", url, manifest, shared)
            try:
                servers.send(one, signal.SIGKILL)
                lost = time.monotonic()
                done = made(shared)
                servers.wait_for(lambda: made(shared) > done, what="the takeover")
                taken_over = time.monotonic() - lost
                assert other.wait(200) == 0, (tmp_path / "other" / "log").read_text()
            finally:
                servers.end(other)
        finally:
            servers.end(one)
    assert taken_over < 60
    results = batches.results_of(shared)
    assert [line["verdict"] for line in results.values()] == ["passed"] * MODELS
    alone = luigi(
        *("ConvertBatch", "--manifest", str(manifest), "--output-root", str(tmp_path / "alone")),
        *("--costs-seconds", "0", "--workers", "2"),
    )
    assert alone.returncode == 0, alone.stderr
    for name in results:
        for file in ("frozen/model.pb", "validation/results.csv"):
            assert (shared / name / file).read_bytes() == (tmp_path / "alone" / name / file).read_bytes()
    assert results == batches.results_of(tmp_path / "alone")


def test_a_host_that_was_only_paused_harms_nothing(manifest: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with servers.central_scheduler(tmp_path) as url:
        one = host("one", url, manifest, shared)
        try:
            servers.wait_for(lambda: made(shared) >= 1, what="the first model")
            servers.send(one, signal.SIGSTOP)
            other = host("other", url, manifest, shared)
            try:
                time.sleep(25)  # by now the first counts as gone
                servers.send(one, signal.SIGCONT)
                assert other.wait(200) == 0, (tmp_path / "other" / "log").read_text()
                # The scheduler has given it up, and grants it no more work.
                assert one.wait(200) in (0, 25), (tmp_path / "one" / "log").read_text()
            finally:
                servers.end(other)
        finally:
            servers.end(one)
    assert [line["verdict"] for line in batches.results_of(shared).values()] == ["passed"] * MODELS
    again = luigi(*("ConvertBatch", "--manifest", str(manifest), "--output-root", str(shared), "--costs-seconds", "0"))
    assert again.returncode == 0, again.stderr
    assert "to convert" not in again.stderr
