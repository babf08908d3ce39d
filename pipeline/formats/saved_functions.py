"""Calls a function of a loaded SavedModel that has no signature, with its tensors by name."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.checkpoint.functions import list_functions


def find_function(loaded: Any, meta: Any, key: str) -> NamedFunction:
    """Returns a function of a SavedModel that TensorFlow has loaded.

    Args:
        meta: its graph, as `checkpoint.savedmodel.read_meta_graphs` reads it.
        key: `checkpoint.functions.Function.key`.

    Raises:
        KeyError: there is no such function.
    """
    functions = {one.key: one for one in list_functions(meta)}
    function = functions[key]
    held = loaded
    for attribute in function.path:
        held = held[int(attribute)] if isinstance(held, list | tuple) else getattr(held, attribute)
    traces = getattr(held, "concrete_functions", None)
    trace = held if traces is None else traces[function.trace]
    return NamedFunction(held, trace, tuple(function.inputs), tuple(function.outputs))


class NamedFunction:
    """A function whose inputs are given, and whose outputs are returned, by name.

    Args:
        function: what is called, with the structure of its arguments.
        trace: its concrete function.

    Attributes:
        graph: the graph of the concrete function.
        structured_input_signature: as of a signature's function: no positional inputs, and the TensorSpecs by name.
    """

    def __init__(self, function: Any, trace: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self._function, self._inputs, self._outputs = function, inputs, outputs
        self._structure, self.graph = trace.structured_input_signature, trace.graph
        specs = [leaf for leaf in tf.nest.flatten(self._structure) if isinstance(leaf, tf.TensorSpec)]
        self.structured_input_signature = (), dict(zip(inputs, specs, strict=True))

    def __call__(self, **tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        waiting = iter([tensors[name] for name in self._inputs])
        leaves = [
            next(waiting) if isinstance(leaf, tf.TensorSpec) else leaf for leaf in tf.nest.flatten(self._structure)
        ]
        positional, named = tf.nest.pack_sequence_as(self._structure, leaves)
        results = [one for one in tf.nest.flatten(self._function(*positional, **named)) if one is not None]
        return dict(zip(self._outputs, results, strict=True))
