"""Opens the engine that the settings name."""

from __future__ import annotations

from ..operations import EngineSettings
from ..process import Limits
from . import Engine


def open_engine(settings: EngineSettings, workers: int, limits: Limits) -> Engine:
    """The engine that the settings name.

    Args:
        workers: how many items are worked on at the same time, where no cluster says so.
        limits: what one item may take.

    Raises:
        SettingError: what the engine needs is not installed, or its cluster is not to be reached.
    """
    if settings.kind == "dask":
        from .cluster import DaskEngine

        return DaskEngine(settings.address, workers, limits)
    from .local import LocalEngine

    return LocalEngine(workers, limits)
