"""Generated rows fulfil what a graph demands of its inputs: TensorFlow's own session answers them.

Each case is a small graph. Without the demands TensorFlow refuses the rows, so that no case passes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_graphs import save

from pipeline.data.generated import generate_rows, generate_value, generate_values, refused_rows
from pipeline.freezing.freeze import freeze
from pipeline.graph.demands import NOTHING, Demands, demands_of
from pipeline.graph.graph import Graph
from pipeline.graph.protos import GraphDef
from pipeline.signature import Signature, TensorSpec

v1 = tf.compat.v1
S = tf.TensorSpec
TEXT, WHOLE, FLOAT = tf.string, tf.int32, tf.float32


def w(*shape: int) -> Any:
    """Weights: a constant, as a frozen graph has them."""
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def each(function: Callable[[Any], Any], texts: Any) -> Any:
    """A function of one row for all rows, in a loop."""
    return tf.map_fn(function, texts, fn_output_signature=FLOAT)


def decode(text: Any, size: int = 8) -> Any:
    return tf.image.resize(tf.io.decode_jpeg(text, channels=3), [size, size])


def open_net(x: Any) -> Any:
    x = tf.nn.max_pool2d(tf.nn.conv2d(x, w(5, 5, 3, 4), 2, "VALID"), 2, 2, "VALID")
    return tf.nn.conv2d(x, w(3, 3, 4, 2), 1, "VALID")


def flattened_net(x: Any) -> Any:
    x = tf.nn.max_pool2d(tf.nn.conv2d(x, w(3, 3, 3, 4), 2, "SAME"), 2, 2, "SAME")
    return tf.matmul(tf.reshape(x, [tf.shape(x)[0], -1]), w(196, 2))


def parts_of_dates(x: Any) -> Any:
    return tf.reshape(tf.strings.to_number(tf.strings.split(x, "-").values, WHOLE), [-1, 3])


def embedded_sequence(x: Any) -> Any:
    x = tf.gather(w(50, 4), x)
    return tf.matmul(tf.reshape(x, [tf.shape(x)[0], -1]), w(28, 2))


def parsed_examples(x: Any) -> Any:
    spec = {
        "price": tf.io.FixedLenFeature([2], FLOAT),
        "shop": tf.io.FixedLenFeature([], tf.int64),
        "words": tf.io.VarLenFeature(tf.int64),
        "picture": tf.io.FixedLenFeature([], TEXT),
        "tags": tf.io.RaggedFeature(tf.int64),
    }
    parsed = tf.io.parse_example(x, spec)
    pictures = each(lambda text: tf.reduce_mean(decode(text)), parsed["picture"])
    table = w(7, 2)
    words = tf.nn.safe_embedding_lookup_sparse(table, parsed["words"])
    tags = tf.reduce_sum(tf.gather(w(2, 2), parsed["tags"]), 1)
    return parsed["price"] + tf.gather(w(3, 2), parsed["shop"]) + words + tags + pictures[:, None]


def single_example(x: Any) -> Any:
    spec = {"a": tf.io.FixedLenFeature([2], FLOAT), "number": tf.io.FixedLenFeature([], TEXT)}

    def parse(text: Any) -> Any:
        parsed = tf.io.parse_single_example(text, spec)
        return parsed["a"] * tf.strings.to_number(parsed["number"])

    return each(parse, x)


def json_examples(x: Any) -> Any:
    spec = {"a": tf.io.FixedLenFeature([2], FLOAT), "i": tf.io.FixedLenFeature([1], tf.int64)}
    parsed = tf.io.parse_example(tf.io.decode_json_example(x), spec)
    return parsed["a"] + tf.gather(w(2, 2), parsed["i"][:, 0])


def csv(x: Any) -> Any:
    price, shop, _ = tf.io.decode_csv(x, [[0.0], [0], [""]])
    return price[:, None] * tf.gather(w(3, 2), shop)


def split_numbers(x: Any) -> Any:
    return each(lambda text: tf.reshape(tf.strings.to_number(tf.strings.split([text], ",").values), [5]), x)


def recurrent(x: Any) -> Any:
    steps = tf.transpose(tf.gather(w(3, 4), x), [1, 0, 2])
    items = tf.TensorArray(FLOAT, size=tf.shape(x)[1]).unstack(steps)
    start = (0, tf.zeros([tf.shape(x)[0], 4]))

    def turn(at: Any, state: Any) -> Any:
        return at + 1, tf.tanh(tf.matmul(tf.concat([items.read(at), state], 1), w(8, 4)))

    return tf.while_loop(lambda at, _: at < tf.shape(x)[1], turn, start)[1]


def sparse_examples(x: Any) -> Any:
    """Features of indices and of as many values, in one dimension and in two."""
    spec = {
        "line": tf.io.SparseFeature("slot", "value", FLOAT, 8),
        "grid": tf.io.SparseFeature(["row", "column"], "weight", FLOAT, [5, 2]),
    }
    parsed = tf.io.parse_example(x, spec)
    line = tf.sparse.sparse_dense_matmul(parsed["line"], w(8, 2))
    return line + tf.sparse.reduce_sum(parsed["grid"], 1)[:, :2]


STEPS = (S([None, 2, 4], FLOAT, "x"), S([None], WHOLE, "n"))
CASES: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a signal that is cut into windows": (
        lambda x: tf.argmax(tf.reduce_mean(tf.signal.frame(x, 16, 8, axis=1), -1), 1),
        (S([None, None], FLOAT),),
    ),
    "a signal and its spectrum": (
        lambda x: tf.argmax(tf.abs(tf.signal.stft(x, 32, 16))[..., 0], 1),
        (S([None, None], FLOAT),),
    ),
    "dates in parts, of all rows together": (
        lambda x: tf.gather(w(12, 2), parts_of_dates(x)[:, 1] - 1) * tf.one_hot((parts_of_dates(x)[:, 2] - 1) // 7, 2),
        (S([None], TEXT),),
    ),
    "the last step of what no rule knows": (
        lambda x, n: tf.gather_nd(tf.linalg.band_part(x, -1, -1), tf.stack([tf.range(tf.shape(x)[0]), n - 1], 1)),
        STEPS,
    ),
    "lengths of what is decoded": (lambda x, n: tf.nn.ctc_greedy_decoder(tf.transpose(x, [1, 0, 2]), n)[1], STEPS),
    "the last step, by its number among all": (
        lambda x, n: tf.gather(tf.reshape(x, [-1, 4]), tf.range(tf.shape(x)[0]) * 2 + (n - 1)),
        STEPS,
    ),
    "an index of a table": (lambda x: tf.gather(w(2, 3), x), (S([None], WHOLE),)),
    "an index after a cast, and a column": (
        lambda x: tf.gather(w(2, 3), tf.cast(x[:, 11], WHOLE)) * x[:, :1],
        (S([None, None], FLOAT),),
    ),
    "indices with the offset of their field": (
        lambda x: tf.gather(w(5, 2), x + tf.constant([0, 2, 3])),
        (S([None, 3], WHOLE),),
    ),
    "an index that may be counted from the end, as in Keras": (
        lambda x: tf.gather(w(3, 2), tf.where(x < 0, x + tf.shape(w(3, 2))[0], x)),
        (S([None, None], WHOLE),),
    ),
    "indices from 1": (lambda x: tf.gather(w(3, 2), x - 1), (S([None], tf.int64),)),
    "places in a table of two axes": (lambda x: tf.gather_nd(w(2, 4, 2), x), (S([None, 2], WHOLE),)),
    "words of a sequence of the length of its kernel": (embedded_sequence, (S([None, None], tf.int64),)),
    "numbers of segments": (
        lambda x, i: tf.math.unsorted_segment_sum(x * w(2), i, 3),
        (S([None, 2], FLOAT), S([None], WHOLE)),
    ),
    "lengths within the time axis": (
        lambda x, n: tf.reverse_sequence(x * w(3), n, seq_axis=1),
        (S([None, 2, 3], FLOAT), S([None], WHOLE)),
    ),
    "classes of a softmax": (
        lambda x, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.matmul(x, w(3, 2))),
        (S([None, 3], FLOAT), S([None], tf.int64)),
    ),
    "a kernel's width": (lambda x: tf.matmul(x, w(6, 2)), (S(None, FLOAT),)),
    "a kernel's width behind two inputs": (
        lambda a, b: tf.matmul(tf.concat([a, b], 1), w(10, 2)),
        (S([None, None], FLOAT), S([None, 4], FLOAT)),
    ),
    "the width of parts": (
        lambda x: tf.matmul(tf.split(x, [4, 3], 1)[0], w(4, 2)),
        (S([None, None], FLOAT),),
    ),
    "a bias": (lambda x: tf.nn.bias_add(x, w(5)), (S(None, FLOAT),)),
    "a product of three axes": (lambda x: tf.einsum("btd,dk->btk", x, w(5, 2)), (S(None, FLOAT),)),
    "a tensor product": (lambda x: tf.tensordot(x, w(5, 2), [[2], [0]]), (S([None, None, None], FLOAT),)),
    "a reshape": (lambda x: tf.matmul(tf.reshape(x, [-1, 12]), w(12, 2)), (S(None, FLOAT),)),
    "axes in another order": (
        lambda x: tf.matmul(tf.reshape(tf.transpose(x, [0, 2, 1]), [-1, 12]), w(12, 2)),
        (S(None, FLOAT),),
    ),
    "windows that must fit": (open_net, (S([None] * 4, FLOAT),)),
    "a flattened image": (flattened_net, (S([None, None, None, 3], FLOAT),)),
    "a loop over time": (recurrent, (S([None, None], WHOLE),)),
    "images": (lambda x: tf.reduce_mean(each(decode, x), [1, 2]), (S([None], TEXT),)),
    "images of one size": (
        lambda x: each(lambda t: tf.reshape(tf.cast(tf.io.decode_png(t, channels=1), FLOAT), [28, 28, 1]), x),
        (S([None], TEXT),),
    ),
    "cropped images": (
        lambda x: each(lambda t: tf.cast(tf.image.decode_and_crop_jpeg(t, [2, 3, 5, 7], channels=1), FLOAT), x),
        (S([None], TEXT),),
    ),
    "bitmaps": (lambda x: each(lambda t: tf.cast(tf.io.decode_bmp(t), FLOAT), x), (S([None], TEXT),)),
    "sounds": (
        lambda x: each(lambda t: tf.audio.decode_wav(t, 1, 100)[0], x),
        (S([None], TEXT),),
    ),
    "elements as bytes": (
        lambda x: tf.matmul(tf.reshape(tf.io.decode_raw(x, FLOAT), [-1, 12]), w(12, 2)),
        (S([None], TEXT),),
    ),
    "tensors as bytes": (
        lambda x: each(lambda t: tf.ensure_shape(tf.io.parse_tensor(t, FLOAT), [4]), x),
        (S([None], TEXT),),
    ),
    "bytes in base64": (
        lambda x: tf.matmul(tf.reshape(tf.io.decode_raw(tf.io.decode_base64(x), FLOAT), [-1, 3]), w(3, 2)),
        (S([None], TEXT),),
    ),
    "compressed numbers": (
        lambda x: tf.strings.to_number(tf.io.decode_compressed(x, "GZIP")),
        (S([None], TEXT),),
    ),
    "lengths of a mask without a length": (
        lambda x, n: tf.reduce_sum(tf.gather(w(50, 4), x) * tf.cast(tf.sequence_mask(n), FLOAT)[:, :, None], 1),
        (S([None, None], WHOLE, "x"), S([None], WHOLE, "n")),
    ),
    "lengths of a mask of known steps": (
        lambda x, n: tf.matmul(x * tf.cast(tf.sequence_mask(n), FLOAT), w(5, 2)),
        (S([None, 5], FLOAT, "x"), S([None], tf.int64, "n")),
    ),
    "numbers as text": (lambda x: tf.matmul(tf.strings.to_number(x), w(2, 2)), (S([None, 2], TEXT),)),
    "numbers between commas": (split_numbers, (S([None], TEXT),)),
    "lines of a table": (csv, (S([None], TEXT),)),
    "examples": (parsed_examples, (S([None], TEXT),)),
    "examples of a sparse tensor": (sparse_examples, (S([None], TEXT),)),
    "examples one by one": (single_example, (S([None], TEXT),)),
    "examples as JSON": (json_examples, (S([None], TEXT),)),
}


@pytest.mark.parametrize("case", CASES)
def test_tensorflow_answers_the_rows_that_are_made_for_a_graph(case: str) -> None:
    build, specs = CASES[case]
    graph, signature = built(build, specs)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    with pytest.raises((tf.errors.OpError, ValueError)):
        list(answers(graph, signature, NOTHING))
    found = list(answers(graph, signature, demands))
    assert found
    assert all(np.isfinite(answer).all() for answer in found)


def test_what_to_give_in_place_of_made_up_rows_is_what_the_model_takes() -> None:
    graph, signature = built(sparse_examples, (S([None], TEXT),))
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert "--data rows.tfrecord" in str(refused_rows(signature, "no", demands))
    specs = tuple(TensorSpec(name, "int64", (None,)) for name in ("x", "x_1"))
    whole = Signature(specs, signature.outputs, is_whole=True)
    told = str(refused_rows(whole, "no", value={"x": np.zeros(20, np.int64), "x_1": np.array([0, 1, 2])}))
    assert "x=np.zeros((20,), 'int64'), x_1=np.array([0, 1, 2], 'int64')" in told


@pytest.mark.parametrize(
    ("take", "zeros"),
    [
        (lambda x: tf.nn.conv2d(x, w(3, 3, 3, 4), 1, "SAME"), "np.zeros((8, 8, 8, 3), 'float32')"),
        (lambda x: tf.matmul(x, w(3, 2)), "np.zeros((8, 3), 'float32')"),
    ],
)
def test_a_mean_that_is_subtracted_does_not_decide_the_rank_that_a_kernel_demands(
    take: Callable[[Any], Any], zeros: str
) -> None:
    graph, signature = built(lambda x: take((x - tf.constant([103.0, 117.0, 123.0])) * 0.01), (S(None, FLOAT),))
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert list(answers(graph, signature, demands))
    assert zeros in str(refused_rows(signature, "no", demands))


def test_zeros_are_offered_only_for_an_input_of_a_known_rank() -> None:
    graph, signature = built(lambda x: tf.exp(x), (S(None, FLOAT),))
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    told = str(refused_rows(signature, "no", demands))
    assert "The graph gives no shape for in0: give rows of the rank" in told
    assert "zeros" not in told


@pytest.mark.parametrize("shapes", [([None, 2], [2]), ([None, None], [None]), (None, None)])
def test_sparse_inputs_fit_each_other(shapes: Any) -> None:
    """Without the demands TensorFlow's process ends: it does not check the shape."""
    specs = (S(shapes[0], tf.int64), S([None], FLOAT), S(shapes[1], tf.int64))
    graph, signature = built(lambda i, v, s: tf.sparse.sparse_dense_matmul(tf.SparseTensor(i, v, s), w(10, 2)), specs)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert {answer.shape for answer in answers(graph, signature, demands)} == {(8, 2)}


