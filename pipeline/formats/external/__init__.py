"""Takes a file that somebody else made into a chain, as the candidate that is compared with the checkpoint.

The file or folder is copied as it is, to the place where its format's runner opens it: `model.pb`, `model.tflite`,
`model.onnx`, a SavedModel's files, or those of the format mmap. `signature.json` beside it has the checkpoint's names
for the candidate's own tensors.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint.artifact import read_origin
from pipeline.errors import CandidateError, FreezeError, nearest
from pipeline.graph.discovery import discovered_outputs
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import GraphDef
from pipeline.inputs import Candidate
from pipeline.safety.candidates import require_still_graph
from pipeline.signature import Signature, TensorSpec
from pipeline.store.files import (
    FROZEN_FILE,
    GRAPH_FILE,
    ONNX_FILE,
    SAVED_MODEL_FILES,
    SIGNATURE_FILE,
    TFLITE_FILE,
    WEIGHTS_FOLDER,
)

from .detect import recognize
from .match import Pairs, is_alike, pair, plain, told
from .tensors import Port, Ports, load_onnx, read_ports

logger = logging.getLogger("pipeline")

_NAMES = {"frozen": FROZEN_FILE, "tflite": TFLITE_FILE, "onnx": ONNX_FILE}


def import_candidate(candidate: Candidate, checkpoint: Path, weights: str, folder: Path) -> dict[str, Any]:
    """Writes the artifact of a candidate that the pipeline did not make.

    Args:
        checkpoint: the artifact of the checkpoint that it is compared with.
        weights: how the weights in it are stored, `exact` or `float16`.

    Returns:
        Notes for the manifest: where it is from, and which of its tensors is which.

    Raises:
        CandidateError: it is no model, is damaged, or its inputs and outputs are not the checkpoint's.
        UnsafeModel: it could do more than compute, or take more memory than there is.
    """
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    ports = read_ports(candidate)
    pins: Mapping[str, str] = origin.get("pins", {})
    inputs, outputs = _paired(candidate, signature, ports)
    fed = _fed(candidate, ports, inputs, outputs, pins)
    reasons = [*inputs.reasons, *outputs.reasons, *(f"{name} is fed {value}" for name, value in fed.items())]
    allowed = [*ports.allowed, *_let_through(candidate, ports, outputs)]
    reasons += [f"allowed {danger}" for danger in allowed]
    fillers = ports.graph.fillers() if ports.graph else []
    reasons += [f"{name} is run once, to fill its table" for name in fillers]
    reasons += [f"output {spec.name} is not in the candidate" for spec in outputs.missing]
    for reason in reasons:
        logger.info("candidate: %s", reason)
    own = Signature(_specs(signature.inputs, inputs), _specs(signature.outputs, outputs))
    told_of = {"signature": ports.signature, "fed": fed, "fillers": fillers}
    for name, path in candidate_files(candidate).items():
        if not path.is_file():
            raise CandidateError("a file of the candidate is missing", where=path, next_step="Copy all of it")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    own.write(folder / SIGNATURE_FILE, origin={"candidate": told_of, "weights": weights})
    names = {name: port.own for name, port in {**inputs.found, **outputs.found}.items()}
    return {
        "candidate": str(candidate.place),
        "format": candidate.format,
        "names": names,
        "reasons": reasons,
        "allowed": allowed,
    }


def _let_through(candidate: Candidate, ports: Ports, outputs: Pairs) -> list[str]:
    """What is let through of what asking for the outputs would run."""
    if ports.graph is None:
        return []
    fetched = [port.tensor for port in outputs.found.values()]
    return require_still_graph(ports.graph.whole, candidate.place, fetched, candidate.allow_ops)


def _specs(specs: Sequence[TensorSpec], pairs: Pairs) -> tuple[TensorSpec, ...]:
    found = [(spec, pairs.found[spec.name]) for spec in specs if spec.name in pairs.found]
    # A scalar in TFLite may be of any shape: it has no other word for what is open.
    return tuple(
        TensorSpec(spec.name, port.dtype, port.shape if port.shape or spec.shape is not None else None, port.own)
        for spec, port in found
    )


def _paired(candidate: Candidate, signature: Signature, ports: Ports) -> tuple[Pairs, Pairs]:
    """The pairs of the inputs and of the outputs.

    Raises:
        CandidateError: an input is not found, or outputs that are not found may be others of the candidate's.
    """
    known = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    for name in candidate.names:
        if name not in known:
            raise CandidateError(
                "the checkpoint has no such input or output",
                where="--candidate-names",
                got=name,
                next_step=nearest(name, known),
            )
    find = ports.graph.find if ports.graph else None
    outputs = pair("output", signature.outputs, ports.outputs, find, candidate.names)
    inputs = pair("input", signature.inputs, _asked_for(ports, signature, outputs), find, candidate.names)
    doubted = [spec for spec in outputs.missing if any(is_alike(spec, port) for port in outputs.rest)]
    if inputs.missing or doubted or not outputs.found:
        side, own = ("input", ports.inputs) if inputs.missing else ("output", ports.outputs)
        missing = inputs.missing or outputs.missing
        raise CandidateError(
            f"the candidate has no {side} {missing[0].name}, and none that is the only one it may be",
            where=candidate.place,
            next_step=f"if it has another name, say it: --candidate-names {missing[0].name}=NAME. "
            + told(side, signature.inputs if inputs.missing else signature.outputs, own),
        )
    for spec, port in ((spec, {**inputs.found, **outputs.found}.get(spec.name)) for spec in _all(signature)):
        if port is not None and not port.dtype:
            raise CandidateError(
                "a tensor of the candidate is of a dtype that can be neither fed nor fetched",
                where=f"{candidate.place}: {port.tensor}",
                wanted=spec,
            )
    return inputs, outputs


def _all(signature: Signature) -> tuple[TensorSpec, ...]:
    return (*signature.inputs, *signature.outputs)


def _asked_for(ports: Ports, signature: Signature, outputs: Pairs) -> Sequence[Port]:
    """The inputs that the outputs need: a graph may hold other placeholders."""
    if ports.graph is None:
        return ports.inputs
    fed = [spec.tensor_name for spec in signature.inputs]
    needed = ports.graph.needed([port.tensor for port in outputs.found.values()], fed)
    return [port for port in ports.inputs if node_of(port.tensor) in needed or port.tensor in fed]


def _fed(candidate: Candidate, ports: Ports, inputs: Pairs, outputs: Pairs, pins: Mapping[str, str]) -> dict[str, str]:
    """What is fed with every batch: the placeholders that the checkpoint has pinned, where the candidate has them yet.

    Raises:
        CandidateError: it needs something besides that nobody gives.
    """
    if ports.graph is None:
        needed, pinned = {plain(port.tensor): port for port in inputs.rest}, set[str]()
    else:
        given = [port.tensor for port in inputs.found.values()]
        names = ports.graph.needed([port.tensor for port in outputs.found.values()], given)
        needed = {name: Port(f"{name}:0", "", None) for name in names - set(map(node_of, given))}
        pinned = {node_of(port.tensor) for port in ports.inputs}
    fed = {node_of(name): value for name, value in pins.items() if node_of(name) in pinned}
    for name in sorted(needed.keys() - fed.keys()):
        raise CandidateError(
            "the candidate needs an input that the checkpoint's signature lacks",
            where=candidate.place,
            got=str(needed[name]).split(" ")[0],
            wanted=", ".join(inputs.found) or "no input",
            next_step=f"Pin it for both (--pin {name}=VALUE)"
            if ports.graph is not None
            else "Make it an input of both (--inputs), or export the candidate without it",
        )
    return fed


def settled_outputs(graph: GraphDef, candidate: Candidate) -> tuple[list[str], list[str]]:
    """The outputs of a checkpoint's graph that nobody named, with a candidate at hand.

    What the candidate declares as its outputs is what its users act by, so these they are, if the graph has them.
    Else they are those that the graph's structure leaves no doubt of; and where it does, those that the candidate
    ends in.

    Returns:
        Names of tensors, or none where the candidate has nothing to say; and sentences for the reader.

    Raises:
        CandidateError: the candidate cannot be read.
    """
    ports = read_ports(candidate)
    known = {node.name for node in graph.node}
    own = [_own_name(port, known) for port in ports.outputs]
    names = [name for name in own if name is not None]
    is_complete = bool(own) and len(names) == len(own)
    if ports.graph is not None:
        try:
            found = discovered_outputs(graph)
        except FreezeError:
            found = []
        if found and (not is_complete or all(ports.graph.find(name) for name in found)):
            return [], []
    if not is_complete:
        return [], []
    return names, [f"output {name} is an output of the candidate" for name in names]


def _own_name(port: Port, known: set[str]) -> str | None:
    """The name by which a graph has a candidate's tensor."""
    return next((name for name in map(plain, (port.tensor, port.own)) if node_of(name) in known), None)


