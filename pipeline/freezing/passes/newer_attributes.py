"""Leaves out attributes that older versions of TensorFlow do not know, where they have their default.

An attribute that came after its op has a default, under which the op is what it was. A version from before refuses the
whole graph for it: "NodeDef mentions attr 'grad_a' not in Op<name=MatMul; ...>". One that is left out has its default
in all versions, so a SavedModel is stored without any (`strip_default_attrs`); here those alone are left out that came
since TensorFlow 2.12, because tools that read a .pb by themselves may know no defaults.

Source: the ops that TensorFlow 2.12.1 and 2.21.0 register (tensorflow/core/ops/ops.pbtxt of both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pipeline.graph.protos import AttrValue, DataType, NodeDef

_FALSE, _EMPTY, _INT32 = AttrValue(b=False), AttrValue(s=b""), AttrValue(type=DataType.Value("DT_INT32"))
_INDICES = """
    GatherNd ResourceScatterNdAdd ResourceScatterNdMax ResourceScatterNdMin ResourceScatterNdSub ResourceScatterNdUpdate
    ScatterNd ScatterNdAdd ScatterNdMax ScatterNdMin ScatterNdNonAliasingAdd ScatterNdSub ScatterNdUpdate
    TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate
"""
_SEGMENTS = """
    SparseSegmentMean SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments
    SparseSegmentSum SparseSegmentSumWithNumSegments
"""
# The attributes that came since TensorFlow 2.12 with their defaults, by op; not those of datasets and of training.
NEWER: Mapping[str, Mapping[str, AttrValue]] = MappingProxyType(
    {
        "MatMul": {"grad_a": _FALSE, "grad_b": _FALSE},
        **{op: {"grad_x": _FALSE, "grad_y": _FALSE} for op in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")},
        **{op: {"bad_indices_policy": _EMPTY} for op in _INDICES.split()},
        **{op: {"sparse_gradient": _FALSE} for op in _SEGMENTS.split()},
        "ConcatOffset": {"shape_type": _INT32},
        "TensorListGetItem": {"Tshape": _INT32},
        "TensorListSetItem": {"resize_if_index_out_of_bounds": _FALSE},
        "TopKV2": {"Tk": _INT32, "index_type": _INT32},
    }
)


def leave_out_newer_attributes(nodes: Iterable[NodeDef]) -> None:
    """Removes from nodes, in place, the newer attributes that have their default."""
    for node in nodes:
        for name, default in NEWER.get(node.op, {}).items():
            if name in node.attr and node.attr[name] == default:
                del node.attr[name]
