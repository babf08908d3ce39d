"""Takes TensorFlow models from graph to a deployable file, and proves that nothing changed on the way.

    luigi --module pipeline WriteReport

Where Luigi runs, importing this gives it its tasks, and they find tasks.cfg. Elsewhere each name is loaded when it is
asked for: `python -m pipeline freeze` starts without Luigi. It never loads TensorFlow: Luigi imports it at every start.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import ConvertBatch
    from .formats.mmap import load_mmap
    from .freezing import freeze
    from .inspection import inspect
    from .nights import NightlyRun
    from .tasks import (
        AdoptCandidate,
        BuildGraph,
        FreezeModel,
        MakeFormat,
        MeasureCosts,
        SaveCheckpoint,
        TrainModel,
        ValidateModel,
        WriteReport,
    )

__all__ = [
    "AdoptCandidate",
    "BuildGraph",
    "ConvertBatch",
    "FreezeModel",
    "MakeFormat",
    "MeasureCosts",
    "NightlyRun",
    "SaveCheckpoint",
    "TrainModel",
    "ValidateModel",
    "WriteReport",
    "freeze",
    "inspect",
    "load_mmap",
]

# The module of each name that is loaded when it is asked for (PEP 562).
_HOMES = {
    "AdoptCandidate": "tasks",
    "BuildGraph": "tasks",
    "ConvertBatch": "batches",
    "FreezeModel": "tasks",
    "MakeFormat": "tasks",
    "MeasureCosts": "tasks",
    "NightlyRun": "nights",
    "SaveCheckpoint": "tasks",
    "TrainModel": "tasks",
    "ValidateModel": "tasks",
    "WriteReport": "tasks",
    "freeze": "freezing",
    "inspect": "inspection",
    "load_mmap": "formats.mmap",
}

if "luigi" in sys.modules:  # who runs Luigi has loaded it before us, and will ask it for the tasks by their names
    from . import batches, nights, tasks  # noqa: F401


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
