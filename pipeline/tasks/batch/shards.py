"""Divide a batch into shards: one Luigi task for some models of the list.

A batch is one shard, with as many processes as Luigi has workers; or, with a central scheduler, several shards of some
models each, which several hosts share. There is no task for each model and stage, because the time of Luigi's scheduler
grows with the square of the number of tasks.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import luigi.interface

from pipeline.errors import SettingError
from pipeline.settings import Operations
from pipeline.store.artifact import ArtifactPaths, is_url
from pipeline.store.file_names import REPORT_FILE

from ..config import read_operations, read_settings
from ..names import NAMESPACE, NamedByGiven
from ..progress import show_link, show_progress

if TYPE_CHECKING:
    from pipeline.store.remote import RemoteStore

    from .listing import Row
    from .run import Batch

luigi.namespace(NAMESPACE, scope=__name__)

_SHARED_MODELS = 50  # models per shard if several hosts share a batch


class ListTask(NamedByGiven):
    """A task on a list of models, with the parameters that all of them have."""

    manifest = luigi.Parameter(
        default="",
        description="required: a CSV file with one model per line: name,checkpoint and optionally model,inputs,"
        "outputs,data,formats and other parameters; paths are relative to it, and a pattern in checkpoint stands for "
        "many models",
    )
    formats = luigi.OptionalParameter(default="", description="formats for lines without any; frozen if not given")
    output_root = luigi.Parameter(default="output", description="where artifacts are written: a folder, or a URL")

    @cached_property
    def rows(self) -> list[Row]:
        """The models.

        Raises:
            SettingError: no list is given.
            DataError: the list is wrong.
        """
        from .listing import read_list  # most runs have no batch

        if not self.manifest:
            raise SettingError("a batch needs a list of its models", where="--manifest", wanted="a CSV file")
        return read_list(Path(self.manifest), self.output_root, self.formats or "")

    @cached_property
    def batch(self) -> Batch:
        """The name of the batch, and how its models are made."""
        from .listing import plain_name
        from .run import Batch

        return Batch(plain_name([Path(self.manifest).stem]), self.paths.root, read_settings(), self.operations)

    @cached_property
    def operations(self) -> Operations:
        """The settings that say how the work is done."""
        return read_operations()

    @cached_property
    def remote(self) -> RemoteStore | None:
        """The object storage where the tables are published; None if the output root is a folder."""
        if not is_url(self.output_root):
            return None
        from pipeline.store.remote import RemoteStore

        from .listing import TABLES

        return RemoteStore.at(self.output_root, TABLES)

    @cached_property
    def paths(self) -> ArtifactPaths:
        """The paths of the tables."""
        from .listing import TABLES

        root = Path(self.output_root)
        if self.remote is not None:
            from pipeline.store.remote import mirror_of

            root = mirror_of(self.remote.root, self.operations.storage.mirror)
        return ArtifactPaths(root, TABLES)

    @property
    def page(self) -> str:
        """The path or URL of the batch's page."""
        stem = self.batch.stem
        folder = str(self.paths.artifact(stem)) if self.remote is None else self.remote.url(stem)
        return f"{folder}/{REPORT_FILE}"

    @property
    def shard_size(self) -> int:
        """Number of models that one Luigi task converts."""
        chosen = self.operations.batch.shard_models
        return chosen or (len(self.rows) if luigi.interface.core().local_scheduler else _SHARED_MODELS)


class ConvertShard(ListTask):
    """Convert some models of a list, one after the other on each worker; required by ConvertBatch."""

    first = luigi.IntParameter(description="position of its first model in the list, from 0")
    digest = luigi.Parameter(description="sha256 of the list, so that another list is another task")

    # A model that fails does not fail the shard; other failures deserve a retry, on any host.
    retry_count = 3

    @property
    def shard(self) -> list[Row]:
        """The models of this shard."""
        return self.rows[self.first : self.first + self.shard_size]

    def complete(self) -> bool:
        """Return True if each of its models is complete, or has failed in this batch."""
        from . import run as running

        return len(running.load_outcomes(self.shard, self.batch)) == len(self.shard)

    def run(self) -> None:
        """Convert the models that are not complete."""
        from . import run as running

        is_only = self.shard_size >= len(self.rows)
        show_link(self, self.page)
        workers = luigi.interface.core().workers if is_only else 1  # else Luigi's workers have a shard each
        running.run(self.shard, self.batch, workers, partial(show_progress, self))