def test_a_sparse_input_fits_the_rows_of_another_product() -> None:
    """Neighbours of nodes whose number is in the graph: without the demand the product is refused."""
    specs = (S([None, 2], tf.int64), S([None], FLOAT), S([2], tf.int64), S([None], FLOAT))

    def net(i: Any, v: Any, s: Any, f: Any) -> Any:
        features = tf.SparseTensor(tf.constant([[0, 1], [11, 2]], tf.int64), f[:2], [12, 3])
        return tf.sparse.sparse_dense_matmul(tf.SparseTensor(i, v, s), tf.sparse.sparse_dense_matmul(features, w(3, 2)))

    graph, signature = built(net, specs)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert {answer.shape for answer in answers(graph, signature, demands)} == {(8, 2)}


def test_sparse_inputs_that_only_their_names_tell_are_several_rows() -> None:
    specs = (S([None, 2], tf.int64, "ids/indices"), S([None], WHOLE, "ids/values"))
    graph, signature = built(lambda i, v: tf.math.segment_sum(tf.gather(w(10, 2), v), i[:, 0]), specs)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert {answer.shape for answer in answers(graph, signature, demands)} == {(8, 2)}


RAGGED = (S([None], WHOLE, "x"), S([None], tf.int64, "x_1"))


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda x: tf.reduce_sum(tf.gather(w(10, 2), x.to_tensor()), 1), id="made dense"),
        pytest.param(lambda x: tf.reduce_sum(tf.cast(x, FLOAT), 1)[:, None] * w(2), id="summed by row"),
    ],
)
def test_ragged_inputs_fit_each_other(build: Callable[[Any], Any]) -> None:
    graph, signature = built(lambda x, x_1: build(tf.RaggedTensor.from_row_splits(x, x_1, validate=False)), RAGGED)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert [(group.kind, group.inputs) for group in demands.groups] == [("ragged", ("x", "x_1"))]
    assert {answer.shape for answer in answers(graph, signature, demands)} == {(8, 2)}


