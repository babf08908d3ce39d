"""A job: one model, and how the command line and the settings want it processed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SettingError, logger, nearest
from pipeline.formats.registry import CANDIDATES, FORMATS
from pipeline.inputs import (
    Candidate,
    DataOptions,
    DataSource,
    ImportedCheckpoint,
    WarmStart,
    parse_pairs,
    parse_range,
    parse_separator,
    parse_switch,
    split_list,
)
from pipeline.settings import Operations, Settings
from pipeline.store.artifact import FOLDER_NAMES, ArtifactPaths, is_folder_name, is_url
from pipeline.store.file_names import SAVED_MODEL_FILES
from pipeline.store.manifest import Manifest
from pipeline.training.models.source import ModelSource, find_model

from .parameters import Parameters

if TYPE_CHECKING:
    from pipeline.report.facts import Overview
    from pipeline.store.remote import RemoteStore

CANDIDATE = "candidate"  # the stage of a third-party file


@dataclass(frozen=True)
class Job:
    """One model on its way through the chain.

    Args:
        source: the model's code; None if the checkpoint brings its own graph, and needs no code for its layers.
        formats: the formats to make and to validate.
        data: the data file; None if the model names none and none was given.
        imported: the checkpoint that the chain starts at; None if the model is trained.
        candidate: a third-party file that is compared with the checkpoint, instead of formats made from it.
        operations: how the work is done; this does not change a byte of the artifacts.
        remote: the object storage where artifacts are published; None if the output root is a folder.
        is_named: whether the user chose the name of the folder; else it is the model's or the checkpoint's.
        data_options: how the data file is read.
        overview: the page of the batch or the nights that the job is part of; None if it is part of neither.
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
    is_named: bool = True
    data_options: DataOptions = field(default_factory=DataOptions)
    overview: Overview | None = None

    @classmethod
    def from_parameters(cls, given: Parameters, settings: Settings, operations: Operations | None = None) -> Job:
        """Check the parameters and make a job of them.

        Args:
            operations: how its work is done; by this process and its subprocesses if not given.

        Raises:
            PipelineError: a parameter is wrong.
        """
        imported = _import(given)
        source = _source(given, imported)
        candidate = _candidate(given)
        if given.allow_ops and candidate is None and (imported is None or _has_graph(source)):
            raise SettingError(
                "this is for graphs of unknown origin; the model's own code needs no permission",
                where="--allow-ops",
                got=given.allow_ops,
                next_step="Leave it out, or name a checkpoint alone (--checkpoint), or a candidate (--candidate)",
            )
        if imported is not None and source is not None and (imported.averages or imported.inference or imported.tags):
            raise SettingError(
                "this is for a checkpoint that brings its own graph",
                where="--averages" if imported.averages else "--inference" if imported.inference else "--tags",
                got=given.averages or given.inference or given.tags,
                next_step="Leave it out, or leave out --model",
            )
        own_name = (
            source.name if source is not None and _has_graph(source) else folder_name(imported.path if imported else "")
        )
        own_data = source.data if source is not None else None
        operations = operations or Operations()
        if not given.name and not is_folder_name(own_name):
            raise SettingError(
                "the artifacts would be in a folder of this name, which cannot be one",
                where="--checkpoint",
                got=repr(own_name),
                wanted=FOLDER_NAMES,
                next_step="Choose one: add --name my_model",
            )
        paths, remote = _output(given.output_root, given.name or own_name, operations)
        for flag, place in (("checkpoint", given.checkpoint), ("candidate", given.candidate)):
            _require_output_outside(paths, flag, place)
        return cls(
            source=source,
            paths=paths,
            data=Path(given.data) if given.data else own_data,
            imported=imported,
            warm_start=WarmStart(Path(given.warm_start), parse_pairs("--warm-start-map", given.warm_start_map))
            if given.warm_start
            else None,
            formats=_formats(given.formats or "frozen") if candidate is None else (candidate.format,),
            settings=settings,
            candidate=candidate,
            operations=operations,
            remote=remote,
            is_named=bool(given.name),
            data_options=DataOptions(parse_separator(given.data_separator), parse_range(given.data_range)),
        )

    @property
    def data_source(self) -> DataSource | None:
        """The data file and how it is read; None if there is none."""
        return None if self.data is None else DataSource(self.data, self.data_options)

    @property
    def has_made_up_rows(self) -> bool:
        """True if the checkpoint brings no rows and nobody gave any: the rows to compare are generated."""
        is_trained = self.source is not None and self.imported is None
        needs_rows = self.source is not None and not self.source.is_keras  # a graph's own code reads them
        return self.data is None and not is_trained and not needs_rows

    @property
    def candidates(self) -> Mapping[str, str]:
        """The stage whose artifact is compared with the checkpoint, by format."""
        return {format: format if self.candidate is None else CANDIDATE for format in self.formats}

    @property
    def model(self) -> ModelSource:
        """The model's code, for the stages that need it."""
        assert self.source is not None  # a chain without code has no stage that needs it
        return self.source

    def refuse_other_model(self, manifest: Manifest | None) -> None:
        """Refuse to replace the artifacts of another class whose folder has the same name by default.

        Args:
            manifest: that of a stage in the folder that the model's code decides; None if there is none.

        Raises:
            SettingError: another class made it, and nobody chose the name of the folder.
        """
        made_by = {} if manifest is None else manifest.fingerprint_inputs.get("model", {})
        if (
            self.is_named
            or self.source is None
            or made_by.get("class", self.source.class_name) == self.source.class_name
        ):
            return
        raise SettingError(
            "the folder holds another model",
            where=self.paths.home,
            got=self.source.class_name,
            wanted=made_by["class"],
            next_step=f"Give this one a folder of its own with --name; --name {self.paths.name} replaces the other",
        )

    def refuse_trained(self, manifest: Manifest | None) -> None:
        """Refuse to replace a trained model by a checkpoint that has its name by chance; say it, if the name was given.

        Args:
            manifest: that of the checkpoint in the folder; None if there is none.

        Raises:
            SettingError: a training made it, and nobody chose the name of the folder.
        """
        if _has_graph(self.source) or self.imported is None or manifest is None or "exported" not in manifest.notes:
            return
        if self.is_named:
            _say(f"{self.paths.home} held a trained model: its artifacts are replaced by those of {self.imported.path}")
            return
        raise SettingError(
            "the folder holds a model that was trained",
            where=self.paths.home,
            got=self.imported.path,
            next_step=f"Give this one a folder of its own with --name; --name {self.paths.name} replaces the other",
        )

    def display_path(self, stage: str, *parts: str) -> str:
        """Return the path or URL where people find a stage's artifact, or a file of it."""
        if self.remote is not None:
            return "/".join(filter(None, [self.remote.url(stage), *parts]))
        return str(self.paths.artifact(stage).joinpath(*parts))

    def folder(self, stage: str) -> Path:
        """Return the folder of the last finished version of a stage, which stays valid when the link moves on."""
        return self.paths.finished(stage)


