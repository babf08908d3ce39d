"""Artifacts on object storage are complete where the manifest is there and fits: whoever looks, whatever was killed."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import commands
import pytest
from buckets import BUCKET, s3_server
from commands import QUICK, luigi, pipeline
from jobs import run

from pipeline.cli import verify
from pipeline.errors import DamagedArtifact, StoreError
from pipeline.settings import CostsSettings, Operations, Settings, StorageSettings, TrainingSettings
from pipeline.store import artifact as store
from pipeline.store import remote as store_remote
from pipeline.store.artifact import ArtifactPaths, ArtifactState, ArtifactStatus
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.remote import RemoteStore, file_system, mirror_of
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job, Parameters
from pipeline.tasks.chain.plan import Chain

ROOT = f"{BUCKET}/some/path"
OLD, NEW = {"settings": {"a": 1}}, {"settings": {"a": 2}}
ANEW = {"model.pb": b"sthgiew", "more/notes.txt": b"seton", "z": b"tsal"}  # of the same sizes
FILES = {"model.pb": b"weights", "more/notes.txt": b"notes", "z": b"last"}


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """The environment in which an S3 server with a bucket is found."""
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        system, _ = file_system(BUCKET)
        system.mkdir("bucket")
        yield environment


@pytest.fixture(params=["s3", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteStore:
    """A place of its own for each test, on S3 and in a folder."""
    if request.param == "file":
        return RemoteStore.at(f"file://{tmp_path / 'remote'}", "m")
    request.getfixturevalue("server")
    return RemoteStore.at(f"{BUCKET}/{tmp_path.name}/", "m")


class Host:
    """A host with a mirror of its own."""

    def __init__(self, folder: Path, remote: RemoteStore) -> None:
        self.paths, self.remote, self.made = ArtifactPaths(folder, "m"), remote, 0

    def look(self, wanted: Mapping[str, Any] = OLD) -> ArtifactState:
        artifact = self.paths.artifact("frozen")
        state = store.examine(artifact, "frozen", wanted)
        return self.remote.look().reconcile(self.paths, "frozen", wanted, (), state)

    def make(self, wanted: Mapping[str, Any] = OLD, files: Mapping[str, bytes] = FILES) -> None:
        def fill(folder: Path) -> Mapping[str, Any]:
            self.made += 1
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            return {}

        store.build(self.paths, "frozen", lambda: wanted, fill)
        self.remote.push(self.paths, "frozen")

    def files(self) -> dict[str, bytes]:
        folder = self.paths.artifact("frozen").resolve()
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def hosts(remote: RemoteStore, tmp_path: Path) -> tuple[Host, Host]:
    return Host(tmp_path / "one", remote), Host(tmp_path / "two", remote)


def write(remote: RemoteStore, path: str, content: bytes | None) -> None:
    """Writes or removes an object behind the pipeline's back."""
    system, place = file_system(f"{remote.url('frozen')}/{path}")
    system.rm_file(place) if content is None else system.pipe_file(place, content)