def test_a_ragged_a_sparse_and_a_dense_input_stand_for_the_same_rows() -> None:
    """Each alone had rows that fit; together they were of different numbers."""
    specs = (
        S([None, 5], FLOAT, "dense"),
        *(S([None], tf.int64, "x"), S([None], tf.int64, "x_1")),
        *(S([None, 2], tf.int64, "s"), S([None], FLOAT, "s_1"), S([2], tf.int64, "s_2")),
    )

    def build(dense: Any, x: Any, x_1: Any, s: Any, s_1: Any, s_2: Any) -> Any:
        ragged = tf.gather(w(30, 5), tf.RaggedTensor.from_row_splits(x, x_1, validate=False))
        sparse = tf.sparse.sparse_dense_matmul(tf.SparseTensor(s, s_1, s_2), w(7, 5))
        return dense + tf.reduce_sum(ragged, 1) + sparse

    graph, signature = built(build, specs)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert {answer.shape for answer in answers(graph, signature, demands)} == {(8, 5)}
    for rows in (1, 7):
        value = generate_value(signature, rows, 7, demands=demands)
        assert len(value["x_1"]) == rows + 1
        assert value["s_2"].tolist() == [rows, 7]
        assert run(graph, value).shape == (rows, 5)


IN = (S([None, 2], FLOAT, "x"), S([None, 2], WHOLE, "i"))


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        pytest.param(lambda x, i: tf.gather(x, i[:, 0]), ["numbers"], id="rows of another input"),
        pytest.param(lambda x, i: tf.scatter_nd(i[:, 1:], x, tf.shape(x)), ["numbers"], id="onto rows"),
        pytest.param(
            lambda x, i: tf.math.unsorted_segment_sum(tf.gather(x @ w(2, 3), i[:, 0]), i[:, 1], tf.shape(x)[0]),
            ["numbers"],
            id="messages along edges",
        ),
        pytest.param(lambda x, i: tf.math.segment_sum(x, i[:, 0]), ["rising"], id="sums of parts"),
        pytest.param(lambda x, i: tf.nn.softmax(x, 0) + tf.gather(w(9, 2), i[:, 0]), [], id="a table of weights"),
        pytest.param(lambda x, i: tf.gather(x, i % 2, batch_dims=1), [], id="elements of the row itself"),
        pytest.param(
            lambda x, i: tf.gather(tf.reshape(x, [-1]), tf.range(tf.shape(x)[0]) * 2 + i[:, 0] % 2), [], id="counted on"
        ),
        pytest.param(lambda x, i: tf.roll(x, 1, 0) * tf.one_hot(i[:, 0], 2), [], id="rows that are mixed"),
    ],
)
def test_numbers_of_rows_make_the_inputs_one_value(build: Callable[..., Any], kinds: list[str]) -> None:
    graph, signature = built(build, IN)
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    assert [group.kind for group in demands.groups] == kinds
    assert len(list(answers(graph, signature, demands)))
    if kinds == ["rising"]:  # where a model's rows are cut apart all the same
        assert np.isfinite(run(graph, generate_rows(signature, 16, 7, demands=demands))).all()
    for rows in (1, 2) if kinds else ():
        assert np.isfinite(run(graph, generate_value(signature, rows, 7, demands=demands))).all()


