"""The stages of a chain, as a table: what each reads, what decides it, what makes it.

    graph ── training ── checkpoint ─┬─ frozen ─┬──────────────────────── validation ── report
                                     └─ mmap    └─ savedmodel, tflite, onnx  costs ──┘

    checkpoint ── candidate ── validation, costs ── report

A chain may start at a checkpoint that exists already: then nothing is trained, and without a model's code no graph is
built either. Models and files of Keras have makers of their own up to the checkpoint. Each format is a stage, by the
table `formats.FORMATS`; only those that are asked for, and what they are made from, are made. A format that cannot
carry a model stops none of the others: its artifact holds the reason, and validation tells it as a failure of that
format. Only `frozen`, which the others hang on, is made or stops the chain. Where a candidate is given, it is compared
in their place, and none is made.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import FreezeError
from pipeline.formats.registry import CANDIDATES, FORMATS, Format, refuse
from pipeline.workers.child import run_in_subprocess

from .job import CANDIDATE, Job

logger = logging.getLogger("pipeline")

Notes = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A row of the chain.

    Args:
        make: fills a folder; returns notes for the manifest.
        code: the modules that make it; what they import counts too.
        reads: patterns of the files that it reads, by the stage that made them.
        sections: the sections of tasks.cfg that decide it.
        uses_model, uses_data, uses_candidate: whether the model's code, the files from outside, and among these the
            candidate decide it.
        extras: distributions whose versions decide it besides TensorFlow's.
        reads_formats, opens_formats: whether it reads every format that is asked for, and whether it opens them, so
            that the code which does decides it.
        is_named: whether the run's name is written into it.
        is_resumable: whether a killed run is gone on with.
    """

    make: Callable[[Job, Path], Notes]
    code: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...] = ()
    uses_model: bool = False
    uses_data: bool = False
    uses_candidate: bool = False
    extras: tuple[str, ...] = ()
    reads_formats: bool = False
    opens_formats: bool = False
    is_named: bool = False
    is_resumable: bool = False


def _make_graph(job: Job, folder: Path) -> Notes:
    return _notes(run_in_subprocess("pipeline.training.graphs:build_graph", job.model, job.settings.graph, folder))


def _make_training(job: Job, folder: Path) -> Notes:
    settings = job.settings
    return _notes(
        run_in_subprocess(
            "pipeline.training.train:train",
            *(job.model, job.data, job.folder("graph"), job.warm_start, settings.split, settings.training, folder),
        )
    )


def _make_checkpoint(job: Job, folder: Path) -> Notes:
    graph, training = job.folder("graph"), job.folder("training")
    return _notes(
        run_in_subprocess("pipeline.training.export:export_checkpoint", graph, training, job.settings.export, folder)
    )


def _make_imported(job: Job, folder: Path) -> Notes:
    from pipeline.training.import_checkpoint import import_checkpoint

    assert job.imported is not None  # such chains alone have this stage
    return import_checkpoint(job.imported, job.data, job.settings.split.seed, folder, job.candidate)


def _make_with_weights(job: Job, folder: Path) -> Notes:
    assert job.imported is not None
    return _notes(
        run_in_subprocess(
            "pipeline.training.import_weights:import_weights",
            job.model,
            job.data,
            job.folder("graph"),
            job.imported.place,
            folder,
        )
    )


def _make_keras_graph(job: Job, folder: Path) -> Notes:
    settings = job.settings
    return _notes(
        run_in_subprocess(
            "pipeline.training.keras.graphs:write_graph", job.model, settings.graph, settings.export, folder
        )
    )


def _make_keras_training(job: Job, folder: Path) -> Notes:
    settings = job.settings
    return _notes(
        run_in_subprocess(
            "pipeline.training.keras.train:train_model",
            *(job.model, job.data, job.folder("graph"), job.warm_start),
            *(settings.graph, settings.split, settings.training, folder),
        )
    )


def _make_keras_checkpoint(job: Job, folder: Path) -> Notes:
    settings, training = job.settings, job.folder("training")
    return _notes(
        run_in_subprocess(
            "pipeline.training.keras.export:export_trained",
            job.model,
            training,
            settings.graph,
            settings.export,
            folder,
        )
    )


def _make_keras_imported(job: Job, folder: Path) -> Notes:
    assert job.imported is not None
    seed, data = job.settings.split.seed, job.data and job.data.absolute()
    imported = replace(job.imported, place=str(Path(job.imported.place).absolute()))
    return _notes(
        run_in_subprocess(
            "pipeline.training.keras.import_model:import_file",
            imported,
            data,
            seed,
            folder.absolute(),
            is_confined=True,
        )
    )


