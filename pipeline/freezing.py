"""Freezes a checkpoint: one .pb in which the variables are constants, or a sentence on why it cannot be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .engine.assembling import freeze_checkpoint_files, freeze_graph
from .engine.graph import node_of
from .engine.writing import Constant, write_pb
from .errors import FreezeError, StoreError
from .prefix import find_prefix
from .signature import Signature


def freeze_checkpoint(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Freezes the exported checkpoint of an artifact into `model.pb`, with `signature.json` beside it.

    Args:
        checkpoint: the artifact with `model.ckpt.*` and `signature.json`.

    Returns:
        Notes for the manifest: numbers of nodes and of variables that became constants.

    Raises:
        CheckpointError: the checkpoint's files are damaged, or do not fit the graph.
        FreezeError: the graph cannot become a right .pb.
    """
    signature = Signature.read(checkpoint / "signature.json")
    outputs, inputs = ([spec.name for spec in specs] for specs in (signature.outputs, signature.inputs))
    graph, bundle = freeze_checkpoint_files(checkpoint / "model.ckpt", outputs, inputs)
    write_pb(graph, bundle, folder / "model.pb")
    signature.write(folder / "signature.json")
    return {"nodes": len(graph.nodes), "variables": sum(isinstance(node, Constant) for node in graph.nodes)}


def freeze(
    checkpoint: Path,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    to: Path = Path("model.pb"),
    signature: str | None = None,
) -> Path:
    """Freezes any Saver's checkpoint, or a SavedModel, into one file, which appears whole or not at all.

    Args:
        checkpoint: a prefix, one of its files, or a folder, with a `.meta`; or the folder of a SavedModel.
        outputs: names of tensors or nodes; for a SavedModel its signature's if none is given.
        inputs: placeholders to keep though no output uses them; an inner tensor becomes a placeholder.
        to: the file to write.
        signature: for a SavedModel with several, which one.

    Returns:
        The file.

    Raises:
        CheckpointError: the checkpoint is not there, is damaged, or does not fit its graph.
        FreezeError: the graph cannot become a right .pb.
        StoreError: the file cannot be written.
    """
    if any((checkpoint / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        from .engine.savedmodel import read_saved_model  # a Saver's checkpoint does without

        model = read_saved_model(checkpoint, signature)
        bundle = model.bundle or Bundle(checkpoint, {})
        outputs = [*(outputs or model.outputs.values())]
        inputs = [*inputs, *model.inputs.values()]
        graph = freeze_graph(model.graph, bundle, model.keys, outputs, [node_of(name) for name in inputs])
    elif outputs:
        graph, bundle = freeze_checkpoint_files(find_prefix(checkpoint), outputs, inputs)
    else:
        raise FreezeError("no outputs are named", where=checkpoint, next_step="Name them with --outputs")
    unfinished = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        write_pb(graph, bundle, unfinished)
        unfinished.replace(to)
    except OSError as exc:
        raise StoreError("the .pb cannot be written", where=to, got=exc.strerror) from exc
    finally:
        unfinished.unlink(missing_ok=True)
    return to
