"""One model on its way through the chain: what a command line and the settings say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.operations import Operations
from pipeline.settings import Adopted, Candidate, Settings, WarmStart
from pipeline.store.artifact import Places
from pipeline.store.remote import Remote
from pipeline.training.models.source import ModelSource

CANDIDATE = "candidate"  # the stage of a file that the pipeline did not make


@dataclass(frozen=True)
class Job:
    """One model on its way through the chain.

    Args:
        source: the model's code; None where a checkpoint brings its own graph.
        formats: the formats to make and to validate.
        data: the data file, None if the model names none and none was given.
        adopted: the checkpoint that the chain starts at; None where the model is trained.
        candidate: a file that is compared with the checkpoint, in the place of formats that are made of it.
        operations: how the work is done; this decides no byte of it.
        remote: the object storage where artifacts are published; None where the output root is a folder.
    """

    source: ModelSource | None
    places: Places
    data: Path | None
    warm_start: WarmStart | None
    formats: tuple[str, ...]
    settings: Settings
    adopted: Adopted | None = None
    candidate: Candidate | None = None
    operations: Operations = field(default_factory=Operations)
    remote: Remote | None = None

    @property
    def candidates(self) -> Mapping[str, str]:
        """The stage whose artifact is compared with the checkpoint, by format."""
        return {format: format if self.candidate is None else CANDIDATE for format in self.formats}

    @property
    def model(self) -> ModelSource:
        """The model's code, for the stages that need it."""
        assert self.source is not None  # a chain without a model's code has no such stages
        return self.source

    def told(self, stage: str, *parts: str) -> str:
        """Where people find a stage's artifact, or a file of it."""
        if self.remote is not None:
            return "/".join(filter(None, [self.remote.url(stage), *parts]))
        return str(self.places.artifact(stage).joinpath(*parts))

    def folder(self, stage: str) -> Path:
        """The last finished version of a stage's artifact, by its own path: it stays when the link moves on."""
        return self.places.artifact(stage).resolve()
