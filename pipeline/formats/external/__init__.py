"""Imports a third-party model file as the candidate that is compared with the checkpoint.

The file or folder is copied unchanged, under the name that its format's runner opens: `model.pb`, `model.tflite`,
`model.onnx`, a SavedModel's files, or those of the format mmap. `signature.json` maps the checkpoint's names to the
candidate's own tensors.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import CandidateError, FreezeError, logger, nearest
from pipeline.graph.discovery import discover_outputs
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.inputs import Candidate
from pipeline.safety import require_safe
from pipeline.safety.graphs import find_active_ops
from pipeline.safety.onnx import external_files
from pipeline.signature import Signature, TensorSpec, read_origin
from pipeline.store.file_names import (
    FROZEN_FILE,
    GRAPH_FILE,
    ONNX_FILE,
    SAVED_MODEL_FILES,
    SIGNATURE_FILE,
    TFLITE_FILE,
    WEIGHTS_FOLDER,
)

from .detect import detect_format
from .match import TensorMatch, bare_name, describe_tensors, is_compatible, match_tensors
from .tensors import CandidateTensor, CandidateTensors, load_onnx, read_tensors

_NAMES = {"frozen": FROZEN_FILE, "tflite": TFLITE_FILE, "onnx": ONNX_FILE}


def import_candidate(candidate: Candidate, checkpoint: Path, weights: str, folder: Path) -> dict[str, Any]:
    """Writes the artifact of a third-party candidate.

    Args:
        checkpoint: artifact of the checkpoint that it is compared with.
        weights: precision of the stored weights, `exact` or `float16`.

    Returns:
        Notes for the manifest: the candidate's path, and its tensor for each name of the signature.

    Raises:
        CandidateError: it is no model, is damaged, or its inputs and outputs do not match the checkpoint's.
        UnsafeModel: it could do more than compute, or needs more memory than there is.
    """
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    tensors = read_tensors(candidate)
    pins: Mapping[str, str] = origin.get("pins", {})
    inputs, outputs = _match_signature(candidate, signature, tensors)
    feeds = _constant_feeds(candidate, tensors, inputs, outputs, pins)
    reasons = [*inputs.reasons, *outputs.reasons, *(f"{name} is fed {value}" for name, value in feeds.items())]
    allowed = [*tensors.allowed]
    if tensors.graph is not None:
        fetched = [tensor.graph_name for tensor in outputs.found.values()]
        allowed += require_safe(candidate.path, find_active_ops(tensors.graph.graph, fetched), candidate.allow_ops)
    reasons += [f"allowed {danger}" for danger in allowed]
    fillers = tensors.graph.fillers() if tensors.graph else []
    reasons += [f"{name} is run once, to fill its table" for name in fillers]
    reasons += [f"output {spec.name} is not in the candidate" for spec in outputs.missing]
    for reason in reasons:
        logger.info("candidate: %s", reason)
    own = Signature(
        _own_specs(signature.inputs, inputs), _own_specs(signature.outputs, outputs), is_whole=signature.is_whole
    )
    details: dict[str, Any] = {"signature": tensors.signature, "fed": feeds, "fillers": fillers}
    if tensors.integers:
        details |= {"computed": "int8", "notes": [_note_integers(tensors, {**inputs.found, **outputs.found})]}
    for name, path in candidate_files(candidate).items():
        if not path.is_file():
            raise CandidateError(
                "a file of the candidate is missing", where=path, next_step=f"Copy {name} beside the rest"
            )
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    own.write(folder / SIGNATURE_FILE, origin={"candidate": details, "weights": weights})
    names = {name: tensor.name for name, tensor in {**inputs.found, **outputs.found}.items()}
    notes = {"names": names, "reasons": reasons, "allowed": allowed}
    return {"candidate": str(candidate.path), "format": candidate.format, **notes}


def _note_integers(tensors: CandidateTensors, found: Mapping[str, CandidateTensor]) -> str:
    """Says that a candidate computes in integers, and how those of its inputs and outputs stand for real numbers."""
    quantized = [f"{name} is {one.dtype} of {one.quantized}" for name, one in found.items() if one.quantized]
    through = f"; {', '.join(quantized)}, and is compared through these" if quantized else ""
    return (
        f"{tensors.integers} of its tensors are computed in integers that stand for real numbers{through}: it is held "
        "to the bounds int8_rtol and int8_atol"
    )


def _own_specs(specs: Sequence[TensorSpec], match: TensorMatch) -> tuple[TensorSpec, ...]:
    own = []
    for spec, tensor in ((spec, match.found[spec.name]) for spec in specs if spec.name in match.found):
        # A scalar in TFLite may have any shape: the format cannot say that a shape is unknown.
        shape = tensor.shape if tensor.shape or spec.shape is not None else None
        dtype = spec.dtype if tensor.quantized and spec.dtype.startswith("float") else tensor.dtype
        own.append(TensorSpec(spec.name, dtype, shape, tensor.name))
    return tuple(own)


def _match_signature(
    candidate: Candidate, signature: Signature, tensors: CandidateTensors
) -> tuple[TensorMatch, TensorMatch]:
    """Matches inputs and outputs of the signature with the candidate's, or raises a CandidateError."""
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    for name in candidate.names:
        if name not in specs:
            raise CandidateError(
                "the checkpoint has no such input or output",
                where="--candidate-names",
                got=name,
                next_step=nearest(name, specs),
            )
    find = tensors.graph.find if tensors.graph else None
    outputs = match_tensors("output", signature.outputs, tensors.outputs, find, candidate.names)
    required = _required_inputs(tensors, signature, outputs)
    inputs = match_tensors("input", signature.inputs, required, find, candidate.names)
    ambiguous = [spec for spec in outputs.missing if any(is_compatible(spec, tensor) for tensor in outputs.rest)]
    if inputs.missing or ambiguous or not outputs.found:
        side, own = ("input", tensors.inputs) if inputs.missing else ("output", tensors.outputs)
        missing = inputs.missing or outputs.missing
        raise CandidateError(
            f"the candidate has no {side} {missing[0].name}, and none that is the only one it may be",
            where=candidate.path,
            next_step=f"if it has another name, say it: --candidate-names {missing[0].name}=NAME. "
            + describe_tensors(side, signature.inputs if inputs.missing else signature.outputs, own),
        )
    for name, tensor in {**inputs.found, **outputs.found}.items():
        if not tensor.dtype:
            raise CandidateError(
                "a tensor of the candidate is of a dtype that can be neither fed nor fetched",
                where=f"{candidate.path}: {tensor.graph_name}",
                wanted=specs[name],
            )
    return inputs, outputs


