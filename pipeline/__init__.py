"""Takes TensorFlow models from graph to a deployable file, and proves that nothing changed on the way.

    luigi --module pipeline WriteReport

Where Luigi runs, importing this gives it its tasks, and they find tasks.cfg. Elsewhere each name is loaded on demand:
`python -m pipeline freeze` starts without Luigi. It never loads TensorFlow: Luigi imports it at every start.
"""

import sys
from importlib import import_module
from typing import Any

# The module of each public name, loaded on demand (PEP 562); `__init__.pyi` has their types.
_HOMES = {
    "AdoptCandidate": "tasks.model",
    "BuildGraph": "tasks.model",
    "ConvertBatch": "tasks.batch.task",
    "FreezeModel": "tasks.model",
    "MakeFormat": "tasks.model",
    "MeasureCosts": "tasks.model",
    "NightlyRun": "tasks.nightly.task",
    "SaveCheckpoint": "tasks.model",
    "TrainModel": "tasks.model",
    "ValidateModel": "tasks.model",
    "WriteReport": "tasks.model",
    "Decision": "signature",
    "Examples": "data.readers",
    "Signature": "signature",
    "TensorSpec": "signature",
    "freeze": "freezing.freeze",
    "inspect": "freezing.inspection",
    "load_mmap": "formats.mmap",
    "read_table": "data.readers",
}
__all__ = sorted(_HOMES)

if "luigi" in sys.modules:  # who runs Luigi has loaded it before us, and will ask it for the tasks by their names
    for _home in ("tasks.model", "tasks.batch.task", "tasks.nightly.task"):
        import_module(f".{_home}", __name__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
