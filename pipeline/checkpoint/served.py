"""Writes down the class that says of a model's code what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Sequence


def served_class(made: str, imported: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Returns the text of a Python file with the class `Served`; dtypes and shapes are for its reader to correct.

    Args:
        made: the expression that makes the model.
        imported: the import that it needs.
        inputs, outputs: their names.
    """
    sides = (", ".join(f'TensorSpec("{name}", "float32", [None, 1])' for name in names) for names in (inputs, outputs))
    fed, fetched = sides
    return "\n".join(
        [
            "from pipeline import Signature, TensorSpec",
            imported,
            "class Served:",
            f"    signature = Signature([{fed}], [{fetched}])",
            f"    def build(self): return {made}",
        ]
    )
