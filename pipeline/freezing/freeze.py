"""Freezes a checkpoint into a file with constants for variables, or raises an error with the reason."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.checkpoint.averages import averages_note, take_averages
from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.opened import Inference, Source
from pipeline.checkpoint.source import open_artifact
from pipeline.errors import FreezeError, SettingError, StoreError, nearest
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.safety import read_allowed
from pipeline.safety.gate import Gate
from pipeline.safety.models import require_safe_source, require_still
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, SIGNATURE_FILE
from pipeline.workers.progress import tell

from .asking import (
    Asked,
    ask_for_outputs,
    freeze_door,
    meet_needs,
    open_asked,
    require_allowed,
    require_kept,
    training_note,
)
from .beside import Beside, find_beside
from .describe import Describer, describe_origin, describe_signature, find_inner_rows
from .harmless import left_out_notes, require_harmless
from .needs import Needs
from .passes.batch_norms import norm_pins
from .passes.frames import require_outside
from .passes.inputs import unknown_shapes
from .passes.lookup_tables import require_vocabularies
from .passes.open_batches import open_batches
from .passes.pin_placeholders import pin_placeholders
from .run_passes import freeze_source
from .state import left_out_note, require_purpose, updates_left_out
from .write.constants import Constant, FrozenGraph
from .write.float16 import convert_to_float16
from .write.mmap import write_mmap
from .write.pb import write_pb

FORMATS, WEIGHTS = ("frozen", "mmap"), ("exact", "float16")


@dataclass(frozen=True)
class Frozen:
    """The result of freezing.

    Args:
        path: the .pb, or the folder of the format mmap.
        signature: inputs and outputs; None if there was nothing to do.
        origin: the rest of `signature.json`: checkpoint, tables, pins, needs of each output.
        notes: sentences for the reader, such as how the outputs were found.
        nodes: number of nodes in the graph.
        variables: number of variables that became constants; 0 if the file was already frozen.
        beside: other answers of the model, where the outputs were found, with the command that takes them too.
    """

    path: Path
    signature: Signature | None
    origin: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    nodes: int = 0
    variables: int = 0
    beside: str = ""


@dataclass(frozen=True)
class Prepared:
    """A frozen graph ready to be written, with its description."""

    graph: FrozenGraph
    bundle: Bundle
    signature: Signature
    origin: Mapping[str, Any]
    notes: tuple[str, ...]
    beside: Beside | None = None

    def result(self, path: Path) -> Frozen:
        """Returns the result after the graph is written to `path`."""
        variables = sum(isinstance(node, Constant) for node in self.graph.nodes)
        return Frozen(path, self.signature, self.origin, self.notes, len(self.graph.nodes), variables)


def freeze_checkpoint(checkpoint: Path, folder: Path, weights: str = "exact") -> dict[str, Any]:
    """Freezes the checkpoint of an artifact into `model.pb`, with `signature.json` next to it.

    Args:
        checkpoint: the artifact with `signature.json`, and `model.ckpt.*` or `saved_model/`.
        weights: see `freeze`.

    Returns:
        Notes for the manifest: numbers of nodes and of variables that became constants.

    Raises:
        CheckpointError: the checkpoint's files are damaged, or do not match the graph.
        FreezeError: the graph cannot become a correct .pb.
    """
    model, path = _prepare_artifact(checkpoint, weights), folder / FROZEN_FILE
    with ByteProgress(path) as progress:
        write_pb(model.graph, model.bundle, path, progress)
    return _finish_artifact(model, checkpoint, path)


def map_checkpoint(checkpoint: Path, folder: Path, weights: str = "exact") -> dict[str, Any]:
    """Freezes the checkpoint of an artifact into the format mmap: `graph.pb`, `weights/` and `signature.json`.

    Args, Returns, Raises: as `freeze_checkpoint`.
    """
    model = _prepare_artifact(checkpoint, weights)
    with ByteProgress(folder) as progress:
        write_mmap(model.graph, model.bundle, folder, progress, _output_names(model.signature))
    return _finish_artifact(model, checkpoint, folder / GRAPH_FILE)


def _prepare_artifact(checkpoint: Path, weights: str) -> Prepared:
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    outputs, inputs = ([spec.tensor or spec.name for spec in specs] for specs in (signature.outputs, signature.inputs))
    return prepare(open_artifact(checkpoint, origin.get("signature")), outputs, inputs, origin.get("pins", {}), weights)


def _finish_artifact(model: Prepared, checkpoint: Path, path: Path) -> dict[str, Any]:
    """Writes the checkpoint's own signature next to the graph; returns the notes for the manifest."""
    Signature.read(checkpoint / SIGNATURE_FILE).write(path.with_name(SIGNATURE_FILE), origin=model.origin)
    done = model.result(path)
    return {"nodes": done.nodes, "variables": done.variables}