def _make_keras_with_weights(job: Job, folder: Path) -> Notes:
    assert job.imported is not None
    return _notes(
        run_in_subprocess(
            "pipeline.training.keras.export:import_model_weights",
            *(job.model, job.data, job.settings.graph, job.imported.place, folder),
        )
    )


def _make_format(name: str, job: Job, folder: Path) -> Notes:
    format = FORMATS[name]
    settings = {
        key: value for section in format.sections for key, value in asdict(getattr(job.settings, section)).items()
    }
    try:
        return format.make(job.folder(format.origin), folder, settings)
    except FreezeError as exc:
        if name == "frozen":
            raise
        # By the path that stays: a version's own has the time in it, and the same refusal has the same bytes.
        reason = str(exc).replace(str(job.folder(format.origin)), job.told(format.origin))
    for unfinished in folder.iterdir():
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
    refuse(name, reason, folder)
    logger.warning("%s is refused: %s", name, reason)
    return {"refused": reason}


def _make_candidate(job: Job, folder: Path) -> Notes:
    from pipeline.formats.external import import_candidate

    assert job.candidate is not None  # such chains alone have this stage
    weights = job.settings.freezing.weights if "freezing" in FORMATS[job.candidate.format].sections else "exact"
    return import_candidate(job.candidate, job.folder("checkpoint"), weights, folder)


def _make_validation(job: Job, folder: Path) -> Notes:
    from pipeline.validation.validate import validate

    candidates = {format: job.folder(stage) for format, stage in job.candidates.items()}
    rows_per_second: dict[str, float] = {}
    engine, sharding = job.operations.engine, None
    if engine.kind == "dask" and engine.shard_rows:
        from pipeline.validation.sharding import Sharding
        from pipeline.workers.executor.dask import DaskExecutor

        sharding = Sharding(partial(DaskExecutor, engine.address), engine.shard_rows)
    verdict = validate(
        job.paths.name,
        job.folder("checkpoint"),
        candidates,
        job.settings.validation,
        job.settings.training.threads,
        folder,
        rows_per_second.__setitem__,
        sharding,
    )
    return {"verdict": verdict["verdict"], "rows": verdict["rows"], "rows_per_second": rows_per_second}


def _make_costs(job: Job, folder: Path) -> Notes:
    from pipeline.formats.benchmark.measure import measure_costs

    candidates = {format: job.folder(stage) for format, stage in job.candidates.items()}
    costs = measure_costs(job.folder("checkpoint"), candidates, job.settings.costs, folder)
    return {"recommendation": costs["recommendation"], "machine": costs["machine"]}


def _make_report(job: Job, folder: Path) -> Notes:
    from pipeline.report import write_report

    from .facts import report_facts

    write_report(folder, report_facts(job, stages_before(job, "report")))
    return {}


def _notes(result: Any) -> Notes:
    return dict(result)


_ALL = ("*",)


def _code_of(function: str) -> str:
    """The file of a `package.module:function` of ours."""
    return function.partition(":")[0].removeprefix("pipeline.").replace(".", "/") + ".py"


def _format_stage(name: str, format: Format) -> Stage:
    assert format.maker is not None  # it is a candidate
    return Stage(
        partial(_make_format, name),
        (_code_of(format.maker),),
        {format.origin: format.reads},
        format.sections,
        extras=format.extras,
    )


STAGES: dict[str, Stage] = {
    "graph": Stage(_make_graph, ("training/graphs.py",), {}, ("graph",), uses_model=True),
    "training": Stage(
        _make_training,
        ("training/train.py",),
        {"graph": _ALL},
        ("split", "training"),
        uses_model=True,
        uses_data=True,
        is_resumable=True,
    ),
    "checkpoint": Stage(
        _make_checkpoint,
        ("training/export.py",),
        {"graph": ("inference.meta", "signature.json"), "training": ("deploy/*", "validation.npz")},
        ("export",),
    ),
    **{name: _format_stage(name, format) for name, format in FORMATS.items() if name in CANDIDATES},
    "validation": Stage(
        _make_validation,
        ("validation/validate.py", "formats/runner_process.py", "formats/checkpoint.py"),
        {"checkpoint": _ALL},
        ("validation",),
        reads_formats=True,
        opens_formats=True,
        is_named=True,
    ),
    "costs": Stage(
        _make_costs,
        ("formats/benchmark/measure.py", "formats/benchmark/worker.py", "formats/checkpoint.py"),
        {"checkpoint": ("model.*", "saved_model/*", "signature.json", "validation.npz")},
        ("costs",),
        reads_formats=True,
        opens_formats=True,
    ),
    "report": Stage(
        _make_report,
        ("report/__init__.py",),
        {"training": ("history.csv",), "checkpoint": _ALL, "validation": _ALL, "costs": _ALL},
        reads_formats=True,
        is_named=True,
    ),
}
_CANDIDATE = Stage(
    _make_candidate, ("formats/external/__init__.py",), {"checkpoint": ("signature.json",)}, uses_candidate=True
)
_REPORT = replace(STAGES["report"], reads={"checkpoint": _ALL, "validation": _ALL, "costs": _ALL})
# The chain of a checkpoint that brings its own graph.
_ADOPTED: dict[str, Stage] = {
    "checkpoint": Stage(_make_imported, ("training/import_checkpoint.py",), {}, ("split",), uses_data=True),
    **{name: STAGES[name] for name in (*CANDIDATES, "validation", "costs")},
    "report": _REPORT,
}
# The chain of a model's own graph and somebody else's weights.
_FILLED: dict[str, Stage] = {
    "graph": STAGES["graph"],
    "checkpoint": Stage(
        _make_with_weights,
        ("training/import_weights.py",),
        {"graph": ("inference.meta", "signature.json")},
        uses_model=True,
        uses_data=True,
    ),
    **{name: STAGES[name] for name in (*CANDIDATES, "validation", "costs")},
    "report": _REPORT,
}


