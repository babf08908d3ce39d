"""The stages of a chain, as tables: what each reads, what decides it, and which function makes it.

    graph ── training ── checkpoint ─┬─ frozen ─┬──────────────────────── validation ── report
                                     └─ mmap    └─ savedmodel, tflite, onnx  costs ──┘

    checkpoint ── candidate ── validation, costs ── report

A chain may start at an existing checkpoint: then nothing is trained, and without a model's code no graph is built
either. Keras models and files have their own functions up to the checkpoint. Each format is a stage, taken from the
table `formats.FORMATS`; only the requested formats, and the stages that they are made from, are made. A format that
cannot carry a model does not stop the others: its artifact holds the reason, and validation reports it as a failure of
that format. Only `frozen` stops the chain, because other formats are made from it. With a candidate, no format is
made: the candidate is compared with the checkpoint instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import FreezeError, logger
from pipeline.formats.registry import CANDIDATES, FORMATS, Format, refuse
from pipeline.inputs import ImportedCheckpoint
from pipeline.store import file_names

from .job import CANDIDATE, Job

if TYPE_CHECKING:
    from pipeline.report.facts import ReportFacts
    from pipeline.validation.sharding import Sharding
    from pipeline.workers.reads import Reads, Watch


PACKAGE = Path(__file__).resolve().parents[2]

Notes = Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """One stage of one job, about to be made.

    Args:
        folder: the folder to fill.
        before: the stages before this one, in the order of the chain.
        watch: what to record of the reads of a stage that reads from outside; None for other stages.
        rows_per_second: filled by the validation: the speed of each format.
        reads: filled by a stage that reads from outside: what it has read.
    """

    job: Job
    folder: Path
    before: Sequence[str]
    watch: Watch | None = None
    rows_per_second: dict[str, float] = field(default_factory=dict)
    reads: list[Reads] = field(default_factory=list)

    def artifact(self, stage: str) -> Path:
        """Return the folder of a finished stage of the same job."""
        return self.job.folder(stage)

    @property
    def candidates(self) -> dict[str, Path]:
        """The artifacts to compare with the checkpoint, by format."""
        return {format: self.job.folder(stage) for format, stage in self.job.candidates.items()}


@dataclass(frozen=True)
class Stage:
    """A row of a chain's table.

    Args:
        worker: `package.module:function` that fills the folder; its module is the first of the stage's code.
        arguments: the arguments of that function.
        reads: patterns of the files that the stage reads, by the stage that made them.
        sections: the sections of tasks.cfg that decide the stage.
        needs_subprocess: run the worker in a subprocess, because it loads TensorFlow.
        is_sandboxed: run that subprocess in the sandbox, because it opens files of unknown origin.
        notes: what the manifest records of the worker's result.
        runs: further modules whose code decides the stage, because the worker runs them without importing them.
        loads: modules that the stage needs in this process and that take long to import.
        uses_model, uses_data, uses_candidate: whether the model's code, the files from outside, and the candidate among
            them, decide the stage.
        extras: distributions whose versions decide the stage, in addition to TensorFlow's.
        reads_formats, opens_formats: whether the stage reads every requested format, and whether it opens them, so that
            the code that opens them decides the stage.
        is_named: whether the job's name is written into the artifact.
        is_resumable: whether an interrupted run can be resumed.
    """

    worker: str
    arguments: Callable[[Work], Sequence[Any]]
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sections: tuple[str, ...] = ()
    needs_subprocess: bool = False
    is_sandboxed: bool = False
    notes: Callable[[Work, Any], Notes] = lambda _, result: dict(result)
    runs: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()
    uses_model: bool = False
    uses_data: bool = False
    uses_candidate: bool = False
    extras: tuple[str, ...] = ()
    reads_formats: bool = False
    opens_formats: bool = False
    is_named: bool = False
    is_resumable: bool = False

    @property
    def reads_outside(self) -> bool:
        """True if the stage reads what no stage has made."""
        return self.uses_model or self.uses_data or self.uses_candidate

    @property
    def starts_tensorflow(self) -> bool:
        """True if the stage starts processes that need TensorFlow."""
        return self.needs_subprocess or self.opens_formats

    @property
    def code(self) -> tuple[str, ...]:
        """The files whose code decides the stage, below the package; the code that they import counts too."""
        return tuple(_file_of(target) for target in (self.worker, *self.runs))

    def make(self, work: Work) -> Notes:
        """Fill the folder.

        Returns:
            Notes for the manifest.

        Raises:
            PipelineError: the worker refuses.
        """
        from pipeline.workers.child import Limits, run_in_subprocess  # not needed where everything is complete

        arguments = self.arguments(work)
        if self.needs_subprocess:
            _, most, share = work.job.settings.validation.limits
            limits = Limits(memory_bytes=most, memory_share=share) if self.is_sandboxed else None
            result = run_in_subprocess(
                self.worker, *arguments, limits=limits, is_sandboxed=self.is_sandboxed, watch=work.watch
            )
            if work.watch is not None:
                result, reads = result
                work.reads.append(reads)
            return self.notes(work, result)
        module, _, name = self.worker.partition(":")
        function = getattr(import_module(module), name)
        if work.watch is None:
            return self.notes(work, function(*arguments))
        from pipeline.workers.reads import record_reads

        with record_reads(work.watch) as reads:
            result = function(*arguments)
        work.reads.append(reads)
        return self.notes(work, result)


def _file_of(target: str) -> str:
    """Return the file of a `package.module:function`, below the package."""
    path = target.partition(":")[0].removeprefix("pipeline.").replace(".", "/")
    return f"{path}/__init__.py" if (PACKAGE / path).is_dir() else f"{path}.py"


@dataclass(frozen=True)
class FormatStage(Stage):
    """The stage of a format; a format that cannot carry the model leaves the reason in its place."""

    format: str = ""

    @classmethod
    def of(cls, name: str, format: Format) -> FormatStage:
        """Derive the row of a format from the table of formats."""
        assert format.maker is not None  # only such formats have a stage
        return cls(
            format.maker,
            partial(_format_arguments, name),
            {format.origin: format.reads},
            format.sections,
            extras=format.extras,
            format=name,
        )

    def make(self, work: Work) -> Notes:
        """Fill the folder with the format, or with the reason why it cannot be made.

        Raises:
            FreezeError: `frozen` cannot be made.
            PipelineError: the format could not be made now.
        """
        format = FORMATS[self.format]
        origin, folder, settings = self.arguments(work)
        try:
            return format.make(origin, folder, settings)
        except FreezeError as exc:
            if self.format == "frozen":
                raise
            # Name the link, not the version: a version's name holds the time, and equal refusals need equal bytes.
            reason = str(exc).replace(str(origin), work.job.display_path(format.origin))
        for unfinished in folder.iterdir():
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        refuse(self.format, reason, folder)
        logger.warning("%s is refused: %s", self.format, reason)
        return {"refused": reason}


def _format_arguments(name: str, work: Work) -> tuple[Path, Path, dict[str, Any]]:
    """Return the artifact that a format is made from, the folder to fill, and the settings of its sections."""
    format = FORMATS[name]
    sections = (asdict(getattr(work.job.settings, section)) for section in format.sections)
    return (
        work.artifact(format.origin),
        work.folder,
        {key: value for section in sections for key, value in section.items()},
    )


def _report_arguments(work: Work) -> tuple[Path, ReportFacts]:
    from .report_facts import collect_report_facts  # not needed where everything is complete

    return work.folder, collect_report_facts(work.job, work.before)


def _candidate_weights(job: Job) -> str:
    """Return the setting of `[freezing] weights` where the candidate's format knows it."""
    assert job.candidate is not None
    return job.settings.freezing.weights if "freezing" in FORMATS[job.candidate.format].sections else "exact"


