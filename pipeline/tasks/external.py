"""External tasks of Luigi: files that a chain starts from and does not make."""

from __future__ import annotations

from glob import escape
from pathlib import Path

import luigi

from pipeline.checkpoint.files import find_prefix
from pipeline.errors import CandidateError, CheckpointError, logger

from .names import NAMESPACE

luigi.namespace(NAMESPACE, scope=__name__)


class MustExist:
    """A file or folder that must exist before a run starts."""

    path = luigi.Parameter(description="a prefix, a file or a folder")

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(self.path)

    def complete(self) -> bool:
        problem = self.find_problem(Path(self.path))
        if problem is not None:
            logger.error("%s", problem)
        return problem is None

    def find_problem(self, path: Path) -> str | None:
        """Return a sentence if there is no such file or folder."""
        raise NotImplementedError


class DataFile(MustExist, luigi.ExternalTask):
    """A data file that must exist."""

    def find_problem(self, path: Path) -> str | None:
        return None if path.exists() else f"{self.path}: no such data file. Give one with --data"


class ExistingCheckpoint(MustExist, luigi.ExternalTask):
    """A checkpoint that must exist."""

    def find_problem(self, path: Path) -> str | None:
        if path.exists() or any(path.parent.glob(f"{escape(path.name)}[.-]*")):
            return None  # the stage that reads it says what is wrong with it
        try:
            find_prefix(path)
        except CheckpointError as exc:
            return str(exc)
        return None


class ExistingCandidate(MustExist, luigi.ExternalTask):
    """A candidate that must exist."""

    def find_problem(self, path: Path) -> str | None:
        from pipeline.formats.external.detect import detect_format

        try:
            if not path.exists():
                detect_format(path)
        except CandidateError as exc:
            return str(exc)
        return None
