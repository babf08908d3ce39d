"""What to do where a format cannot carry a model: each cause has its own next step."""

from __future__ import annotations

_EVERY_OP = "--formats frozen,savedmodel"  # whatever TensorFlow runs is in them


def without_op(op: str, node: str) -> str:
    """Returns the next step for an op that the format does not know."""
    return (
        f"End the model before it (--outputs with what {node} takes) or write it without {op}; the formats that carry "
        f"every op: {_EVERY_OP}"
    )


def without_bytes(tensor: str, is_input: bool) -> str:
    """Returns the next step for a tensor of strings, which may be any bytes."""
    side, what = ("--inputs", "begin behind") if is_input else ("--outputs", "end before")
    return f"Let the model {what} {tensor}, with a tensor of numbers ({side}); strings are carried by {_EVERY_OP}"


def not_converted(converter: str) -> str:
    """Returns the next step where a converter gives up for a reason of its own."""
    return f"This is what {converter} says of this graph; the same graph, unconverted, is in {_EVERY_OP}"


def not_imported(size_limit: bool) -> str:
    """Returns the next step for a graph of which TensorFlow makes no SavedModel."""
    if size_limit:
        return "Ask for the format whose weights lie beside the graph: --formats mmap"
    return "TensorFlow itself cannot open this graph: name the library that brings its ops, or write it without them"
