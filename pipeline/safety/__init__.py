"""Strangers' models are programs: what they could do besides computing is found before anything of them is run.

    safe_ops.txt   ops that touch nothing but their own tensors, variables and queues: all else is refused
    dangers.txt    the other ops of TensorFlow 2.21, and what each could do: `op<TAB>read files`. A third column `idle`
                   marks what training leaves behind (savers, readers of its files): it may stand where nothing runs it

A model is checked by the messages in its files, without TensorFlow and without running anything: every op in its nodes
and in its function library, reached or not. An op that is on neither list is refused too: nobody can say what it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.errors import SettingError, UnsafeModel

_HERE = Path(__file__).parent
UNKNOWN = "do anything: nobody can say what this op does"
_OP = re.compile(r"[A-Za-z_][\w>.:-]*")
_MOST_TOLD = 5


@dataclass(frozen=True)
class Danger:
    """A node that could do more than compute.

    Args:
        op: its op; for what is no node, what takes its place, such as a layer's class.
        node: its name; empty for what stands in no node.
        harm: what it could do, as words that follow on `could`.
        function: the function that it stands in; empty for the graph itself.
        kind: what `op` is, where it is no op of a graph.
    """

    op: str
    node: str
    harm: str
    function: str = ""
    kind: str = "op"

    def __str__(self) -> str:
        inside = f" (function {printable(self.function)})" if self.function else ""
        place = f" in node {printable(self.node)}" if self.node else ""
        return f"{self.kind} {printable(self.op)}{place}{inside}"


@lru_cache(maxsize=1)
def safe_ops() -> frozenset[str]:
    """The ops that may stand in any model."""
    return frozenset((_HERE / "safe_ops.txt").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1)
def dangers() -> dict[str, tuple[str, bool]]:
    """By op what it could do, and whether it may stand where nothing runs it."""
    lines = (_HERE / "dangers.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return {op: (harm, bool(idle)) for op, harm, *idle in rows}


def harm_of(op: str) -> str | None:
    """What an op could do, as words that follow on `could`; None for one that may stand in any model."""
    if op in dangers():  # a function of the same name would not make it another op
        return dangers()[op][0]
    return None if op in safe_ops() else UNKNOWN


def is_idle(op: str) -> bool:
    """Whether an op that is no safe one may stand in a model where nothing runs it."""
    return op in dangers() and dangers()[op][1]


def read_allowed(flag: str, names: Iterable[str]) -> tuple[str, ...]:
    """The ops that somebody lets through, sorted.

    Raises:
        SettingError: one is no name of an op.
    """
    for name in names:
        if not _OP.fullmatch(name):
            raise SettingError("not the name of an op", where=flag, got=repr(name), wanted="such as WriteFile")
    return tuple(sorted(set(names)))


def require_safe(place: Path | str, found: Iterable[Danger], allowed: Collection[str] = ()) -> list[str]:
    """Stops a model that could do more than compute.

    Args:
        place: the file that it is from.
        found: what is dangerous in it.
        allowed: ops that are let through by their names.

    Returns:
        What was let through, as sentences for the manifest.

    Raises:
        UnsafeModel: something is dangerous, and not among what is let through.
    """
    dangerous = list(found)
    refused = [danger for danger in dangerous if danger.op not in allowed]
    if refused:
        ops = list(dict.fromkeys(danger.op for danger in refused))
        rest = [str(danger) for danger in _one_of_each(refused)[1:]]
        more = f"; and {', '.join(rest[:_MOST_TOLD])}" if rest else ""
        more += f" and {len(rest) - _MOST_TOLD} other ops" if len(rest) > _MOST_TOLD else ""
        raise UnsafeModel(
            f"this model could {refused[0].harm}: {refused[0]}{more}",
            where=place,
            next_step=f"If you trust it, allow it with --allow-ops {','.join(ops)}",
        )
    return [f"{danger}: could {danger.harm}" for danger in dangerous]


def _one_of_each(found: Iterable[Danger]) -> list[Danger]:
    first: dict[str, Danger] = {}
    for danger in found:
        first.setdefault(danger.op, danger)
    return list(first.values())


_LONGEST = 80


def printable(name: str) -> str:
    """A name from a stranger's file, as it may stand on a line: without control characters, and not without end."""
    plain = "".join(character if character.isprintable() else "�" for character in name)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}… ({len(plain)} characters)"
