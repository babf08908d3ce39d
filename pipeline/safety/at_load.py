"""Finds the functions of a SavedModel of TensorFlow 2 that loading it could run; no node calls them.

A loader creates and fills the objects that hold resources, and restores what has functions of its own for that
(tensorflow/python/saved_model/load.py). What plain objects hold under public names, such as `infer`, `save` and the
signatures, is only put in its place: it runs when somebody calls it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.graph.protos import SavedObjectGraph

_PLAIN = frozenset({"_generic_user_object", "signature_map"})  # objects whose class brings no code of its own


def functions_at_load(graph: SavedObjectGraph) -> list[str]:
    """Returns the concrete functions that loading could run: all but those that are known to be held alone."""
    run = _objects_at_load(graph)
    held, started = set[str](), set[str]()
    for number, one in enumerate(graph.nodes):
        names = started if number in run else held
        names.update(one.function.concrete_functions)
        names.add(one.bare_concrete_function.concrete_function_name)
    return [name for name in graph.concrete_functions if name in started or name not in held]


def _objects_at_load(graph: SavedObjectGraph) -> set[int]:
    """Returns the numbers of the functions' objects that loading could call."""
    if any(one.registered_saver for one in graph.nodes):  # code that this file does not know
        return set(range(len(graph.nodes)))
    parents = {child.node_id for one in graph.nodes for child in (*one.children, *one.dependencies)}
    found = {number for number in range(len(graph.nodes)) if number not in parents}
    found.update(_called(graph))
    waiting = list(found)
    while waiting:
        number = waiting.pop()
        one = graph.nodes[number] if 0 <= number < len(graph.nodes) else None
        if one is None or not (one.HasField("function") or one.HasField("bare_concrete_function")):
            continue
        new = {child.node_id for child in one.children} - found  # the traces of a function
        found |= new
        waiting += new
    return found


def _called(graph: SavedObjectGraph) -> Iterator[int]:
    for one in graph.nodes:
        is_function = one.HasField("function") or one.HasField("bare_concrete_function")
        is_plain = one.HasField("user_object") and one.user_object.identifier in _PLAIN
        for child in (*one.children, *one.dependencies):
            is_public = not child.local_name.startswith("_") or child.local_name == "__call__"
            if not is_function and not (is_plain and is_public):
                yield child.node_id
        for saveable in one.saveable_objects.values():
            yield from (saveable.save_function, saveable.restore_function)
