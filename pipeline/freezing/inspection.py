"""Inspects a checkpoint, a SavedModel or a GraphDef without TensorFlow: contents, inputs and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from pipeline.checkpoint.averages import averages_note
from pipeline.checkpoint.files import files_of, has_files
from pipeline.checkpoint.missing import require_no_pointer
from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.source import open_artifact, open_source
from pipeline.errors import FreezeError, UnsafeModel
from pipeline.graph.discovery import discover_outputs, rank_inputs, rank_outputs
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import node_of
from pipeline.graph.unsupported import refusal_of
from pipeline.graph.variables import VARIABLE_OPS, Saved, variable_of
from pipeline.safety.gate import Gate
from pipeline.safety.models import find_source_dangers, require_safe_source
from pipeline.store.file_names import CHECKPOINT_PREFIX

from .asking import find_commands, freeze_door, line_beside
from .describe import Describer
from .needs import Needs, find_needs
from .passes.lookup_tables import TABLES

_SHOWN = 12  # entries of a list, where not all are asked for


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint.

    Args:
        variable: the variable of the graph that is restored from it; None if there is none.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    variable: str | None


@dataclass(frozen=True)
class Inspection:
    """The contents of a file.

    Args:
        kind: `checkpoint`, `SavedModel` or `GraphDef`.
        place: the prefix, the folder or the file.
        graph: the graph's file.
        producer: version of the graph (tensorflow/core/framework/versions.proto).
        nodes: number of nodes, those of functions included.
        functions: names.
        ops: number of nodes by op, the most frequent first.
        unfreezable: ops that the likely outputs need but no .pb can carry, with the reason.
        unsafe: sentences on nodes that could do more than compute, or take too much memory.
        tables: names of lookup tables.
        tensors: those of the checkpoint, the largest first.
        constants: of a graph without a checkpoint, the largest first: what it has for variables.
        missing: variables of the graph that the checkpoint lacks.
        signature: the name of the signature shown; None if there is none, or several without a default.
        signatures: the names of all.
        inputs: a sentence for each likely input; the signature's if there is one.
        outputs: the same for outputs, the likeliest first.
        commands: what freezes it, complete; several where it is not clear which tensors are the outputs.
        notes: sentences on what else the file holds, such as moving averages.
        beside: other answers of the model, where the outputs are found, with the command that takes them too.
    """

    kind: str
    place: str
    graph: str
    producer: int
    nodes: int
    functions: tuple[str, ...]
    ops: Mapping[str, int]
    unfreezable: Mapping[str, str]
    unsafe: tuple[str, ...]
    tables: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    missing: tuple[str, ...]
    signature: str | None
    signatures: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    beside: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents as plain JSON values."""
        return asdict(self)

    def lines(self, is_whole: bool = False) -> Iterator[str]:
        """Yields the contents as lines of text.

        Args:
            is_whole: show long lists completely.
        """
        most = None if is_whole else _SHOWN
        yield f"{self.kind:<12} {self.place}"
        size = f"{self.nodes:,} nodes, {len(self.functions)} functions"
        yield f"graph        {self.graph}: {size}, version {self.producer}"
        for title, tensors in (("tensors", self.tensors), ("constants", () if self.tensors else self.constants)):
            if tensors:
                total = sum(tensor.size_bytes for tensor in tensors)
                yield f"{title:<12} {len(tensors):,}, {_size(total)}"
                yield from _limit_lines([_tensor_line(tensor) for tensor in tensors], most)
        yield from _section("missing", [f"{name} is a variable of the graph" for name in self.missing], most)
        yield from _section("tables", self.tables, most)
        yield f"ops          {', '.join(f'{op} {count:,}' for op, count in list(self.ops.items())[:most])}" + (
            f" and {len(self.ops) - _SHOWN} more" if most and len(self.ops) > _SHOWN else ""
        )
        yield from _section("refused", [f"{op} {reason}" for op, reason in self.unfreezable.items()], most)
        yield from _section("unsafe ops", self.unsafe, most)
        if self.signatures:
            yield f"signatures   {', '.join(self.signatures)}"
        origin = f"of the signature {self.signature}" if self.signature else "likely, by the graph's structure"
        yield f"inputs       {origin}"
        yield from _limit_lines(self.inputs, most)
        yield f"outputs      {origin}"
        yield from _limit_lines(self.outputs, most)
        yield from (f"note         {note}" for note in self.notes)
        yield from ([f"also there   {self.beside}"] if self.beside else [])
        yield from _section("freeze it with", self.commands, None)


