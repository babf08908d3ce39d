"""What ops give, with TensorFlow's own graphs as the oracle."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import corpus
import pytest
import tensorflow as tf
from corpus import Case
from small_graphs import control_flow

from pipeline.errors import FreezeError
from pipeline.freezing.passes.inputs import feed_inner_tensors
from pipeline.freezing.passes.prune import prune
from pipeline.graph.graph import Graph
from pipeline.graph.ops import TABLE, dtype_name, output_dtypes
from pipeline.graph.protos import AttrValue, DataType, GraphDef, MetaGraphDef, NodeDef, OpDef
from pipeline.workers.child import run_in_subprocess

v1 = tf.compat.v1
FLOAT, INT32, INT64, STRING = (DataType.Value(f"DT_{name}") for name in ("FLOAT", "INT32", "INT64", "STRING"))


def built(case: Case) -> tf.Graph:
    """A case's graph with the training ops and the Saver that surround it in a checkpoint."""
    with control_flow(case.is_v2), tf.Graph().as_default() as graph:
        case.build(
            *(
                v1.placeholder(tf.as_dtype(array.dtype), [None, *array.shape[1:]] if array.ndim else [], name=name)
                for name, array in case.feeds.items()
                if ":" not in name
            )
        )
        if v1.global_variables():
            case.saver()
    return graph


def as_def(graph: tf.Graph, strip_defaults: bool = False) -> GraphDef:
    with graph.as_default():
        meta = v1.train.export_meta_graph(strip_default_attrs=strip_defaults)
    return MetaGraphDef.FromString(meta.SerializeToString()).graph_def


def dtypes_in(graph: GraphDef) -> dict[str, list[str] | None]:
    functions = {function.signature.name: function for function in graph.library.function}
    found = {node.name: output_dtypes(node, functions) for node in graph.node}
    return {name: None if dtypes is None else [*map(dtype_name, dtypes)] for name, dtypes in found.items()}


def dtypes_of(graph: tf.Graph) -> dict[str, list[str] | None]:
    """What TensorFlow says."""
    return {op.name: [tensor.dtype.base_dtype.name for tensor in op.outputs] for op in graph.get_operations()}


def test_the_table_is_what_the_installed_tensorflow_registers() -> None:
    # In a process of the fork server: other libraries register ops too, where they are loaded.
    table = run_in_subprocess("op_table:table")
    assert table == TABLE.read_text(), "python tests/helpers/op_table.py writes it anew"


@pytest.mark.parametrize("group", corpus.GROUPS)
@pytest.mark.parametrize("strip_defaults", [False, True])
def test_outputs_are_as_many_and_of_the_dtypes_that_tensorflow_says(group: str, strip_defaults: bool) -> None:
    for case in corpus.GROUPS[group][:8]:
        graph = built(case)
        assert dtypes_in(as_def(graph, strip_defaults)) == dtypes_of(graph), case.name


def test_a_training_s_graph_is_known_throughout() -> None:
    with tf.Graph().as_default() as graph:
        examples = tf.io.parse_example(
            v1.placeholder(tf.string, [None]),
            {"a": tf.io.VarLenFeature(tf.int64), "b": tf.io.FixedLenFeature([2], tf.float32)},
        )
        table = v1.get_variable("table", [10, 4], use_resource=False)
        x = tf.nn.embedding_lookup(table, examples["a"].values) @ v1.get_variable("w", [4, 3])
        best, place = tf.math.top_k(x, 2)
        parts = tf.split(v1.nn.fused_batch_norm(x[:, None, None], [1.0] * 3, [0.0] * 3)[0], 3, 3)
        v1.summary.scalar("mean", tf.reduce_mean(best))
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.add_n(parts)[0, 0, 0] + tf.cast(place[0, 0], tf.float32))
        v1.train.Saver()
    assert len(graph.get_operations()) > 150
    for strip_defaults in (False, True):
        assert dtypes_in(as_def(graph, strip_defaults)) == dtypes_of(graph)


