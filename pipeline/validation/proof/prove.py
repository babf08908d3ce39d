"""Decides from the files alone whether a candidate is the same function of its inputs as the checkpoint.

Both graphs become terms in one table (see `evaluate`). An output is proved if its two terms are one. Nothing is run,
and no code of freezing takes part: an error of freezing is found here, not repeated.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.settings import PROVED, TESTED

from .batch_norm import ROUNDED, Rounding
from .contents import ContentTable
from .differences import find_differences, find_unmatched
from .evaluate import Evaluator
from .float16 import CONDITION, HalvedWeights, has_halved_weights
from .folding import Fold, fold, fold_in_process
from .loadable import require_loadable
from .model import Model, open_candidate_model, open_checkpoint_model
from .rewrites import REWRITES
from .rules import Rules
from .scope import Effect, Unproven
from .terms import TermTable

_MOST_FOLDINGS = 4  # a constant may only be found when others are known


@dataclass(frozen=True)
class OutputProof:
    """What was found for one output.

    Args:
        is_proved: the candidate's output is the same function of the inputs as the checkpoint's.
        reasons: what stands between it and a proof, a sentence each; empty if it is proved.
        within: the bound up to which it is the same function, where constants were rounded otherwise; else empty.
    """

    name: str
    is_proved: bool
    reasons: tuple[str, ...] = ()
    within: str = ""


@dataclass(frozen=True)
class Proof:
    """What was found for a candidate.

    Args:
        outputs: in the order of the signature.
        terms: number of different terms in both graphs.
    """

    outputs: tuple[OutputProof, ...]
    terms: int = 0

    @property
    def word(self) -> str:
        """`proved` if all outputs are, else `tested`."""
        return PROVED if self.outputs and all(output.is_proved for output in self.outputs) else TESTED

    @property
    def within(self) -> str:
        """The bound up to which the outputs are the same functions; empty if none is needed."""
        return next((output.within for output in self.outputs if output.within), "")

    @property
    def reasons(self) -> Sequence[str]:
        """The reasons of all outputs, each once."""
        return [*dict.fromkeys(reason for output in self.outputs for reason in output.reasons)]


def prove(checkpoint: Path, candidate: Path) -> Proof:
    """Compares the graph of a candidate with that of its checkpoint.

    Args:
        checkpoint: the artifact with `signature.json`, and `model.ckpt.*` or `saved_model/`.
        candidate: an artifact in the format `frozen`, `mmap` or `savedmodel`.

    Returns:
        A result for each output that the candidate has. What cannot be read or decided is a reason.
    """
    try:
        return compare_models(open_checkpoint_model(checkpoint), open_candidate_model(candidate), fold_in_process)
    except PipelineError as exc:
        return Proof((OutputProof("", False, (str(exc),)),))


def compare_models(reference: Model, candidate: Model, compute: Fold | None = None) -> Proof:
    """Compares two models; see `prove`.

    Args:
        compute: computes constants, where outputs are not equal without; by default nothing is computed.
    """
    is_collected = gc.isenabled()
    gc.disable()  # terms live to the end, so that collecting garbage only costs time
    try:
        return _compare(reference, candidate, compute)
    finally:
        if is_collected:
            gc.enable()


def _compare(reference: Model, candidate: Model, compute: Fold | None) -> Proof:
    comparison = _Comparison(reference, candidate)
    found, refused = comparison.proof(), set[int]()
    halved = _with_halved_weights(comparison, found)
    if halved is not None:
        return halved
    for _ in range(_MOST_FOLDINGS):
        if compute is None or not comparison.pairs or comparison.is_equal():
            break
        ends = [number for pair in comparison.pairs.values() for number in pair]
        ends += [effect.term for side in comparison.sides for effect in side.effects]
        if not fold(comparison.table, comparison.rules, ends, compute, refused):
            break
        comparison.start_again()
        found = comparison.proof()
    if compute is not None and comparison.pairs and not comparison.is_equal():
        found = _up_to_rounding(comparison, found)
    return found


def _with_halved_weights(comparison: _Comparison, exact: Proof) -> Proof | None:
    """Returns a proof that names float16 weights as all that stands between; None if there is more."""
    rules, before = comparison.rules, comparison.rules.more
    if not comparison.pairs or not has_halved_weights(comparison.table, rules) or comparison.is_equal():
        return None
    cast = HalvedWeights(rules)
    rules.more = {**before, "Cast": cast}
    comparison.start_again()
    halved = comparison.proof()
    rules.more = before
    if halved.word == PROVED:
        pairs = zip(exact.outputs, halved.outputs, strict=True)
        outputs = [
            one if one.is_proved else replace(other, is_proved=False, reasons=(CONDITION,)) for one, other in pairs
        ]
        return Proof(tuple(outputs), halved.terms)
    comparison.start_again()
    comparison.proof()
    return None


def _up_to_rounding(comparison: _Comparison, exact: Proof) -> Proof:
    """Returns a proof in which outputs that are the same functions up to a bound are proved too, with that bound."""
    rules = comparison.rules
    rules.more = {**rules.more, **ROUNDED}
    comparison.start_again()
    rounded = comparison.proof()
    if not rules.roundings:
        return exact
    within = str(Rounding(max(rules.roundings)))
    outputs = [
        one if one.is_proved or not other.is_proved else replace(other, within=within)
        for one, other in zip(exact.outputs, rounded.outputs, strict=True)
    ]
    return Proof(tuple(outputs), rounded.terms)


class _Comparison:
    """Two models in one table of terms.

    Attributes:
        pairs: the two terms of each output; empty if a side is not decided.
    """

    def __init__(self, reference: Model, candidate: Model) -> None:
        self.models = (reference, candidate)
        self.rules = Rules(ContentTable(), REWRITES)
        self.table = TermTable(self.rules.simplify)
        self.start_again()

    def start_again(self) -> None:
        """Forgets the terms of both sides: the rules know more."""
        self.table.apply_rules_again()
        self.sides = [Evaluator(self.table, self.rules, model) for model in self.models]
        self.pairs = dict[str, tuple[int, int]]()

    def is_equal(self) -> bool:
        """Returns True if both terms of every output are one, and nothing else is run."""
        pairs = [[_canonical(self.table, term) for term in pair] for pair in self.pairs.values()]
        return all(one == other for one, other in pairs) and not _shared_reasons(self.table, self.rules, self.sides)

    def proof(self) -> Proof:
        """Compares the outputs."""
        reference, candidate = self.models
        names = [name for name in reference.outputs if name in candidate.outputs]
        found = list[dict[str, int]]()
        for side in self.sides:
            try:
                found.append(side.outputs())
            except Unproven as exc:
                reason = f"{side.model.side}: {exc}"
                return Proof(tuple(OutputProof(name, False, (reason,)) for name in names), len(self.table.terms))
        self.pairs = {name: (found[0][name], found[1][name]) for name in names}
        shared = [
            *_input_reasons(reference, candidate),
            *_shared_reasons(self.table, self.rules, self.sides),
            *_load_reasons(candidate),
        ]
        return Proof(tuple(self._of_output(name, shared) for name in names), len(self.table.terms))

    def _of_output(self, name: str, shared: Sequence[str]) -> OutputProof:
        pair = self.pairs[name]
        one, other = (_canonical(self.table, term) for term in pair)
        reasons = [*shared, *_own_reasons(self.table, self.sides, pair)]
        if one == other:
            reasons += _eager_reasons(self.table, self.sides, pair[1])
        else:
            reasons += find_differences(self.table, self.rules.contents, self.sides, pair)
            reasons += find_unmatched(self.table, self.rules.contents, self.sides, pair, reasons)
        return OutputProof(name, not reasons, tuple(dict.fromkeys(reasons)))


def _input_reasons(reference: Model, candidate: Model) -> list[str]:
    """Returns the inputs for which the candidate takes other values than the checkpoint."""
    reasons = []
    for name in reference.inputs.values():
        ours, theirs = reference.input_kind(name), candidate.input_kind(name)
        if None not in (ours[0], theirs[0]) and ours[0] != theirs[0]:
            reasons.append(f"candidate: the input {name} is of another dtype")
        elif reference.is_placeholder(name) and not _takes(theirs[1], ours[1]):
            reasons.append(f"candidate: the input {name} takes shape {theirs[1]} alone, the checkpoint's {ours[1]}")
    return reasons


def _load_reasons(candidate: Model) -> list[str]:
    try:
        require_loadable(candidate.graph)
    except (LookupError, Unproven, ValueError) as exc:
        return [f"candidate: {exc}"]
    return []


def _takes(own: tuple[int | None, ...] | None, wanted: tuple[int | None, ...] | None) -> bool:
    """Returns True if all values of a shape have another one too."""
    if own is None or wanted is None:
        return own is None
    return len(own) == len(wanted) and all(size in (None, other) for size, other in zip(own, wanted, strict=True))


def _canonical(table: TermTable, term: int) -> int:
    """Returns a term with numbers for what is made anew in each run."""
    leaves = table.leaves.get(term, frozenset())
    if not leaves:
        return term
    order = table.leaves_in_order([term], leaves)
    return table.rename(term, {leaf: table.make("bound", ("run", number)) for number, leaf in enumerate(order)})


def _own_reasons(table: TermTable, sides: Sequence[Evaluator], terms: Sequence[int]) -> list[str]:
    """Returns the reasons why outputs are no functions of the inputs alone."""
    reasons = []
    for side, term in zip(sides, terms, strict=True):
        if side.reasons:
            reasons += [f"{side.model.side}: {side.reasons[one]}" for one in table.below([term]) if one in side.reasons]
    return reasons


def _eager_reasons(table: TermTable, sides: Sequence[Evaluator], term: int) -> list[str]:
    """Returns what the candidate computes although the checkpoint's branches leave it out: it could be an error."""
    reference, candidate = sides
    if not any(guard for guards in reference.guards.values() for guard in guards):
        return []
    return [
        f"candidate: {table[one].op} is computed where the checkpoint does not: node {candidate.nodes.get(one, '')}"
        for one in table.below([term])
        if (known := reference.guards.get(one))
        and any(not any(guard <= own for guard in known) for own in candidate.guards.get(one, ()))
    ]


def _shared_reasons(table: TermTable, rules: Rules, sides: Sequence[Evaluator]) -> list[str]:
    """Returns what the candidate does besides computing, and the checkpoint does not."""
    reference, candidate = sides
    known = {effect.term for effect in reference.effects}
    return [
        f"candidate: {effect.node.op} is run that the checkpoint does not run: node {effect.node.name}"
        for effect in candidate.effects
        if effect.term not in known and not _always_holds(table, rules, effect)
    ]


def _always_holds(table: TermTable, rules: Rules, effect: Effect) -> bool:
    """Returns True for an Assert of a constant that is true."""
    value = rules.scalar(table, table[effect.term].inputs[0]) if effect.node.op == "Assert" else None
    return value is not None and bool(value)
