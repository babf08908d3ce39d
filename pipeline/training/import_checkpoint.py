"""Imports an existing checkpoint or SavedModel as the artifact that the later stages read.

model.ckpt.*      the files of a Saver, unchanged, and the graph converted to model.ckpt.meta; or
assets/           beside them, the files that fill its lookup tables
saved_model/      the SavedModel, unchanged
signature.json    the inputs and outputs that were named or found, and the pins
validation.npz    the rows of a data file, or generated rows
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.averages import averages_note, take_averages
from pipeline.checkpoint.files import files_of, name_of
from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.savedmodel import tag_for_serving
from pipeline.checkpoint.source import read_message
from pipeline.checkpoint.vocabularies import carry_vocabularies, vocabularies_of
from pipeline.data.generated import MADE_UP, generate_rows, generate_values
from pipeline.data.held import sensible_values
from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import DataError, FreezeError, logger
from pipeline.formats.external import outputs_from_candidate
from pipeline.freezing.asking import Asked, command_beside, open_asked, report_door, require_allowed, require_rows
from pipeline.freezing.demands import demands_of_frozen
from pipeline.freezing.freeze import prepare
from pipeline.freezing.harmless import cut_away, left_out_notes
from pipeline.freezing.inference.mode import take_inference, write_inference
from pipeline.freezing.passes.batch_norms import norm_pins, switch_norms
from pipeline.freezing.rows import ask_for_rows, placeholders_beside, point_to_rows
from pipeline.freezing.table_keys import keys_of_tables
from pipeline.graph.demands import NOTHING, Demands
from pipeline.graph.graph import Graph
from pipeline.inputs import Candidate, DataSource, ImportedCheckpoint
from pipeline.safety.gate import Gate
from pipeline.safety.models import require_still
from pipeline.signature import Array, Signature, by_rows, whole_inputs
from pipeline.store.file_names import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER, SIGNATURE_FILE, VALIDATION_ROWS_FILE

from .examples import read_given_rows

ROWS = 64


def import_checkpoint(
    imported: ImportedCheckpoint, data: DataSource | None, seed: int, folder: Path, candidate: Candidate | None = None
) -> dict[str, Any]:
    """Writes the artifact of a third-party checkpoint.

    Args:
        data: the file or folder with the rows (see `data.table.read_rows`); None to generate rows.
        seed: seed of the generated rows.
        candidate: the file that is compared with the checkpoint; helps to find outputs that are not named.

    Returns:
        Notes for the manifest: how inputs and outputs were found, the allowed unsafe ops, the number of rows.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        CandidateError: the candidate is needed to find the outputs, and cannot be read.
        FreezeError: the graph cannot become a correct .pb, or its outputs are ambiguous.
        UnsafeModel: it could do more than compute, or needs more memory than there is.
        DataError: the rows do not fit the inputs.
    """
    source = _open(imported)
    source = take_inference(source) if imported.inference else source
    outputs, reasons = list(imported.outputs), list[str]()
    if candidate is not None and not outputs and not source.outputs:
        outputs, reasons = outputs_from_candidate(source.graph, candidate)
    is_told = bool(outputs or source.outputs)
    door, gate = report_door(imported), Gate(source, imported.allow_ops)
    require_allowed(gate, Asked(door, outputs, imported.inputs, imported.pins, gate))
    source = take_averages(source) if imported.averages else source
    try:
        model = prepare(source, outputs, imported.inputs, imported.pins, door=door, is_beside=True, gate=gate)
    except FreezeError as unclear:
        raise unclear if is_told else point_to_rows(source, imported, data, unclear) from unclear
    require_rows(source, imported, model.signature)
    fetched, fed = ([spec.tensor_name for spec in side] for side in (model.signature.outputs, model.signature.inputs))
    gate.require(fetched, fed)
    allowed = [*gate.allowances(), *require_still(source, fetched, fed, imported.allow_ops)]
    reasons += filter(None, [averages_note(source, "--averages yes"), *left_out_notes(gate)])
    for reason in (*reasons, *model.notes, *(f"allowed {danger}" for danger in allowed)):
        logger.info("checkpoint: %s", reason)
    if model.beside is not None:
        command = command_beside(imported, model.beside.outputs)
        logger.info("checkpoint: also there: %s: %s", model.beside, command)
    demands, signature = NOTHING, model.signature
    if data is None or len(signature.inputs) > 1:
        demands = demands_of_frozen(model.graph, model.bundle, signature)
        signature = replace(signature, is_whole=bool(demands.groups))
    try:
        keys, others = keys_of_tables(model.graph.nodes), placeholders_beside(source, signature)
        rows = write_rows(signature, data, seed, folder, keys, demands, others)
    except DataError as refused:
        raise refused if is_told else ask_for_rows(source, imported, signature, data, refused) from refused
    if source.kind == "SavedModel":
        shutil.copytree(source.path, folder / SAVED_MODEL_FOLDER)
        if imported.tags:
            tag_for_serving(folder / SAVED_MODEL_FOLDER, imported.tags)
    else:
        norms = norm_pins(source.graph, model.origin["pins"])
        _copy_checkpoint(source, gate, signature, norms, folder)
    signature.write(folder / SIGNATURE_FILE, origin=_origin(source, model.origin))
    return {
        "adopted": str(source.path),
        "found": [*reasons, *model.notes],
        "allowed": allowed,
        "rows": len(next(iter(rows.values()))) if rows else 1,
        **({"beside": {"words": str(model.beside), "outputs": list(model.beside.outputs)}} if model.beside else {}),
    }


def _open(imported: ImportedCheckpoint) -> Source:
    door = report_door(imported)
    return open_asked(imported.path, imported.graph, imported.signature, imported.outputs, door, imported.tags)


def write_rows(
    signature: Signature,
    data: DataSource | dict[str, Array] | None,
    seed: int,
    folder: Path,
    keys: Mapping[str, Sequence[Any]],
    demands: Demands = NOTHING,
    others: Collection[str] = (),
) -> dict[str, Any]:
    """Writes `validation.npz`; of rows that are made up it says so.

    Args:
        data: a file for `data.table.read_rows`, or what that has returned; None to generate rows.
        seed: seed of the generated rows.
        keys: what the model looks up in its tables, by dtype; generated rows have them.
        demands: what the graph demands of its inputs; generated rows fulfil it.
        others: names that mean something else in the model's graph than an input.

    Returns:
        The rows by input name, without labels.

    Raises:
        DataError: the rows do not fit the inputs.
    """
    own, whole, signature = signature, whole_inputs(signature), by_rows(signature)
    if data is None and own.is_whole:
        rows = generate_values(own, seed, keys, demands)
    elif data is None:
        known = [
            name for name, one in demands.inputs.items() if one.keys or one.low is not None or one.high is not None
        ]
        rows = sensible_values(generate_rows(signature, ROWS, seed, keys, demands), whole, known)
    else:
        rows = read_given_rows(data, own, others) if isinstance(data, DataSource) else dict(data)
    labels = {"labels": rows.pop("labels")} if "labels" in rows else {}
    if data is None:
        count = len(next(iter(rows.values()), ()))
        labels = {MADE_UP: np.ones(count, np.int64)}
    save_arrays(folder / VALIDATION_ROWS_FILE, {**add_kind("input", rows), **labels})
    return rows


def imported_files(imported: ImportedCheckpoint) -> dict[str, Path]:
    """Lists the files that the imported artifact depends on, by name.

    Raises:
        CheckpointError: the checkpoint does not exist.
        FreezeError: the SavedModel lacks the signature.
    """
    if imported.is_keras:
        return {"model": Path(imported.path)}
    source = _open(imported)
    if source.kind == "SavedModel":
        root = Path(source.path)
        return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    name = name_of(source.path)
    files = [*(files_of(source.path) if source.bundle.tensors else ()), source.graph_file]
    named = {f"vocabulary {path}": path for path in vocabularies_of(source.graph).values()}
    return named | {(path.name if path == source.graph_file else path.name.removeprefix(name)): path for path in files}


def _origin(source: Source, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the origin for an artifact whose graph has its batch norms switched: no later stage pins them again."""
    norms = norm_pins(source.graph, origin["pins"])
    kept = {name: value for name, value in origin["pins"].items() if name not in norms}
    return {**origin, "pins": kept, **({"switched": list(norms)} if norms else {})}


def _copy_checkpoint(source: Source, gate: Gate, signature: Signature, norms: Mapping[str, str], folder: Path) -> None:
    name = name_of(source.path)
    for path in files_of(source.path) if source.bundle.tensors else ():
        shutil.copyfile(path, folder / f"{CHECKPOINT_PREFIX}{path.name.removeprefix(name)}")
    meta = cut_away(write_inference(read_message(source.graph_file), source.inference), gate, signature)
    if norms:
        meta.graph_def.CopyFrom(switch_norms(Graph.of(meta.graph_def), norms).to_proto())
    carry_vocabularies(meta.graph_def, vocabularies_of(source.graph), folder)
    (folder / f"{CHECKPOINT_PREFIX}.meta").write_bytes(meta.SerializeToString(deterministic=True))
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{CHECKPOINT_PREFIX}"\n', encoding="utf-8")