def _sharding(job: Job) -> Sharding | None:
    """Return how to share out the validation rows among Dask's workers; None if this process compares them all."""
    engine = job.operations.engine
    if engine.kind != "dask" or not engine.shard_rows:
        return None
    from pipeline.validation.sharding import Sharding
    from pipeline.workers.executor.dask import DaskExecutor

    return Sharding(partial(DaskExecutor, engine.address), engine.shard_rows)


_ALL = ("*",)
STAGES: dict[str, Stage] = {
    "graph": Stage(
        "pipeline.training.graphs:build_graph",
        lambda work: (work.job.model, work.job.settings.graph, work.folder),
        sections=("graph",),
        needs_subprocess=True,
        uses_model=True,
    ),
    "training": Stage(
        "pipeline.training.train:train",
        lambda work: (
            *(work.job.model, work.job.data_source, work.artifact("graph"), work.job.warm_start),
            *(work.job.settings.split, work.job.settings.training, work.folder),
        ),
        {"graph": _ALL},
        ("split", "training"),
        needs_subprocess=True,
        uses_model=True,
        uses_data=True,
        is_resumable=True,
    ),
    "checkpoint": Stage(
        "pipeline.training.export:export_checkpoint",
        lambda work: (work.artifact("graph"), work.artifact("training"), work.job.settings.export, work.folder),
        {
            "graph": (file_names.INFERENCE_GRAPH_FILE, file_names.SIGNATURE_FILE),
            "training": (f"{file_names.DEPLOY_FOLDER}/*", file_names.VALIDATION_ROWS_FILE),
        },
        ("export",),
        needs_subprocess=True,
    ),
    **{name: FormatStage.of(name, format) for name, format in FORMATS.items() if name in CANDIDATES},
    "validation": Stage(
        "pipeline.validation.validate:validate",
        lambda work: (
            *(work.job.paths.name, work.artifact("checkpoint"), work.candidates),
            *(work.job.settings.validation, work.job.settings.training.threads, work.folder),
            *(work.rows_per_second.__setitem__, _sharding(work.job)),
        ),
        {"checkpoint": _ALL},
        ("validation",),
        notes=lambda work, verdict: {
            "verdict": verdict["verdict"],
            "rows": verdict["rows"],
            "rows_per_second": work.rows_per_second,
        },
        runs=("pipeline.formats.runner_process", "pipeline.formats.checkpoint"),
        loads=("pipeline.validation.validate", "sklearn.metrics"),
        reads_formats=True,
        opens_formats=True,
        is_named=True,
    ),
    "costs": Stage(
        "pipeline.formats.benchmark.measure:measure_costs",
        lambda work: (work.artifact("checkpoint"), work.candidates, work.job.settings.costs, work.folder),
        {
            "checkpoint": (
                "model.*",
                f"{file_names.SAVED_MODEL_FOLDER}/*",
                file_names.SIGNATURE_FILE,
                file_names.VALIDATION_ROWS_FILE,
            )
        },
        ("costs",),
        notes=lambda work, costs: {name: costs[name] for name in ("recommendation", "machine")},
        runs=("pipeline.formats.benchmark.worker", "pipeline.formats.checkpoint"),
        reads_formats=True,
        opens_formats=True,
    ),
    "report": Stage(
        "pipeline.report:write_report",
        _report_arguments,
        {"training": (file_names.HISTORY_FILE,), "checkpoint": _ALL, "validation": _ALL, "costs": _ALL},
        notes=lambda work, result: {},
        loads=("pipeline.report.html",),
        reads_formats=True,
        is_named=True,
    ),
}
_CANDIDATE = Stage(
    "pipeline.formats.external:import_candidate",
    lambda work: (work.job.candidate, work.artifact("checkpoint"), _candidate_weights(work.job), work.folder),
    {"checkpoint": (file_names.SIGNATURE_FILE,)},
    uses_candidate=True,
)
_AFTER_CHECKPOINT: dict[str, Stage] = {
    **{name: STAGES[name] for name in (*CANDIDATES, "validation", "costs")},
    "validation": replace(STAGES["validation"], loads=("pipeline.validation.validate",)),  # mostly without labels
    "report": replace(STAGES["report"], reads={"checkpoint": _ALL, "validation": _ALL, "costs": _ALL}),
}
# The chain of a checkpoint that brings its own graph.
_IMPORTED: dict[str, Stage] = {
    "checkpoint": Stage(
        "pipeline.training.import_checkpoint:import_checkpoint",
        lambda work: (
            *(work.job.imported, work.job.data_source, work.job.settings.split.seed, work.folder, work.job.candidate),
        ),
        sections=("split",),
        uses_data=True,
    ),
    **_AFTER_CHECKPOINT,
}
# The chain of a model's own graph and imported weights.
_IMPORTED_WEIGHTS: dict[str, Stage] = {
    "graph": STAGES["graph"],
    "checkpoint": Stage(
        "pipeline.training.export:import_weights",
        lambda work: (
            work.job.model,
            work.job.data_source,
            work.artifact("graph"),
            _imported(work.job).path,
            work.folder,
        ),
        {"graph": (file_names.INFERENCE_GRAPH_FILE, file_names.SIGNATURE_FILE)},
        needs_subprocess=True,
        uses_model=True,
        uses_data=True,
    ),
    **_AFTER_CHECKPOINT,
}


