"""Gathers from artifacts what a run tells at its end and in its report."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from .job import Job
from .manifest import Manifest

_LIBRARIES = ("tensorflow", "numpy")


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """The libraries that decide what is made."""
    return {library: version(library) for library in _LIBRARIES}


def read_verdict(job: Job) -> dict[str, Any]:
    """The content of the last verdict.json."""
    verdict: dict[str, Any] = json.loads((job.folder("validation") / "verdict.json").read_text(encoding="utf-8"))
    return verdict


def report_facts(job: Job, made: Sequence[str]) -> Any:
    """What the report tells, gathered from the artifacts.

    Args:
        made: the stages before it.
    """
    from .report import ReportFacts, StageFacts
    from .signature import Signature

    manifests = {name: Manifest.read(job.folder(name)) for name in made}
    return ReportFacts(
        name=job.places.name,
        verdict=read_verdict(job),
        results=job.folder("validation") / "results.csv",
        history=job.folder("training") / "history.csv" if "training" in manifests else None,
        signature=Signature.read(job.folder("checkpoint") / "signature.json"),
        exported=_exported(manifests),
        sizes={
            f"{stage}/{path}": entry.size_bytes
            for stage in ("checkpoint", *job.formats)
            for path, entry in sorted(manifests[stage].files.items())
            if path.startswith(("model.", "saved_model/"))
        },
        settings=asdict(job.settings),
        versions={**library_versions(), "python": platform.python_version()},
        stages=[
            StageFacts(name, manifest.content_digest, manifest.fingerprint, manifest.notes.get("seconds"))
            for name, manifest in manifests.items()
        ],
        command=shlex.join(sys.argv),
    )


def _exported(manifests: Mapping[str, Manifest]) -> str:
    """Which weights the checkpoint holds."""
    notes = manifests["checkpoint"].notes
    if "adopted" in notes:
        return f"taken over from {notes['adopted']}"
    steps = manifests["training"].notes["steps"]
    return f"{notes['exported']} step, {notes['step']} of {steps}" if steps else "initial values, nothing trained"