@pytest.mark.parametrize(
    ("build", "low", "high"),
    [
        pytest.param(lambda x: tf.math.log(x * x), None, None, id="a product of inputs says nothing"),
        pytest.param(tf.math.log, 0.001, None, id="a logarithm"),
        pytest.param(lambda x: tf.sqrt(2 * x + 4), -2, None, id="a root"),
        pytest.param(tf.math.acos, -1, 1, id="an inverse of the cosine"),
        pytest.param(lambda x: x / 255 - 0.5, 0, 255, id="levels of a pixel"),
        pytest.param(lambda x: x * (1 / 127.5) - 1, 0, 255, id="levels of a pixel, multiplied"),
        pytest.param(lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=2.0, clip_value_max=5.0), 2, 5, id="a clip"),
    ],
)
def test_floats_are_in_the_range_that_the_graph_is_made_for(build: Any, low: float | None, high: float | None) -> None:
    graph, signature = built(build, (S([None, 3], FLOAT, "x"),))
    demands = demands_of(Graph.of(GraphDef.FromString(graph.SerializeToString())), signature.inputs)
    rows = generate_rows(signature, 64, 7, demands=demands)["x"]
    assert rows.min() < 0 or low is not None
    assert low is None or low <= rows.min() <= low + 20
    assert high is None or high - 20 <= rows.max() <= high