# The same chains for Keras models and files.
_KERAS: dict[str, Stage] = {
    **STAGES,
    "graph": replace(
        STAGES["graph"],
        worker="pipeline.training.keras.graphs:write_graph",
        arguments=lambda work: (work.job.model, work.job.settings.graph, work.job.settings.export, work.folder),
        extras=("keras",),
    ),
    "training": replace(
        STAGES["training"],
        worker="pipeline.training.keras.train:train_model",
        arguments=lambda work: (
            *(work.job.model, work.job.data_source, work.artifact("graph"), work.job.warm_start),
            *(work.job.settings.graph, work.job.settings.split, work.job.settings.training, work.folder),
        ),
        sections=("graph", "split", "training"),
        extras=("keras",),
    ),
    "checkpoint": replace(
        STAGES["checkpoint"],
        worker="pipeline.training.keras.export:export_trained",
        arguments=lambda work: (
            *(work.job.model, work.artifact("training")),
            *(work.job.settings.graph, work.job.settings.export, work.folder),
        ),
        reads={"training": (f"{file_names.DEPLOY_FOLDER}/*", file_names.VALIDATION_ROWS_FILE)},
        sections=("graph", "export"),
        uses_model=True,
        extras=("keras",),
    ),
}
_KERAS_IMPORTED: dict[str, Stage] = {
    **_IMPORTED,
    "checkpoint": replace(
        _IMPORTED["checkpoint"],
        worker="pipeline.training.keras.export:import_file",
        arguments=lambda work: (  # by absolute paths: the sandbox has another working directory
            replace(_imported(work.job), path=str(Path(_imported(work.job).path).absolute())),
            work.job.data_source and work.job.data_source.absolute(),
            work.job.settings.split.seed,
            work.folder.absolute(),
        ),
        needs_subprocess=True,
        is_sandboxed=True,
        extras=("keras", "tf_keras"),  # which of them reads the file, the file says
    ),
}
# The chain of a Keras file that needs code of the user's own for its layers.
_KERAS_IMPORTED_WITH_CODE: dict[str, Stage] = {
    **_KERAS_IMPORTED,
    "checkpoint": replace(
        _KERAS_IMPORTED["checkpoint"],
        arguments=lambda work: (
            *(_imported(work.job), work.job.data_source, work.job.settings.split.seed, work.folder, work.job.model),
        ),
        is_sandboxed=False,  # as for all code that the user names
        uses_model=True,
    ),
}
_KERAS_IMPORTED_WEIGHTS: dict[str, Stage] = {
    **_IMPORTED_WEIGHTS,
    "graph": _KERAS["graph"],
    "checkpoint": replace(
        _IMPORTED_WEIGHTS["checkpoint"],
        worker="pipeline.training.keras.export:import_model_weights",
        arguments=lambda work: (
            *(work.job.model, work.job.data_source, work.job.settings.graph, _imported(work.job).path, work.folder),
        ),
        reads={"graph": (file_names.SIGNATURE_FILE,)},
        sections=("graph",),
        extras=("keras",),
    ),
}


