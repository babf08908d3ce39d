"""Finds unsafe ops in third-party models, which are programs, before anything of them runs.

    safe_ops.txt   ops that only touch their own tensors, variables and queues; all others are refused
    dangers.txt    the other ops of TensorFlow 2.21 with their harm: `op<TAB>read files`. A third column `idle` marks
                   ops left by training (savers, readers of its files): they are allowed where nothing runs them

A model is checked by the messages in its files, without TensorFlow and without running anything: every op in its nodes
and in its function library, used or not. An op on neither list is also refused: its effect is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.errors import SettingError, UnsafeModel

_HERE = Path(__file__).parent
UNKNOWN = "do anything: the effect of this op is unknown"
_OP = re.compile(r"[A-Za-z_][\w>.:-]*")
_MOST_TOLD = 5


@dataclass(frozen=True)
class Danger:
    """A node that could do more than compute.

    Args:
        op: its op; outside of graphs the equivalent, such as a layer's class.
        node: its name; empty outside of nodes.
        harm: what it could do, as words that follow `could`.
        function: the function that contains it; empty for the graph itself.
        kind: what `op` is, if it is no op of a graph.
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
    """Returns the ops that are allowed in any model."""
    return frozenset((_HERE / "safe_ops.txt").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1)
def dangers() -> dict[str, tuple[str, bool]]:
    """Returns by op its harm, and True if it is allowed where nothing runs it."""
    lines = (_HERE / "dangers.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return {op: (harm, bool(idle)) for op, harm, *idle in rows}


def harm_of(op: str) -> str | None:
    """Returns the harm of an op, as words that follow `could`; None for a safe op."""
    if op in dangers():  # a function of the same name does not change the op
        return dangers()[op][0]
    return None if op in safe_ops() else UNKNOWN


def is_idle(op: str) -> bool:
    """Returns True if an unsafe op is allowed in a model where nothing runs it."""
    return op in dangers() and dangers()[op][1]


def read_allowed(flag: str, names: Iterable[str]) -> tuple[str, ...]:
    """Parses the names of ops that the user allows; returns them sorted.

    Raises:
        SettingError: a name is not that of an op.
    """
    for name in names:
        if not _OP.fullmatch(name):
            raise SettingError("not the name of an op", where=flag, got=repr(name), wanted="such as WriteFile")
    return tuple(sorted(set(names)))


def require_safe(place: Path | str, found: Iterable[Danger], allowed: Collection[str] = ()) -> list[str]:
    """Refuses a model that could do more than compute.

    Args:
        place: the model's file.
        found: the dangers in it.
        allowed: names of ops that the user allows.

    Returns:
        The allowed dangers, as sentences for the manifest.

    Raises:
        UnsafeModel: a danger is not allowed.
    """
    dangerous = list(found)
    refused = [danger for danger in dangerous if danger.op not in allowed]
    if refused:
        ops = list(dict.fromkeys(danger.op for danger in refused))
        rest = [str(danger) for danger in _one_of_each(refused)[1:]]
        more = f"; and {', '.join(rest[:_MOST_TOLD])}" if rest else ""
        more += f" and {len(rest) - _MOST_TOLD} other ops" if len(rest) > _MOST_TOLD else ""
        lacking = [danger.op for danger in refused if danger.harm == UNKNOWN and danger.kind == "op"]
        raise UnsafeModel(
            f"this model could {refused[0].harm}: {refused[0]}{more}",
            where=place,
            next_step=_cure(lacking, ops) if lacking else f"If you trust it, allow it with --allow-ops {','.join(ops)}",
        )
    return [f"{danger}: could {danger.harm}" for danger in dangerous]


def _cure(lacking: list[str], ops: list[str]) -> str:
    """Returns what to do about ops that TensorFlow lacks: allowing them makes a file that it cannot open."""
    from .custom_ops import library_of  # only for this message

    library = library_of(lacking)
    runtime = f"a runtime with {library.name}" if library else f"a runtime that has {lacking[0]}"
    cure = (
        f"TensorFlow lacks {lacking[0]}, which {library.name} brings. {library.cure}"
        if library
        else f"TensorFlow lacks {lacking[0]}: write that part of the model with TensorFlow's ops, and save it again"
    )
    return f"{cure}. With --allow-ops {','.join(ops)}, a file that needs it opens only in {runtime}"


def _one_of_each(found: Iterable[Danger]) -> list[Danger]:
    first: dict[str, Danger] = {}
    for danger in found:
        first.setdefault(danger.op, danger)
    return list(first.values())


_LONGEST = 80


def printable(name: str) -> str:
    """Returns a name from an untrusted file in printable form: without control characters, and shortened."""
    plain = "".join(character if character.isprintable() else "�" for character in name)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}… ({len(plain)} characters)"