def test_words_that_no_table_knows_are_left_out_where_the_model_refuses_them() -> None:
    for default, is_known in ((-1, True), (0, False)):
        nodes, signature = with_table(default)
        rows = generate_rows(signature, 64, 7, demands=demands_of(nodes, signature.inputs))
        assert (set(rows["x"]) == {b"a", b"b"}) == is_known
        assert rows["other"].max() < 3  # the index of another table gets no keys


def with_table(default: int) -> tuple[Graph, Signature]:
    """A table whose answers are indices, as a frozen graph has it: filled by constants."""
    with tf.Graph().as_default() as graph:
        x, other = v1.placeholder(TEXT, [None], "x"), v1.placeholder(tf.int64, [None], "other")
        keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1], tf.int64))
        found = tf.lookup.StaticHashTable(keys, default).lookup(tf.strings.lower(x))
        tf.add(tf.gather(w(2, 2), found), tf.gather(w(3, 2), other), name="y")
    inputs = (TensorSpec("x", "string", (None,)), TensorSpec("other", "int64", (None,)))
    nodes = Graph.of(GraphDef.FromString(graph.as_graph_def().SerializeToString()))
    return nodes, Signature(inputs, (TensorSpec("y", "float32", (None, 2)),))


def built(build: Callable[..., Any], specs: tuple[Any, ...]) -> tuple[Any, Signature]:
    """Returns a graph with the output `y`, and its signature."""
    with tf.Graph().as_default() as graph:
        names = [spec.name or f"in{number}" for number, spec in enumerate(specs)]
        given = [v1.placeholder(s.dtype, s.shape, name) for s, name in zip(specs, names, strict=True)]
        tf.identity(build(*given), name="y")
    inputs = tuple(
        TensorSpec(name, spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape))
        for name, spec in zip(names, specs, strict=True)
    )
    return graph.as_graph_def(), Signature(inputs, (TensorSpec("y", "float32"),))


