"""Freezing: the .pb gives what TensorFlow's own session gives from the checkpoint, or there is no .pb."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import tensorflow as tf
from small_graphs import control_flow

from pipeline.checkpoint.source import open_source
from pipeline.errors import CheckpointError, FreezeError, PipelineError, StoreError, UnsafeModel
from pipeline.freezing.demands import demands_of_frozen
from pipeline.freezing.freeze import freeze as freeze_any
from pipeline.freezing.freeze import freeze_checkpoint, prepare
from pipeline.signature import Signature, TensorSpec
from pipeline.workers.child import run_in_subprocess

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
IDS = np.array([0, 2, 1], np.int32)
WORDS = np.array([b"a", b"b", b"zz"], object)


def weight(name: str, shape: list[int], is_resource: bool = True) -> Any:
    """A variable whose values follow from its name."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    return v1.get_variable(name, initializer=tf.constant(values), use_resource=is_resource)


def save(
    folder: Path,
    build: Callable[..., Mapping[str, Any]],
    feeds: Mapping[str, Array],
    *,
    is_v2: bool = True,
    change: bool = False,
    saved: Callable[[Any], bool] = lambda variable: True,
    asks: bool = True,
) -> dict[str, Array]:
    """Writes a checkpoint artifact and returns what TensorFlow's session gives for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with control_flow(is_v2), tf.Graph().as_default(), v1.Session() as session:
        inputs = {
            name: v1.placeholder(tf.as_dtype(array.dtype), [None, *array.shape[1:]], name=name)
            for name, array in feeds.items()
        }
        outputs = {name: tf.identity(tensor, name=name) for name, tensor in build(**inputs).items()}
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        if change:
            for variable in v1.global_variables():
                variable.load(_changed(session.run(variable)), session)
        v1.train.Saver([variable for variable in v1.global_variables() if saved(variable)]).save(
            session, str(folder / "model.ckpt")
        )
        Signature(
            [TensorSpec(name, tensor.dtype.base_dtype.name) for name, tensor in inputs.items()],
            [TensorSpec(name, tensor.dtype.base_dtype.name) for name, tensor in outputs.items()],
        ).write(folder / "signature.json")
        return _answers(session, outputs, feeds) if asks else {}


def _changed(value: Any) -> Any:
    value = np.asarray(value)
    if value.dtype == object:
        return np.array([item + b"!" for item in value.ravel()], object).reshape(value.shape)
    return ~value if value.dtype == bool else (value + np.ones_like(value)).astype(value.dtype)


def _answers(session: Any, outputs: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    answers = session.run({name: f"{name}:0" for name in outputs}, {f"{name}:0": feeds[name] for name in feeds})
    return {name: np.asarray(answer) for name, answer in answers.items()}


def freeze(checkpoint: Path, folder: Path) -> bytes:
    folder.mkdir(parents=True)
    freeze_checkpoint(checkpoint, folder)
    return (folder / "model.pb").read_bytes()


def answers_of(pb: bytes, outputs: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb), name="")
        return _answers(session, outputs, feeds)


def nodes_of(pb: bytes) -> list[Any]:
    graph = v1.GraphDef.FromString(pb)
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def branches(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 2], res), weight("u", [3, 2], res)
    return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: tf.sin(x @ u))}


def loop(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 3], res), weight("u", [3, 3], res)

    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(a) > 0, lambda: tf.tanh(a @ w), lambda: tf.sin(a @ u))

    return {"y": tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]}


def variable_as_result(x: Any, res: bool) -> Any:
    w, u = weight("w", [3], res), weight("u", [3], res)
    return {"y": x * tf.cond(tf.reduce_sum(x) > 0, lambda: w, lambda: u)}


def lookup(i: Any, res: bool) -> Any:
    return {"y": tf.nn.embedding_lookup(weight("w", [3, 2], res), i)}


def lookup_in_branch(i: Any, res: bool) -> Any:
    w = weight("w", [3, 2], res)
    return {"y": tf.cond(tf.reduce_sum(i) > 0, lambda: tf.nn.embedding_lookup(w, i), lambda: tf.zeros([3, 2]))}


def lookup_in_loop(i: Any, res: bool) -> Any:
    w = weight("w", [3, 2], res)
    return {"y": tf.map_fn(lambda k: tf.gather(w, k), i, fn_output_signature=tf.float32)}


def lookup_in_function(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)
    inner = tf.function(lambda a: tf.tanh(a @ w))
    return {"y": tf.function(lambda a: inner(inner(a)) + tf.nn.embedding_lookup(w, [0]))(x)}


def two_outputs(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return {"y": x * w, "z": tf.reduce_sum(x, 1) + weight("scalar", [], res)}


def with_empty(x: Any, res: bool) -> Any:
    return {"y": tf.concat([x * weight("w", [3], res), weight("empty", [2, 0], res)], 1)}


def spread(x: Any, res: bool) -> Any:
    return {"y": x * weight("w", [3], res) + tf.scatter_nd([[0], [2]], [1.0, 2.0], [3])}


def drawn_by_a_fixed_key(x: Any, res: bool) -> Any:
    return {"y": x * weight("w", [3], res) * tf.random.stateless_uniform([3], [1, 2])}


def slope(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)
    end = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]
    return {"y": tf.gradients(tf.reduce_sum(end), x)[0]}


BOTH = (False, True)
RIGHT = [
    *[
        pytest.param(build, res, is_v2, id=f"{build.__name__}-{'resource' if res else 'ref'}-{'v2' if is_v2 else 'v1'}")
        for build in (branches, loop, variable_as_result, lookup_in_branch, lookup_in_loop)
        for res in BOTH
        for is_v2 in BOTH
    ],
    *[
        pytest.param(build, res, True, id=f"{build.__name__}-{'resource' if res else 'ref'}")
        for build in (lookup, two_outputs, with_empty, spread, drawn_by_a_fixed_key)
        for res in BOTH
    ],
    pytest.param(lookup_in_function, True, True, id="lookup_in_function"),
    pytest.param(slope, True, False, id="slope-v1"),
]


@pytest.mark.parametrize(("build", "res", "is_v2"), RIGHT)
def test_the_pb_gives_what_the_checkpoint_gives_and_follows_its_weights(
    build: Any, res: bool, is_v2: bool, tmp_path: Path
) -> None:
    feeds = {"i": IDS} if "i" in build.__code__.co_varnames[:1] else {"x": X}
    pbs = []
    for change in (False, True):
        place = tmp_path / str(change)
        want = save(place / "ckpt", lambda **inputs: build(*inputs.values(), res), feeds, is_v2=is_v2, change=change)
        pbs.append(freeze(place / "ckpt", place / "frozen"))
        got = answers_of(pbs[-1], want, feeds)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], strict=True)
        assert Signature.read(place / "frozen" / "signature.json") == Signature.read(place / "ckpt" / "signature.json")
    before, after = (answers_of(pb, want, feeds) for pb in pbs)
    assert all((before[name] != after[name]).any() for name in want)


VALUES = {
    **{name: np.array([3, 1, 2]) for name in ("float16", "bfloat16", "float64", "int8", "int32", "int64", "uint8")},
    "complex64": np.array([1 + 2j, 3, -1j]),
    "bool": np.array([True, False, True]),
    "string": np.array([b'a,"\x00', b"\xff\n", b""], object),
}


@pytest.mark.parametrize("res", BOTH, ids=["ref", "resource"])
def test_variables_of_every_dtype_come_out_as_they_were(res: bool, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        variables = {
            name: v1.get_variable(f"v_{name}", initializer=tf.constant(value, tf.as_dtype(name)), use_resource=res)
            for name, value in VALUES.items()
        }
        return {"y": x * 2, **{f"o_{name}": tf.reverse(variable, [0]) for name, variable in variables.items()}}

    want = save(tmp_path / "ckpt", build, {"x": X})
    got = answers_of(freeze(tmp_path / "ckpt", tmp_path / "frozen"), want, {"x": X})
    assert len(want) == len(VALUES) + 1
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], strict=True)


@pytest.mark.parametrize("res", BOTH, ids=["ref", "resource"])
def test_a_string_without_dimensions_comes_out_as_it_was(res: bool, tmp_path: Path) -> None:
    def build(t: Any) -> Any:
        return {"y": tf.strings.join([t, v1.get_variable("s", initializer=tf.constant(b"\xff\x00"), use_resource=res)])}

    want = save(tmp_path / "ckpt", build, {"t": WORDS})
    got = answers_of(freeze(tmp_path / "ckpt", tmp_path / "frozen"), want, {"t": WORDS})
    assert got["y"].tolist() == want["y"].tolist() == [word + b"\xff\x00" for word in WORDS]


def test_the_same_checkpoint_gives_the_same_bytes_here_and_in_every_process(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", lambda x: loop(x, True), {"x": X})
    pbs = {freeze(tmp_path / "ckpt", tmp_path / f"here{number}") for number in range(3)}
    for number in range(2):
        folder = tmp_path / f"apart{number}"
        folder.mkdir()
        run_in_subprocess("pipeline.freezing.freeze:freeze_checkpoint", tmp_path / "ckpt", folder)
        pbs.add((folder / "model.pb").read_bytes())
    assert len(v1.GraphDef.FromString(next(iter(pbs))).library.function) >= 4
    assert len(pbs) == 1


def test_what_belongs_to_training_is_gone_and_so_are_devices_and_functions_that_nobody_calls(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        w = weight("w", [3, 2])
        with tf.device("/device:CPU:0"):
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x @ (w * 2))
            loss = tf.reduce_sum(tf.cond(tf.reduce_sum(x) > 0, lambda: tf.cosh(y), lambda: tf.sinh(y)))
        v1.train.AdamOptimizer().minimize(loss)
        return {"y": y}

    save(tmp_path / "ckpt", build, {"x": X})
    meta = v1.MetaGraphDef.FromString((tmp_path / "ckpt" / "model.ckpt.meta").read_bytes())
    assert any(node.device for function in meta.graph_def.library.function for node in function.node_def)
    pb = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    ops = {node.op for node in nodes_of(pb)}
    assert not any(node.device for node in nodes_of(pb))
    assert not ops & {"Cosh", "Sinh", "ResourceApplyAdam", "SaveV2", "RestoreV2", "VarHandleOp", "ReadVariableOp"}
    assert len(v1.GraphDef.FromString(pb).library.function) == 2


def in_branch(x: Any, act: Callable[[], Any]) -> Any:
    other = weight("other", [3])
    return {"y": tf.cond(tf.reduce_sum(x) > -99, lambda: x + act(), lambda: x * other)}


def counted(w: Any) -> Any:
    with tf.control_dependencies([v1.assign_add(w, [1.0, 1.0, 1.0], name="count")]):
        return tf.identity(w)


def table() -> Any:
    initializer = tf.lookup.KeyValueTensorInitializer([b"a", b"b"], [0, 1])
    return tf.lookup.StaticHashTable(initializer, 2, name="table")


def from_data() -> Any:
    return v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensors([1.0, 2.0, 3.0]).repeat()).get_next()


def drawn(**arguments: Any) -> Any:
    return tf.random.uniform([3], name="draw", **arguments)


def sampled() -> Any:
    classes = tf.constant([[1]], tf.int64)
    return tf.cast(tf.random.log_uniform_candidate_sampler(classes, 1, 3, True, 10, name="draw")[0], tf.float32)


def cropped() -> Any:
    box = tf.image.sample_distorted_bounding_box([90, 90, 3], tf.constant([[[0.0, 0, 1, 1]]]), 0, name="draw")
    return tf.cast(box[0], tf.float32)


REFUSED: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "assign": (lambda x: {"y": x * counted(weight("w", [3]))}, "AssignAdd", "changes state"),
    "assign a ref": (lambda x: {"y": x * counted(weight("w", [3], False))}, "count", "changes state"),
    "assign in a branch": (lambda x: _assigned_in_branch(x), "AssignAdd", "changes state"),
    "assign in a function": (lambda x: _assigned_in_function(x), "AssignAdd", "changes state"),
    "py_function": (lambda x: {"y": tf.py_function(lambda a: a, [x * weight("w", [3])], tf.float32)}, "Py", "Python"),
    "numpy_function": (
        lambda x: {"y": tf.numpy_function(lambda a: a, [x * weight("w", [3])], tf.float32)},
        "PyFunc",
        "Python",
    ),
    "numpy_function in a branch": (
        lambda x: in_branch(x, lambda: tf.numpy_function(lambda a: a, [x], tf.float32)),
        "PyFunc",
        "Python",
    ),
    "unseeded": (lambda x: {"y": x * weight("w", [3]) + drawn()}, "draw", "random"),
    "seeded": (lambda x: {"y": x * weight("w", [3]) + drawn(seed=3)}, "draw", "random"),
    "dropout": (lambda x: {"y": tf.nn.dropout(x * weight("w", [3]), 0.5, name="drop")}, "drop", "random"),
    "dropout in a branch": (lambda x: in_branch(x, lambda: tf.nn.dropout(x, 0.5, name="drop")), "drop", "random"),
    "shuffle": (lambda x: {"y": x + tf.random.shuffle(weight("w", [3]), name="draw")}, "draw", "random"),
    "candidate sampler": (lambda x: {"y": x * weight("w", [3]) + sampled()}, "draw", "random"),
    "distorted box": (lambda x: {"y": x * weight("w", [3]) + cropped()}, "draw", "random"),
    "iterator": (lambda x: {"y": x * weight("w", [3]) + from_data()}, "Iterator", "data set"),
    "queue": (
        lambda x: {"y": x * weight("w", [3]) + tf.queue.FIFOQueue(3, tf.float32, name="queue").dequeue()},
        "queue",
        "data set",
    ),
}


def _assigned_in_branch(x: Any) -> Any:
    w = weight("w", [3])
    return in_branch(x, lambda: counted(w))


def _assigned_in_function(x: Any) -> Any:
    w = weight("w", [3])

    @tf.function
    def step(a: Any) -> Any:
        w.assign_add([1.0, 1.0, 1.0])
        return a * w

    return {"y": step(x)}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_right_pb_can_hold_is_refused_with_its_node_and_cause_and_cure(case: str, tmp_path: Path) -> None:
    build, node, cause = REFUSED[case]
    save(tmp_path / "ckpt", build, {"x": X}, asks=False)
    with pytest.raises(FreezeError, match=cause) as error:
        freeze(tmp_path / "ckpt", tmp_path / "frozen")
    assert node in (error.value.where or "")
    assert error.value.next_step
    assert not (tmp_path / "frozen" / "model.pb").exists()


@pytest.mark.parametrize("is_in_branch", BOTH)
def test_a_lookup_table_works_from_the_first_run_on(is_in_branch: bool, tmp_path: Path) -> None:
    def build(t: Any) -> Any:
        w, known = weight("w", [3]), table()

        def found() -> Any:
            return tf.gather(w, known.lookup(t))

        return {"y": tf.cond(tf.size(t) > 0, found, lambda: w) if is_in_branch else found()}

    wanted = save(tmp_path / "ckpt", build, {"t": WORDS})
    frozen = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    assert np.array_equal(answers_of(frozen, wanted, {"t": WORDS})["y"], wanted["y"])


def test_a_lookup_table_from_a_vocabulary_file_does_not_need_the_file(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("a\nb\nzz\n")

    def build(t: Any) -> Any:
        lines = tf.lookup.TextFileInitializer(
            str(vocabulary),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        return {"y": tf.gather(weight("w", [3]), tf.lookup.StaticHashTable(lines, 0).lookup(t))}

    wanted = save(tmp_path / "ckpt", build, {"t": WORDS})
    frozen = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    vocabulary.unlink()
    assert np.array_equal(answers_of(frozen, wanted, {"t": WORDS})["y"], wanted["y"])


def test_a_vocabulary_of_a_relative_path_is_found_from_the_folder_above_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "vocab").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    vocabulary = Path("vocab/words.txt")
    vocabulary.write_text("a\nb\nzz\n")

    def build(t: Any) -> Any:
        lines = tf.lookup.TextFileInitializer(
            str(vocabulary),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        return {"y": tf.gather(weight("w", [3]), tf.lookup.StaticHashTable(lines, 0).lookup(t))}

    save(tmp_path / "run" / "ckpt", build, {"t": WORDS})
    monkeypatch.chdir(tmp_path)
    checkpoint, op = tmp_path / "run" / "ckpt", "InitializeTableFromTextFileV2"
    with pytest.raises(UnsafeModel, match=rf"could read the file .* The whole command: .* --allow-ops {op}"):
        freeze_any(checkpoint, ["y"], to=tmp_path / "m.pb")
    freeze_any(checkpoint, ["y"], to=tmp_path / "m.pb", allow_ops=[op])
    content = (tmp_path / "run" / vocabulary).read_text()
    (tmp_path / "run" / vocabulary).unlink()
    with pytest.raises(UnsafeModel, match=rf"no such file.* Copy words\.txt beside .*, into {checkpoint}"):
        freeze_any(checkpoint, ["y"], to=tmp_path / "m.pb")
    (checkpoint / "words.txt").write_text(content)
    freeze_any(checkpoint, ["y"], to=tmp_path / "m.pb")


def test_a_graph_that_is_text_is_parsed_once_for_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graph.pbtxt").write_text("node { name: 'x' op: 'Placeholder' } node { name: 'once' op: 'NoOp' }")
    opened = open_source(tmp_path / "graph.pbtxt")
    monkeypatch.setattr("pipeline.checkpoint.source.parse_text", None)
    assert [*open_source(tmp_path / "graph.pbtxt").graph.nodes] == [*opened.graph.nodes]


def _save_with_tables(folder: Path, fill: Callable[[], tuple[Any, Any, Any]]) -> tuple[Array, Array]:
    """Saves a checkpoint of a model that looks up words in a table; returns words that it knows, and its answers."""
    folder.mkdir()
    with control_flow(True), tf.Graph().as_default(), v1.Session() as session:
        table, known, filled = fill()
        asked = v1.placeholder(table.key_dtype, [None], "t")
        found = tf.cast(table.lookup(asked), tf.float32) if table.value_dtype == tf.int64 else table.lookup(asked)
        y = tf.identity(found * weight("w", [1]), name="y")
        session.run([v1.global_variables_initializer(), filled])
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
        return known, session.run(y, {asked: known})


def _words_that_came_later() -> tuple[Any, Any, Any]:
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 5)
    return table, WORDS, table.insert(tf.constant(WORDS[:2]), tf.constant([3, 4], tf.int64))


def _rows_by_number() -> tuple[Any, Any, Any]:
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    table = tf.lookup.experimental.DenseHashTable(
        tf.int64, tf.float32, default_value=[0.0, 0.5], empty_key=0, deleted_key=-1
    )
    return table, np.array([70, 80, 90]), table.insert(tf.constant([70, 80], tf.int64), rows)


@pytest.mark.parametrize("fill", [_words_that_came_later, _rows_by_number])
def test_a_mutable_table_has_the_content_that_the_checkpoint_holds(
    fill: Callable[[], tuple[Any, Any, Any]], tmp_path: Path
) -> None:
    known, wanted = _save_with_tables(tmp_path / "ckpt", fill)
    frozen = freeze_any(tmp_path / "ckpt", ["y"], to=tmp_path / "m.pb")
    pb = (tmp_path / "m.pb").read_bytes()
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb), name="")
        for _ in range(2):
            assert np.array_equal(session.run("y:0", {"t:0": known}), wanted)
    assert [spec.name for spec in frozen.signature.inputs] == ["t"]
    source = open_source(tmp_path / "ckpt")
    prepared = prepare(source, ["y"], (), {})
    demand = demands_of_frozen(prepared.graph, source.bundle, prepared.signature).inputs["t"]
    assert sorted(demand.keys) == sorted(known[:2])
    assert demand.is_known == (known.dtype == np.int64), "a dense table refuses the keys that mark what is empty"


def test_a_table_that_changes_on_the_way_to_an_output_is_refused(tmp_path: Path) -> None:
    def build(t: Any) -> Any:
        known, w = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0), weight("w", [1])
        with tf.control_dependencies([known.insert(t, tf.ones_like(t, tf.int64))]):
            return {"y": tf.cast(known.lookup(t), tf.float32) * w}

    save(tmp_path / "ckpt", build, {"t": WORDS}, asks=False)
    with pytest.raises(FreezeError, match=r"LookupTableInsertV2 changes a table on the way to an output"):
        freeze(tmp_path / "ckpt", tmp_path / "frozen")


def test_a_table_whose_content_is_in_no_file_is_refused_by_name(tmp_path: Path) -> None:
    def build(t: Any) -> Any:
        known = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
        return {"y": tf.gather(weight("w", [3]), known.lookup(t))}

    save(tmp_path / "ckpt", build, {"t": WORDS})
    with pytest.raises(
        FreezeError, match=r"node MutableHashTable.* has a content that neither the graph nor the checkpoint holds"
    ):
        freeze(tmp_path / "ckpt", tmp_path / "frozen")


def test_the_size_of_a_variable_is_that_of_its_constant(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return {"y": x + tf.cast(tf.raw_ops.VariableShape(input=weight("w", [3]).handle), tf.float32)}

    wanted = save(tmp_path / "ckpt", build, {"x": X})
    frozen = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    assert np.array_equal(answers_of(frozen, wanted, {"x": X})["y"], wanted["y"])


@pytest.mark.parametrize("res", BOTH, ids=["ref", "resource"])
def test_a_variable_that_the_checkpoint_lacks_is_named(res: bool, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return {"y": x * weight("kept", [3], res) * weight("forgotten", [3], res)}

    save(tmp_path / "ckpt", build, {"x": X}, saved=lambda variable: variable.op.name == "kept")
    with pytest.raises(PipelineError, match="forgotten") as error:
        freeze(tmp_path / "ckpt", tmp_path / "frozen")
    assert "lacks" in error.value.what


def test_an_output_that_is_not_in_the_graph_is_named(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", lambda x: {"y": x * weight("w", [3])}, {"x": X})
    Signature([TensorSpec("x", "float32")], [TensorSpec("z", "float32")]).write(tmp_path / "ckpt" / "signature.json")
    with pytest.raises(FreezeError, match=r"z: no such tensor in the graph"):
        freeze(tmp_path / "ckpt", tmp_path / "frozen")


def test_a_model_that_cannot_be_frozen_leaves_no_artifact_in_the_chain(tmp_path: Path) -> None:
    reference = jobs.model_file(
        tmp_path,
        """
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"

            def forward(self, inputs, training):
                w = tf.compat.v1.get_variable("w", initializer=3.0)
                with tf.control_dependencies([w.assign_add(1.0, read_value=False)]):
                    return {"y": inputs["x"] * w}

            def examples(self, path):
                return Examples({"x": np.arange(20, dtype=np.float32)}, None)
        """,
    )
    job = jobs.job_for(tmp_path / "output", reference)
    with pytest.raises(FreezeError, match="AssignAddVariableOp changes state"):
        jobs.run(job, "frozen")
    assert not job.folder("frozen").exists()


def test_an_input_that_no_output_uses_can_still_be_fed(tmp_path: Path) -> None:
    feeds = {"x": X, "unused": X}
    wanted = save(tmp_path / "ckpt", lambda x, unused: {"y": x * weight("w", [3])}, feeds)
    frozen = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    assert np.array_equal(answers_of(frozen, wanted, feeds)["y"], wanted["y"])


def test_a_graph_that_reads_a_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", lambda x: {"y": x * weight("w", [3]), "z": tf.io.read_file("a")}, {"x": X}, asks=False)
    with pytest.raises(FreezeError, match="ReadFile reads or writes files of the machine"):
        freeze(tmp_path / "ckpt", tmp_path / "frozen")


@pytest.mark.parametrize(("content", "said"), [(b"<!DOCTYPE html><html>", "an HTML page"), (b"", "empty")])
def test_a_foreign_file_in_place_of_a_checkpoint_is_said_as_what_it_is(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "download").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        freeze_any(tmp_path / "download", ["y"], to=tmp_path / "model.pb")
    assert [path.name for path in tmp_path.iterdir()] == ["download"]


def test_a_disk_without_room_for_the_pb_is_told_and_what_stood_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*place: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save(tmp_path / "ckpt", lambda x: {"y": x * weight("w", [3])}, {"x": X})
    to = tmp_path / "model.pb"
    to.write_bytes(b"before")
    monkeypatch.setattr("os.posix_fallocate", refuse)
    with pytest.raises(StoreError, match="No space left") as error:
        freeze_any(tmp_path / "ckpt" / "model.ckpt", ["y"], to=to)
    assert error.value.where == str(to)
    assert to.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"ckpt", "model.pb"}


def test_a_file_system_that_reserves_no_room_gets_the_same_pb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*place: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    save(tmp_path / "ckpt", lambda x: {"y": x * weight("w", [3])}, {"x": X})
    pb = freeze(tmp_path / "ckpt", tmp_path / "frozen")
    monkeypatch.setattr("os.posix_fallocate", refuse)
    assert freeze(tmp_path / "ckpt", tmp_path / "again") == pb
    monkeypatch.delattr("os.posix_fallocate")
    assert freeze(tmp_path / "ckpt", tmp_path / "elsewhere") == pb


def test_the_shape_of_a_sparse_placeholder_is_an_input_where_its_default_is_none(tmp_path: Path) -> None:
    """TensorFlow's process ends on a shape of [-1, 3], the default of `sparse_placeholder`."""
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.sparse_placeholder(tf.float32, [None, 3], "x")
        fixed = v1.sparse_placeholder(tf.float32, [2, 3], "fixed")
        w = v1.get_variable("w", [3, 2])
        tf.add(tf.sparse.sparse_dense_matmul(given, w), tf.sparse.sparse_dense_matmul(fixed, w), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    frozen = freeze_any(tmp_path / "model.ckpt", ["y"], to=tmp_path / "model.pb")
    assert frozen.signature is not None
    assert {"x/indices", "x/values", "x/shape"} <= {spec.name for spec in frozen.signature.inputs}
    assert "fixed/shape" not in {spec.name for spec in frozen.signature.inputs}
