"""Kinds of ops, as the comparison of graphs reads them."""

from __future__ import annotations

import re

from pipeline.graph.unsupported import CHANGES_STATE, refusal_of

from .op_facts import facts_of

# Ops whose value is their first input.
PASSES = frozenset(
    {"Identity", "Snapshot", "StopGradient", "PreventGradient", "Enter", "LoopCond", "PlaceholderWithDefault"}
    | {"DeepCopy", "Print", "NextIteration"}
)
# Ops that do something else than to give a value, and do it alike in both graphs or not at all.
CHECKS = frozenset({"Assert", "Print", "PrintV2"})
INLINED = frozenset({"PartitionedCall", "StatefulPartitionedCall", "RemoteCall"})
IFS = dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch"))
CASES = frozenset({"Case", "StatelessCase"})
WHILES = frozenset({"While", "StatelessWhile"})
TABLES = frozenset(
    {f"{op}{v}" for op in ("HashTable", "MutableHashTable", "MutableHashTableOfTensors") for v in ("", "V2")}
    | {"MutableDenseHashTable", "MutableDenseHashTableV2"}
)
CHANGES_TABLES = frozenset(f"LookupTable{change}{v}" for change in ("Insert", "Remove") for v in ("", "V2"))
FROM_TENSORS = frozenset({"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"})
FROM_FILE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
FILLERS = FROM_TENSORS | FROM_FILE
# Ops that make something new in each run. Their results differ from each other, and are alike in both graphs.
NAMED = frozenset(
    {
        "TensorArray",
        "TensorArrayV2",
        "TensorArrayV3",
        "TensorArrayGradV3",
        "TensorArrayGradWithShape",
        "Stack",
        "StackV2",
    }
)
PUSHES, POPS = frozenset({"StackPush", "StackPushV2"}), frozenset({"StackPop", "StackPopV2"})
# Attributes that say how, and not what, an op computes.
IGNORED_ATTRIBUTES = frozenset(
    {"container", "shared_name", "use_node_name_sharing", "output_shapes", "parallel_iterations", "swap_memory"}
    | {"config", "config_proto", "executor_type", "use_cudnn_on_gpu", "validate_indices", "tensor_array_name"}
    | {"validate_shape", "use_locking", "grad_a", "grad_b", "grad_x", "grad_y", "message"}
)
_OF_REFERENCES = {f"Ref{op}": op for op in ("Identity", "Switch", "Merge", "Enter", "Exit", "NextIteration")}
# Stateful by TensorFlow's word, and functions of their inputs all the same: what they work on is among their inputs.
_HARMLESS = re.compile(
    r"TensorArray(Read|Write|Gather|Scatter|Concat|Split|Size|Close|Pack|Unpack)(V[23])?|ReadVariableOp|VariableShape"
    r"|VarIsInitializedOp|IsVariableInitialized|ResourceGather(Nd)?|LookupTable(Find|Size)(V2)?|LookupTableExport(V2)?"
    r"|StackClose(V2)?|_?Arg|_?Retval"
)
# Functions of their inputs by TensorFlow's word, and of something else all the same.
_READS_OUTSIDE = re.compile(
    r"ReadFile|MatchingFiles|PyFuncStateless|DecodeVideo|DecodeAudio|EncodeAudio|DeviceIndex|HostConst|ImportEvent"
    r"|LoadAndRemapMatrix|GenerateVocabRemapping|CheckpointHasTensor|(En|De)codeProto(V2)?"
)


class _Changes:
    def __contains__(self, op: str) -> bool:
        return CHANGES_STATE.matches(op)


CHANGES = _Changes()


def plain_op(op: str) -> str:
    """Returns the op on values that does the same as one on references."""
    return _OF_REFERENCES.get(op, op)


def reason_against(op: str, pure: frozenset[str]) -> str:
    """Returns the reason why an op's value does not follow from its inputs alone; empty if it does.

    Args:
        pure: ops that are not TensorFlow's, and keep no state.
    """
    if _HARMLESS.fullmatch(op):
        return ""
    refusal = refusal_of(op)
    if refusal is not None:
        return refusal.cause
    if _READS_OUTSIDE.fullmatch(op):
        return "depends on something outside of the graph"
    facts = facts_of(op)
    if facts is None:
        return "" if op in pure else "is none of TensorFlow's ops, and may keep a state"
    return "may keep a state, or depend on something outside of the graph" if facts.is_stateful else ""