def freeze(
    checkpoint: Path | str,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    to: Path | str | None = None,
    *,
    graph: Path | str | None = None,
    signature: str | None = None,
    pins: Mapping[str, str] | None = None,
    format: str = "frozen",
    weights: str = "exact",
    allow_ops: Sequence[str] = (),
    averages: bool = False,
    inference: bool = False,
    tags: Sequence[str] = (),
) -> Frozen:
    """Freezes a Saver's checkpoint or a SavedModel into one file or folder, which appears complete or not at all.

    Args:
        checkpoint: a prefix, one of its files, a series or a folder; the folder of a SavedModel; or a GraphDef (.pb or
            .pbtxt) next to its checkpoint.
        outputs: names of tensors or nodes, or of outputs in the SavedModel's signature. By default the signature's;
            without a signature, the outputs that the graph's structure leaves no doubt of.
        inputs: placeholders to keep even if no output uses them; an inner tensor becomes a placeholder.
        to: the file to write, by default `model.pb`; a folder gets `model.pb`. Next to it is `signature.json`, or
            for a file of another name `NAME.signature.json`. For the format mmap the folder, by default `mmap`.
        graph: the graph's file (.meta, .pb or .pbtxt), if it is not next to the checkpoint.
        signature: the name of one signature of a SavedModel with several; or of a function, if it has none.
        pins: placeholders that become constants, such as `{"is_training": "false"}`, by their names in the graph or in
            the SavedModel's signature.
        format: `frozen`, one .pb; or `mmap`, a graph with files of weights that are mapped into memory, for models that
            load slowly or exceed a .pb's 2 GiB.
        weights: `exact`; or `float16`, which stores floats at half the size or less and adds Casts.
        allow_ops: ops allowed in the graph although they could do more than compute, such as WriteFile.
        averages: take the moving averages of variables that the checkpoint holds beside them.
        inference: rewrite a graph that was built for training, so that it computes as the model is used.
        tags: those of the graph to freeze, of a SavedModel with several; by default the one to serve.

    Returns:
        The file and its description. For a GraphDef without variables of which nothing else is asked, nothing is
        written: the result is that file.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or does not match its graph.
        FreezeError: the graph cannot become a correct .pb, or its outputs are in doubt.
        UnsafeModel: the graph could do more than compute, or take more memory than there is.
        SettingError: `format` or `weights` is unknown.
        StoreError: the file cannot be written.
    """
    _require_known("format", format, FORMATS)
    _require_known("weights", weights, WEIGHTS)
    graph_file, door = Path(graph) if graph is not None else None, freeze_door(checkpoint, graph, None, averages, tags)
    source = open_asked(checkpoint, graph_file, signature, outputs, door, tags)
    if inference:
        from .inference.mode import take_inference  # needed only here

        source = take_inference(source)
    ops = read_allowed("--allow-ops", allow_ops)
    door = freeze_door(checkpoint, graph, signature, averages, tags) + (" --inference" if inference else "")
    door += f" --allow-ops {','.join(ops)}" if ops else ""
    gate = Gate(source, ops)
    require_allowed(gate, Asked(door, outputs, inputs, pins, gate))
    dangers = gate.allowances()
    if source.kind == "SavedModel":  # a signature may be one that saves
        asked = [source.outputs.get(name, name) for name in outputs] or [*source.outputs.values()]
        dangers += require_still(source, asked, source.inputs.values(), ops)
    allowed = [f"allowed {danger}" for danger in dict.fromkeys(dangers)]
    is_changed = bool(outputs or inputs or to or pins) or (format, weights) != (FORMATS[0], WEIGHTS[0])
    if source.kind == "GraphDef" and not source.has_variables and not is_changed:
        require_safe_source(source, ops)  # the file stays as it is, with all that is in it
        nothing = (
            "it holds no variables: it is frozen already, nothing to do; -o FILE writes it again, pruned to --outputs"
        )
        return Frozen(source.graph_file, None, {}, (*allowed, nothing))
    source = take_averages(source) if averages else source
    told = averages_note(source)
    model = prepare(source, outputs, inputs, pins or {}, weights, door, is_beside=True, gate=gate)
    require_harmless(gate, model.graph)
    model = replace(model, notes=(*allowed, *model.notes, *left_out_notes(gate), *([told] if told else [])))
    if format == "mmap":
        done = model.result(_write_folder(model, Path(to or "mmap")))
    else:
        path = Path(to or FROZEN_FILE)
        done = model.result(_write_file(model, path / FROZEN_FILE if path.is_dir() else path))
    if model.beside is None:
        return done
    given = {"--format": (format, FORMATS[0]), "--weights": (weights, WEIGHTS[0]), "--allow-ops": (",".join(ops), "")}
    given["-o"] = (str(to or ""), "")
    options = [f"{option} {shlex.quote(value)}" for option, (value, default) in given.items() if value != default]
    whole = Asked(" ".join([door, *options]), (), inputs, pins, gate).command(model.beside.outputs, Needs())
    return replace(done, beside=f"{model.beside}: {whole}")