# The same chains where the model, or the file that a chain starts at, is one of Keras's.
_KERAS: dict[str, Stage] = {
    **STAGES,
    "graph": replace(STAGES["graph"], make=_make_keras_graph, code=("training/keras/graphs.py",), extras=("keras",)),
    "training": replace(
        STAGES["training"],
        make=_make_keras_training,
        code=("training/keras/train.py",),
        sections=("graph", "split", "training"),
        extras=("keras",),
    ),
    "checkpoint": replace(
        STAGES["checkpoint"],
        make=_make_keras_checkpoint,
        code=("training/keras/export.py",),
        reads={"training": ("deploy/*", "validation.npz")},
        sections=("graph", "export"),
        uses_model=True,
        extras=("keras",),
    ),
}
_KERAS_ADOPTED: dict[str, Stage] = {
    **_ADOPTED,
    "checkpoint": replace(
        _ADOPTED["checkpoint"], make=_make_keras_imported, code=("training/keras/import_model.py",), extras=("keras",)
    ),
}
_KERAS_FILLED: dict[str, Stage] = {
    **_FILLED,
    "graph": _KERAS["graph"],
    "checkpoint": replace(
        _FILLED["checkpoint"],
        make=_make_keras_with_weights,
        code=("training/keras/export.py",),
        reads={"graph": ("signature.json",)},
        sections=("graph",),
        extras=("keras",),
    ),
}


def _chain_of(job: Job) -> dict[str, Stage]:
    if job.source is None:
        return _KERAS_ADOPTED if job.imported is not None and job.imported.is_keras else _ADOPTED
    if job.imported is None:
        return _KERAS if job.source.is_keras else STAGES
    return _KERAS_FILLED if job.source.is_keras else _FILLED


def stages_of(job: Job) -> dict[str, Stage]:
    """The stages of a job's chain, by name and in their order; what reads formats reads those of the job."""
    stages = _chain_of(job)
    if job.candidate is not None:
        stages = dict(_with_candidate(stages, job))
    return {name: _with_formats(stage, job) if stage.reads_formats else stage for name, stage in stages.items()}


def _with_candidate(stages: Mapping[str, Stage], job: Job) -> Iterator[tuple[str, Stage]]:
    """A chain in which nothing is frozen, and a candidate is taken in its place."""
    assert job.candidate is not None
    format = FORMATS[job.candidate.format]
    is_settling = job.imported is not None and job.source is None and not job.imported.outputs
    for name, stage in stages.items():
        if name == "checkpoint":
            # Where nobody names outputs, the candidate has a say in which they are.
            yield name, replace(stage, uses_candidate=stage.uses_candidate or is_settling)
            sections = tuple(section for section in format.sections if section == "freezing")
            yield CANDIDATE, replace(_CANDIDATE, sections=sections, extras=format.extras)
        elif name not in CANDIDATES:
            yield name, stage


def _with_formats(stage: Stage, job: Job) -> Stage:
    reads = {**stage.reads, **dict.fromkeys(job.candidates.values(), _ALL)}
    if not stage.opens_formats:
        return replace(stage, reads=reads)
    formats = [FORMATS[name] for name in job.formats]
    code = (*stage.code, *(_code_of(format.opener) for format in formats))
    return replace(stage, reads=reads, code=code, extras=tuple(extra for format in formats for extra in format.extras))


def stages_before(job: Job, last: str) -> list[str]:
    """The stages that one hangs on, in the order of the chain."""
    stages, needed = stages_of(job), {last}
    for name in reversed(stages):
        if name in needed:
            needed |= set(stages[name].reads)
    return [name for name in stages if name in needed and name != last]


RESUMABLE = tuple(name for name, stage in STAGES.items() if stage.is_resumable)
