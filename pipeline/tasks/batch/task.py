"""Luigi task for a batch: converts every model of a list, in shards, and writes the tables."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
import luigi.interface
from luigi.target import FileSystemTarget

from pipeline.errors import BatchFailed
from pipeline.hashing import hash_code, hash_file, hash_values
from pipeline.settings import PASSED
from pipeline.store import artifact
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.folder import remove_file
from pipeline.training.models.source import PROJECT

from .. import batch as package
from ..model import run_root_hooks
from ..targets import artifact_target
from .shards import ConvertShard, ListTask

if TYPE_CHECKING:
    from .outcome import Outcome

_SHOWN = 10


class ConvertBatch(ListTask):
    """Convert, validate and report every model of a list; if a model fails, the others are not affected."""

    dry_run = luigi.BoolParameter(
        significant=False,
        description="list what would run, and why, without running it; exit 0 if nothing would run, else 1",
    )

    # It fails if a model failed: the next run tries again.
    retry_count = 1
    _is_shared = False  # whether a central scheduler gives the work to several hosts

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        run_root_hooks(self)

    def start(self) -> None:
        """Prepare a run with this task as root; a dry run ends here."""
        self._is_shared = not luigi.interface.core().local_scheduler
        if self.dry_run:
            sys.stdout.flush()
            code = print_plan(self)
            sys.stdout.flush()
            os._exit(code)  # without Luigi's summary of a run

    def requires(self) -> Iterable[luigi.Task]:
        """Return the shards."""
        digest = hash_file(Path(self.manifest))
        for first in range(0, len(self.rows), self.shard_size):
            yield ConvertShard(
                manifest=self.manifest, formats=self.formats, output_root=self.output_root, first=first, digest=digest
            )

    def output(self) -> FileSystemTarget:
        """Return the tables: a folder, or what is published under the URL of the output root."""
        return artifact_target(self.paths, self.remote, self.batch.stem)

    def complete(self) -> bool:
        """Return True if every model is complete and has passed, and the tables are up to date."""
        from . import run as running  # most runs have no batch

        known = running.load_outcomes(self.rows, self.batch)
        if len(known) < len(self.rows) or not all(outcome.has_passed for outcome in known.values()):
            return False
        stem, wanted = self.batch.stem, self._fingerprint_inputs(known)
        state = artifact.examine(self.paths.artifact(stem), stem, wanted, is_full=self.operations.store.is_full)
        if self.remote is not None:
            state = self.remote.look().reconcile(self.paths, stem, wanted, (), state)
        return state.is_complete

    def run(self) -> None:
        """Write the tables.

        Raises:
            BatchFailed: some models did not pass.
        """
        from . import run as running
        from .page import write_tables  # loads Jinja, which a finished batch does not need
        from .tables import Table

        known = running.load_outcomes(self.rows, self.batch)
        outcomes = [known[row.name] for row in self.rows]
        table = Table(self.batch.stem, self.rows, outcomes)

        def make(folder: Path) -> Mapping[str, Any]:
            write_tables(folder, table)
            return {"counts": table.counts}

        is_full = self.operations.store.is_full
        artifact.build(self.paths, self.batch.stem, lambda: self._fingerprint_inputs(known), make, is_full=is_full)
        if self.remote is not None:
            self.remote.push(self.paths, self.batch.stem)
        for row in self.rows:  # the next run tries the failed models again
            remove_file(self.batch.failed_file(row), self.paths.root)
        if not table.has_passed:
            raise BatchFailed(table.headline.rstrip("."), next_step=f"See {self.page}")

    def _fingerprint_inputs(self, known: Mapping[str, Outcome]) -> dict[str, Any]:
        # What stays the same if a model is converted again.
        names = ("name", "verdict", "kind", "reason", "digest", "comparisons")
        stable = {
            row.name: hash_values("outcome", [getattr(known[row.name], name) for name in names]) for row in self.rows
        }
        return {
            "files": {"list": hash_file(Path(self.manifest))},
            "outcomes": hash_values("outcomes", stable),
            "code": hash_code(Path(str(package.__file__)).parent / "page.py", [PROJECT]),
        }

    def exits_zero(self) -> bool:
        """Return True if a batch that several hosts share is complete, no matter which host did the work."""
        return self._is_shared and self.complete()

    def summary_lines(self) -> list[str]:
        """Return the lines to print at the end of a run."""
        from .tables import read_results

        folder = self.paths.artifact(self.batch.stem)
        count = len(self.rows)  # or why the list cannot be read
        results = read_results(folder) if (folder / MANIFEST_FILE).exists() else []
        missed = [line for line in results if line["verdict"] != PASSED]
        shown = [f"{line['verdict']:<12} {line['name']}: {line['error']}: {line['reason']}" for line in missed[:_SHOWN]]
        if len(missed) > _SHOWN:
            shown.append(f"             and {len(missed) - _SHOWN} more")
        if results:
            shown += [f"passed       {len(results) - len(missed)} of {count} models"]
            shown += [f"tables       {self.page}"]
        return shown


def print_plan(task: ConvertBatch, write: Callable[[str], None] = print) -> int:
    """Print for each model whether it would run, and why.

    Returns:
        0 if none would, else 1.
    """
    from . import run as running

    would_run, is_offered = 0, False
    for row, stages in running.plan(task.rows, task.batch):
        if not stages:
            continue
        would_run += 1
        is_offered = is_offered or running.is_on_offer(row, task.batch)
        stage, reason = next(iter(stages.items()))
        more = f" (and {len(stages) - 1} more stages)" if len(stages) > 1 else ""
        write(f"{row.name:<24} {stage}: {reason}{more}")
    write(f"{would_run} of {len(task.rows)} models would run")
    if is_offered:
        given = shlex.join([task.batch.stem, "--manifest", task.manifest, "--output-root", task.output_root])
        write(f"to keep artifacts whose code or libraries alone changed: python -m pipeline accept {given}")
    return int(would_run > 0)
