"""Takes an existing checkpoint or SavedModel into a chain, as the artifact that everything after it reads.

model.ckpt.*      a Saver's files as they were, and the graph as model.ckpt.meta, whatever form it had; or
saved_model/      the SavedModel as it was
signature.json    the inputs and outputs that were named or found, and the pins
validation.npz    the rows of a data file, or made-up ones
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .arrays import load_arrays, prefixed, save_arrays
from .engine.sources import Source, open_source, read_graph
from .errors import CheckpointError, DataError, nearest
from .freezing import SIGNATURE, prepare
from .prefix import files_of, name_of
from .rows import made_up_rows
from .settings import Adopted
from .signature import Signature

ROWS = 64


def adopt_checkpoint(adopted: Adopted, data: Path | None, seed: int, folder: Path) -> dict[str, Any]:
    """Writes the artifact of a checkpoint that somebody else made.

    Args:
        data: an `.npz` with an array `[rows, ...]` for each input, and perhaps `labels`; None for made-up rows.
        seed: of the made-up rows.

    Returns:
        Notes for the manifest: how inputs and outputs were found, and how many rows there are.

    Raises:
        CheckpointError: the checkpoint is not there, is damaged, or holds nothing to freeze.
        FreezeError: the graph cannot become a right .pb, or what its outputs are is in doubt.
        DataError: the rows are not those of the inputs.
    """
    source = open_source(adopted.place, adopted.graph, adopted.signature, adopted.outputs)
    if not source.has_variables:
        raise CheckpointError(
            "there is nothing to freeze: the graph has no variables", where=source.graph_file, next_step="Deploy it"
        )
    model = prepare(source, adopted.outputs, adopted.inputs, adopted.pins)
    if source.kind == "SavedModel":
        shutil.copytree(source.place, folder / "saved_model")
    else:
        _copy_checkpoint(source, folder)
    model.signature.write(folder / SIGNATURE, origin=model.origin)
    rows = write_rows(model.signature, data, seed, folder)
    return {"adopted": str(source.place), "found": list(model.notes), "rows": len(next(iter(rows.values()), ()))}


def write_rows(signature: Signature, data: Path | None, seed: int, folder: Path) -> dict[str, Any]:
    """Writes `validation.npz`.

    Args:
        data: an `.npz` with an array `[rows, ...]` for each input, and perhaps `labels`; None for made-up rows.
        seed: of the made-up rows.

    Returns:
        The rows by input name, without labels.

    Raises:
        DataError: the rows are not those of the inputs.
    """
    rows = made_up_rows(signature, ROWS, seed) if data is None else _rows_of(data, signature)
    labels = {"labels": rows.pop("labels")} if "labels" in rows else {}
    save_arrays(folder / "validation.npz", {**prefixed("input", rows), **labels})
    return rows


def adopted_files(adopted: Adopted) -> dict[str, Path]:
    """The files that decide what is adopted, by their names.

    Raises:
        CheckpointError: there is no such checkpoint.
        FreezeError: a SavedModel has no such signature.
    """
    if adopted.is_keras:
        return {"model": Path(adopted.place)}
    source = open_source(adopted.place, adopted.graph, adopted.signature, adopted.outputs)
    if source.kind == "SavedModel":
        root = Path(source.place)
        return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    name = name_of(source.place)
    files = [*files_of(source.place), source.graph_file]
    return {(path.name if path == source.graph_file else path.name.removeprefix(name)): path for path in files}


def _copy_checkpoint(source: Source, folder: Path) -> None:
    name = name_of(source.place)
    for path in files_of(source.place):
        shutil.copyfile(path, folder / f"model.ckpt{path.name.removeprefix(name)}")
    meta = read_graph(source.graph_file)
    (folder / "model.ckpt.meta").write_bytes(meta.SerializeToString(deterministic=True))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n', encoding="utf-8")


def _rows_of(data: Path, signature: Signature) -> dict[str, Any]:
    rows = load_arrays(data)
    wanted = {spec.name: spec for spec in signature.inputs}
    for name in wanted:
        if name not in rows:
            raise DataError("the data lacks an input", where=data, got=f"no {name}", next_step=nearest(name, rows))
    extra = sorted(set(rows) - {*wanted, "labels"})
    if extra:
        raise DataError("the data has arrays that are no inputs", where=data, got=extra, wanted=", ".join(wanted))
    for name, spec in wanted.items():
        got = "string" if rows[name].dtype == object else rows[name].dtype.name
        if got != spec.dtype:
            raise DataError("an input of the data is not of its dtype", where=f"{data}: {name}", got=got, wanted=spec)
    if len({len(rows[name]) for name in rows}) > 1:
        raise DataError(
            "the arrays have different numbers of rows", where=data, got={k: len(v) for k, v in rows.items()}
        )
    return rows
