"""One model on its way through the chain: what a command line and the settings say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.errors import SettingError, nearest
from pipeline.formats.registry import CANDIDATES, FORMATS
from pipeline.inputs import Candidate, ImportedCheckpoint, WarmStart
from pipeline.settings import Operations, Settings, listed, paired
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.remote import RemoteStore, is_url, mirror_of
from pipeline.training.models.source import ModelSource, find_model

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
    paths: ArtifactPaths
    data: Path | None
    warm_start: WarmStart | None
    formats: tuple[str, ...]
    settings: Settings
    imported: ImportedCheckpoint | None = None
    candidate: Candidate | None = None
    operations: Operations = field(default_factory=Operations)
    remote: RemoteStore | None = None

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
        return str(self.paths.artifact(stage).joinpath(*parts))

    def folder(self, stage: str) -> Path:
        """The last finished version of a stage's artifact, by its own path: it stays when the link moves on."""
        return self.paths.artifact(stage).resolve()


@dataclass(frozen=True)
class Parameters:
    """The parameters of a chain as they are given, in text; empty where they are not.

    Each is an option of the same name (`--graph-file`), and what it means is told there: see `tasks.ModelTask`.
    """

    model: str = ""
    checkpoint: str = ""
    inputs: str = ""
    outputs: str = ""
    pin: str = ""
    signature: str = ""
    graph_file: str = ""
    candidate: str = ""
    candidate_names: str = ""
    candidate_signature: str = ""
    name: str = ""
    data: str = ""
    output_root: str = "output"
    formats: str = ""
    warm_start: str = ""
    warm_start_map: str = ""
    allow_ops: str = ""


def job_of(request: Parameters, settings: Settings, operations: Operations | None = None) -> Job:
    """The job that a request makes under these settings.

    Args:
        operations: how its work is done; by this process and those that it starts if not given.

    Raises:
        PipelineError: a parameter is not right.
    """
    imported = _import(request)
    source = find_model(request.model or "spam") if request.model or imported is None else None
    own_name = source.name if source is not None else folder_name(imported.place if imported else "")
    own_data = source.data if source is not None else None
    candidate = _candidate(request)
    if request.allow_ops and candidate is None and (imported is None or source is not None):
        raise SettingError(
            "this is for a graph that somebody else made, and the model's own code needs no leave",
            where="--allow-ops",
            got=request.allow_ops,
            next_step="Leave it out, or name a checkpoint alone (--checkpoint), or a candidate (--candidate)",
        )
    name, root, remote = request.name or own_name, Path(request.output_root), None
    operations = operations or Operations()
    if is_url(request.output_root):
        remote = RemoteStore.at(request.output_root, name)
        root = mirror_of(remote.root, operations.storage.mirror)
    return Job(
        source=source,
        paths=ArtifactPaths(root, name),
        data=Path(request.data) if request.data else own_data,
        imported=imported,
        warm_start=_warm_start(request),
        formats=_formats(request.formats or "frozen") if candidate is None else (candidate.format,),
        settings=settings,
        candidate=candidate,
        operations=operations,
        remote=remote,
    )


def _warm_start(request: Parameters) -> WarmStart | None:
    if not request.warm_start:
        return None
    return WarmStart(Path(request.warm_start), paired("--warm-start-map", request.warm_start_map))


def _import(request: Parameters) -> ImportedCheckpoint | None:
    given = {name: getattr(request, name) for name in ("inputs", "outputs", "pin", "signature", "graph_file")}
    if request.checkpoint and not request.warm_start:
        return ImportedCheckpoint(
            place=request.checkpoint,
            inputs=tuple(listed(request.inputs)),
            outputs=tuple(listed(request.outputs)),
            pins=paired("--pin", request.pin),
            graph=Path(request.graph_file) if request.graph_file else None,
            signature=request.signature or None,
            allow_ops=_allowed(request),
        )
    if request.checkpoint:
        raise SettingError(
            "nothing is trained where a checkpoint is given",
            where="--warm-start",
            next_step="Give --checkpoint to deploy its weights, or --warm-start to train on from them",
        )
    for name, value in given.items():
        if value:
            raise SettingError(
                "this is for a chain that starts at a checkpoint",
                where=f"--{name.replace('_', '-')}",
                got=value,
                next_step="Name it with --checkpoint",
            )
    return None


def _allowed(request: Parameters) -> tuple[str, ...]:
    from pipeline.safety import read_allowed  # most chains start at a model of one's own

    return read_allowed("--allow-ops", listed(request.allow_ops)) if request.allow_ops else ()


def _candidate(request: Parameters) -> Candidate | None:
    if not request.candidate:
        for name in ("candidate_names", "candidate_signature"):
            if value := getattr(request, name):
                raise SettingError(
                    "this is for a chain with a candidate",
                    where=f"--{name.replace('_', '-')}",
                    got=value,
                    next_step="Name it with --candidate",
                )
        return None
    if not request.checkpoint and not request.model:
        raise SettingError(
            "there is nothing to compare the candidate with",
            where="--candidate",
            got=request.candidate,
            wanted="--checkpoint, or --model",
        )
    names = paired("--candidate-names", request.candidate_names)
    format = _format_of_candidate(request.candidate, listed(request.formats))
    return Candidate(Path(request.candidate), format, names, request.candidate_signature or None, _allowed(request))


def folder_name(place: str) -> str:
    """A folder's name for a checkpoint: its own last part, or the one before where that is a mere version."""
    parts = [part for part in Path(place).absolute().parts if not part.isdecimal()]
    return re.sub(r"\.(index|meta|pb|pbtxt|keras|(weights\.)?h5|hdf5|data-\d{5}-of-\d{5})$", "", parts[-1])


def _formats(text: str) -> tuple[str, ...]:
    formats = {known_format("--formats", name) for name in listed(text)}
    if not formats:
        raise SettingError("no format", where="--formats", wanted=f"some of {', '.join(CANDIDATES)}")
    return tuple(name for name in CANDIDATES if name in formats)  # in one order, however they were asked for


def _format_of_candidate(place: str, named: list[str]) -> str:
    """The format that a candidate is in: what its content says, or one that was named and is of that kind."""
    from pipeline.formats.external.detect import detect_format  # which needs protobuf, and other chains do not

    path = Path(place)
    if len(named) > 1:
        raise SettingError("a candidate is in one format", where="--formats", got=", ".join(named))
    if not path.exists():  # as the scheduler will say
        return known_format("--formats", named[0] if named else CANDIDATES[0])
    found = detect_format(path).format
    format = known_format("--formats", named[0]) if named else known_format("--candidate", found)
    if FORMATS[format].opener != FORMATS[found].opener:
        raise SettingError(
            "the candidate is in another format", where=f"--formats {format}", got=f"{place}, which is {found}"
        )
    return format


def known_format(flag: str, name: str) -> str:
    """A format's name, if it is one and can be used here.

    Args:
        flag: the option that it was given by, for the message.

    Raises:
        SettingError: there is none of that name, or what it needs is not installed.
    """
    if not name:
        raise SettingError("no format", where=flag, wanted=f"one of {', '.join(CANDIDATES)}")
    if name not in CANDIDATES:
        raise SettingError("unknown format", where=flag, got=name, next_step=nearest(name, CANDIDATES))
    missing = [extra for extra in FORMATS[name].extras if not _is_installed(extra)]
    if missing:
        raise SettingError(
            f"the format {name} needs what is not installed",
            where=flag,
            wanted=" and ".join(missing),
            next_step=f"pip install 'freeze-pipeline[{FORMATS[name].family}]'",
        )
    return name


def _is_installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False
