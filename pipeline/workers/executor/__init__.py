"""Opens the engine that the settings name."""

from __future__ import annotations

from pipeline.settings import EngineSettings

from ..child import Limits
from .interface import Executor


def open_executor(settings: EngineSettings, workers: int, limits: Limits) -> Executor:
    """The engine that the settings name.

    Args:
        workers: how many items are worked on at the same time, where no cluster says so.
        limits: what one item may take.

    Raises:
        SettingError: what the engine needs is not installed, or its cluster is not to be reached.
    """
    if settings.kind == "dask":
        from .dask import DaskExecutor

        return DaskExecutor(settings.address, workers, limits)
    from .local import LocalExecutor

    return LocalExecutor(workers, limits)