def _require_known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise SettingError(f"unknown {what}", where=f"--{what}", got=value, next_step=nearest(value, known))


def prepare(
    source: Source,
    outputs: Sequence[str],
    inputs: Sequence[str],
    pins: Mapping[str, str],
    weights: str = "exact",
    door: str = "",
    is_beside: bool = False,
    gate: Gate | None = None,
) -> Prepared:
    """Freezes without writing; see `freeze`.

    Args:
        door: the command that asked, without inputs, outputs and pins, for messages; by default `freeze`.
        is_beside: look for other answers of the model, where the outputs are found.
        gate: for messages, which then have the ops that a command has to allow.

    Raises:
        CheckpointError: the checkpoint does not match its graph.
        FreezeError: the graph cannot become a correct .pb, or its outputs are in doubt.
    """
    asked = Asked(door or freeze_door(source.path), outputs, inputs, pins, gate)
    notes = [*source.notes, *(f"{name} is pinned to {value}" for name, value in pins.items())]
    pins = {node_of(source.inputs.get(name, name)): value for name, value in pins.items()}
    norms = norm_pins(source.graph, pins)
    if norms and source.kind == "SavedModel":
        raise FreezeError(
            "a batch norm of a SavedModel cannot be switched: it is compared as it was saved",
            where=", ".join(norms),
            next_step="Save the model for inference, with training=False",
        )
    unpinned, source = source, replace(source, graph=pin_placeholders(source.graph, pins, source.inputs))
    fetched = _choose_outputs(source, asked, notes)
    fed = {**_map_names(source.inputs, [*source.inputs], pins), **_map_names(source.inputs, inputs, pins)}
    require_outside(source.graph, fed.values(), fetched.values())
    kept = {name: value for name, value in pins.items() if name not in norms}
    require_kept(unpinned, asked, kept, list(fetched.values()), list(fed.values()))
    opened = open_batches(source.graph, fed.values(), fetched.values())
    source, notes = replace(source, graph=opened.graph), [*notes, *opened.notes]
    try:
        frozen = freeze_source(source, list(fetched.values()), list(fed.values()))
    except FreezeError as refused:
        require_vocabularies(source.graph, list(fetched.values()))  # without its file no command helps
        needs = meet_needs(source, asked, fetched, fed, refused)
        notes += [f"{name} is pinned to its default, {value}" for name, value in needs.pins.items()]
        if needs.inputs:
            told = "they are inputs" if needs.inputs[1:] else "it is an input"
            notes.append(f"no .pb can carry the default of {', '.join(needs.inputs)}, such as rows: {told}")
        fed |= _map_names({}, needs.inputs, {})
        pins = {**pins, **needs.pins}
        source = replace(source, graph=pin_placeholders(source.graph, needs.pins))
        frozen = freeze_source(source, list(fetched.values()), list(fed.values()))
    needed = {node.name for node in frozen.nodes}.difference(map(node_of, fed.values()))
    if shapes := unknown_shapes(source.graph, needed):
        fed |= {name: name for name in shapes}
        notes += [f"{name} has no shape that a sparse tensor can have by default: it is an input" for name in shapes]
        frozen = freeze_source(source, list(fetched.values()), list(fed.values()))
    updates = updates_left_out(source.graph, list(fetched.values()), list(fed.values()))
    require_purpose(source.graph, fetched, updates)
    notes += left_out_note(updates)
    describer = Describer(source.graph, source.definitions, source.infos)
    described = describe_signature(describer, frozen, fed, fetched)
    origin = {
        **describe_origin(source, frozen, fetched),
        "signature": source.signature_key,
        "pins": dict(pins),
        "weights": weights,
        **({"resized": dict(opened.resized)} if opened.resized else {}),
        **({"averages": True} if source.has_averages else {}),
        **({"inference": _counts(source.inference)} if source.inference is not None else {}),
    }
    if not described.inputs:
        origin["inner_rows"] = find_inner_rows(frozen)
        notes.append(no_inputs_note(origin["inner_rows"]))
    written = convert_to_float16(frozen) if weights == "float16" else frozen
    if is_beside:  # for a reader
        notes += filter(None, [training_note(source, asked, fetched, list(fed.values()), frozen)])
    is_found = is_beside and not outputs and not source.outputs
    beside = find_beside(source, list(fetched.values()), list(fed.values()), {}) if is_found else None
    return Prepared(written, source.bundle, described, origin, (*notes, *_defaults(source.graph, frozen, fed)), beside)