def _source(given: Parameters, imported: ImportedCheckpoint | None) -> ModelSource | None:
    if not given.model and imported is not None:
        return None
    return find_model(given.model or "spam", may_be_code=imported is not None and imported.is_keras)


def _has_graph(source: ModelSource | None) -> bool:
    """Return True if the code gives the graph, and not the checkpoint."""
    return source is not None and not source.is_code


@cache
def _say(text: str) -> None:
    """Log a warning, once in a process."""
    logger.warning("%s", text)


def _output(root: str, name: str, operations: Operations) -> tuple[ArtifactPaths, RemoteStore | None]:
    """Return the paths of the artifacts, and the object storage where they are published."""
    if not is_url(root):
        return ArtifactPaths(Path(root), name), None
    from pipeline.store.remote import RemoteStore, mirror_of

    remote = RemoteStore.at(root, name)
    return ArtifactPaths(mirror_of(remote.root, operations.storage.mirror), name), remote


def _require_output_outside(paths: ArtifactPaths, flag: str, place: str) -> None:
    """Refuse an output root in a folder that is copied as a whole: the copy would hold itself, without end."""
    folder = Path(place or "").parent if Path(place or "").name in SAVED_MODEL_FILES else Path(place or "")
    is_copied = any((folder / name).is_file() for name in SAVED_MODEL_FILES)
    if place and is_copied and paths.home.resolve().is_relative_to(folder.resolve()):
        raise SettingError(
            f"the output root is inside of the --{flag}, which is copied as a whole",
            where="--output-root",
            got=paths.root,
            wanted=f"a folder outside of {folder}",
        )