def _required_inputs(
    tensors: CandidateTensors, signature: Signature, outputs: TensorMatch
) -> Sequence[CandidateTensor]:
    """Returns the inputs that the outputs need: a graph may have other placeholders."""
    if tensors.graph is None:
        return tensors.inputs
    feeds = [spec.tensor_name for spec in signature.inputs]
    needed = tensors.graph.needed([tensor.graph_name for tensor in outputs.found.values()], feeds)
    return [tensor for tensor in tensors.inputs if node_of(tensor.graph_name) in needed or tensor.graph_name in feeds]


def _constant_feeds(
    candidate: Candidate, tensors: CandidateTensors, inputs: TensorMatch, outputs: TensorMatch, pins: Mapping[str, str]
) -> dict[str, str]:
    """Returns the values to feed with every batch: pins of the checkpoint whose placeholder the candidate still has."""
    if tensors.graph is None:
        needed, pinned = {bare_name(tensor.graph_name): tensor for tensor in inputs.rest}, set[str]()
    else:
        input_names = [tensor.graph_name for tensor in inputs.found.values()]
        names = tensors.graph.needed([tensor.graph_name for tensor in outputs.found.values()], input_names)
        needed = {name: CandidateTensor(f"{name}:0", "", None) for name in names - set(map(node_of, input_names))}
        pinned = {node_of(tensor.graph_name) for tensor in tensors.inputs}
    feeds = {node_of(name): value for name, value in pins.items() if node_of(name) in pinned}
    for name in sorted(needed.keys() - feeds.keys()):
        raise CandidateError(
            "the candidate needs an input that the checkpoint's signature lacks",
            where=candidate.path,
            got=str(needed[name]).split(" ")[0],
            wanted=", ".join(inputs.found) or "no input",
            next_step=f"Pin it for both (--pin {name}=VALUE)"
            if tensors.graph is not None
            else "Make it an input of both (--inputs), or export the candidate without it",
        )
    return feeds


def outputs_from_candidate(graph: Graph, candidate: Candidate) -> tuple[list[str], list[str]]:
    """Chooses the outputs of a checkpoint's graph by the outputs of a candidate.

    If the candidate declares its outputs, and the graph has them, they are chosen: its users rely on them. A frozen
    graph declares none; its last tensors are chosen only if the outputs are ambiguous in the checkpoint's graph.

    Returns:
        Names of tensors, empty if the candidate does not decide; and sentences for the user.

    Raises:
        CandidateError: the candidate cannot be read.
    """
    tensors = read_tensors(candidate)
    bare = [(bare_name(tensor.graph_name), bare_name(tensor.name)) for tensor in tensors.outputs]
    known = [[name for name in each if node_of(name) in graph.nodes] for each in bare]
    names = [each[0] for each in known if each]
    is_complete = bool(bare) and len(names) == len(bare)
    if tensors.graph is not None:
        try:
            found = discover_outputs(graph)
        except FreezeError:
            found = []
        if found and (not is_complete or all(tensors.graph.find(name) for name in found)):
            return [], []
    if not is_complete:
        return [], []
    return names, [f"output {name} is an output of the candidate" for name in names]


def candidate_files(candidate: Candidate) -> dict[str, Path]:
    """Lists the files of a candidate, by their paths in its artifact.

    Raises:
        CandidateError: it does not exist, or is no model.
        UnsafeModel: an ONNX model names a file that is not its own.
    """
    detected = detect_format(candidate.path)
    path = detected.path
    if detected.format == "mmap":
        return {GRAPH_FILE: path / GRAPH_FILE, **_files_in(path, WEIGHTS_FOLDER)}
    if detected.format == "savedmodel":
        files = {name: path / name for name in (*SAVED_MODEL_FILES, "fingerprint.pb") if (path / name).is_file()}
        return {**files, **_files_in(path, "variables"), **_files_in(path, "assets"), **_files_in(path, "assets.extra")}
    files = {_NAMES[detected.format]: path}
    return {**files, **external_files(load_onnx(path), path)} if detected.format == "onnx" else files


def _files_in(root: Path, folder: str) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted((root / folder).rglob("*")) if path.is_file()}