def _counts(found: Inference) -> dict[str, int]:
    return {"batch_norms": found.batch_norms, "dropouts": found.dropouts}


def no_inputs_note(inner_rows: str | None) -> str:
    """Returns the sentence on a model without inputs.

    Args:
        inner_rows: the tensor that is most likely its rows, see `find_inner_rows`.
    """
    found = f"--inputs {inner_rows} makes the constant {inner_rows} an input" if inner_rows else "it depends on no rows"
    return f"the model has no inputs, so there is one answer; {found}"


def _choose_outputs(source: Source, asked: Asked, notes: list[str]) -> dict[str, str]:
    """Returns the outputs' tensors by name; adds a note on how they were found."""
    if asked.outputs:
        return _map_names(source.outputs, asked.outputs, {})
    if source.outputs:
        others = [key for key in source.signature_keys if key != source.signature_key]
        more = f"; there are others: {', '.join(others)} (--signature {shlex.quote(others[0])})" if others else ""
        notes.append(f"inputs and outputs are those of the signature {source.signature_key}{more}")
        return dict(source.outputs)
    from pipeline.graph.discovery import discover_outputs, rank_inputs, rank_outputs  # needed only here

    try:
        found = discover_outputs(source.graph)
    except FreezeError as unclear:
        raise ask_for_outputs(source, asked, unclear) from unclear
    chosen = [candidate for candidate in rank_outputs(source.graph) if candidate.tensor in found]
    notes += [f"output {candidate}" for candidate in chosen]
    notes += [f"input {candidate}" for candidate in rank_inputs(source.graph, found)]
    return _map_names({}, found, {})


