"""Takes TensorFlow models from graph to a deployable file, and proves that nothing changed on the way.

    luigi --module pipeline WriteReport

Importing this finds tasks.cfg and gives Luigi its tasks. It loads no TensorFlow: Luigi imports it at
every start.
"""

from . import config, console
from .tasks import (
    ROOT_HOOKS,
    BuildGraph,
    FreezeModel,
    SaveCheckpoint,
    TrainModel,
    ValidateModel,
    WriteReport,
)

__all__ = ["BuildGraph", "FreezeModel", "SaveCheckpoint", "TrainModel", "ValidateModel", "WriteReport"]

config.find_config()
console.set_up()
ROOT_HOOKS.append(console.start_run)
