"""Layers of Keras, and normalization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, IDS, Array, X, case, v1, weight

LAYERS: dict[str, tuple[Callable[[Any], Any], Mapping[str, Array]]] = {
    "Dense": (lambda x: tf.keras.layers.Dense(2)(x), {"x": X}),
    "LSTM": (lambda s: tf.keras.layers.LSTM(2)(s), {"s": X.reshape(1, 2, 3)}),
    "GRU": (lambda s: tf.keras.layers.GRU(2)(s), {"s": X.reshape(1, 2, 3)}),
    "Embedding": (lambda i: tf.keras.layers.Embedding(3, 2)(i), {"i": IDS}),
    "BatchNormalization": (lambda x: tf.keras.layers.BatchNormalization()(x, training=False), {"x": X}),
}
for _name, (_layer, _feeds) in LAYERS.items():
    case("Layers", EQUAL, "a layer of Keras 3 in a graph", name=f"Keras {_name}", feeds=_feeds)(_layer)


@case("Layers", EQUAL, "convolution and fused normalization in a branch", flow=BOTH)
def normalized_in_cond(x: Any) -> Any:
    image = tf.nn.conv2d(tf.reshape(x, [1, 2, 3, 1]), weight("k", [2, 2, 1, 2]), 1, "SAME")
    scale, offset, mean = (weight(name, [2]) for name in ("scale", "offset", "mean"))
    variance = v1.get_variable("variance", initializer=[1.0, 2.0])
    is_training = v1.placeholder_with_default(False, [])
    return tf.cond(
        is_training,
        lambda: v1.nn.fused_batch_norm(image, scale, offset)[0],
        lambda: v1.nn.fused_batch_norm(image, scale, offset, mean, variance, is_training=False)[0],
    )