def answers(graph: Any, signature: Signature, demands: Demands) -> Iterator[Any]:
    if not demands.groups:
        yield run(graph, generate_rows(signature, 16, 7, demands=demands))
        return
    values = generate_values(signature, 7, demands=demands)
    for number in range(len(values[signature.inputs[0].name])):
        yield run(graph, {name: each[number] for name, each in values.items()})


def run(graph: Any, batch: Any) -> Any:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph, name="")
        return session.run("y:0", {f"{name}:0": values for name, values in batch.items()})


@pytest.mark.parametrize(("producer", "shape"), [(8, None), (21, None), (22, ())])
def test_a_placeholder_of_an_old_graph_without_a_shape_has_none(producer: int, shape: Any, tmp_path: Path) -> None:
    """TensorFlow up to 0.12 wrote the shape of a scalar; TensorFlow reads it as unknown, by the graph's version."""
    prefix = tmp_path / "model.ckpt"
    save(prefix, lambda x: tf.multiply(x, v1.get_variable("w", initializer=w(3)), name="y"))
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    meta.graph_def.versions.producer = producer
    for node in meta.graph_def.node:
        node.attr.pop("_output_shapes", None)
        if node.op == "Placeholder":
            node.attr["shape"].shape.Clear()
    Path(f"{prefix}.meta").write_bytes(meta.SerializeToString())
    frozen = freeze(prefix, ["y"], to=tmp_path / "model.pb")
    assert Signature.read(tmp_path / "signature.json").inputs == (TensorSpec("x", "float32", shape),)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(v1.GraphDef.FromString(frozen.path.read_bytes()), name="")
        rank = graph.get_tensor_by_name("x:0").shape.rank
    assert rank == (None if shape is None else 0)  # TensorFlow's own reading
