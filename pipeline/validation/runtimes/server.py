"""The one file that is sent to another interpreter: it opens an artifact there and answers batches of rows.

It needs Python 3.8 or newer, NumPy, and the library that runs the format: TensorFlow, LiteRT or onnxruntime. It imports
nothing of this package, and what it is asked comes over its standard input; so the interpreter may also be one in a
container.

A message is one line of JSON and then the bytes that the line announces. The requests, each with one answer:

    {"do": "describe"}                              the versions of Python and of the libraries
    {"do": "file", "path": str, "content": int}     appends the bytes that follow to a file; not answered
    {"do": "open", "folder": str, "kind": str, ...} opens what was written there, by `OPENERS[kind]`
    {"do": "run", arrays}                           runs a batch; the answer has the outputs

An answer is {"ok": true, ...} or {"error": the library's own sentence}.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # Python 3.8 has not all of it
    from collections.abc import Callable, Mapping

    Run = Callable[[Mapping[str, Any]], dict[str, Any]]

KNOWN = "tensorflow", "tensorflow-cpu", "tensorflow-intel", "ai-edge-litert", "tflite-runtime", "onnxruntime"
TOO_MUCH_MEMORY = 87  # exit code
WATCH = "watch"


def write_message(
    stream: BinaryIO, message: Mapping[str, Any], arrays: Mapping[str, Any] | None = None, content: bytes = b""
) -> None:
    """Writes a message.

    Args:
        message: what JSON can hold.
        arrays: array by name; strings as arrays of `bytes`.
        content: bytes that follow the arrays.
    """
    described: list[Any] = []
    blobs: list[bytes] = []
    for name, array in (arrays or {}).items():
        kind, parts = _to_bytes(array)
        described.append([name, kind, list(array.shape), sum(map(len, parts))])
        blobs += parts
    line = json.dumps(dict(message, arrays=described, content=len(content)))
    stream.write(line.encode() + b"\n")
    for blob in (*blobs, content):
        stream.write(blob)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Reads a message: what JSON held, the arrays by name, and the bytes after them.

    Raises:
        EOFError: the other side has ended.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message = json.loads(line)
    arrays = {name: _from_bytes(kind, shape, _read(stream, size)) for name, kind, shape, size in message.pop("arrays")}
    return message, arrays, _read(stream, message.pop("content"))


def _read(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _to_bytes(array: Any) -> tuple[str, list[bytes]]:
    import numpy as np

    if array.dtype.kind not in "OSU":
        return array.dtype.name, [np.ascontiguousarray(array).tobytes()]
    values = [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel().tolist()]
    return "string", [np.array(list(map(len, values)), np.int64).tobytes(), b"".join(values)]


def _from_bytes(kind: str, shape: list[int], content: bytes) -> Any:
    import numpy as np

    if kind != "string":
        return np.frombuffer(content, _dtype(kind)).reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    ends = np.cumsum(np.frombuffer(content[: 8 * count], np.int64)) + 8 * count
    starts = [8 * count, *ends.tolist()]
    values = np.empty(count, object)
    values[:] = [content[starts[at] : starts[at + 1]] for at in range(count)]
    return values.reshape(shape)


def _dtype(kind: str) -> Any:
    import numpy as np

    try:
        return np.dtype(kind)
    except TypeError:  # bfloat16 and others, which NumPy knows only from this library
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, kind))


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the versions of Python and of the libraries, and which of the ops and attributes asked for are unknown.

    Args:
        request: with `ops`, the attributes of a graph's ops by op, and `consumer`, the graph's lowest version of
            TensorFlow's graphs that can read it.
    """
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "libraries": {}}
    for name in KNOWN:
        with suppress(PackageNotFoundError):
            found["libraries"][name] = version(name)
    found["unknown"] = unknown_ops(request.get("ops") or {}, request.get("consumer") or 0)
    return found


def unknown_ops(ops: Mapping[str, list[str]], consumer: int) -> list[str]:
    """Returns sentences on the ops and attributes that this TensorFlow does not know."""
    if not ops:
        return []
    try:
        import tensorflow as tf
        from tensorflow.python.framework import op_def_registry
    except ImportError:
        return []
    found = []
    if consumer > tf.version.GRAPH_DEF_VERSION:
        found.append(
            f"the graph wants version {consumer} of TensorFlow's graphs, and it knows {tf.version.GRAPH_DEF_VERSION}"
        )
    for op, attributes in sorted(ops.items()):
        definition = op_def_registry.get(op)
        if definition is None:
            found.append(f"it has no op {op}")
            continue
        known = {attribute.name for attribute in definition.attr}
        found += [f"its op {op} has no attribute {name}" for name in attributes if name not in known]
    return found


