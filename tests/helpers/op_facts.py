"""Writes pipeline/validation/proof/op_facts.txt: `python tests/helpers/op_facts.py`, after another TensorFlow came."""

from __future__ import annotations

from op_table import registered_ops

from pipeline.graph.ops import declared
from pipeline.graph.protos import OpDef
from pipeline.validation.proof.op_facts import TABLE


def line_of(op: OpDef) -> str:
    """Returns the line of one op; see `op_facts`."""
    outputs = [f"{arg.name}*{arg.number_attr or arg.type_list_attr}".rstrip("*") for arg in op.output_arg]
    inputs = ",".join(str(declared(arg)) for arg in op.input_arg)
    defaults = [
        f"{attr.name}={attr.default_value.SerializeToString(deterministic=True).hex()}"
        for attr in op.attr
        if attr.HasField("default_value")
    ]
    return " ".join(
        [op.name, "stateful" if op.is_stateful else "pure", inputs or "-", ",".join(outputs) or "-", *defaults]
    )


def table() -> str:
    """Returns the file's content."""
    return "".join(f"{line_of(op)}\n" for op in registered_ops())


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"{TABLE}: {table().count(chr(10))} ops")