def _limit_lines(lines: Any, most: int | None) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:most])
    if most is not None and len(lines) > most:
        yield f"  and {len(lines) - most:,} more (--all)"


def _section(title: str, lines: Any, most: int | None) -> Iterator[str]:
    if lines:
        yield title
        yield from _limit_lines(lines, most)


def _tensor_line(tensor: Tensor) -> str:
    is_other = "" if tensor.variable == tensor.key else f", of variable {tensor.variable}"
    use = ", of no variable of the graph" if tensor.variable is None else is_other
    return f"{tensor.key}: {tensor.dtype} [{', '.join(map(str, tensor.shape))}], {_size(tensor.size_bytes)}{use}"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.4g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.4g} GB"


def inspect(place: Path | str, graph: Path | str | None = None, signature: str | None = None) -> Inspection:
    """Inspects a file; nothing of it is run.

    Args:
        place: the same as for `freeze`: a prefix, a folder, a SavedModel, a `.meta`, `.pb` or `.pbtxt`.
        graph: the graph's file, if it is not next to the checkpoint.
        signature: the name of one signature of a SavedModel with several; or of a function, if it has none.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
        FreezeError: a SavedModel has no such signature.
    """
    source = open_source(place, Path(graph) if graph is not None else None, signature, is_key_needed=False)
    require_no_pointer(files_of(source.bundle.prefix) if source.bundle.tensors else ())  # of which no weight is read
    ops = Counter(node.op for node in source.graph.all_nodes())
    variables = _variables(source)
    tensors, inputs, outputs = _ports(source)
    return Inspection(
        kind=source.kind,
        place=str(source.path),
        graph=str(source.graph_file),
        producer=source.graph.versions.producer,
        nodes=ops.total(),
        functions=tuple(source.graph.functions),
        ops=dict(ops.most_common()),
        unfreezable=_find_unfreezable(source, tensors),
        unsafe=tuple(_unsafe(source)),
        tables=tuple(node.name for node in source.graph.node if node.op in TABLES),
        tensors=tuple(
            Tensor(tensor.key, tensor.dtype_name, tensor.shape, tensor.size_bytes, variables.get(tensor.key))
            for tensor in sorted(source.bundle.tensors.values(), key=lambda tensor: (-tensor.size_bytes, tensor.key))
        ),
        constants=tuple(sorted(_constants(source), key=lambda tensor: (-tensor.size_bytes, tensor.key))),
        missing=tuple(name for key, name in variables.items() if key not in source.bundle.tensors),
        signature=source.signature_key,
        signatures=source.signature_keys,
        inputs=inputs,
        outputs=outputs,
        notes=tuple(filter(None, [averages_note(source)])),
        commands=_commands(source, place, graph, signature),
        beside=line_beside(source, freeze_door(place, graph, signature), Gate(source)),
    )


def summarise(place: Path | str) -> dict[str, Any]:
    """Summarises a checkpoint's graph, without searching its inputs and outputs.

    Args:
        place: the same as for `inspect`; or a checkpoint's artifact, which may have no variables.

    Returns:
        `nodes` (those of functions included), `ops` (how many of each, the most frequent first), and `parameters`
        and `parameter_bytes` of the variables that are in the checkpoint.

    Raises:
        CheckpointError: as `inspect`.
    """
    prefix = Path(place) / CHECKPOINT_PREFIX
    is_alone = Path(f"{prefix}.meta").is_file() and not has_files(prefix)
    source = open_artifact(Path(place), None) if is_alone else open_source(place, is_key_needed=False)
    ops = Counter(node.op for node in source.graph.all_nodes())
    keys = _variables(source)
    tensors = [tensor for key, tensor in source.bundle.tensors.items() if key in keys]
    return {
        "nodes": ops.total(),
        "parameters": sum(prod(tensor.shape) for tensor in tensors),
        "parameter_bytes": sum(tensor.size_bytes for tensor in tensors),
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
    }


