"""External tasks of Luigi: files that a chain starts from and does not make."""

from __future__ import annotations

import logging
from glob import escape
from pathlib import Path

import luigi

from pipeline.errors import CandidateError

logger = logging.getLogger("pipeline")


class DataFile(luigi.ExternalTask):
    """A data file that must exist."""

    path = luigi.Parameter(description="the file")

    def output(self) -> luigi.LocalTarget:
        """Return the file."""
        return luigi.LocalTarget(self.path)

    def complete(self) -> bool:
        """Return True if it exists."""
        exists = Path(self.path).exists()
        if not exists:
            logger.error("%s: no such data file. Give one with --data", self.path)
        return exists


class ExistingCheckpoint(luigi.ExternalTask):
    """A checkpoint that must exist."""

    path = luigi.Parameter(description="a prefix, a file or a folder")

    def output(self) -> luigi.LocalTarget:
        """Return the path."""
        return luigi.LocalTarget(self.path)

    def complete(self) -> bool:
        """Return True if a file or folder of that name exists."""
        place = Path(self.path)
        exists = place.exists() or any(place.parent.glob(f"{escape(place.name)}[.-]*"))
        if not exists:
            logger.error("%s: no such checkpoint. Give one with --checkpoint", self.path)
        return exists


class ExistingCandidate(luigi.ExternalTask):
    """A candidate that must exist."""

    path = luigi.Parameter(description="a file or a folder")

    def output(self) -> luigi.LocalTarget:
        """Return the path."""
        return luigi.LocalTarget(self.path)

    def complete(self) -> bool:
        """Return True if a file or folder of that name exists."""
        from pipeline.formats.external.detect import detect_format

        exists = Path(self.path).exists()
        if not exists:
            try:
                detect_format(Path(self.path))
            except CandidateError as exc:
                logger.error("%s", exc)
        return exists
