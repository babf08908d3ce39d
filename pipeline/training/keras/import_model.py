"""Imports a Keras model file as the checkpoint's artifact that the later stages read.

saved_model/      the exported model
signature.json    the model's own inputs and outputs
validation.npz    the rows of a data file, or generated rows
goldens.npz       the first of these rows, and Keras's own outputs for them
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import SettingError
from pipeline.inputs import ImportedCheckpoint
from pipeline.signature import Signature
from pipeline.store.files import GOLDENS_FILE, SIGNATURE_FILE

from ..import_checkpoint import ROWS, write_rows
from .adapter import NamedModel, make_deterministic
from .load import load_file
from .saved_model import record_goldens, write_checkpoint


def import_file(imported: ImportedCheckpoint, data: Path | None, seed: int, folder: Path) -> dict[str, Any]:
    """Writes the artifact of a Keras model file.

    Args, Returns: see `import_checkpoint.import_checkpoint`.

    Raises:
        CheckpointError: the file is missing, damaged, or names code that is not Keras's own.
        SettingError: inputs, outputs, pins, a graph file or a signature were given.
        FreezeError: the model's graph cannot become a correct .pb.
        DataError: the rows do not fit the inputs.
    """
    _refuse_tensor_names(imported)
    make_deterministic()
    named_model = NamedModel.from_own_names(load_file(Path(imported.place)))
    write_checkpoint(named_model, folder)
    rows = write_rows(Signature.read(folder / SIGNATURE_FILE), data, seed, folder)
    record_goldens(named_model, {name: values[:ROWS] for name, values in rows.items()}, folder / GOLDENS_FILE)
    found = ["inputs and outputs are those of the Keras model"]
    return {"adopted": imported.place, "found": found, "rows": len(next(iter(rows.values())))}


def _refuse_tensor_names(imported: ImportedCheckpoint) -> None:
    given = {
        "--inputs": ", ".join(imported.inputs),
        "--outputs": ", ".join(imported.outputs),
        "--pin": ", ".join(imported.pins),
        "--graph-file": imported.graph,
        "--signature": imported.signature,
    }
    for flag, value in given.items():
        if value:
            raise SettingError(
                "a Keras model has its own inputs and outputs, and no graph before it is exported",
                where=flag,
                got=value,
                next_step=f"Leave out {flag}, or cut the model in Keras: keras.Model(inputs, outputs)",
            )