def _import(given: Parameters) -> ImportedCheckpoint | None:
    if given.checkpoint and not given.warm_start:
        return ImportedCheckpoint(
            path=given.checkpoint,
            inputs=tuple(split_list(given.inputs)),
            outputs=tuple(split_list(given.outputs)),
            pins=parse_pairs("--pin", given.pin),
            graph=Path(given.graph_file) if given.graph_file else None,
            signature=given.signature or None,
            allow_ops=_allowed(given),
            averages=parse_switch("--averages", given.averages),
            inference=parse_switch("--inference", given.inference),
            tags=tuple(split_list(given.tags)),
            options=tuple(_repeat(given)),
        )
    if given.checkpoint:
        raise SettingError(
            "nothing is trained where a checkpoint is given",
            where="--warm-start",
            next_step="Give --checkpoint to deploy its weights, or --warm-start to train on from them",
        )
    _require_unused(
        given,
        ("inputs", "outputs", "pin", "signature", "graph_file", "tags", "averages", "inference"),
        "this is for a chain that starts at a checkpoint",
        "Name it with --checkpoint",
    )
    return None


def _repeat(given: Parameters) -> Iterator[str]:
    """Yield the options that a command with other inputs, outputs or pins repeats."""
    for item in fields(given):
        value = getattr(given, item.name)
        if value and value != item.default and item.name not in ("checkpoint", "inputs", "outputs", "pin"):
            yield from (f"--{item.name.replace('_', '-')}", value)


def _require_unused(given: Parameters, names: Iterable[str], what: str, next_step: str) -> None:
    for name in names:
        if value := getattr(given, name):
            raise SettingError(what, where=f"--{name.replace('_', '-')}", got=value, next_step=next_step)


def _allowed(given: Parameters) -> tuple[str, ...]:
    from pipeline.safety import read_allowed  # most chains do not need it

    return read_allowed("--allow-ops", split_list(given.allow_ops)) if given.allow_ops else ()


def _candidate(given: Parameters) -> Candidate | None:
    if not given.candidate:
        what, next_step = "this is for a chain with a candidate", "Name it with --candidate"
        _require_unused(given, ("candidate_names", "candidate_signature"), what, next_step)
        return None
    if not given.checkpoint and not given.model:
        raise SettingError(
            "there is nothing to compare the candidate with",
            where="--candidate",
            got=given.candidate,
            wanted="--checkpoint, or --model",
        )
    names = parse_pairs("--candidate-names", given.candidate_names)
    format = _format_of_candidate(given.candidate, split_list(given.formats))
    return Candidate(Path(given.candidate), format, names, given.candidate_signature or None, _allowed(given))


def folder_name(path: str) -> str:
    """Name the folder of a checkpoint after the last part of its path that is not a version number."""
    parts = [part for part in Path(path).absolute().parts if not part.isdecimal()]
    return re.sub(r"\.(index|meta|pb|pbtxt|keras|(weights\.)?h5|hdf5|data-\d{5}-of-\d{5})$", "", parts[-1])


def _formats(text: str) -> tuple[str, ...]:
    formats = {known_format("--formats", name) for name in split_list(text)}
    if not formats:
        raise SettingError("no format", where="--formats", wanted=f"some of {', '.join(CANDIDATES)}")
    return tuple(name for name in CANDIDATES if name in formats)  # always in the same order


def _format_of_candidate(candidate: str, named: list[str]) -> str:
    """Return the format of a candidate: the one found in its content, or the named one if it is of that kind."""
    from pipeline.formats.external.detect import detect_format  # loads protobuf, which other chains do not need

    path = Path(candidate)
    if len(named) > 1:
        raise SettingError("a candidate is in one format", where="--formats", got=", ".join(named))
    if not path.exists():  # the scheduler reports this
        return known_format("--formats", named[0] if named else CANDIDATES[0])
    found = detect_format(path).format
    format = known_format("--formats", named[0]) if named else known_format("--candidate", found)
    if FORMATS[format].opener != FORMATS[found].opener:
        raise SettingError(
            "the candidate is in another format", where=f"--formats {format}", got=f"{candidate}, which is {found}"
        )
    return format


def known_format(flag: str, name: str) -> str:
    """Return the name of a format, if it is known and can be used here.

    Args:
        flag: the option that gave the name, for the message.

    Raises:
        SettingError: the name is unknown, or a library that the format needs is not installed.
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
            next_step=f"install it with pip install 'freeze-pipeline[{FORMATS[name].family}]'",
        )
    return name


def _is_installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False
