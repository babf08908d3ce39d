"""Comparison of weights: every bit of every variable, by name, in every form that a file can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tensorflow as tf
from test_validate import (
    Change,
    check,
    failed_checks,
    make_checkpoint,
    node,
    plant,
    read_results,
    run_validation,
    set_weight,
)

from pipeline.errors import CheckpointError, DataError
from pipeline.freezing.freeze import freeze, freeze_checkpoint
from pipeline.graph.protos import TensorProto
from pipeline.graph.tensors import content_of, strings_of
from pipeline.report.html import CHECK_DESCRIPTIONS
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.compare.weights import VariableComparison, WeightsComparison, compare_weights
from pipeline.validation.results.recorder import ResultsRecorder

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
DRAW = np.random.default_rng(7)
W, U = DRAW.normal(size=(3, 4)).astype(np.float32), DRAW.normal(size=(3, 4)).astype(np.float32)
BITS = np.array([0x7FC00001, 0x3F800000, 0x80000000, 0xFFC12345], np.uint32).view(np.float32)


def save_artifact(folder: Path, build: Callable[[Any], Any], saver: Callable[[], Any] | None = None) -> Path:
    """Saves the artifact of a checkpoint whose graph computes `y` from `x`."""
    folder.mkdir(parents=True)
    with tf.Graph().as_default(), v1.Session() as session:
        y = build(v1.placeholder(tf.float32, [None, 3], name="x"))
        dtype = tf.identity(y, name="y").dtype.name
        session.run(v1.global_variables_initializer())
        (saver() if saver else v1.train.Saver()).save(session, str(folder / "model.ckpt"))
    signature = Signature([TensorSpec("x", "float32", [None, 3])], [TensorSpec("y", dtype, None)])
    signature.write(folder / "signature.json")
    return folder


def variable(name: str, value: Any, **options: Any) -> Any:
    return v1.get_variable(name, initializer=tf.constant(value), **options)


def several(x: Any) -> Any:
    """Builds variables of many dtypes, all of which the output needs."""
    made = {
        "w": W,
        "u": U,
        "bits": BITS,
        "scalar": np.float32(0.1),
        "count": np.int64(-3),
        "flag": np.True_,
        "wave": np.array([1 + 2j, 3 - 1j, -2j], np.complex64),
        "narrow": np.array([1.5, -2, 3], np.float16),
        "texts": np.array([b"a", b"\xff\0", b""], object),
        "word": b"only",
    }
    with tf.control_dependencies(
        [tf.identity(variable(name, value, use_resource=True)) for name, value in made.items()]
    ):
        return x @ tf.ones([3, 1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_artifact(tmp_path_factory.mktemp("weighing") / "checkpoint", several)


def frozen_of(checkpoint: Path, folder: Path, weights: str = "exact") -> Path:
    folder.mkdir(parents=True)
    freeze_checkpoint(checkpoint, folder, weights)
    return folder


@pytest.fixture(scope="module")
def frozen(checkpoint: Path) -> Path:
    return frozen_of(checkpoint, checkpoint.parent / "frozen")


def by_name(found: WeightsComparison) -> dict[str, VariableComparison]:
    assert found.problem is None
    names = {weights.name: weights for weights in found.variables}
    assert len(names) == len(found.variables)
    return names


def unequal(found: WeightsComparison) -> dict[str, VariableComparison]:
    return {name: weights for name, weights in by_name(found).items() if not weights.is_equal}


def content(graph: Any, name: str) -> Any:
    return node(graph, name).attr["value"].tensor


def test_what_freezing_wrote_is_equal_in_every_variable(checkpoint: Path, frozen: Path) -> None:
    found = by_name(compare_weights(checkpoint, frozen))
    wanted = {"w", "u", "bits", "scalar", "count", "flag", "wave", "narrow", "texts", "word"}
    assert set(found) == wanted
    assert all(weights.is_equal for weights in found.values())
    assert (found["w"].elements, found["word"].elements) == (12, 1)


@pytest.mark.parametrize("byte", [0, 3, 21, 47])
def test_a_flipped_bit_is_found_and_named_with_its_index(
    byte: int, checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    def flip(graph: Any) -> None:
        raw = bytearray(content(graph, "w").tensor_content)
        raw[byte] ^= 1
        content(graph, "w").tensor_content = bytes(raw)

    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, flip)))
    assert list(found) == ["w"]
    difference = found["w"].difference
    assert difference is not None
    row, column = divmod(byte // 4, 4)
    assert (difference.elements, difference.first) == (1, f"{row};{column}")
    assert difference.reference == float(W[row, column]) != difference.candidate
    assert difference.figures[0] == abs(difference.candidate - difference.reference) == difference.largest[0]


def test_the_largest_difference_is_of_all_elements_and_the_index_of_the_first(
    checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    other = W.copy()
    other[0, 2], other[2, 1] = other[0, 2] + 1, other[2, 1] - 64
    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, set_weight("w", other))))["w"].difference
    assert found is not None
    assert (found.elements, found.first) == (2, "0;2")
    assert found.largest[0] == abs(float(other[2, 1]) - float(W[2, 1]))
    assert found.figures[0] == abs(float(other[0, 2]) - float(W[0, 2]))


def test_swapped_weights_of_one_shape_are_found_in_both(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    def swap(graph: Any) -> None:
        a, b = content(graph, "w"), content(graph, "u")
        a.tensor_content, b.tensor_content = b.tensor_content, a.tensor_content

    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, swap)))
    assert set(found) == {"w", "u"}
    assert {weights.difference.elements for weights in found.values() if weights.difference} == {12}


def test_a_variable_that_the_candidate_lacks_is_named(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    def remove(graph: Any) -> None:
        node(graph, "w").name = "elsewhere"

    found = compare_weights(checkpoint, plant(frozen, tmp_path, remove))
    assert {name: weights.problem for name, weights in unequal(found).items()} == {
        "w": "is needed, and the candidate lacks it"
    }


def as_float64(graph: Any) -> None:
    const = node(graph, "w")
    const.attr["dtype"].type = tf.float64.as_datatype_enum
    const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(W.astype(np.float64)))


def declared_otherwise(graph: Any) -> None:
    node(graph, "w").attr["dtype"].type = tf.int32.as_datatype_enum


def turned(graph: Any) -> None:
    dims = content(graph, "w").tensor_shape.dim
    dims[0].size, dims[1].size = 4, 3


def cut_off(graph: Any) -> None:
    content(graph, "w").tensor_content = content(graph, "w").tensor_content[:-4]


def as_placeholder(graph: Any) -> None:
    node(graph, "w").op = "Placeholder"


def of_numbers(graph: Any) -> None:
    content(graph, "texts").CopyFrom(tf.make_tensor_proto([1, 2, 3]))


CHANGES: dict[str, tuple[Change, str, str]] = {
    "dtype": (as_float64, "w", "got float64 [3, 4], wanted float32 [3, 4]"),
    "declared dtype": (declared_otherwise, "w", "got float32 and int32 [3, 4]"),
    "shape": (turned, "w", "got float32 [4, 3], wanted float32 [3, 4]"),
    "size": (cut_off, "w", "got 44, wanted 48"),
    "op": (as_placeholder, "w", "is no constant in the candidate but a Placeholder"),
    "no strings": (of_numbers, "texts", "got int32 and string [3], wanted string [3]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_dtype_shape_size_or_op_is_said(change: str, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    spoil, name, sentence = CHANGES[change]
    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, spoil)))
    assert list(found) == [name]
    assert sentence in str(found[name].problem)


@pytest.mark.parametrize(
    ("name", "value", "index"),
    [
        ("scalar", np.nextafter(np.float32(0.1), np.float32(1)), ""),
        ("count", -4, ""),
        ("flag", False, ""),
        ("wave", np.array([1 + 2j, 3 - 1j, 2j]), "2"),
        ("narrow", [1.5, -2, 3.002], "2"),
        ("texts", np.array([b"a", b"\xff\1", b""], object), "1"),
        ("word", np.array(b"Only", object), ""),
    ],
)
def test_scalars_strings_and_other_dtypes_are_compared(
    name: str, value: Any, index: str, checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, set_weight(name, value))))
    assert list(found) == [name]
    difference = found[name].difference
    assert difference is not None
    assert (difference.elements, difference.first) == (1, index)
    assert difference.reference != difference.candidate


def test_the_bits_of_not_a_number_and_of_zero_count(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    for index, bits, shown in ((0, 0x7FC00002, "nan (0x7fc00002)"), (2, 0, "0.0")):

        def change(graph: Any, index: int = index, bits: int = bits) -> None:
            values = BITS.copy()
            values.view(np.uint32)[index] = bits
            content(graph, "bits").tensor_content = values.tobytes()

        found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path / str(index), change)))["bits"].difference
        assert found is not None
        assert (found.elements, found.first, found.largest[0]) == (1, str(index), 0.0)
        assert str(found.candidate) == shown
        assert str(found.reference) in ("nan (0x7fc00001)", "-0.0")


def test_only_what_the_outputs_need_is_missed(tmp_path: Path) -> None:
    def trained(x: Any) -> Any:
        variable("unused", W)
        return x @ variable("w", W)

    checkpoint = save_artifact(tmp_path / "checkpoint", trained)
    assert list(by_name(compare_weights(checkpoint, frozen_of(checkpoint, tmp_path / "frozen")))) == ["w"]


def test_constants_of_the_size_of_weights_that_are_of_no_variable_are_counted(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        table = tf.constant(DRAW.normal(size=(3, 300)).astype(np.float32))
        return x @ table @ variable("w", DRAW.normal(size=(300, 2)).astype(np.float32))

    checkpoint = save_artifact(tmp_path / "checkpoint", build)
    found = compare_weights(checkpoint, frozen_of(checkpoint, tmp_path / "frozen"))
    assert (list(by_name(found)), found.unmatched) == (["w"], 1)


def test_parts_of_a_partitioned_variable_are_compared_each_with_its_place(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        for axis in (0, 1):
            cut = tf.compat.v1.fixed_size_partitioner(2, axis)
            part = v1.get_variable(
                f"p{axis}",
                [3, 5],
                initializer=v1.random_normal_initializer(seed=axis + 1),
                partitioner=cut,
            )
            x = x @ tf.convert_to_tensor(part) @ tf.ones([5, 3])
        return x

    checkpoint = save_artifact(tmp_path / "checkpoint", build)
    frozen = frozen_of(checkpoint, tmp_path / "frozen")
    found = by_name(compare_weights(checkpoint, frozen))
    assert set(found) == {"p0/part_0", "p0/part_1", "p1/part_0", "p1/part_1"}
    assert all(weights.is_equal for weights in found.values())

    def spoil(graph: Any) -> None:
        proto = content(graph, "p1/part_1")
        proto.tensor_content = proto.tensor_content[:-1] + b"\x7f"

    found = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, spoil)))
    assert {name: weights.difference.first for name, weights in found.items() if weights.difference} == {
        "p1/part_1": "2;1"
    }


@pytest.mark.parametrize("is_resource", [False, True])
def test_a_variable_goes_by_the_key_that_restoring_reads(is_resource: bool, tmp_path: Path) -> None:
    averaged: dict[str, Any] = {}

    def build(x: Any) -> Any:
        w, decoy = variable("w", W, use_resource=is_resource), variable("decoy", U, use_resource=is_resource)
        averaged.update({"w/ExponentialMovingAverage": w, "w": decoy})  # the key `w` holds another's values
        return x @ w

    checkpoint = save_artifact(tmp_path / "checkpoint", build, lambda: v1.train.Saver(averaged))
    frozen = frozen_of(checkpoint, tmp_path / "frozen")
    assert [(name, weights.is_equal) for name, weights in by_name(compare_weights(checkpoint, frozen)).items()] == [
        ("w", True)
    ]
    wrong = plant(frozen, tmp_path, set_weight("w", U))
    assert list(unequal(compare_weights(checkpoint, wrong))) == ["w"]


def test_float16_is_held_to_the_checkpoints_value_rounded(checkpoint: Path, tmp_path: Path) -> None:
    frozen = frozen_of(checkpoint, tmp_path / "frozen", "float16")
    found = by_name(compare_weights(checkpoint, frozen))
    assert all(weights.is_equal for weights in found.values())
    assert {name for name, weights in found.items() if weights.is_float16} == {"w", "u", "bits"}

    def spoil(graph: Any) -> None:
        halves = W.astype(np.float16)
        halves.view(np.uint16)[1, 1] ^= 1
        content(graph, "w/float16").tensor_content = halves.tobytes()

    wrong = unequal(compare_weights(checkpoint, plant(frozen, tmp_path, spoil)))
    assert list(wrong) == ["w"]
    assert wrong["w"].difference is not None
    assert (wrong["w"].difference.first, wrong["w"].difference.reference) == ("1;1", float(W.astype(np.float16)[1, 1]))


def test_float16_that_nobody_asked_for_is_a_fault(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    convert_to_float16 = frozen_of(checkpoint, tmp_path / "frozen", "float16")
    shutil.copy(frozen / "signature.json", convert_to_float16)
    assert set(unequal(compare_weights(checkpoint, convert_to_float16))) == {"w", "u", "bits"}


@pytest.mark.parametrize("weights", ["exact", "float16"])
def test_files_of_weights_are_compared(weights: str, tmp_path: Path) -> None:
    large = DRAW.normal(size=(3, 30_000)).astype(np.float32)

    def build(x: Any) -> Any:
        b = variable("small", DRAW.normal(size=2).astype(np.float32))
        return tf.reduce_sum(x @ variable("large", large)) + b

    checkpoint = save_artifact(tmp_path / "checkpoint", build)
    freeze(checkpoint, ["y"], ["x"], to=tmp_path / "mmap", format="mmap", weights=weights)
    found = by_name(compare_weights(checkpoint, tmp_path / "mmap"))
    assert {name: each.is_equal for name, each in found.items()} == {"large": True, "small": True}
    (file,) = (tmp_path / "mmap" / "weights").iterdir()
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 0x40
    file.write_bytes(raw)
    (wrong,) = unequal(compare_weights(checkpoint, tmp_path / "mmap")).values()
    assert wrong.difference is not None
    assert (wrong.name, wrong.difference.first) == ("large", "2;29999")
    file.write_bytes(raw[:-4])
    assert "another size" in str(unequal(compare_weights(checkpoint, tmp_path / "mmap"))["large"].problem)
    file.unlink()
    assert "cannot be read" in str(unequal(compare_weights(checkpoint, tmp_path / "mmap"))["large"].problem)


def test_a_saved_model_is_compared(tmp_path: Path) -> None:
    class Model(tf.Module):
        def __init__(self) -> None:
            self.w, self.unused = tf.Variable(W), tf.Variable(U)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x @ self.w}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "checkpoint/saved_model"), {"serving_default": model.__call__})
    freeze(tmp_path / "checkpoint/saved_model", to=tmp_path / "frozen/model.pb")
    shutil.copy(tmp_path / "frozen/signature.json", tmp_path / "checkpoint")
    (found,) = by_name(compare_weights(tmp_path / "checkpoint", tmp_path / "frozen")).values()
    assert found.is_equal
    wrong = plant(tmp_path / "frozen", tmp_path, set_weight(found.name, U))
    assert list(unequal(compare_weights(tmp_path / "checkpoint", wrong))) == [found.name]


@pytest.mark.parametrize("damage", [b"", b"\x07garbage", None])
def test_a_candidate_that_cannot_be_read_is_a_finding(
    damage: bytes | None, checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    place = plant(frozen, tmp_path, lambda graph: None)
    (place / "model.pb").unlink()
    if damage is not None:
        (place / "model.pb").write_bytes(damage)
    found = compare_weights(checkpoint, place)
    assert found.problem or len(unequal(found)) == 10


def test_a_damaged_checkpoint_is_no_finding_but_an_error(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (data,) = (tmp_path / "checkpoint").glob("model.ckpt.data-*")
    raw = bytearray(data.read_bytes())
    raw[raw.index(W.tobytes()) + 5] ^= 1
    data.write_bytes(raw)
    with pytest.raises(CheckpointError):
        compare_weights(tmp_path / "checkpoint", frozen)


NAMES = [*checkpoints.FLOATS, *checkpoints.INTEGERS, "bfloat16", "float8_e5m2", "float8_e4m3fn", "bool"]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_a_tensors_bytes_are_those_that_tensorflow_reads(name: str, shape: tuple[int, ...]) -> None:
    value = checkpoints.values(name, shape)
    if value.dtype.kind in "fcV":
        value = np.where(np.isnan(value.astype(np.complex128)), value.dtype.type(1), value)
    proto = tf.make_tensor_proto(value, tf.as_dtype(name), shape)
    ours = TensorProto.FromString(proto.SerializeToString())
    assert content_of(ours) == tf.make_ndarray(proto).tobytes() == value.astype(value.dtype).tobytes()


FIELDS = [
    ("float32", "float_val", [1.5, -2.0]),
    ("float64", "double_val", [0.1, 0.2]),
    ("float16", "half_val", [0x3C00, 0xFE01]),
    ("bfloat16", "half_val", [0x3F80, 0x7FC1]),
    ("int32", "int_val", [-1, 7]),
    ("uint8", "int_val", [255, 1]),
    ("int64", "int64_val", [-(2**62) - 1, 5]),
    ("uint64", "uint64_val", [2**64 - 1, 3]),
    ("uint32", "uint32_val", [2**32 - 1, 4]),
    ("bool", "bool_val", [False, True]),
    ("complex64", "scomplex_val", [1.0, 2.0, -1.0, 0.5]),
    ("complex128", "dcomplex_val", [1.0, 2.0, -1.0, 0.1]),
]


@pytest.mark.parametrize(("name", "field", "values"), FIELDS)
@pytest.mark.parametrize("given", [0, 1, 2])
def test_the_last_number_counts_for_all_that_follow(name: str, field: str, values: list[Any], given: int) -> None:
    proto = tf.make_tensor_proto(0, tf.int32).__class__(dtype=tf.as_dtype(name).as_datatype_enum)
    proto.tensor_shape.dim.add(size=5)
    getattr(proto, field).extend(values[: given * len(values) // 2])
    with tf.Graph().as_default(), v1.Session() as session:
        const = v1.GraphDef()
        one = const.node.add(name="c", op="Const")
        one.attr["dtype"].type = proto.dtype
        one.attr["value"].tensor.CopyFrom(proto)
        wanted = session.run(tf.import_graph_def(const, return_elements=["c:0"]))[0]
    assert content_of(TensorProto.FromString(proto.SerializeToString())) == wanted.tobytes()


@pytest.mark.parametrize("given", [0, 1, 3])
def test_the_last_string_counts_for_all_that_follow(given: int) -> None:
    proto = TensorProto(dtype=7, string_val=[b"a", b"", b"c"][:given])
    proto.tensor_shape.dim.add(size=3)
    wanted = {0: [b"", b"", b""], 1: [b"a", b"a", b"a"], 3: [b"a", b"", b"c"]}
    assert strings_of(proto) == wanted[given]


def test_more_numbers_than_elements_are_refused() -> None:
    proto = TensorProto(dtype=1, float_val=[1, 2])
    proto.tensor_shape.dim.add(size=1)
    with pytest.raises(DataError, match="another size"):
        content_of(proto)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("model")
    checkpoint = make_checkpoint(folder / "checkpoint")
    return checkpoint, frozen_of(checkpoint, folder / "frozen")


def test_a_validation_has_a_line_for_each_variable(model: tuple[Path, Path], tmp_path: Path) -> None:
    verdict, results = run_validation(*model, tmp_path)
    lines = read_results(results).query("check == 'weights'")
    assert sorted(lines["output"]) == ["b", "c", "d", "e", "level_v", "s", "w"]
    assert set(lines["row"]) == {"weights"}
    assert set(lines["verdict"]) == {"passed"}
    assert dict(zip(lines["output"], lines["abs_diff"], strict=True))["w"] == "0.0"
    found = check(verdict, "weights", "variables")
    assert (found["rows"], found["rows_failed"], found["bit_equal"], found["max_abs_diff"]) == (7, 0, True, 0.0)


def test_a_wrong_weight_fails_the_validation_by_the_variables_name(model: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, frozen = model
    wrong = plant(frozen, tmp_path, set_weight("level_v", np.nextafter(np.float32(0.3), np.float32(1))))
    verdict, results = run_validation(checkpoint, wrong, tmp_path)
    assert (verdict["verdict"], failed_checks(verdict)) == ("failed", {("weights", "variables")})
    assert "weights: 1 of 7 variables are not the checkpoint's: level_v differs in 1 of 1" in verdict["reasons"][0]
    (line,) = read_results(results).query("check == 'weights' and verdict == 'failed'").to_dict("records")
    assert (line["output"], float(line["reference"]), line["ulp_diff"]) == ("level_v", np.float32(0.3), "1.0")
    found = check(verdict, "weights", "variables")
    assert (found["rows_failed"], found["max_ulp_diff"], found["worst"]["row"]) == (1, 1, "level_v")


def record_weights(folder: Path, found: WeightsComparison) -> ResultsRecorder:
    spec = TensorSpec("y", "float32", [None])
    with ResultsRecorder("m", Signature([spec], [spec]), ValidationSettings(), folder / "results.csv") as validation:
        validation.record_weights("frozen", found)
    return validation


def test_outputs_that_need_no_variable_are_told_and_no_fault(tmp_path: Path) -> None:
    validation = record_weights(tmp_path, WeightsComparison(()))
    assert (validation.findings, validation.skipped) == ({}, {"weights": "the outputs need no variable"})


def test_a_candidate_that_cannot_be_read_fails_with_the_reason(tmp_path: Path) -> None:
    (finding,) = record_weights(tmp_path, WeightsComparison((), problem="no graph")).findings.values()
    assert (finding.has_passed, finding.sentence()) == (False, "weights: no graph")


def test_of_many_wrong_variables_three_are_named(tmp_path: Path) -> None:
    wrong = [VariableComparison(f"v{number}", "float32", 2, problem="is needed") for number in range(5)]
    validation = record_weights(
        tmp_path, WeightsComparison([*wrong, VariableComparison("right", "int32", 1)], unmatched=4)
    )
    (finding,) = validation.findings.values()
    assert finding.sentence() == (
        "weights: 5 of 6 variables are not the checkpoint's: v0 is needed; v1 is needed; v2 is needed; and 2 more "
        "(constants of the size of weights that are of no variable: 4)"
    )
    lines = read_results(tmp_path / "results.csv")
    assert lines["verdict"].tolist() == ["failed"] * 5 + ["passed"]
    assert (lines["candidate"][0], lines["abs_diff"][0], lines["abs_diff"][5]) == ("is needed", "", "0.0")


def test_the_page_says_what_is_compared() -> None:
    assert "checkpoint's tensor" in CHECK_DESCRIPTIONS["weights"]
