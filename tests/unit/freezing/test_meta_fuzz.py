"""Damaged and hostile graphs: whatever a .meta says, there is a .pb or a refusal, and soon."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import pytest

import pipeline
from pipeline.errors import PipelineError
from pipeline.graph.protos import AttrValue, FunctionDef, MetaGraphDef, NodeDef

BASES = (
    "cond in loop, resource, v1",
    "cond in loop, ref, v1",
    "flow in function",
    "gather in cond in loop, v2",
    "handle from function",
    "legacy gradient",
    "dropouts in cond, v2",
    "counted calls, v2",
    "table in function",
    "table from columns",
    "partitioned by columns, ref",
    "waits for reading function",
)
MUTANTS = 60  # of each model
SLOWEST_S = 5

Nodes = Any
Mutation = Callable[[MetaGraphDef, random.Random], None]


@dataclass(frozen=True)
class Base:
    """A checkpoint whose `.meta` is to be damaged."""

    prefix: Path
    outputs: list[str]
    inputs: list[str]

    @property
    def meta(self) -> bytes:
        return Path(f"{self.prefix}.meta").read_bytes()


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    [case] = [one for one in corpus.CASES if one.name == request.param]
    stored = corpus.store(case, tmp_path_factory.mktemp("base"), versions=1)
    return Base(stored.prefixes[0], stored.outputs, corpus.inputs_of(case))


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Ends what takes too long."""

    def end(*_: object) -> None:
        raise TimeoutError(f"after {SLOWEST_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SLOWEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


ALLOWED = ["InitializeTableFromTextFileV2"]  # the corpus has its vocabularies beside the copies, not among them


def becomes(base: Base, meta: bytes, folder: Path) -> str:
    """What becomes of a model with another `.meta`: "frozen", or the refusal."""
    prefix = folder / "model.ckpt"
    for part in base.prefix.parent.glob("model.ckpt.*"):
        link = folder / part.name
        if part.suffix != ".meta" and not link.exists():
            link.symlink_to(part)
    Path(f"{prefix}.meta").write_bytes(meta)
    with soon():
        with contextlib.suppress(PipelineError):  # whose outputs nobody names
            pipeline.freeze(prefix, to=folder / "model.pb")
        with contextlib.suppress(PipelineError):
            list(pipeline.inspect(prefix).lines())
        try:
            pipeline.freeze(prefix, base.outputs, base.inputs, folder / "model.pb", allow_ops=ALLOWED)
        except PipelineError as exc:
            return str(exc)
    return "frozen"


# What is done to a graph. Each takes any of its nodes, in the graph or in a function.

ODD_REFERENCES = (
    "", "^", ":", ":0", "^:", "no_such_node", "^no_such_node", "x:-1", "x:99", "x:a", "x:\u0661", "x:0:0",
    "x:99999999999999999999", "^^x", "x:x:x:x", "\ud7ff", " x", "w/Read/ReadVariableOp:output:0", "x:output:99",
)  # fmt: skip
SIZES = (-(2**63), -2, -1, 0, 1, 7, 2**31, 2**62)


def bodies(meta: MetaGraphDef) -> list[Nodes]:
    return [meta.graph_def.node, *(function.node_def for function in meta.graph_def.library.function)]


def some_node(meta: MetaGraphDef, chance: random.Random) -> NodeDef:
    nodes = chance.choice([nodes for nodes in bodies(meta) if nodes])
    return chance.choice(nodes)


def some_function(meta: MetaGraphDef, chance: random.Random) -> FunctionDef:
    return chance.choice(list(meta.graph_def.library.function) or [FunctionDef()])


def some_attribute(meta: MetaGraphDef, chance: random.Random) -> AttrValue:
    node = next((n for n in (some_node(meta, chance) for _ in range(20)) if n.attr), NodeDef())
    return node.attr[chance.choice(sorted(node.attr) or ["T"])]


def with_odd_input(meta: MetaGraphDef, chance: random.Random) -> None:
    node = some_node(meta, chance)
    reference = chance.choice(ODD_REFERENCES)
    if node.input:
        node.input[chance.randrange(len(node.input))] = reference
    else:
        node.input.append(reference)


def with_fewer_inputs(meta: MetaGraphDef, chance: random.Random) -> None:
    node = some_node(meta, chance)
    del node.input[chance.randrange(len(node.input) + 1) :]


def with_swapped_inputs(meta: MetaGraphDef, chance: random.Random) -> None:
    one, other = some_node(meta, chance), some_node(meta, chance)
    one.input[:], other.input[:] = list(other.input), list(one.input)


def with_a_cycle(meta: MetaGraphDef, chance: random.Random) -> None:
    nodes = chance.choice([nodes for nodes in bodies(meta) if nodes])
    node = chance.choice(nodes)
    target = chance.choice(nodes)
    reference = chance.choice([target.name, f"^{target.name}", f"{target.name}:output:0", f"{target.name}:0"])
    node.input.insert(0, reference)


def with_another_op(meta: MetaGraphDef, chance: random.Random) -> None:
    some_node(meta, chance).op = some_node(meta, chance).op if chance.random() < 0.8 else chance.choice(ODD_OPS)


ODD_OPS = (
    "", "If", "While", "Case", "IdentityN", "_SwitchN", "Switch", "Merge", "ReadVariableOp", "ResourceGather",
    "HashTableV2",    "VarHandleOp", "VariableV2", "RandomUniform", "Fill", "Floor", "InitializeTableFromTextFileV2",
    "LookupTableImportV2", "AssignVariableOp", "RestoreV2", "SymbolicGradient", "RemoteCall", "PartitionedCall", "For", 
    "VariableShape", "\ud7ff",
)  # fmt: skip


def with_another_name(meta: MetaGraphDef, chance: random.Random) -> None:
    some_node(meta, chance).name = chance.choice(["", "^x", "a:0", "x", some_node(meta, chance).name])


def without_a_node(meta: MetaGraphDef, chance: random.Random) -> None:
    nodes = chance.choice([nodes for nodes in bodies(meta) if nodes])
    del nodes[chance.randrange(len(nodes))]


def with_a_node_twice(meta: MetaGraphDef, chance: random.Random) -> None:
    chance.choice(bodies(meta)).append(some_node(meta, chance))


def without_an_attribute(meta: MetaGraphDef, chance: random.Random) -> None:
    node = some_node(meta, chance)
    if node.attr:
        del node.attr[chance.choice(sorted(node.attr))]


def with_another_attribute(meta: MetaGraphDef, chance: random.Random) -> None:
    value, other = some_attribute(meta, chance), some_attribute(meta, chance)
    value.CopyFrom(other)


def with_another_dtype(meta: MetaGraphDef, chance: random.Random) -> None:
    some_attribute(meta, chance).type = chance.choice([0, 1, 3, 7, 9, 10, 19, 20, 21, 25, 101, 120, 99999, -1])


def with_another_shape(meta: MetaGraphDef, chance: random.Random) -> None:
    shape = chance.choice([some_attribute(meta, chance).shape, some_attribute(meta, chance).tensor.tensor_shape])
    shape.dim.add(size=chance.choice(SIZES))


def with_another_tensor(meta: MetaGraphDef, chance: random.Random) -> None:
    constants = [node for nodes in bodies(meta) for node in nodes if node.op == "Const"]
    tensor = chance.choice(constants or [NodeDef()]).attr["value"].tensor
    chance.choice([
        lambda: tensor.Clear(),
        lambda: setattr(tensor, "tensor_content", b"abc"),
        lambda: tensor.ClearField("string_val"),
        lambda: tensor.string_val.extend([b"\xff", b""]),
        lambda: tensor.tensor_shape.dim.add(size=chance.choice(SIZES)),
        lambda: setattr(tensor, "dtype", chance.choice([0, 3, 7, 14, 19, 10])),
        lambda: tensor.half_val.append(-1),
    ])()  # fmt: skip


def with_another_function_name(meta: MetaGraphDef, chance: random.Random) -> None:
    named = [
        func
        for nodes in bodies(meta)
        for node in nodes
        for value in node.attr.values()
        for func in (value.func, *value.list.func)
        if func.name
    ]
    name = chance.choice(["", "no_such_function", some_function(meta, chance).signature.name])
    if named:
        chance.choice(named).name = name


def with_recursion(meta: MetaGraphDef, chance: random.Random) -> None:
    function = some_function(meta, chance)
    node = NodeDef(name="again", op="PartitionedCall", input=[a.name for a in function.signature.input_arg])
    node.attr["f"].func.name = function.signature.name
    node.attr["Tin"].list.type.extend(argument.type for argument in function.signature.input_arg)
    node.attr["Tout"].list.type.extend(argument.type for argument in function.signature.output_arg)
    function.node_def.append(node)
    for result in function.ret:
        function.ret[result] = "again:output:0"


def with_another_signature(meta: MetaGraphDef, chance: random.Random) -> None:
    function = some_function(meta, chance)
    chance.choice([
        lambda: function.signature.ClearField("input_arg"),
        lambda: function.signature.ClearField("output_arg"),
        lambda: function.ret.clear(),
        lambda: function.control_ret.update({"odd": "no_such_node"}),
        lambda: function.ret.update({name: chance.choice(ODD_REFERENCES) for name in function.ret}),
        lambda: setattr(function.signature, "name", some_function(meta, chance).signature.name),
        lambda: function.ClearField("signature"),
    ])()  # fmt: skip


def with_another_saver(meta: MetaGraphDef, chance: random.Random) -> None:
    saver = meta.saver_def
    chance.choice([
        lambda: saver.Clear(),
        lambda: setattr(saver, "restore_op_name", chance.choice(ODD_REFERENCES)),
        lambda: setattr(saver, "restore_op_name", some_node(meta, chance).name),
    ])()  # fmt: skip


MUTATIONS: tuple[Mutation, ...] = (
    with_odd_input, with_fewer_inputs, with_swapped_inputs, with_a_cycle, with_another_op, with_another_name,
    without_a_node, with_a_node_twice, without_an_attribute, with_another_attribute, with_another_dtype,
    with_another_shape, with_another_tensor, with_another_function_name, with_recursion, with_another_signature,
    with_another_saver,
)  # fmt: skip


def test_a_graph_with_any_part_changed_is_frozen_or_refused(base: Base, tmp_path: Path) -> None:
    found = []
    for seed in range(MUTANTS):
        chance = random.Random(seed)
        meta = MetaGraphDef.FromString(base.meta)
        done = [chance.choice(MUTATIONS) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        for mutation in done:
            mutation(meta, chance)
        try:
            found.append(becomes(base, meta.SerializeToString(), tmp_path))
        except Exception as exc:
            raise AssertionError(f"seed {seed}: {[mutation.__name__ for mutation in done]}") from exc
    assert 0 < found.count("frozen") < len(found)


def test_a_meta_with_flipped_bits_or_cut_off_is_frozen_or_refused(base: Base, tmp_path: Path) -> None:
    whole = base.meta
    for seed in range(MUTANTS):
        chance = random.Random(seed)
        raw = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        try:
            becomes(base, bytes(raw if seed % 4 else raw[: chance.randrange(len(raw))]), tmp_path)
        except Exception as exc:
            raise AssertionError(f"seed {seed}") from exc