def open_graph(folder: str, request: Mapping[str, Any]) -> Run:
    """Opens `model.pb`, or `graph.pb` with mapped weights beside it.

    Args:
        request: with `file`, `inputs` and `outputs` (tensor by name), `fed` (text by placeholder) and `fillers` (names
            of ops that fill tables).
    """
    tf, v1 = _tensorflow()
    with open(os.path.join(folder, request["file"]), "rb") as file:
        graph_def = v1.GraphDef.FromString(file.read())
    functions = (node for function in graph_def.library.function for node in function.node_def)
    for node in (*graph_def.node, *functions):
        if node.op == "ImmutableConst":  # TensorFlow resolves its path against the working folder
            name = node.attr["memory_region_name"].s.decode("utf-8", "surrogateescape")
            node.attr["memory_region_name"].s = os.path.join(folder, name).encode("utf-8", "surrogateescape")
    session = v1.Session(graph=tf.Graph(), config=_config(v1, request))
    with session.graph.as_default():
        tf.import_graph_def(graph_def, name="")
    if request["fillers"]:
        session.run(request["fillers"])
    return _session_run(tf, session, request, request["inputs"], request["outputs"])


def open_saved_model(folder: str, request: Mapping[str, Any]) -> Run:
    """Opens a SavedModel.

    Args:
        request: as of `open_graph`, and `tags`, `key` (of the signature; null to use tensor names) and `names` (the
            signature's names of inputs and outputs).
    """
    tf, v1 = _tensorflow()
    session = v1.Session(graph=tf.Graph(), config=_config(v1, request))
    meta = v1.saved_model.load(session, request["tags"], folder)
    inputs, outputs = dict(request["inputs"]), dict(request["outputs"])
    if request["key"] is not None:
        own = meta.signature_def[request["key"]]
        for names, known in ((inputs, own.inputs), (outputs, own.outputs)):
            for name in names:
                key = request["names"].get(name, name)
                names[name] = known[key].name if key in known else names[name]
    return _session_run(tf, session, request, inputs, outputs)


def _tensorflow() -> tuple[Any, Any]:
    import tensorflow as tf

    return tf, tf.compat.v1


def _config(v1: Any, request: Mapping[str, Any]) -> Any:
    threads = request["threads"]
    config = v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads, allow_soft_placement=True
    )
    if request.get("is_mapped"):
        config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return config