def node(op: str, name: str = "n", **attributes: Any) -> NodeDef:
    return NodeDef(name=name, op=op, attr={key: AttrValue(**value) for key, value in attributes.items()})


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        (node("ArgMax"), (INT64,)),
        (node("ArgMax", output_type={"type": INT32}), (INT32,)),
        (node("TopKV2", T={"type": FLOAT}), (FLOAT, INT32)),
        (node("Split", T={"type": FLOAT}, num_split={"i": 3}), (FLOAT,) * 3),
        (node("IdentityN", T={"list": AttrValue.ListValue(type=[FLOAT, STRING])}), (FLOAT, STRING)),
        (node("IdentityN", T={"list": AttrValue.ListValue()}), ()),
        (node("NoOp"), ()),
        (node("VariableV2", dtype={"type": FLOAT}), (FLOAT,)),
        (node("Identity", T={"type": FLOAT + 100}), (FLOAT,)),
        (node("ParseSequenceExample"), ()),
        (node("MatMul"), None),  # T has no default
        (node("MatMul", T={"i": 1}), None),
        (node("Split", T={"type": FLOAT}, num_split={"i": 2**60}), None),
        (node("Split", T={"type": FLOAT}, num_split={"i": -1}), None),
        (node("ZeroOut"), None),
        (node("NoOp\nMatMul"), None),
        (node(""), None),
    ],
)
def test_outputs_follow_attributes_and_defaults(of: NodeDef, wanted: tuple[int, ...] | None) -> None:
    before = of.SerializeToString(deterministic=True)
    assert output_dtypes(of, {}) == wanted
    assert of.SerializeToString(deterministic=True) == before


def zero_out() -> OpDef:
    op = OpDef(name="ZeroOut")
    op.output_arg.add(name="zeroed", type_attr="T")
    op.output_arg.add(name="counts", type=INT32, number_attr="N")
    op.output_arg.add(name="old", type=FLOAT, is_ref=True)
    op.attr.add(name="T", type="type").default_value.type = STRING
    op.attr.add(name="N", type="int").default_value.i = 2
    return op


def test_an_op_that_tensorflow_does_not_have_is_known_by_its_definition() -> None:
    own = {"ZeroOut": zero_out()}
    assert output_dtypes(node("ZeroOut"), {}, own) == (STRING, INT32, INT32, FLOAT)
    assert output_dtypes(node("ZeroOut", T={"type": INT64}, N={"i": 0}), {}, own) == (INT64, FLOAT)
    assert output_dtypes(node("ArgMax"), {}, own) == (INT64,)


def one(op: NodeDef) -> Graph:
    return Graph([op])


@pytest.mark.parametrize(
    ("of", "tensor", "message"),
    [
        (node("MatMul", T={"type": FLOAT}), "n:1", "got port 1, wanted one of 1 from 0 on"),
        (node("TopKV2", T={"type": FLOAT}), "n:2", "got port 2, wanted one of 2"),
        (node("NoOp"), "n:0", "gives nothing"),
        (node("NoOp"), "n", "gives nothing"),
        (node("MatMul", T={"type": FLOAT}), "n:x", "got port x"),
        (node("MatMul", T={"type": FLOAT}), "n:-1", "got port -1"),
        (node("ZeroOut", _output_shapes={"list": AttrValue.ListValue(shape=[{}])}), "n:1", "one of 1"),
    ],
)
def test_an_output_that_the_node_does_not_have_is_refused(of: NodeDef, tensor: str, message: str) -> None:
    with pytest.raises(FreezeError, match=message) as caught:
        prune(one(of), [tensor])
    assert caught.value.where == tensor


@pytest.mark.parametrize(
    ("of", "tensor"),
    [
        (node("TopKV2", T={"type": FLOAT}), "n:1"),
        (node("ZeroOut"), "n:7"),
    ],
)
def test_an_output_that_the_node_has_or_may_have_is_kept(of: NodeDef, tensor: str) -> None:
    assert [kept.name for kept in prune(one(of), [tensor]).node] == ["n"]


@pytest.mark.parametrize("ops", [{}, {"ZeroOut": zero_out()}])
def test_an_inner_input_needs_no_definitions_of_tensorflow_s_ops(ops: dict[str, OpDef]) -> None:
    *_, became = feed_inner_tensors(one(node("ArgMax")), ["n"], [], ops).node
    assert (became.op, became.attr["dtype"].type) == ("Placeholder", INT64)


def test_an_inner_input_at_a_custom_op_needs_its_definition() -> None:
    *_, became = feed_inner_tensors(one(node("ZeroOut")), ["n:0"], [], {"ZeroOut": zero_out()}).node
    assert became.attr["dtype"].type == STRING
    for graph, tensor in ((one(node("ZeroOut")), "n"), (one(node("NoOp")), "n"), (one(node("ArgMax")), "n:1")):
        with pytest.raises(FreezeError, match="cannot be made an input"):
            feed_inner_tensors(graph, [tensor], [], {})


def test_looking_an_op_up_loads_no_tensorflow() -> None:
    code = (
        "import sys; from pipeline.graph.ops import output_dtypes; from pipeline.graph.protos import NodeDef;"
        "assert output_dtypes(NodeDef(op='ArgMax'), {}) == (9,); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
