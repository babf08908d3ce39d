"""Open the executor that the settings name."""

from __future__ import annotations

from pipeline.settings import EngineSettings

from ..child import Limits
from .interface import Executor


def open_executor(settings: EngineSettings, workers: int, limits: Limits) -> Executor:
    """Return the executor that the settings name.

    Args:
        workers: number of items processed at the same time; a running cluster has its own number.
        limits: limits of one item.

    Raises:
        SettingError: a library that the executor needs is not installed, or its cluster cannot be reached.
    """
    if settings.kind == "dask":
        from .dask import DaskExecutor

        return DaskExecutor(settings.address, workers, limits)
    from .local import LocalExecutor

    return LocalExecutor(workers, limits)