def _map_names(known: Mapping[str, str], names: Sequence[str], pins: Mapping[str, str]) -> dict[str, str]:
    """Returns tensors by name: the signature's if it has the name, else the graph's; without pinned ones."""
    tensors = {(name if name in known else name.removesuffix(":0")): known.get(name, name) for name in names}
    return {name: tensor for name, tensor in tensors.items() if node_of(tensor) not in map(node_of, pins)}


def _defaults(graph: Graph, frozen: FrozenGraph, fed: Mapping[str, str]) -> list[str]:
    """Returns sentences on inputs that keep their default."""
    given = {node_of(tensor) for tensor in fed.values()}
    kept = {node.name for node in frozen.nodes}
    return [
        f"{node.name} has a default, and may be fed or not; --inputs {node.name} makes it an input of the signature"
        for node in graph.node
        if node.op == "PlaceholderWithDefault" and node.name in kept - given
    ]


def _write_file(model: Prepared, path: Path) -> Path:
    """Writes a .pb and its signature, each to a temporary file that is moved into place."""
    beside = path.with_name(SIGNATURE_FILE if path.name == FROZEN_FILE else f"{path.stem}.{SIGNATURE_FILE}")
    unfinished = {place: _temporary_path(place) for place in (path, beside)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ByteProgress(path) as progress:
            write_pb(model.graph, model.bundle, unfinished[path], progress)
        model.signature.write(unfinished[beside], origin=model.origin)
        for place, file in unfinished.items():
            file.replace(place)
    except OSError as exc:
        raise StoreError("the .pb cannot be written", where=path, got=exc.strerror) from exc
    finally:
        for file in unfinished.values():
            with suppress(OSError):
                file.unlink()
    return path


def _write_folder(model: Prepared, folder: Path) -> Path:
    """Writes the format mmap to a temporary folder and moves it into place; replaces a folder of the same format."""
    if folder.exists() and not (folder / GRAPH_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(
            "something else is at the place of the folder",
            where=folder,
            wanted=f"nothing, or a folder with {GRAPH_FILE}",
            next_step="Give another folder with -o",
        )
    unfinished, old = _temporary_path(folder), _temporary_path(folder.with_name(f"{folder.name}.old"))
    try:
        unfinished.mkdir(parents=True)
        with ByteProgress(folder) as progress:
            write_mmap(model.graph, model.bundle, unfinished, progress, _output_names(model.signature))
        model.signature.write(unfinished / SIGNATURE_FILE, origin=model.origin)
        if folder.exists():
            folder.replace(old)
        unfinished.replace(folder)
    except OSError as exc:
        raise StoreError("the folder cannot be written", where=folder, got=exc.strerror) from exc
    finally:
        for place in (unfinished, old):
            shutil.rmtree(place, ignore_errors=True)
    return folder


def _temporary_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.getpid()}")


def _output_names(signature: Signature) -> list[str]:
    return [spec.tensor_name for spec in signature.outputs]


LARGE_BYTES = 100_000_000


class ByteProgress(AbstractContextManager["ByteProgress"]):
    """Shows on standard error how many bytes are written, of how many in total.

    The first call decides: below `LARGE_BYTES` nothing is shown.

    Args:
        what: is being written, such as a path.
    """

    def __init__(self, what: object) -> None:
        self._what = what
        self._has_begun = False
        self._done = 0
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._begin(total)
        tell(f"{done / 1e9:.2f} of {total / 1e9:.2f} GB", done / max(total, 1))
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done

    def _begin(self, total: int) -> None:
        if total < LARGE_BYTES:
            return
        if not sys.stderr.isatty():
            print(f"writing {total} bytes ({total / 1e9:.2f} GB) to {self._what}", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm  # here, for it takes time to load, and most files are small

        self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=f"writing {self._what}", file=sys.stderr)

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()
