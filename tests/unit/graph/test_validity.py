"""A graph's references: what TensorFlow writes itself is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.graph.graph import Graph
from pipeline.graph.protos import FunctionDef, GraphDef, NodeDef
from pipeline.graph.validity import validate_graph


def waiting_for(reference: str) -> Graph:
    """A function whose node waits for something."""
    inner = NodeDef(name="inner", op="NoOp", input=[reference])
    function = FunctionDef(node_def=[inner])
    function.signature.name = "f"
    function.signature.input_arg.add(name="given", type=1)
    graph = GraphDef()
    graph.library.function.append(function)
    return Graph.of(graph)


def test_a_function_s_node_may_wait_for_an_argument_as_custom_gradients_of_keras_do() -> None:
    validate_graph(waiting_for("^given"), Path("saved_model.pb"))


def test_it_may_not_wait_for_what_is_not_there() -> None:
    with pytest.raises(CheckpointError, match=r"node inner in function f: the graph is damaged .*\^gone"):
        validate_graph(waiting_for("^gone"), Path("saved_model.pb"))
