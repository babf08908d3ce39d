"""Nights in a folder and on object storage: dated, gated, and the current one as it was finished, on any host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import luigi.configuration
import pytest
from buckets import BUCKET, s3_server
from jobs import model_file
from luigi.task_register import Register

from pipeline.errors import DamagedArtifact, ValidationFailed
from pipeline.store.artifact import is_url
from pipeline.store.remote import file_system, write_object
from pipeline.tasks.nightly.task import NightlyRun

pytestmark = pytest.mark.tensorflow

SCALED = """
    class M:
        outputs = [TensorSpec("p", "float32", [None])]
        signature = Signature([TensorSpec("x", "DTYPE", [None])], outputs, Decision("p", 0.5))
        data = "rows.csv"

        def forward(self, inputs, training):
            weight = tf.compat.v1.get_variable("weight", [], initializer=tf.constant_initializer(0.25))
            return {"p": tf.cast(inputs["x"], tf.float32) * weight}

        def examples(self, path):
            return Examples({"x": np.arange(40, dtype="DTYPE") / 10})
"""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Settings as of a command line that wants few steps."""
    config = luigi.configuration.get_config()
    chosen = {("training", "steps"): "20", ("costs", "seconds"): "0", ("validation", "checks"): "equal"}
    before = {key: config.get(*key) for key in chosen}
    for key, value in chosen.items():
        config.set(*key, value)
    yield
    for key, value in before.items():
        config.set(*key, value)


@dataclass
class Place:
    """Where nights go, and hosts that make them there."""

    root: str
    folder: Path
    patch: pytest.MonkeyPatch

    def night(self, host: str, day: int, dtype: str = "float32") -> NightlyRun:
        """A night of a host, which has a mirror and a process of its own."""
        Register.clear_instance_cache()
        self.patch.setenv("XDG_CACHE_HOME", str(self.folder / host))
        model = model_file(self.folder, SCALED.replace("DTYPE", dtype))
        return NightlyRun(date=date(2026, 1, day), model=model, name="m", output_root=self.root)

    def url(self, path: str) -> str:
        return f"{self.root if is_url(self.root) else f'file://{self.root}'}/m/{path}"

    def read(self, path: str) -> bytes:
        system, target = file_system(self.url(path))
        return bytes(system.cat_file(target))

    def current(self) -> str:
        return self.read("current").decode().strip() if is_url(self.root) else os.readlink(f"{self.root}/m/current")

    def damage(self, path: str) -> None:
        """Change a byte behind the pipeline's back, as a disk does: under the old size and time stamp."""
        content = self.read(path)
        content = content[:-1] + bytes([content[-1] ^ 1])
        if is_url(self.root):
            write_object(self.url(path), content)
            return
        file = Path(self.root, "m", path)
        stat = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.stress)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "folder":
        yield Place(str(tmp_path / "output"), tmp_path, monkeypatch)
        return
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file_system(BUCKET)[0].mkdir("bucket")
        yield Place(f"{BUCKET}/nights", tmp_path, monkeypatch)


def test_a_failed_night_replaces_nothing_and_a_damaged_one_is_noticed_by_the_next(place: Place) -> None:
    first = place.night("one", 1)
    assert not first.complete()
    first.run()
    assert first.complete()
    assert place.current() == "2026-01-01"
    model = place.read("2026-01-01/frozen/model.pb")

    failed = place.night("two", 2, "float64")
    with pytest.raises(ValidationFailed, match="its signature is not that of 2026-01-01"):
        failed.run()
    assert not failed.complete()
    assert place.current() == "2026-01-01"
    assert place.read("2026-01-01/frozen/model.pb") == model
    assert place.read("2026-01-02/frozen/model.pb") != model
    assert [line.split(",")[:2] for line in place.read("history.csv").decode().splitlines()[1:]] == [
        ["2026-01-01", "passed"],
        ["2026-01-02", "failed"],
    ]

    place.damage("2026-01-01/frozen/model.pb")
    for host in ("one", "two"):
        assert not place.night(host, 1).complete()
    third = place.night("two", 3)
    with pytest.raises(DamagedArtifact, match=r"the current night 2026-01-01 was damaged \(got .*frozen/model\.pb"):
        third.run()
    assert third.complete()
    assert place.current() == "2026-01-03"
    assert f"current      {third.nights.place('current')} -> 2026-01-03" in third.summary_lines()