def _session_run(
    tf: Any, session: Any, request: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Run:
    import numpy as np

    constants: dict[str, Any] = {}
    for name, text in request["fed"].items():
        tensor = session.graph.get_tensor_by_name(name if ":" in name else name + ":0")
        shape = tensor.shape.as_list() if tensor.shape.is_fully_defined() else []
        constants[tensor.name] = np.full(shape, _pinned(tf, tensor.dtype, text))

    def run(batch: Mapping[str, Any]) -> dict[str, Any]:
        feed = {inputs[name]: values for name, values in batch.items()}
        answers: dict[str, Any] = session.run(outputs, dict(constants, **feed))
        return answers

    return run


def _pinned(tf: Any, dtype: Any, text: str) -> Any:
    if dtype == tf.bool:
        return text.lower() in ("true", "1")
    return text.encode() if dtype == tf.string else dtype.as_numpy_dtype(text)


def open_tflite(folder: str, request: Mapping[str, Any]) -> Run:
    """Opens `model.tflite`, with ai-edge-litert, or tflite-runtime, or TensorFlow."""
    interpreter = _tflite_interpreter()(
        model_path=os.path.join(folder, request["file"]), num_threads=request["threads"]
    )
    signatures = interpreter.get_signature_list()
    if signatures:
        key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        runner = interpreter.get_signature_runner(request["key"] or key)
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        del runner  # the interpreter refuses to allocate while another object refers to its tensors
    else:
        inputs = {details["name"]: details for details in interpreter.get_input_details()}
        outputs = {details["name"]: details for details in interpreter.get_output_details()}

    def run(batch: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        for name, values in batch.items():
            details = _named(inputs, name, request["inputs"])
            is_strict = bool((np.asarray(details["shape_signature"]) == -1).any())  # then only open lengths may change
            interpreter.resize_tensor_input(details["index"], values.shape, strict=is_strict)
        interpreter.allocate_tensors()
        for name, values in batch.items():
            details = _named(inputs, name, request["inputs"])
            scale, zero = details["quantization"]
            stored = np.dtype(details["dtype"])
            if scale and values.dtype.kind == "f" and stored.kind in "iu":
                limits = np.iinfo(stored)
                values = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(stored)
            interpreter.set_tensor(details["index"], values)
        interpreter.invoke()
        return {name: _real(interpreter, _named(outputs, name, request["outputs"])) for name in request["outputs"]}

    return run


def _real(interpreter: Any, details: Mapping[str, Any]) -> Any:
    import numpy as np

    values, (scale, zero) = interpreter.get_tensor(details["index"]), details["quantization"]
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32) if scale else values


def _tflite_interpreter() -> Any:
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            return __import__(name, fromlist=["Interpreter"]).Interpreter
        except ImportError:
            pass
    import tensorflow as tf

    return tf.lite.Interpreter


def open_onnx(folder: str, request: Mapping[str, Any]) -> Run:
    """Opens `model.onnx`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = request["threads"]
    options.log_severity_level = 4
    path = os.path.join(folder, request["file"])
    session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
    inputs = {tensor.name: tensor.name for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor.name for tensor in session.get_outputs()}

    def run(batch: Mapping[str, Any]) -> dict[str, Any]:
        feed = {_named(inputs, name, request["inputs"]): values for name, values in batch.items()}
        names = [_named(outputs, name, request["outputs"]) for name in request["outputs"]]
        values = session.run(names, feed)
        return {name: values[at] for at, name in enumerate(request["outputs"])}

    return run


def _named(found: Mapping[str, Any], name: str, tensors: Mapping[str, str]) -> Any:
    """Returns the entry of a tensor, which a file may call by the signature's name or by the graph's."""
    for one in (tensors[name], name):
        if one in found:
            return found[one]
    raise KeyError(f"the file has no tensor {name}, but {', '.join(found)}")


OPENERS = {"graph": open_graph, "savedmodel": open_saved_model, "tflite": open_tflite, "onnx": open_onnx}


def sentence_of(exc: Exception) -> str:
    """Returns an error's first line that says something."""
    lines = [line.strip() for line in str(exc).splitlines()]
    said = [line for line in lines if line and not re.match(r"(Detected at node|Graph execution error|Node:)", line)]
    return f"{type(exc).__name__}: {said[0]}" if said else type(exc).__name__


def keep_watch(memory_bytes: int) -> None:
    """Ends the process when it takes too much memory, or when the one that started it is gone; begins once.

    Args:
        memory_bytes: the most resident memory; 0 for no limit. Enforced only on Linux.
    """
    if any(thread.name == WATCH for thread in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            if memory_bytes and os.path.exists("/proc/self/statm"):
                with open("/proc/self/statm") as file:
                    if int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") > memory_bytes:
                        os._exit(TOO_MUCH_MEMORY)
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


def write_file(folder: str, path: str, content: bytes) -> None:
    """Appends a part of a file below the folder."""
    target = os.path.join(folder, *path.split("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "ab") as file:
        file.write(content)


def serve(requests: BinaryIO, answers: BinaryIO, folder: str) -> None:
    """Answers requests until there are no more."""
    run: Run | None = None
    while True:
        try:
            request, batch, content = read_message(requests)
        except EOFError:
            return
        action = request.pop("do")
        try:
            if action == "file":
                write_file(folder, request["path"], content)
                continue
            if action == "describe":
                keep_watch(request["memory_bytes"])
                write_message(answers, dict(describe(request), ok=True))
            elif action == "open":
                run = None  # frees what it holds
                own = os.path.join(folder, request["folder"])
                for other in os.listdir(folder):
                    if other != request["folder"]:
                        shutil.rmtree(os.path.join(folder, other))
                run = OPENERS[request["kind"]](own, request)
                write_message(answers, {"ok": True})
            elif run is not None:
                write_message(answers, {"ok": True}, as_arrays(run(batch)))
        except Exception as exc:  # whatever the library raises is its answer
            write_message(answers, {"error": sentence_of(exc)})


def as_arrays(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Converts outputs to arrays; a scalar string comes as bytes, which NumPy would cut at trailing zero bytes."""
    import numpy as np

    return {name: np.asarray(value, object if isinstance(value, bytes) else None) for name, value in outputs.items()}


def main() -> None:
    """Serves standard input and output, in an empty folder; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="runtime-") as folder:
        os.chdir(folder)
        serve(sys.stdin.buffer, answers, folder)
        os.chdir("/")
