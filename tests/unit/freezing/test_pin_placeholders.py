"""Pinned placeholders: the .pb gives what the session gives when it is fed that value, and asks for it no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import control_flow

import pipeline
from pipeline.errors import FreezeError

v1 = tf.compat.v1


def with_switch(x: Any) -> None:
    """A model that drops out while it trains."""
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    w = v1.get_variable("w", initializer=tf.constant([1.0, 2, 3]))
    dropped = tf.cond(is_training, lambda: tf.nn.dropout(x * w, 0.5) * 2, lambda: tf.tanh(x * w))
    tf.identity(dropped, name="y")


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_a_mode_that_is_pinned_is_asked_for_no_more(tmp_path: Path, is_v2: bool) -> None:
    with control_flow(is_v2):
        wanted = small_graphs.save(tmp_path / "model.ckpt", with_switch, {"is_training:0": False})
    with pytest.raises(FreezeError, match="RandomUniform draws random numbers"):
        pipeline.freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "made.pb")
    done = pipeline.freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "made.pb", pins={"is_training": "false"})
    assert np.array_equal(small_graphs.answer(done.path), wanted)
    assert done.signature is not None
    assert [spec.name for spec in done.signature.inputs] == ["x"]
    assert done.origin["pins"] == {"is_training": "false"}
    assert "is_training is pinned to false" in done.notes


VALUES = [
    ("bool", "true", True),
    ("bool", "0", False),
    ("float32", "0.5", 0.5),
    ("float64", "-1e300", -1e300),
    ("int8", "-128", -128),
    ("uint8", "255", 255),
    ("int32", "7", 7),
    ("int64", str(2**62), 2**62),
    ("string", "é, no", "é, no".encode()),
]


@pytest.mark.parametrize("shape", [None, [], [2, 2]], ids=str)
@pytest.mark.parametrize(("dtype", "text", "value"), VALUES)
def test_a_pin_has_the_value_of_its_dtype_in_every_element(
    tmp_path: Path, dtype: str, text: str, value: Any, shape: list[int] | None
) -> None:
    def build(x: Any) -> None:
        tf.identity(v1.placeholder(dtype, shape, name="mode"), name="seen")
        small_graphs.product(x)

    small_graphs.save(tmp_path / "model.ckpt", build)
    done = pipeline.freeze(tmp_path / "model.ckpt", ["y", "seen"], to=tmp_path / "made.pb", pins={"mode:0": text})
    seen = np.asarray(small_graphs.answer(done.path, {}, "seen:0"))
    assert seen.shape == tuple(shape or [])
    assert seen.ravel().tolist() == [value] * seen.size


def test_a_default_is_kept_and_may_be_pinned(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        tf.multiply(small_graphs.product(x), v1.placeholder_with_default(3.0, [], name="scale"), name="scaled")

    wanted = small_graphs.save(tmp_path / "model.ckpt", build)
    kept = pipeline.freeze(tmp_path / "model.ckpt", ["scaled"], to=tmp_path / "kept.pb")
    assert any(note.startswith("scale has a default") for note in kept.notes)
    assert kept.signature is not None
    assert [spec.name for spec in kept.signature.inputs] == ["x"]
    assert np.array_equal(small_graphs.answer(kept.path, fetch="scaled:0"), wanted * 3)
    pinned = pipeline.freeze(tmp_path / "model.ckpt", ["scaled"], to=tmp_path / "pinned.pb", pins={"scale": "5"})
    assert np.array_equal(small_graphs.answer(pinned.path, fetch="scaled:0"), wanted * 5)
    fed = pipeline.freeze(tmp_path / "model.ckpt", ["scaled"], ["x", "scale"], to=tmp_path / "fed.pb")
    assert fed.signature is not None
    assert [spec.name for spec in fed.signature.inputs] == ["x", "scale"]


def test_an_input_with_a_computed_default_is_where_the_graph_is_cut(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        code = v1.placeholder_with_default(small_graphs.product(x), [None, 2], name="code")
        tf.multiply(code, v1.get_variable("scale", initializer=3.0), name="decoded")

    small_graphs.save(tmp_path / "model.ckpt", build)
    done = pipeline.freeze(tmp_path / "model.ckpt", ["decoded"], ["code"], to=tmp_path / "made.pb")
    assert done.signature is not None
    assert [(spec.name, spec.shape) for spec in done.signature.inputs] == [("code", (None, 2))]
    assert done.variables == 1, "the encoder is left out"
    assert small_graphs.answer(done.path, {"code:0": [[1, 2]]}, "decoded:0").tolist() == [[3, 6]]


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"is_trainin": "false"}, "no such placeholder to pin.*[Dd]id you mean 'is_training'"),
        ({"y": "1"}, "no such placeholder to pin"),
        ({"is_training": "no"}, "cannot be pinned to this .got no, wanted a value of dtype bool"),
        ({"small": "300"}, "cannot be pinned to this .got 300, wanted a value of dtype int8"),
        ({"small": "1.5"}, "wanted a value of dtype int8"),
        ({"kind": "1"}, "wanted a value of dtype complex64"),
    ],
)
def test_a_pin_that_is_none_is_refused(tmp_path: Path, pins: dict[str, str], said: str) -> None:
    def build(x: Any) -> None:
        small_graphs.product(x)
        for name, dtype in (("is_training", tf.bool), ("small", tf.int8), ("kind", tf.complex64)):
            v1.placeholder(dtype, [], name=name)

    small_graphs.save(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match=said):
        pipeline.freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "made.pb", pins=pins)
    assert not list(tmp_path.glob("*.pb"))
