"""Causes found in error messages and in missing outputs."""

from __future__ import annotations

import re

from pipeline.graph.nodes import data_inputs, node_of

from .evidence import Cause, Evidence

_UNINITIALIZED = re.compile(r"table not initialized|initialized when it is used|need to be initialized", re.IGNORECASE)
_ENDED = re.compile(
    r"(?:its process (?:was ended|ended without)|it gave no answer in time|it took more memory than it may)[^\n]*"
)
_NOT_RUN = re.compile(r"the candidate could not be run: ([^\n]*)")
_LACKS = re.compile(r"(\S+): (?:the graph|the SavedModel's signature) lacks a tensor of the signature")
_KIND = re.compile(r"(?:^|: )(\S+): a tensor is not of the signature's dtype \(([^)]*)\)")
_OTHER_KIND = re.compile(r"(?:equal|edge|generated) of (\S+): ((?:dtype|shape) [^\n]*)")


def table_not_initialized(evidence: Evidence) -> Cause | None:
    """TensorFlow reports a lookup table without content."""
    if not _UNINITIALIZED.search(evidence.messages):
        return None
    tables = [node.name for node in evidence.graph.node if "HashTable" in node.op] if evidence.graph else []
    named = f" ({', '.join(tables[:3])})" if tables else ""
    return Cause(
        "table_not_initialized",
        f"a lookup table{named} is empty: the file does not bring its content along, and nothing fills it when it is "
        "loaded. Freeze the checkpoint again with `python -m pipeline freeze`, which keeps tables, or run the table's "
        "initializer after loading",
    )


def not_run(evidence: Evidence) -> str | None:
    """Returns the sentence on a candidate that has answered nothing; None if it has answered."""
    unanswered = [one for one in evidence.failed if _NOT_RUN.search(one.sentence()) and one.rows == one.rows_failed]
    if not unanswered or len(unanswered) < len([one for one in evidence.failed if one.check != "weights"]):
        return None
    found = _NOT_RUN.search(unanswered[0].sentence())
    return f"it has answered nothing, so there is nothing to compare: {found[1]}" if found else None


def crash(evidence: Evidence) -> Cause | None:
    """The candidate's process ended."""
    found = _ENDED.search(evidence.messages)
    if found is None:
        return None
    return Cause(
        "crash",
        f"the candidate's process does not last: {found[0].strip()}. "
        "Feed the rows again with worst/reproduce.sh to see at which",
    )


def missing_output(evidence: Evidence) -> Cause | None:
    """The graph lacks an output's node, or has it under another name."""
    wanted = {spec.name: node_of(spec.tensor_name) for spec in evidence.signature.outputs}
    missing = _missing_outputs(evidence, wanted)
    if not missing:
        return None
    renamed = {name: new for name in missing if (new := _find_new_name(evidence, wanted[name])) is not None}
    if len(renamed) == len(missing):
        pairs = ", ".join(f"{name} is called {new}" for name, new in renamed.items())
        return Cause(
            "renamed_output",
            f"outputs have other names in the candidate: {pairs}. Rename the node, or correct the signature",
        )
    return Cause(
        "missing_output",
        f"the candidate lacks {'the outputs' if len(missing) > 1 else 'the output'} {', '.join(missing)}. Freeze with "
        f"--outputs {','.join(wanted)}",
    )


def _missing_outputs(evidence: Evidence, wanted: dict[str, str]) -> list[str]:
    if evidence.graph is not None and _LACKS.search(evidence.messages):
        there = {node.name for node in evidence.graph.node}
        return [name for name, node in wanted.items() if node not in there]
    lacking = re.findall(r"the candidate lacks the output (\S+)", evidence.messages)
    lacking += _LACKS.findall(evidence.messages)
    return [name for name in wanted if name in lacking]


def _find_new_name(evidence: Evidence, node: str) -> str | None:
    """Finds a node that only the candidate has, with the op and inputs of this one in the checkpoint's graph.

    If there is none, finds an additional output of the candidate with the values of the missing one.
    """
    original = evidence.reference_nodes.get(node)
    if original is not None and evidence.graph is not None:
        for other in evidence.graph.node:
            is_new = other.name not in evidence.reference_nodes
            if is_new and other.op == original.op and data_inputs(other) == data_inputs(original):
                return str(other.name)
    for expected, actual in evidence.output_pairs:
        for name, values in actual.items():
            if name not in expected and node in expected and values.tobytes() == expected[node].tobytes():
                return name
    return None


def shape_or_dtype(evidence: Evidence) -> Cause | None:
    """An output has another shape or dtype."""
    found = _KIND.search(evidence.messages) or _OTHER_KIND.search(evidence.messages)
    if found is None:
        return None
    return Cause(
        "shape_or_dtype",
        f"the output {found[1]} is of another kind: {found[2].strip()}. Values of two kinds are not compared: "
        "convert the output, or correct the signature",
    )
