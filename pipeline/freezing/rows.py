"""Says which outputs need the inputs that rows of data are given for, where other outputs were found."""

from __future__ import annotations

from pipeline.checkpoint.opened import Source
from pipeline.data.names import pair_names
from pipeline.data.table import names_of_rows
from pipeline.errors import DataError, FreezeError
from pipeline.graph.discovery import UNCLEAR, find_outputs_of
from pipeline.graph.nodes import PLACEHOLDERS, node_of
from pipeline.inputs import DataSource, ImportedCheckpoint
from pipeline.safety.gate import Gate
from pipeline.signature import Signature, TensorSpec

from .asking import Asked, report_door
from .needs import Needs, find_needs

_MOST_OUTPUTS = 10


def ask_for_rows(
    source: Source, imported: ImportedCheckpoint, signature: Signature, data: DataSource | None, refused: DataError
) -> DataError:
    """Returns the error for rows whose names are not those of the inputs.

    If the names are of other placeholders of the graph, it has the outputs that need exactly these, with the command.
    """
    given = _placeholders(source, data)
    known = {node_of(spec.tensor_name) for spec in signature.inputs}
    step = _outputs_of(source, imported, given) if set(given) != known else ""
    if not step:
        return refused
    extra = [name for name in given if name not in known]
    are = "is a placeholder" if len(extra) == 1 else "are placeholders"
    what = f"{', '.join(extra)} {are} of this graph that the outputs which were found do not need"
    if not extra:
        what = "the outputs that were found need more inputs than the data has"
    inputs = ", ".join(spec.name for spec in signature.inputs)
    return DataError(what, where=refused.where, got=", ".join(given), wanted=inputs, next_step=step)


def point_to_rows(
    source: Source, imported: ImportedCheckpoint, data: DataSource | None, unclear: FreezeError
) -> FreezeError:
    """Returns the error for outputs that are not clear; rows of data tell which of them need exactly what they have."""
    if UNCLEAR not in unclear.what:
        return unclear
    step = _outputs_of(source, imported, _placeholders(source, data))
    if not step:
        return unclear
    others = unclear.next_step or ""
    step = f"{step}\nOr {others[:1].lower()}{others[1:]}"
    return FreezeError(unclear.what, where=unclear.where, got=unclear.got, wanted=unclear.wanted, next_step=step)


def placeholders_beside(source: Source, signature: Signature) -> set[str]:
    """Returns the names of the graph's placeholders that are not inputs."""
    known = {node_of(spec.tensor_name) for spec in signature.inputs}
    return {node.name for node in source.graph.node if node.op in PLACEHOLDERS and node.name not in known}


def _placeholders(source: Source, data: DataSource | None) -> list[str]:
    """Returns the placeholders that the data has rows for, by their names or the last parts of these."""
    found = names_of_rows(data.path) if data is not None else []
    kinds = [node.name for node in source.graph.node if node.op in PLACEHOLDERS] if found else []
    paired = {
        column: name for name, column in pair_names([TensorSpec(name, "string") for name in kinds], found).items()
    }
    names = [paired.get(name, name) for name in found]
    return [name for name in names if name in kinds]


def _outputs_of(source: Source, imported: ImportedCheckpoint, given: list[str]) -> str:
    outputs = find_outputs_of(source.graph, given) if given else []
    needs = find_needs(source, outputs, imported.inputs, imported.pins or {}) if outputs else None
    if not isinstance(needs, Needs) or len(outputs) > _MOST_OUTPUTS:
        return ""
    gate = Gate(source, imported.allow_ops)
    command = Asked(report_door(imported), (), imported.inputs, imported.pins, gate).command(outputs, needs)
    return f"The outputs that need what the data has are {', '.join(outputs)}: {command}"
