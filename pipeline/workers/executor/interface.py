"""Executors: call one function on many items, in several long-lived processes.

    local    processes of this machine
    dask     workers of a Dask cluster

If the process of an item crashes, hangs or takes too much memory, only that item fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Started:
    """A worker has started an item.

    Args:
        number: the item's position in the list, from 0.
    """

    number: int


@dataclass(frozen=True)
class Ended:
    """An item is finished.

    Args:
        number: the item's position in the list, from 0.
        result: the function's result, or the `PipelineError` that it raised or that describes how its process ended.
    """

    number: int
    result: Any


class Executor(Protocol):
    """Processes that wait for work; a context manager closes them."""

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        """Call `package.module:function(*item)` for each item, in any order.

        Args:
            items: the arguments of each call; they and the results must be picklable.

        Yields:
            One `Ended` for each item, usually after a `Started`; several `Started` if a worker was lost and another
            one repeated the item.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exc_info: object) -> None: ...