def test_what_one_host_has_published_another_one_has(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    assert (one.look().status, two.look().status) == (ArtifactStatus.MISSING, ArtifactStatus.MISSING)
    one.make()
    assert one.look().is_complete
    assert two.look().is_complete
    assert two.files() == FILES
    assert two.look().manifest == one.look().manifest
    two.make()  # there is nothing to do
    assert (one.made, two.made) == (1, 0)


def test_the_first_of_two_hosts_wins(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.make()
    two.make(files={"model.pb": b"made at the same time"})
    assert two.made == 1
    assert two.look().is_complete
    assert two.files() == FILES


def test_other_inputs_replace_what_is_there_and_leave_nothing_of_it(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.make()
    two.make(NEW, {"model.pb": b"other"})
    assert one.look(NEW).is_complete
    assert one.files() == {"model.pb": b"other"}
    assert one.remote.look().paths("frozen") == {"model.pb", MANIFEST_FILE}
    state = one.look(OLD)
    assert (state.status, state.reasons[0]) == (ArtifactStatus.STALE, "setting a changed: was 2, is 1")


@pytest.mark.parametrize("damage", [b"weighty", b"weights and more", None])
def test_a_changed_object_is_noticed_by_every_host(damage: bytes | None, hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.make()
    write(one.remote, "model.pb", damage)
    same_size = damage is not None and len(damage) == len(FILES["model.pb"])
    assert two.look().status is (ArtifactStatus.DAMAGED if same_size else ArtifactStatus.MISSING)
    assert one.look().status is (ArtifactStatus.DAMAGED if same_size else ArtifactStatus.STALE)
    with pytest.raises(DamagedArtifact, match=r"model\.pb"):
        one.remote.verify("frozen")
    if same_size:  # both say so, the one whose mirror is right too
        for host in hosts:
            with pytest.raises(DamagedArtifact, match=r"model\.pb: its bytes were changed"):
                host.make()
    else:
        one.make()
        assert (one.made, two.look().is_complete) == (1, True)


def test_a_changed_manifest_is_noticed_and_not_overwritten(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.make()
    text = (one.paths.artifact("frozen") / MANIFEST_FILE).read_bytes()
    write(one.remote, MANIFEST_FILE, text.replace(b'"a": 1', b'"a": 3'))
    assert [host.look().status for host in hosts] == [ArtifactStatus.DAMAGED, ArtifactStatus.DAMAGED]
    with pytest.raises(DamagedArtifact, match="the manifest was changed"):
        two.make()


def test_a_mirror_that_is_damaged_is_downloaded_again(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.make()
    (one.paths.artifact("frozen") / "model.pb").write_bytes(b"weighty")
    assert one.look().is_complete
    assert one.files() == FILES


def _make_until_killed(host: Host, wanted: Mapping[str, Any]) -> None:
    uploads, upload = [], store_remote._upload

    def upload_two(*args: Any) -> None:
        if len(uploads) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        uploads.append(args)
        upload(*args)

    store_remote._upload = upload_two
    host.make(wanted, ANEW)


@pytest.mark.parametrize("exists", [False, True])
def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_that_counts(
    exists: bool, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    one, two = hosts
    if exists:
        two.make(OLD)
    process = multiprocessing.get_context("spawn").Process(target=_make_until_killed, args=(one, NEW))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert one.remote.look().paths("frozen") >= {"model.pb", "more/notes.txt"}
    assert [two.look(wanted).is_complete for wanted in (OLD, NEW)] == [False, False]
    assert Host(tmp_path / "three", one.remote).look(OLD).status is ArtifactStatus.MISSING
    one.make(NEW)
    assert one.made == 0  # it was made before the kill
    assert two.look(NEW).is_complete
    assert two.files() == ANEW


def job(mirror: Path, **request: str) -> Any:
    settings = Settings(training=TrainingSettings(steps=40, batch_size=16, goldens=8), costs=CostsSettings(seconds=0))
    operations = Operations(storage=StorageSettings(str(mirror)))
    return Job.from_parameters(Parameters(model="multiply_add", output_root=ROOT, **request), settings, operations)


def test_a_chain_is_validated_on_another_host_from_what_is_there(
    server: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = job(tmp_path / "first"), job(tmp_path / "second")
    assert run(first, "frozen") == {"graph", "training", "checkpoint", "frozen"}
    assert all(state.is_complete for state in Chain(second).examine("frozen").values())
    made = {stage for stage, state in Chain(second).examine("report").items() if not state.is_complete}
    assert made == {"validation", "costs", "report"}
    for stage in ("validation", "costs", "report"):
        Chain(second).build(stage)
    assert results.read_verdict(second)["verdict"] == "passed"
    assert all(state.is_complete for state in Chain(first).examine("report").values())
    assert results.read_verdict(first) == results.read_verdict(second)
    assert second.display_path("validation", "results.csv") == f"{ROOT}/multiply_add/validation/results.csv"

    given = type("Given", (), {"folder": f"{ROOT}/multiply_add/frozen"})
    assert verify.run(given) == 0  # type: ignore[arg-type]
    assert "every byte as it was finished" in capsys.readouterr().out
    system, _ = file_system(ROOT)
    system.pipe_file("bucket/some/path/multiply_add/checkpoint/signature.json", b"{}")
    assert verify.run(given) == 1  # type: ignore[arg-type]
    assert "checkpoint/signature.json changed" in capsys.readouterr().out


def test_what_is_wrong_with_a_bucket_is_a_sentence(server: dict[str, str], tmp_path: Path) -> None:
    # A host with a name, as everywhere but here: it is looked up in a pool of threads.
    named = {**server, "AWS_ENDPOINT_URL": server["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost")}
    done = luigi("FreezeModel", "--model", "multiply_add", "--output-root", "s3://nobody/x", *QUICK, **named)
    assert done.returncode == 35
    sentence = "s3://nobody/x/multiply_add: the bucket or object does not exist"
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert [line.startswith(f"failed       {sentence}") for line in done.stdout.splitlines()] == [True]
    assert done.stdout.endswith("Create it, or correct the URL\n")
    unknown = {**named, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    done = luigi("FreezeModel", "--model", "multiply_add", "--output-root", f"{BUCKET}/x", **unknown)
    assert done.returncode == 35
    assert done.stdout.startswith("failed       s3://bucket/x/multiply_add: the storage cannot be used")
    assert "Unable to locate credentials" in done.stdout
    assert done.stdout.endswith("Check its endpoint (AWS_ENDPOINT_URL) and the credentials, then run again\n")
    assert done.stdout.count("\n") == 1
    done = pipeline("verify", "s4://bucket/x/y/z")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "not a URL of a known storage" in done.stderr


def test_a_storage_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as environment:
        pass
    for name, value in {**environment, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    system = file_system("s3://gone")[0]
    system.clear_instance_cache()  # it would go on with the environment of other tests
    with pytest.raises(StoreError, match=r"cannot be used.*AWS_ENDPOINT_URL"):
        RemoteStore.at("s3://gone/x", "m").look()
    system.clear_instance_cache()


def test_without_s3fs_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["s3fs"] = None
from pipeline.cli import main
sys.exit(main(["verify", "s3://bucket/x/m/frozen"]))"""
    done = commands.run(sys.executable, "-c", code)
    assert done.returncode == 3
    assert "pip install 'freeze-pipeline[s3]'" in done.stderr


def test_mirrors_of_two_urls_are_two_folders(tmp_path: Path) -> None:
    folders = {mirror_of(url, str(tmp_path)) for url in ("s3://a/b", "s3://a-b", "s3://a/b/c")}
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {tmp_path}
    assert dataclasses.replace(RemoteStore("s3://a", "m"), name="n").url("frozen") == "s3://a/n/frozen"
