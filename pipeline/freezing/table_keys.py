"""The keys of a frozen graph's lookup tables: rows without any of them would only ask for what no table knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.graph.dtypes import DTYPES
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.tensors import content_of, strings_of

from .passes.lookup_tables import DT_INT32, DT_INT64, DT_STRING, FROM_TENSORS
from .write.constants import Constant


def keys_of_mutable_tables(nodes: Iterable[NodeDef | Constant]) -> list[str]:
    """Returns the names of the constants, still in the checkpoint, that are the keys of tables."""
    by_name = {node.name: node for node in nodes}
    found = []
    for filling in by_name.values():
        if isinstance(filling, NodeDef) and filling.op in FROM_TENSORS:
            keys: NodeDef | Constant | None = by_name.get(node_of(data_inputs(filling)[1]))
            while isinstance(keys, NodeDef) and keys.op in ("Identity", "PlaceholderWithDefault"):
                keys = by_name.get(node_of(data_inputs(keys)[0]))
            found += [keys.name] if isinstance(keys, Constant) else []
    return found


def keys_of_tables(nodes: Iterable[NodeDef | Constant]) -> dict[str, list[Any]]:
    """Returns by dtype the keys of all tables that a frozen graph fills; each once.

    Raises:
        DataError: the keys are a broken tensor.
    """
    by_name = {node.name: node for node in nodes if isinstance(node, NodeDef)}
    found: dict[str, list[Any]] = {}
    for node in by_name.values():
        if node.op not in FROM_TENSORS:
            continue
        keys = by_name.get(node_of(data_inputs(node)[1]), NodeDef())
        while keys.op == "Identity":
            keys = by_name.get(node_of(data_inputs(keys)[0]), NodeDef())
        if keys.op != "Const":
            continue
        tensor = whole_node(keys).attr["value"].tensor
        if tensor.dtype == DT_STRING:
            found.setdefault("string", []).extend(strings_of(tensor))
        elif tensor.dtype in (DT_INT64, DT_INT32):
            kind = DTYPES[tensor.dtype]
            found.setdefault(kind.name, []).extend(np.frombuffer(content_of(tensor), kind.code).tolist())
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}
