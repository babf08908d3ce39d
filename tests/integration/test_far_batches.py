"""Batches past one machine: on the workers of a Dask cluster, one of which is lost, and on object storage."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import batches
import commands
import pytest
from buckets import BUCKET, s3_server
from clusters import Cluster, cluster

from pipeline.settings import BatchSettings, CostsSettings, EngineSettings, Operations, Settings
from pipeline.store.remote import file_system
from pipeline.tasks.batch.listing import Row, read_list
from pipeline.tasks.batch.outcome import Outcome
from pipeline.tasks.batch.run import Batch, run

QUICK = Settings(costs=CostsSettings(seconds=0))
COMPARED = ("frozen/model.pb", "validation/results.csv", "validation/verdict.json")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three models, one of which cannot be converted."""
    prefixes = batches.make_checkpoints(tmp_path / "runs", 3)
    batches.cut(Path(f"{prefixes[1]}.data-00000-of-00001"))
    return batches.write_list(tmp_path / "models.csv", [{"name": "", "checkpoint": "runs/*/model.ckpt.index"}])


def made(manifest: Path, root: Path, engine: EngineSettings) -> tuple[list[Row], dict[str, Outcome]]:
    """What comes of a batch on an engine."""
    rows = read_list(manifest, str(root))
    operations = Operations(engine=engine, batch=BatchSettings(limit_seconds=120))
    return rows, run(rows, Batch("models", root, QUICK, operations), workers=2)


def kill_in_the_middle(root: Path, found: Cluster) -> threading.Thread:
    """Kills a worker of the cluster when the first model is frozen."""

    def wait_and_kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(root.glob("*/frozen/model.pb")):
            time.sleep(0.02)
        found.kill(0)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_a_batch_on_a_cluster_that_loses_a_worker_gives_the_same_bytes(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, here = made(manifest, tmp_path / "here", EngineSettings())
    monkeypatch.setenv("PYTHONPATH", str(commands.PROJECT), prepend=os.pathsep)
    with cluster(tmp_path / "cluster") as found:
        killing = kill_in_the_middle(tmp_path / "there", found)
        _, there = made(manifest, tmp_path / "there", EngineSettings("dask", found.address))
        killing.join()
        assert [worker.poll() is None for worker in found.workers] == [False, True]
    names = [row.name for row in rows]
    assert [there[name].verdict for name in names] == ["passed", "error", "passed"]
    for name in names:
        assert there[name].reason == here[name].reason
        assert there[name].digest == here[name].digest
        for file in COMPARED if there[name].has_passed else ():
            assert (tmp_path / "there" / name / file).read_bytes() == (tmp_path / "here" / name / file).read_bytes()


def test_a_batch_is_published_on_object_storage_and_complete_for_another_host(manifest: Path, tmp_path: Path) -> None:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        system, _ = file_system(BUCKET)
        system.mkdir("bucket")

        def host(name: str) -> tuple[int, str]:
            done = commands.luigi(
                *("ConvertBatch", "--manifest", str(manifest), "--output-root", f"{BUCKET}/models"),
                *("--workers", "2", "--costs-seconds", "0", "--storage-mirror", str(tmp_path / name)),
                **environment,
            )
            return done.returncode, done.stdout + done.stderr

        code, log = host("one")
        assert code == 30, log
        assert f"tables       {BUCKET}/models/batch/models/report.html" in log
        names = [f"runs-m000{k}-model.ckpt" for k in (0, 2)]
        before = {name: system.info(f"bucket/models/{name}/report/manifest.json")["ETag"] for name in names}
        lines = system.cat("bucket/models/batch/models/results.csv").decode().splitlines()
        assert [line.split(",")[3] for line in lines[1:]] == ["passed", "error", "passed"]
        code, log = host("other")
        assert code == 30, log
        after = {name: system.info(f"bucket/models/{name}/report/manifest.json")["ETag"] for name in names}
        assert after == before  # nothing was made again
        pb = "frozen/model.pb"
        for name in names:
            with system.open(f"bucket/models/{name}/{pb}") as file:
                assert file.read() == next((tmp_path / "other").rglob(f"{name}/{pb}")).read_bytes()
    assert os.environ.get("AWS_ENDPOINT_URL") is None