def _imported(job: Job) -> ImportedCheckpoint:
    assert job.imported is not None  # only chains that start at a checkpoint have these rows
    return job.imported


def _chain_of(job: Job) -> dict[str, Stage]:
    if job.source is None:
        return _KERAS_IMPORTED if job.imported is not None and job.imported.is_keras else _IMPORTED
    if job.source.is_code:
        return _KERAS_IMPORTED_WITH_CODE
    if job.imported is None:
        return _KERAS if job.source.is_keras else STAGES
    return _KERAS_IMPORTED_WEIGHTS if job.source.is_keras else _IMPORTED_WEIGHTS


def stages_of(job: Job) -> dict[str, Stage]:
    """Return the rows of a job's chain, by name and in order; rows that read formats read those of the job."""
    stages = _chain_of(job)
    if job.candidate is not None:
        stages = dict(_with_candidate(stages, job))
    return {name: _with_formats(stage, job) if stage.reads_formats else stage for name, stage in stages.items()}


def _with_candidate(stages: Mapping[str, Stage], job: Job) -> Iterator[tuple[str, Stage]]:
    """Put the candidate in the place of the formats: nothing is frozen."""
    assert job.candidate is not None
    format = FORMATS[job.candidate.format]
    has_open_outputs = job.imported is not None and job.source is None and not job.imported.outputs
    for name, stage in stages.items():
        if name == "checkpoint":
            # The candidate helps to find the outputs if nobody names them.
            yield name, replace(stage, uses_candidate=stage.uses_candidate or has_open_outputs)
            sections = tuple(section for section in format.sections if section == "freezing")
            yield CANDIDATE, replace(_CANDIDATE, sections=sections, extras=format.extras)
        elif name not in CANDIDATES:
            yield name, stage


def _with_formats(stage: Stage, job: Job) -> Stage:
    reads = {**stage.reads, **dict.fromkeys(job.candidates.values(), _ALL)}
    if not stage.opens_formats:
        return replace(stage, reads=reads)
    formats = [FORMATS[name] for name in job.formats]
    runs = (*stage.runs, *(format.opener for format in formats))
    return replace(stage, reads=reads, runs=runs, extras=tuple(extra for format in formats for extra in format.extras))


RESUMABLE = tuple(name for name, stage in STAGES.items() if stage.is_resumable)