def candidate_files(candidate: Candidate) -> dict[str, Path]:
    """The files of a candidate, by their places in its artifact.

    Raises:
        CandidateError: it is not there, or is no model.
    """
    recognized = recognize(candidate.place)
    path = recognized.path
    if recognized.format == "mmap":
        return {GRAPH_FILE: path / GRAPH_FILE, **_below(path, WEIGHTS_FOLDER)}
    if recognized.format == "savedmodel":
        files = {name: path / name for name in (*SAVED_MODEL_FILES, "fingerprint.pb") if (path / name).is_file()}
        return {**files, **_below(path, "variables"), **_below(path, "assets"), **_below(path, "assets.extra")}
    files = {_NAMES[recognized.format]: path}
    return {**files, **dict(_external_files(path))} if recognized.format == "onnx" else files


def _below(root: Path, folder: str) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted((root / folder).rglob("*")) if path.is_file()}


def _external_files(path: Path) -> Iterator[tuple[str, Path]]:
    """The files beside an ONNX model that hold its larger tensors (onnx/onnx.proto, `external_data`)."""
    graph = load_onnx(path).graph
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            place = Path(entry.value)
            if entry.key == "location" and (place.is_absolute() or ".." in place.parts or str(place) == SIGNATURE_FILE):
                raise CandidateError(
                    "the model's weights lie outside of its folder",
                    where=path,
                    got=entry.value,
                    wanted="a file beside it",
                )
            if entry.key == "location":
                yield place.as_posix(), path.parent / place
