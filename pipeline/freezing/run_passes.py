"""Freezes a graph and a checkpoint into a graph of constants, ready to be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.source import open_source
from pipeline.errors import CheckpointError, FreezeError, nearest
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node
from pipeline.graph.nodes import node_of, require_tensor_names
from pipeline.graph.protos import FunctionDef, FunctionDefLibrary, NodeDef
from pipeline.graph.variables import VARIABLE_OPS, Saved, variable_of
from pipeline.signature import shapes_fit

from .passes.constant_folding import fold_constants
from .passes.dead_branches import remove_dead_branches, resolve_gradients
from .passes.frames import require_outside
from .passes.function_bodies import prune_functions, require_changes_unread
from .passes.inputs import feed_inner_tensors
from .passes.layer_norm import keep_epsilons
from .passes.lookup_tables import FILLING_OPS, carry_tables
from .passes.newer_attributes import leave_out_newer_attributes
from .passes.prune import STACK_PUSHES, prune, reach
from .passes.unused_results import leave_out_unused_results
from .passes.variables_to_constants import Rewriter
from .write.constants import Constant, FrozenGraph


def freeze_checkpoint_files(
    prefix: Path | str, outputs: Sequence[str], inputs: Sequence[str]
) -> tuple[FrozenGraph, Bundle]:
    """Freezes a Saver's checkpoint by its own graph; see `freeze_source`."""
    source = open_source(prefix)
    return freeze_source(source, outputs, inputs), source.bundle


def freeze_source(source: Source, outputs: Sequence[str], inputs: Sequence[str]) -> FrozenGraph:
    """Freezes an opened graph.

    Args:
        outputs: names of tensors.
        inputs: names of placeholders that stay, used or not; an inner tensor becomes a placeholder.

    Raises:
        CheckpointError: a variable is not in the checkpoint, or is of another dtype or shape there.
        FreezeError: the graph cannot become a correct .pb; or an input or output is inside of a loop or function.
    """
    require_tensor_names([*outputs, *inputs])
    require_outside(source.graph, inputs, outputs)
    graph = feed_inner_tensors(source.graph, inputs, outputs, source.definitions)
    frozen = freeze_graph(graph, source.bundle, source.keys, outputs, [node_of(tensor) for tensor in inputs])
    if source.inference is not None:
        from .inference.mode import require_inference  # needed only here

        require_inference(source, (node for node in frozen.nodes if not isinstance(node, Constant)))
    return frozen


def freeze_graph(
    graph: Graph, bundle: Bundle, keys: Mapping[tuple[str, str], Saved], outputs: Sequence[str], inputs: Sequence[str]
) -> FrozenGraph:
    """Freezes a graph.

    Args:
        keys: the checkpoint's key by the variable's identity; a variable without one is found by its name.

    Raises: as `freeze_source`; see also `prune.prune` and `variables_to_constants.Rewriter`.

    """
    ends = [*outputs, *inputs]
    require_tensor_names(ends)
    graph = reach(graph, ends, FILLING_OPS | STACK_PUSHES)
    folded = fold_constants(resolve_gradients(graph), ends)
    whole = remove_dead_branches(folded)
    if whole is not folded:  # what a cond gives may be constant now, such as the rate of a dropout
        whole = fold_constants(whole, ends)
    whole = leave_out_unused_results(whole, outputs)
    pruned = prune_functions(whole)
    kept = prune(whole, ends, bodies=pruned)
    require_changes_unread(kept, whole, pruned)
    rewriter = Rewriter(carry_tables(kept, pruned))
    rewritten = rewriter.rewrite()
    _refuse_inner_variables(rewriter.functions)
    functions = _rename_functions(rewritten, rewriter.functions)
    rewritten = keep_epsilons(rewritten)
    for function in functions:
        inner = keep_epsilons(function.node_def)
        if len(inner) > len(function.node_def):
            copies = [copy_node(node) for node in inner]
            del function.node_def[:]
            function.node_def.extend(copies)
    leave_out_newer_attributes([*rewritten, *(node for function in functions for node in function.node_def)])
    library = FunctionDefLibrary(function=functions)
    frozen = [_constant(node, bundle, keys) if node.op in VARIABLE_OPS else node for node in rewritten]
    return FrozenGraph(frozen, library, graph.versions)


def _constant(node: NodeDef, bundle: Bundle, keys: Mapping[tuple[str, str], Saved]) -> Constant:
    variable = variable_of(node)
    saved = keys.get(variable.identity, Saved(variable.identity[1]))
    key = saved.key
    if key not in bundle.tensors:
        raise CheckpointError(
            "the checkpoint lacks a variable of the graph",
            where=f"node {variable.name}",
            got=f"no {key} in {bundle.prefix}",
            next_step=nearest(key, bundle.tensors),
        )
    tensor = bundle.tensors[key]
    box = _box(saved.part, tensor.shape)
    shape = tuple(end - start for start, end in box)
    if tensor.dtype != variable.dtype or not shapes_fit(variable.shape, shape):
        raise CheckpointError(
            "the checkpoint's variable is not the graph's",
            where=f"node {variable.name}, key {key} in {bundle.prefix}",
            got=_format_tensor(tensor.dtype, shape),
            wanted=_format_tensor(variable.dtype, variable.shape),
        )
    return Constant(variable.name, tensor, None if shape == tensor.shape else box)


def _box(part: str, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Returns start and end of a part of a partitioned variable, by axis."""
    if not part:
        return tuple((0, size) for size in shape)
    try:
        sides = [None if side == "-" else tuple(map(int, side.split(","))) for side in part.split(":")]
        return tuple(
            (0, size) if side is None else (side[0], side[0] + side[1]) for side, size in zip(sides, shape, strict=True)
        )
    except (ValueError, IndexError) as exc:
        raise FreezeError(
            "a part of a variable does not fit the whole", got=part, wanted=f"one of {list(shape)}"
        ) from exc


def _format_tensor(dtype: int, shape: Sequence[int | None] | None) -> str:
    dims = "..." if shape is None else ", ".join("?" if size is None else str(size) for size in shape)
    return f"{DTYPES[dtype].name if dtype in DTYPES else dtype} [{dims}]"


def _refuse_inner_variables(functions: Iterable[FunctionDef]) -> None:
    for function in functions:
        for node in function.node_def:
            if node.op in VARIABLE_OPS:
                raise FreezeError(
                    f"{node.op} is inside a function, where no checkpoint holds its value",
                    where=f"node {node.name} in function {function.signature.name}",
                    next_step="Create the variable outside of the function",
                )


def _rename_functions(nodes: Sequence[NodeDef], functions: Sequence[FunctionDef]) -> list[FunctionDef]:
    """Returns the called functions, in the order of the calls, numbered in that order.

    TensorFlow's own names depend on the process that built the model, so the same model would give other bytes.
    """
    if not functions:
        return []
    library = Graph(nodes, FunctionDefLibrary(function=functions))
    order = library.called(nodes)
    fresh = {name: f"{re.sub(r'(_frozen|_rewritten|_+[0-9]+)+$', '', name)}_{n}" for n, name in enumerate(order)}
    for name in order:
        library.functions[name].signature.name = fresh[name]
    for node in (*nodes, *(node for name in order for node in library.functions[name].node_def)):
        node.op = fresh.get(node.op, node.op)
        for value in node.attr.values():
            for func in [value.func] if value.WhichOneof("value") == "func" else value.list.func:
                func.name = fresh.get(func.name, func.name)
    return [library.functions[name] for name in order]