def _constants(source: Source) -> Iterator[Tensor]:
    for node in source.graph.node if not source.bundle.tensors else ():
        if node.op == "Const":
            value = whole_node(node).attr["value"].tensor
            kind, shape = DTYPES.get(value.dtype), tuple(dim.size for dim in value.tensor_shape.dim)
            if kind is not None:
                size = prod(shape) * kind.size_bytes if kind.size_bytes else sum(map(len, value.string_val))
                yield Tensor(node.name, kind.name, shape, size, node.name)


def _variables(source: Source) -> dict[str, str]:
    """Returns the graph's variables by the keys that they are restored from."""
    variables = [variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS]
    return {source.keys.get(one.identity, Saved(one.identity[1])).key: one.name for one in variables}


def _find_unfreezable(source: Source, outputs: Sequence[str]) -> dict[str, str]:
    """Returns the ops behind the outputs that are refused, with the reason."""
    graph = source.graph
    needed = [graph.nodes[name] for name in graph.ancestors(map(node_of, outputs), with_control=False)]
    inner = (node for _, node in graph.called_nodes(needed))
    ops = sorted({node.op for node in (*needed, *inner)})
    return {op: refusal.cause for op in ops if (refusal := refusal_of(op)) is not None}


def _unsafe(source: Source) -> Iterator[str]:
    yield from (f"{danger} (could {danger.harm})" for danger in find_source_dangers(source))
    try:
        require_safe_source(source, {danger.op for danger in find_source_dangers(source)})
    except UnsafeModel as exc:
        yield str(exc)


def _commands(source: Source, place: Path | str, graph: Path | str | None, signature: str | None) -> tuple[str, ...]:
    """Returns what freezes a source; of a SavedModel with several signatures and no default, each of them."""
    if source.signature_keys and source.signature_key is None:
        return tuple(freeze_door(place, graph, key) for key in source.signature_keys)
    return tuple(find_commands(source, freeze_door(place, graph, signature), Gate(source)))


def _with_values(source: Source, outputs: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    """Yields the sentences on inputs, with the values that freezing would pin modes to."""
    is_open = any("=VALUE" in line for line in lines)
    needs = find_needs(source, outputs, [], {}) if is_open else None
    pins = dict(needs.pins) if isinstance(needs, Needs) else {}
    for other in needs.others if isinstance(needs, Needs) else ():
        pins = {name: value for name, value in pins.items() if other.pins[name] == value}
    for line in lines:
        name = line.partition(":")[0]
        yield line.replace(f"--pin {name}=VALUE", f"--pin {name}={pins[name]}") if name in pins else line


def _ports(source: Source) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Returns the outputs' tensors, and inputs and outputs as sentences."""
    if source.signature_key is not None:
        describer = Describer(source.graph, source.definitions, source.infos)
        inputs, outputs = (
            tuple(str(describer.spec(name, tensor)) for name, tensor in side.items())
            for side in (source.inputs, source.outputs)
        )
        return list(source.outputs.values()), inputs, outputs
    try:
        chosen = discover_outputs(source.graph)
    except FreezeError:  # ambiguous: take the likeliest
        chosen = [candidate.tensor for candidate in rank_outputs(source.graph)[:1]]
    inputs = tuple(_with_values(source, chosen, [str(one) for one in rank_inputs(source.graph, chosen)]))
    return chosen, inputs, tuple(map(str, rank_outputs(source.graph)))
