"""Making checkpoints of a case, and what a live session and a .pb give."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from small_graphs import control_flow
from tensorflow.python.tools import freeze_graph

from pipeline.checkpoint.source import open_source
from pipeline.freezing.run_passes import freeze_checkpoint_files
from pipeline.freezing.write.pb import write_pb
from pipeline.validation.proof.model import model_of_files
from pipeline.validation.proof.prove import Proof, compare_models

from .cases import EQUAL, Array, Case, v1

Answers = list[Array]


@dataclass(frozen=True)
class Stored:
    """A case on disk: checkpoints with the same graph and different weights, and the restored sessions' answers."""

    prefixes: list[Path]
    outputs: list[str]
    answers: list[Answers | None]
    by_v1_util: bytes | Exception | None


def plain() -> Any:
    """A session's options under which a graph is run as it stands."""
    config = v1.ConfigProto(allow_soft_placement=False, operation_timeout_in_ms=20_000)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    return config


def store(case: Case, folder: Path, versions: int = 2, with_v1_util: bool = False) -> Stored:
    """Builds a case and saves it with several sets of weights, none of them the initial one."""
    config = plain()
    config.allow_soft_placement = True  # the live session; what is frozen has to do without
    prefixes, answers, frozen = [], [], None
    with control_flow(case.is_v2), tf.Graph().as_default() as graph:
        given = [
            v1.placeholder(tf.as_dtype(array.dtype), [None, *array.shape[1:]] if array.ndim else [], name=name)
            for name, array in case.feeds.items()
            if ":" not in name
        ]
        built = case.build(*given)
        if not isinstance(built, dict):
            tensors = list(built) if isinstance(built, list | tuple) else [built]
            built = {tensor.name: tensor for tensor in tensors}
        saver = case.saver()
        with v1.Session(graph=graph, config=config) as session:
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            for number in range(versions):
                for variable in v1.global_variables():
                    _load(variable, session)
                (folder / f"v{number}").mkdir(parents=True)
                prefixes.append(Path(saver.save(session, str(folder / f"v{number}" / "model.ckpt"))))
        for prefix in prefixes:
            _meddle(case, prefix)
            with v1.Session(graph=graph, config=config) as session:
                answers.append(_restored_answers(case, saver, session, prefix, built))
                if with_v1_util and prefix is prefixes[0] and case.damage is None:
                    frozen = _by_v1_util(case, session, graph, built)
        return Stored(prefixes, list(built), answers, frozen)


def _load(variable: Any, session: Any) -> None:
    """Other values than the variable has."""
    value = _array(session.run(variable))
    if value.dtype == object:
        new = np.array([item + b"!" for item in value.ravel()], object).reshape(value.shape)
    elif value.dtype.names:  # quantized
        new = (value.view(value.dtype[0]) + 1).view(value.dtype)
    elif value.dtype == bool:
        new = ~value
    else:
        new = (value + np.ones_like(value)).astype(value.dtype)
    session.run(variable.initializer, {variable.initializer.inputs[1]: new})


def _meddle(case: Case, prefix: Path) -> None:
    if case.edit is not None:
        path = Path(f"{prefix}.meta")
        meta = v1.MetaGraphDef.FromString(path.read_bytes())
        case.edit(meta)
        path.write_bytes(meta.SerializeToString())
    if case.damage is not None:
        case.damage(prefix)


def _restored_answers(case: Case, saver: Any, session: Any, prefix: Path, built: Mapping[str, Any]) -> Answers | None:
    try:
        saver.restore(session, str(prefix))
        session.run(v1.tables_initializer())
        return run(session, list(built.values()), case.feeds)
    except (tf.errors.OpError, ValueError):
        if case.must == EQUAL:
            raise
        return None


def run(session: Any, fetches: list[Any], feeds: Mapping[str, Array]) -> Answers:
    named = {name if ":" in name else f"{name}:0": array for name, array in feeds.items()}
    return [_array(answer) for answer in session.run(fetches, named)]


def _array(value: Any) -> Array:
    """What a session gave, where a single string comes as bytes, which numpy would cut at a zero byte."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _by_v1_util(case: Case, session: Any, graph: Any, built: Mapping[str, Any]) -> bytes | Exception:
    graph_def = graph.as_graph_def()
    if case.edit is not None:
        meta = v1.MetaGraphDef(graph_def=graph_def)
        case.edit(meta)
        graph_def = meta.graph_def
    try:
        names = [name.split(":")[0] for name in built]
        return bytes(v1.graph_util.convert_variables_to_constants(session, graph_def, names).SerializeToString())
    except Exception as exc:
        return exc


def by_us(prefix: Path, outputs: Sequence[str], inputs: Sequence[str], path: Path) -> bytes:
    """Our .pb of a checkpoint.

    Raises:
        PipelineError: it is refused; then there is no file.
    """
    write_pb(*freeze_checkpoint_files(prefix, outputs, inputs), path)
    return path.read_bytes()


def by_freeze_graph(prefix: Path, outputs: Sequence[str], path: Path) -> bytes:
    """TensorFlow's .pb of a checkpoint, by its `.meta`."""
    names = ",".join(name.split(":")[0] for name in outputs)
    restore, filename = "save/restore_all", "save/Const:0"
    with tf.Graph().as_default(), contextlib.redirect_stdout(None):
        freeze_graph.freeze_graph(
            "", "", True, str(prefix), names, restore, filename, str(path), True, "", input_meta_graph=f"{prefix}.meta"
        )
    return path.read_bytes()


def proof_of(prefix: Path, pb: Path, outputs: Sequence[str], inputs: Sequence[str]) -> Proof:
    """Whether a .pb is the same function as a checkpoint's graph, from their files alone."""
    sides = {"checkpoint": open_source(prefix), "candidate": open_source(pb)}
    return compare_models(*(model_of_files(side, source, inputs, outputs) for side, source in sides.items()))


def answers_of(pb: bytes, outputs: Sequence[str], feeds: Mapping[str, Array]) -> Answers:
    """What a .pb gives in a new graph."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=plain()) as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb), name="")
        return run(session, list(outputs), feeds)


def is_same(one: Answers, other: Answers) -> bool:
    """Whether answers are the same to the bit."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and (a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes())
        for a, b in zip(one, other, strict=True)
    )


def inputs_of(case: Case) -> list[str]:
    """The tensors that a case feeds."""
    return [name if ":" in name else f"{name}:0" for name in case.feeds]
