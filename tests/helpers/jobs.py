"""Jobs for tests: a model on its way through the chain, in a temporary folder, without Luigi."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

from pipeline.inputs import ImportedCheckpoint, WarmStart
from pipeline.settings import CostsSettings, Settings
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.training.models.source import find_model

PROJECT = Path(__file__).resolve().parents[2]
FRUIT = PROJECT / "examples" / "fruit.py"

QUICK = {
    "training": {"steps": 40, "batch_size": 16, "evaluate_every_steps": 10, "save_every_steps": 20, "goldens": 8},
    "costs": {"seconds": 0.0},
}


def job_for(
    root: Path,
    model: str = "multiply_add",
    *,
    data: Path | None = None,
    name: str | None = None,
    warm_start: WarmStart | None = None,
    formats: tuple[str, ...] = ("frozen",),
    **sections: dict[str, Any],
) -> Job:
    """A job under `root`; settings by section, such as `training={"steps": 10}`, over quick ones."""
    source = find_model(model)
    settings = Settings()
    for section in {*QUICK, *sections}:
        values = {**QUICK.get(section, {}), **sections.get(section, {})}
        changed = dataclasses.replace(getattr(settings, section), **values)
        settings = dataclasses.replace(settings, **{section: changed})
    return Job(
        source=source,
        paths=ArtifactPaths(root, name or source.name),
        data=data or source.data,
        warm_start=warm_start,
        formats=formats,
        settings=settings,
    )


def imported_job(root: Path, place: Path | str, **options: Any) -> Job:
    """A job that starts at an existing checkpoint or SavedModel; `options` are those of `ImportedCheckpoint`."""
    return Job(
        source=None,
        paths=ArtifactPaths(root, "foreign"),
        data=None,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(costs=CostsSettings(seconds=0)),
        imported=ImportedCheckpoint(str(place), **options),
    )


def run(job: Job, last: str = "report") -> set[str]:
    """Runs the chain up to a stage, as Luigi would.

    Returns:
        The stages that were made; the others were complete.
    """
    made = set()
    for stage in Chain(job).examine(last):
        before = job.folder(stage)
        Chain(job).build(stage)
        if job.folder(stage) != before:
            made.add(stage)
    return made


def model_file(folder: Path, body: str, name: str = "model.py") -> str:
    """Writes a model file and returns the reference of its class `M`.

    Args:
        body: the file after its imports (numpy, tensorflow, Examples, Signature, TensorSpec, Decision).
    """
    imports = """\
        import numpy as np
        import tensorflow as tf
        from pipeline.data import Examples
        from pipeline.signature import Decision, Signature, TensorSpec
        """
    (folder / name).write_text(textwrap.dedent(imports) + textwrap.dedent(body))
    if not (folder / "rows.csv").exists():
        (folder / "rows.csv").write_text("no reader looks at this\n")
    return f"{folder / name}:M"


def made_with_other_code(home: Path, *stages: str, **inputs: object) -> None:
    """Rewrites manifests as if the artifacts had been made by another version of the pipeline, and other inputs.

    Args:
        home: the model's folder.
        inputs: fingerprint inputs by kind.
    """
    for stage in stages:
        folder = (home / stage).resolve()
        manifest = Manifest.read(folder)
        code = {**manifest.fingerprint_inputs["code"], "pipeline/errors.py": "0" * 64}
        changed = dataclasses.replace(
            manifest, fingerprint_inputs={**manifest.fingerprint_inputs, "code": code, **inputs}
        )
        (folder / MANIFEST_FILE).write_text(changed.to_json())


ALL_STAGES = {"graph", "training", "checkpoint", "frozen", "validation", "costs", "report"}
