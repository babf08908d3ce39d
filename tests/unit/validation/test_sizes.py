"""Memory: how many rows are held at a time follows from their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.data.npz import NpzReader, add_kind, save_arrays
from pipeline.errors import SettingError
from pipeline.formats.row_bytes import stored_row_bytes
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.checks.sizes import Sizes, plan_sizes
from pipeline.validation.checks.stability import StabilitySample
from pipeline.validation.compare.differences import is_identical
from pipeline.validation.results.recorder import ResultsRecorder

v1 = tf.compat.v1
KB = 1000


class Reference:
    """A side that answers rows of a kilobyte and has inner tensors of another size."""

    def __init__(self, inner: int = 0) -> None:
        self.inner, self.asked = inner, 0

    def run(self, rows: Any) -> dict[str, Any]:
        self.asked += 1
        return {"y": np.zeros((rows.stop - rows.start, 250), np.float32)}

    def inner_row_bytes(self) -> int:
        return self.inner


def planned(folder: Path, shape: Any, batch_mb: float, inner: int = 0, rows: int = 300) -> tuple[Sizes, Reference]:
    save_arrays(folder / "rows.npz", add_kind("input", {"x": np.zeros((rows, 250), np.float32)}))
    signature = Signature((TensorSpec("x", "float32", (None, 250)),), (TensorSpec("y", "float32", shape),))
    reference = Reference(inner)
    reader = NpzReader(folder / "rows.npz", "input")
    return plan_sizes(signature, ValidationSettings(batch_mb=batch_mb), reader, reference), reference  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(None, 250), (None, None), None])
def test_a_batch_has_as_many_rows_as_fit_with_inputs_and_outputs(shape: Any, tmp_path: Path) -> None:
    sizes, reference = planned(tmp_path, shape, batch_mb=0.02)
    assert sizes == Sizes(batch=10, held=10, sample=20)
    assert reference.asked == (shape != (None, 250))


def test_small_rows_keep_the_size_of_the_settings(tmp_path: Path) -> None:
    sizes, _ = planned(tmp_path, (None, 250), batch_mb=256.0)
    assert (sizes.batch, sizes.sample) == (256, 256)


def test_the_largest_node_counts_where_batches_are_large(tmp_path: Path) -> None:
    sizes, _ = planned(tmp_path, (None, 25_000), batch_mb=10.0, inner=899 * KB)
    assert (sizes.batch, sizes.held) == (10, 10)


def test_one_row_is_run_even_if_it_is_larger_than_the_bound(tmp_path: Path) -> None:
    sizes, _ = planned(tmp_path, (None, 250), batch_mb=0.0001)
    assert (sizes.batch, sizes.sample) == (1, 2)


def test_the_bytes_of_a_row_are_those_of_the_largest_node() -> None:
    from pipeline.formats.session import inner_row_bytes

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, (None, 10, 10, 3), name="x")
        wide = tf.nn.relu(tf.nn.conv2d(x, tf.ones((3, 3, 3, 50)), 1, "SAME"))
        tf.reduce_mean(wide, [1, 2, 3], name="y")
    assert inner_row_bytes(graph, ["y:0"]) == 2 * 10 * 10 * 50 * 4  # Relu's input and output


def test_the_bytes_of_a_row_in_the_functions_of_tensorflow_2_are_those_that_the_file_tells(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(tf.ones((3, 3, 3, 50)))

    @tf.function(input_signature=[tf.TensorSpec((None, 10, 10, 3), tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, module.kernel, 1, "SAME")), [1, 2, 3])}

    tf.saved_model.save(module, str(tmp_path / "model"), {"serving_default": serve})
    _, [chosen, *_] = read_meta_graphs(tmp_path / "model")
    assert stored_row_bytes(chosen.graph) == 2 * 10 * 10 * 50 * 4


def test_rows_asked_again_are_fewer_and_in_smaller_batches_where_they_are_large() -> None:
    signature = Signature((TensorSpec("x", "float32", (None, 9)),), (TensorSpec("y", "float32", (None, 9)),))
    sample = StabilitySample(signature, 1000, max_rows=20, max_batch=5)
    assert [len(numbers) for numbers in sample.batches] == [1, 2, 5, 5, 1, 2, 4]
    assert [len(numbers) for numbers in StabilitySample(signature, 1000).batches[:4]] == [1, 2, 7, 64]


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_table_in_blocks_is_the_table_at_once(is_equal: bool, tmp_path: Path, monkeypatch: Any) -> None:
    draw = np.random.default_rng(0)
    reference = {"y": draw.normal(size=(12, 7)).astype(np.float32)}
    candidate = {"y": reference["y"] if is_equal else reference["y"] + np.float32(1e-7)}
    signature = Signature((), (TensorSpec("y", "float32", (None, 7)),))
    tables = []
    for elements in (1 << 20, 3):
        monkeypatch.setattr("pipeline.validation.compare.differences._BLOCK", elements)
        path = tmp_path / f"{elements}.csv"
        with ResultsRecorder("m", signature, ValidationSettings(), path) as recorder:
            recorder.compare("frozen", "equal", reference, candidate, range(12))
            assert recorder.difference_kinds("frozen", reference, candidate, 12) == {}
        tables.append(path.read_bytes())
    assert tables[0] == tables[1]
    assert is_identical(reference["y"], candidate["y"]) == is_equal


@pytest.mark.parametrize("batch_mb", [0, -1, float("nan"), float("inf")])
def test_a_bound_is_a_number_above_0(batch_mb: float) -> None:
    with pytest.raises(SettingError, match="batch_mb"):
        ValidationSettings(batch_mb=batch_mb)
