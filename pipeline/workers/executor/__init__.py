"""Opens the engine that the settings name."""

from __future__ import annotations

from pipeline.settings import EngineSettings

from ..child import Limits
from .interface import Engine


def open_engine(settings: EngineSettings, workers: int, limits: Limits) -> Engine:
    """The engine that the settings name.

    Args:
        workers: how many items are worked on at the same time, where no cluster says so.
        limits: what one item may take.

    Raises:
        SettingError: what the engine needs is not installed, or its cluster is not to be reached.
    """
    if settings.kind == "dask":
        from .dask import DaskEngine

        return DaskEngine(settings.address, workers, limits)
    from .local import LocalEngine

    return LocalEngine(workers, limits)
