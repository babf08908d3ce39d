"""Reads a SavedModel folder: the graph, the signature, and the checkpoint key of each variable.

    saved_model.pb        a SavedModel message; or saved_model.pbtxt, the same as text
    variables/variables   a checkpoint
    assets/               files that the graph reads when it is loaded: vocabularies

The layout is that of tensorflow/core/protobuf/saved_model.proto and tensorflow/cc/saved_model/constants.h. TensorFlow 1
writes a graph and a Saver, and its keys are names. TensorFlow 2 writes objects (saved_object_graph.proto): a
signature is a function, its variables are the function's captures, and the keys are paths of attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

from pipeline.errors import CheckpointError, FreezeError, nearest
from pipeline.graph.duplicates import require_single_in_graph
from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import (
    AssetFileDef,
    CountedSavedModel,
    DataType,
    DecodeError,
    MetaGraphDef,
    NodeDef,
    SavedModel,
    SignatureDef,
    TensorInfo,
    TensorShapeProto,
    parse_text,
)
from pipeline.graph.validity import validate_graph
from pipeline.graph.variables import VARIABLE_OPS, Saved, Variable, restored_keys, variable_behind, variable_of
from pipeline.inputs import read_file
from pipeline.store.file_names import SAVED_MODEL_FILE, SAVED_MODEL_FILES

from .bundle import Bundle, open_checkpoint
from .file_kinds import broken_file, unreadable_file
from .functions import add_call, choose_function, list_functions
from .objects import read_objects
from .opened import Source
from .tables import hoist_tables

_SERVE, _TRAIN, _NO_TAGS = "serve", "train", "none"
_DEFAULT = "serving_default"
_INIT_OP = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")  # what TensorFlow 1 kept it in
_ASSETS = "saved_model_assets"  # the collection where TensorFlow 1 lists them; TensorFlow 2 has asset_file_def
DT_INT64 = DataType.Value("DT_INT64")
_CHANGES = re.compile(r"Assign\w*|(Resource)?Scatter\w+")


def read_saved_model(
    folder: Path,
    signature_key: str | None = None,
    outputs: Sequence[str] = (),
    is_key_needed: bool = True,
    tags: Sequence[str] = (),
) -> Source:
    """Reads a SavedModel of TensorFlow 1 or 2; `folder` holds `saved_model.pb` or `saved_model.pbtxt`.

    Args, Raises: as `source.open_source`; also a FreezeError if loading changes a variable that the outputs need.

    """
    file = _find_message(folder)
    metas = _read_meta_graphs(file, tags)
    meta = metas[0].rest
    graph, key, named, notes = _find_ports(folder, metas[0], signature_key, outputs, is_key_needed)
    tensors = {side: {name: info.name for name, info in infos.items()} for side, infos in named.items()}
    assets = dict(_assets(folder, meta))
    metas[0] = MetaGraph(graph, meta)
    graph = hoist_tables(set_asset_paths(graph, assets))
    wanted = [node_of(tensor) for tensor in (*tensors["out"].values(), *outputs)] or list(graph.nodes)
    needed = graph.ancestors(wanted, with_control=False)
    variables = [name for name in needed if graph.nodes[name].op in VARIABLE_OPS]
    assigned = _find_assigned(folder, metas[0], graph, variables)
    bundle = _open_variables(folder, variables)
    keys = restored_keys(graph, meta.saver_def.restore_op_name or None)
    if bundle is not None:
        keys |= _captured_keys(meta, graph, bundle)
    keys |= {identity: keys.get(source.identity, Saved(source.name)) for identity, source in assigned.items()}
    return Source(
        path=folder,
        kind="SavedModel",
        graph=graph,
        graph_file=file,
        bundle=bundle or Bundle(folder, {}),
        keys=keys,
        inputs=tensors["in"],
        outputs=tensors["out"],
        infos={info.name: info for infos in named.values() for info in infos.values()},
        signature_key=key if tensors["out"] else None,
        signature_keys=tuple(_signature_keys(meta) or [one.key for one in list_functions(meta)]),
        definitions={op.name: op for op in meta.meta_info_def.stripped_op_list.op},
        assets=assets,
        metas=tuple(metas),
        notes=(*_told_tags(metas), *notes, *_told_outputs(key, tensors["out"])),
    )


_Ports = dict[str, dict[str, TensorInfo]]


def _find_ports(
    folder: Path, meta: MetaGraph, wanted: str | None, outputs: Sequence[str], is_needed: bool
) -> tuple[Graph, str | None, _Ports, list[str]]:
    """Returns the graph, the key, and the named tensors of a signature; of a function without one, with its call added.

    Returns:
        Also sentences on what was chosen.
    """
    own = _signature_keys(meta.rest)
    is_needed = is_needed and not outputs
    if (wanted is not None and wanted not in own) or not own:
        functions = list_functions(meta.rest)
        function, note = choose_function(folder, functions, wanted, is_needed)
        if function is not None and (wanted is not None or set(outputs) <= set(function.outputs)):
            graph, fed, fetched = add_call(folder, meta.graph, meta.rest, function)
            return graph, function.key, {"in": fed, "out": fetched}, [note]
        own = [*own, *(one.key for one in functions)]
    key = _choose_signature(folder, meta.rest, wanted, is_needed, own)
    signature = meta.rest.signature_def[key] if key is not None else SignatureDef()
    ports = {"in": dict(_tensors(signature.inputs)), "out": dict(_tensors(signature.outputs))}
    return meta.graph, key, ports, []


def read_signature(
    folder: Path, signature_key: str | None = None
) -> tuple[str, Mapping[str, TensorInfo], Mapping[str, TensorInfo]]:
    """Returns the name of a SavedModel's signature, and its inputs and outputs by name.

    Args:
        signature_key: by default `serving_default`, or the only signature.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; no graph for serving, or no signature.
        FreezeError: the signature does not exist or is ambiguous.
    """
    file = _find_message(folder)
    meta = _read_meta_graphs(file)[0].rest
    key = _choose_signature(folder, meta, signature_key, is_needed=True)
    if key is None:
        raise CheckpointError("the SavedModel has no signature", where=file, wanted="inputs and outputs that are named")
    signature = meta.signature_def[key]
    return key, dict(_tensors(signature.inputs)), dict(_tensors(signature.outputs))


def read_meta_graphs(folder: Path) -> tuple[Path, list[MetaGraph]]:
    """Returns the file of a SavedModel's graphs, and the unchanged graphs, the one for serving first.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; no graph is for serving.
    """
    file = _find_message(folder)
    return file, _read_meta_graphs(file)


# The folder's files.


def _read_meta_graphs(path: Path, tags: Sequence[str] | None = None) -> list[MetaGraph]:
    """Returns the graph with some tags or the one to serve (see `_choose_graph`), then all others of the file."""
    model = _parse(path)
    graphs = [meta for meta in model.meta_graphs if meta.graph_def.node]
    if not graphs:
        raise broken_file(path, "not a SavedModel, or one without a graph", got=f"{len(graphs)} graphs")
    served = _choose_graph(path, graphs, tags)
    meta = MetaGraph.of(served)
    validate_graph(meta.graph, path)
    return [meta, *(MetaGraph.of(other) for other in model.meta_graphs if other is not served)]


def _choose_graph(path: Path, graphs: Sequence[MetaGraphDef], tags: Sequence[str] | None) -> MetaGraphDef:
    """Returns the graph with some tags; without them the one to serve, of several the one with the fewest other tags.

    Where no tag says so, as in modules of TF Hub, it is the one not for training.

    Args:
        tags: empty for the graph to serve; None if there is no option that tells them.

    Raises:
        CheckpointError: no graph has these tags, or it is not clear which one is meant.
    """
    known = {_joined(meta.meta_info_def.tags): meta for meta in graphs}
    options = " or ".join(f"--tags {quote(each)}" for each in known)
    if tags:
        if _joined(tags) not in known:
            got, step = ",".join(tags), f"Choose one: {options}"
            raise CheckpointError("no graph of the SavedModel has these tags", where=path, got=got, next_step=step)
        return known[_joined(tags)]
    serving = [meta for meta in graphs if _SERVE in meta.meta_info_def.tags]
    if serving:
        return min(serving, key=lambda meta: len(meta.meta_info_def.tags))
    left = [meta for meta in graphs if _TRAIN not in meta.meta_info_def.tags]
    if len(left) == 1:
        return left[0]
    own = min(sorted(meta.meta_info_def.tags) for meta in left or graphs)
    step = f"Export it for serving; or give the tag to the one with {own}: {_tag_command(path, own)}"
    raise CheckpointError(
        "no graph of the SavedModel is for serving",
        where=path,
        got=f"tags {' and '.join(known)}",
        wanted=f"the tag {_SERVE!r}",
        next_step=step if tags is None else f"Choose one by its tags: {options}",
    )


def _joined(tags: Iterable[str]) -> str:
    """Returns tags as an option gives them."""
    return ",".join(sorted(set(tags) - {_NO_TAGS})) or _NO_TAGS


def tag_for_serving(folder: Path, tags: Sequence[str]) -> None:
    """Gives the tag for serving, in the file itself, to the graph with some tags, and to no other one."""
    path = _find_message(folder)
    model = _parse(path)
    chosen = _choose_graph(path, model.meta_graphs, tags)
    for meta in model.meta_graphs:
        own = [tag for tag in meta.meta_info_def.tags if tag != _SERVE]
        meta.meta_info_def.tags[:] = [*own, _SERVE] if meta is chosen else own
    path.unlink()
    (folder / SAVED_MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))


def _tag_command(path: Path, tags: Sequence[str]) -> str:
    code = (
        "from tensorflow.core.protobuf.saved_model_pb2 import SavedModel; from pathlib import Path; "
        f"p = Path({str(path)!r}); m = SavedModel.FromString(p.read_bytes()); "
        f"[g.meta_info_def.tags.append({_SERVE!r}) for g in m.meta_graphs if sorted(g.meta_info_def.tags) == {tags}]; "
        "p.write_bytes(m.SerializeToString())"
    )
    return f"python -c {quote(code)}"


def _told_tags(metas: Sequence[MetaGraph]) -> Iterator[str]:
    tags = list(metas[0].rest.meta_info_def.tags)
    if _SERVE not in tags:
        yield f"the graph with the tags {tags} is taken, for none has the tag {_SERVE!r}"


def _told_outputs(key: str | None, outputs: Mapping[str, str]) -> Iterator[str]:
    if key is not None and not outputs:
        yield f"the signature {key} names no outputs: they are those of the graph"


def _find_message(folder: Path) -> Path:
    for name in SAVED_MODEL_FILES:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise CheckpointError("not a folder", where=folder, wanted="a SavedModel's folder")
    below = sorted(path.parent.name for path in folder.glob(f"*/{SAVED_MODEL_FILE}*"))
    if below:
        next_step = f"give one of the folders in it: {', '.join(below)}"
    elif (folder / "saved_model.cpb").exists():
        next_step = "it was written in chunks, which this reader does not know: export it in one piece"
    else:
        next_step = "give the folder that tf.saved_model.save or model.export wrote"
    raise CheckpointError(
        "not a SavedModel", where=folder, wanted="saved_model.pb or saved_model.pbtxt in it", next_step=next_step
    )


def _parse(path: Path) -> SavedModel:
    try:
        content = read_file(path)
        if path.suffix == ".pb":
            return _parse_binary(content)
        model = SavedModel()
        parse_text(content, model)
        return model
    except OSError as exc:
        raise unreadable_file(path, exc) from exc
    except DecodeError as exc:
        raise broken_file(path, "not a SavedModel, or a damaged one", got=exc) from exc


def _parse_binary(content: bytes) -> SavedModel:
    model, counted = SavedModel.FromString(content), CountedSavedModel.FromString(content)
    for meta, other in zip(model.meta_graphs, counted.meta_graphs, strict=True):
        require_single_in_graph(meta.graph_def, other.graph_def)
    return model


def _assets(folder: Path, meta: MetaGraphDef) -> Iterator[tuple[str, Path]]:
    """Yields the tensors that hold paths of assets, with the current paths."""
    assets = list(meta.asset_file_def)
    try:
        if not assets:
            assets = [AssetFileDef.FromString(item.value) for item in meta.collection_def[_ASSETS].any_list.value]
    except DecodeError as exc:
        raise CheckpointError("the list of assets cannot be read", where=folder, got=exc) from exc
    for asset in assets:
        name = Path(asset.filename)
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError("an asset lies outside of the SavedModel", where=folder, got=asset.filename)
        yield asset.tensor_info.name, folder / "assets" / name


def _open_variables(folder: Path, variables: Iterable[str]) -> Bundle | None:
    prefix = folder / "variables" / "variables"
    if prefix.is_file() or any(prefix.parent.glob("variables[.-]*")):
        return open_checkpoint(prefix)
    for name in sorted(variables):
        raise CheckpointError(
            "the SavedModel's variables are missing",
            where=prefix.parent,
            got=f"no variables.index, and the graph has the variable {name}",
            wanted="variables.index and variables.data-…",
            next_step=f"Copy variables.index and variables.data-… into {prefix.parent}, from where the model was saved",
        )
    return None


# The signature.


def _signature_keys(meta: MetaGraphDef) -> list[str]:
    return sorted(key for key in meta.signature_def if not key.startswith("__saved_model_"))


def _choose_signature(
    folder: Path, meta: MetaGraphDef, wanted: str | None, is_needed: bool, known: Sequence[str] = ()
) -> str | None:
    own = _signature_keys(meta)
    if wanted is not None:
        if wanted in own:
            return wanted
        step = nearest(wanted, known or own)
        raise FreezeError("no such signature", where=folder, got=repr(wanted), next_step=step)
    if _DEFAULT in own:
        return _DEFAULT
    if len(own) == 1:
        return own[0]
    if not own or not is_needed:
        return None
    raise FreezeError(
        f"the SavedModel has several signatures, and none is called {_DEFAULT}",
        where=folder,
        got=", ".join(own),
        next_step=f"Say which of them to freeze: {' or '.join(f'--signature {name}' for name in own)}",
    )


def _tensors(infos: Mapping[str, TensorInfo]) -> Iterator[tuple[str, TensorInfo]]:
    """Yields the tensors of one side of a signature; a composite tensor gives each of its parts (meta_graph.proto)."""
    for name in sorted(infos):
        info = infos[name]
        if info.HasField("coo_sparse"):
            sparse, rank = info.coo_sparse, len(info.tensor_shape.dim)
            yield f"{name}/indices", _info(sparse.indices_tensor_name, DT_INT64, [-1, rank])
            yield f"{name}/values", _info(sparse.values_tensor_name, info.dtype, [-1])
            yield f"{name}/dense_shape", _info(sparse.dense_shape_tensor_name, DT_INT64, [rank])
        elif info.HasField("composite_tensor"):
            components = {str(index): part for index, part in enumerate(info.composite_tensor.components)}
            yield from ((f"{name}/{index}", part) for index, part in _tensors(components))
        else:
            yield name, info


def _info(tensor: str, dtype: int, shape: Sequence[int]) -> TensorInfo:
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    return TensorInfo(name=tensor, dtype=dtype, tensor_shape=TensorShapeProto(dim=dims))


# The variables' keys.


def _captured_keys(meta: MetaGraphDef, graph: Graph, bundle: Bundle) -> dict[tuple[str, str], Saved]:
    """Returns the keys of variables that functions have captured, as TensorFlow 2's loader finds them.

    A call passes a function its arguments and then its captures; `bound_inputs` names the object of each capture. The
    restoring function is not enough: with Keras 3 it restores copies that no signature reads.
    """
    keys_of_objects = _object_keys(meta, bundle)
    concrete = meta.object_graph_def.concrete_functions
    keys: dict[tuple[str, str], Saved] = {}
    for node in graph.node:
        for name in graph.called_by(node):
            bound = list(concrete[name].bound_inputs) if name in concrete else []
            captures = data_inputs(node)[-len(bound) :] if bound else []
            for reference, object_id in zip(captures, bound, strict=False):
                variable = variable_behind(reference, graph.nodes)
                if variable is not None and object_id in keys_of_objects:
                    keys[variable.identity] = Saved(keys_of_objects[object_id])
    return keys


def _object_keys(meta: MetaGraphDef, bundle: Bundle) -> dict[int, str]:
    """Returns the checkpoint's keys by the SavedModel's objects.

    Both have a graph of the same objects: the same path of names from the root leads to the same object.
    """
    stored = read_objects(bundle)
    objects = meta.object_graph_def.nodes
    keys: dict[int, str] = {}
    waiting, seen = [(0, 0)], set[int]()
    while waiting:
        own, other = waiting.pop()
        if own in seen or not (0 <= own < len(objects) and 0 <= other < len(stored)):
            continue
        seen.add(own)
        if (key := stored[other].key) is not None:
            keys[own] = key
        children = stored[other].children
        waiting += [
            (child.node_id, children[child.local_name])
            for child in objects[own].children
            if child.local_name in children
        ]
    return keys


def _find_assigned(
    folder: Path, meta: MetaGraph, graph: Graph, variables: Iterable[str]
) -> dict[tuple[str, str], Variable]:
    """Returns the variables that loading assigns after restoring, each with the variable whose value it is given.

    An export may so take the moving averages for the weights, or assign to a variable what it has.

    Raises:
        FreezeError: a variable is given a value that is not that of another restored variable.
    """
    needed, message = set(variables), meta.rest
    starts = [name for key in _INIT_COLLECTIONS for name in message.collection_def[key].node_list.value]
    starts += [info.name for info in message.signature_def[_INIT_OP].outputs.values()]
    found: dict[tuple[str, str], Variable] = {}
    changed = set[tuple[str, str]]()
    refused: tuple[str, str] | None = None
    for name in sorted(graph.ancestors(map(node_of, starts), with_control=True)):
        node = graph.nodes[name]
        inner = [n for function in meta.graph.called_by(node) for n in meta.graph.body(function).node]
        if not any(_CHANGES.fullmatch(op.op) for op in (node, *inner)):
            continue
        given = _given_variable(node, graph)
        for reference in data_inputs(node)[:1] if given is not None else data_inputs(node):
            variable = variable_behind(reference, graph.nodes)
            if variable is None or (given is not None and given.identity == variable.identity):
                continue
            is_clear = given is not None and _is_alike(variable, given) and variable.identity not in changed
            changed.add(variable.identity)
            if is_clear and given is not None:
                found[variable.identity] = given
            elif variable.name in needed:
                refused = refused or (name, variable.name)
    needed_identities = {variable_of(graph.nodes[name]).identity for name in needed}
    for identity, source in found.items():  # a source that is itself assigned may be read before or after
        if identity in needed_identities and source.identity in changed:
            refused = refused or (source.name, identity[1])
    if refused is not None:
        raise FreezeError(
            "loading the SavedModel changes a variable after it is restored",
            where=f"node {refused[0]} of {folder}",
            got=f"a new value for {refused[1]}",
            next_step="Export the model without this step of its initialization",
        )
    return found


def _given_variable(node: NodeDef, graph: Graph) -> Variable | None:
    """Returns the variable whose value an Assign gives to another; None if it is another op, or gives another value."""
    if node.op not in ("Assign", "AssignVariableOp") or len(given := data_inputs(node)) < 2:
        return None
    reference = given[1]
    for _ in range(len(graph.nodes)):
        above = graph.nodes.get(node_of(reference))
        if above is None or above.op in VARIABLE_OPS:
            return None if above is None else variable_of(above)
        if above.op not in ("Identity", "ReadVariableOp") or not data_inputs(above):
            return None
        reference = data_inputs(above)[0]
    return None


def _is_alike(one: Variable, other: Variable) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape)


def set_asset_paths(graph: Graph, assets: Mapping[str, Path]) -> Graph:
    """Returns the graph with the current paths of assets; TensorFlow 2 keeps each in a variable, filled by loading."""
    paths = {node_of(tensor): path for tensor, path in assets.items()}
    variables: dict[str, Path] = {}
    for node in graph.node:
        if node.op == "AssignVariableOp" and len(node.input) >= 2 and node_of(node.input[1]) in paths:
            variables[node_of(node.input[0])] = paths[node_of(node.input[1])]

    def path_of(node: NodeDef) -> Path | None:
        is_read = node.op == "ReadVariableOp" and node.input
        return paths.get(node.name) or (variables.get(node_of(node.input[0])) if is_read else None)

    return graph.replace_nodes(
        node if (path := path_of(node)) is None else _path_constant(node, path) for node in graph.node
    )


def _path_constant(node: NodeDef, path: Path) -> NodeDef:
    """Returns a constant with a path that replaces a node; it keeps the shape of a constant node."""
    constant = NodeDef(name=node.name, op="Const")
    constant.attr["dtype"].type = DataType.Value("DT_STRING")
    tensor = constant.attr["value"].tensor
    tensor.dtype = DataType.Value("DT_STRING")
    tensor.tensor_shape.SetInParent()
    if "value" in node.attr:
        tensor.tensor_shape.CopyFrom(node.attr["value"].tensor.tensor_shape)
    tensor.string_val.append(str(path).encode())
    return constant
