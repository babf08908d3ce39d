"""Luigi's targets for artifacts: what `output()` of a task is, and what a task that requires it gets as `input()`.

Under a folder it is Luigi's LocalTarget. Under a URL it is a target of that URL, so that a task on another host, which
has no mirror, sees and reads what was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import luigi
from luigi.target import FileSystemTarget

from pipeline.store.artifact import ArtifactPaths

if TYPE_CHECKING:
    from pipeline.store.remote import RemoteStore


def artifact_target(paths: ArtifactPaths, remote: RemoteStore | None, stage: str) -> FileSystemTarget:
    """Return the target of a stage's artifact, where people find it: in the output root's folder, or under its URL."""
    if remote is None:
        return luigi.LocalTarget(str(paths.artifact(stage)))
    from .remote_targets import ArtifactTarget

    return ArtifactTarget(remote, stage)
