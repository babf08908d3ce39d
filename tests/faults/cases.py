"""What a fault is, the register of all, and what becomes of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import PipelineError
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature
from pipeline.validation.replay.feed import RestartingRunner
from pipeline.validation.validate import validate

from . import models, peers

v1 = tf.compat.v1
STEPS = (100, 200, 300)


@dataclass(frozen=True)
class Pair:
    """A checkpoint's artifact, a candidate's, and what a runner of the candidate is told to fetch where that differs.

    Args:
        fetched: the signature by which another tool would open the candidate; its own where None.
    """

    checkpoint: Path
    candidate: Path
    fetched: Signature | None = None


@dataclass(frozen=True)
class Fault:
    """A fault, and what must become of it.

    Args:
        name: unique, in words.
        plant: makes the pair in a folder.
        what: what is wrong.
        checks: those that must fail, of the candidate or of the checkpoint; none for a control.
        kind: the cause that must be told; empty for a control.
        mentions: a part of the cause's sentence.
        settings: of the validation.
        cause_of: whose cause is told.
    """

    name: str
    plant: Callable[[Home, Path], Pair]
    what: str
    checks: frozenset[str]
    kind: str
    mentions: str = ""
    settings: ValidationSettings = field(default_factory=ValidationSettings)
    cause_of: str = "frozen"

    @property
    def is_control(self) -> bool:
        """Whether it is right and must pass."""
        return not self.kind


FAULTS: list[Fault] = []


def fault(
    what: str, kind: str = "", checks: str = "", *, name: str = "", **options: Any
) -> Callable[[Callable[[Home, Path], Pair]], Callable[[Home, Path], Pair]]:
    """Registers a function that plants a fault; without a kind it is a control."""

    def register(plant: Callable[[Home, Path], Pair]) -> Callable[[Home, Path], Pair]:
        title = name or plant.__name__.replace("_", " ")
        FAULTS.append(Fault(title, plant, what, frozenset(checks.split()), kind, **options))
        return plant

    return register


class Home:
    """What many faults share, made once: a series of checkpoints of a training, and the frozen last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = {step: models.drawn(step) for step in STEPS}
        self.averaged = {step: models.drawn(step + 1) for step in STEPS}

    @cached_property
    def checkpoint(self) -> Path:
        """The artifact of the last step."""
        for step in STEPS:
            models.save_step(self.folder / "training" / "checkpoints", step, self.raw[step], self.averaged[step])
        return models.save_checkpoint(self.folder / "checkpoint", lambda x: models.classifier(x, self.raw[STEPS[-1]]))

    @cached_property
    def frozen(self) -> Path:
        """The same, frozen."""
        return freeze(self.checkpoint, self.folder / "frozen")

    def planted(self, folder: Path, change: Callable[[Any], None], fetched: Signature | None = None) -> Pair:
        """The pair with a change in the frozen graph."""
        shutil.copytree(self.frozen, folder / "candidate")
        graph = read_graph(self.frozen)
        change(graph)
        write_graph(graph, folder / "candidate")
        return Pair(self.checkpoint, folder / "candidate", fetched)

    def built(self, folder: Path, graph: Any) -> Pair:
        """The pair with another graph in the place of the frozen one."""
        shutil.copytree(self.frozen, folder / "candidate")
        write_graph(graph, folder / "candidate")
        return Pair(self.checkpoint, folder / "candidate")


def freeze(checkpoint: Path, folder: Path, **options: Any) -> Path:
    """Freezes an artifact with the engine."""
    folder.mkdir(parents=True)
    freeze_checkpoint(checkpoint, folder, **options)
    return folder


def read_graph(folder: Path) -> Any:
    """The graph of a frozen artifact."""
    return v1.GraphDef.FromString((folder / "model.pb").read_bytes())


def write_graph(graph: Any, folder: Path) -> None:
    """Writes a graph into a frozen artifact."""
    (folder / "model.pb").write_bytes(graph.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Args:
        checks: those that failed.
        kind, sentence: of the cause.
        by_peers: what each other tool's rule says, by the tool; nothing where none was asked.
    """

    fault: Fault
    verdict: dict[str, Any]
    checks: frozenset[str]
    kind: str
    sentence: str
    by_peers: dict[str, str]


def outcome_of(one: Fault, home: Home, folder: Path, asks_peers: bool = False) -> Outcome:
    """Plants a fault and validates the pair; for the page, which compares them, asks the other tools' rules too."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = one.plant(home, folder)
    (folder / "validation").mkdir()
    verdict = validate("m", pair.checkpoint, {"frozen": pair.candidate}, one.settings, 1, folder / "validation")
    failed = frozenset(check["check"] for check in verdict["checks"] if check["verdict"] != "passed")
    cause = verdict["causes"].get(one.cause_of, {"kind": "", "sentence": ""})
    return Outcome(one, verdict, failed, cause["kind"], cause["sentence"], by_peers(pair, folder) if asks_peers else {})


def by_peers(pair: Pair, folder: Path) -> dict[str, str]:
    """What the other tools' rules say of the outputs for the validation rows."""
    candidate = pair.candidate
    if pair.fetched is not None:
        candidate = folder / "as_others_open_it"
        shutil.copytree(pair.candidate, candidate)
        pair.fetched.write(candidate / "signature.json")
    rows = of_kind("input", load_arrays(pair.checkpoint / "validation.npz"))
    with (
        RestartingRunner("checkpoint", pair.checkpoint, 1) as reference,
        RestartingRunner("frozen", candidate, 1) as other,
    ):
        ours, theirs = reference.run(rows), other.run(rows)
    if isinstance(ours, PipelineError):
        raise ours
    if isinstance(theirs, PipelineError):
        return dict.fromkeys(peers.RULES, "fails (does not run)")
    return {name: rule(ours, theirs) for name, rule in peers.RULES.items()}
