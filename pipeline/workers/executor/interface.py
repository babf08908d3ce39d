"""Engines: what does the heavy work of many models, each in one of several long-lived processes.

    local    processes of this machine
    dask     the workers of a Dask cluster

An engine calls one function on many items. An item whose process crashes, hangs or takes too much memory costs only
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Started:
    """A worker has begun an item.

    Args:
        number: the item's place in the list.
    """

    number: int


@dataclass(frozen=True)
class Ended:
    """An item is done.

    Args:
        number: the item's place in the list.
        result: what the function returned, or the `PipelineError` that it raised or that its process ended with.
    """

    number: int
    result: Any


class Executor(Protocol):
    """Several processes that wait for work; closed as a context manager."""

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        """Calls `package.module:function(*item)` for each item, in any order.

        Args:
            items: arguments; they and the results must pickle.

        Yields:
            For each item one `Ended`, mostly after a `Started`; several of these where a worker was lost and another
            one took over.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exc_info: object) -> None: ...
