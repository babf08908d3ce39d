"""Finds the ends of a model: tensors that no other part of the model takes.

The graph is walked backwards. An end that belongs to metrics, to a summary or to a loss is removed, and then its inputs
may become ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..ops import output_dtypes
from ..protos import DataType, FunctionDef
from .alternatives import (
    TWO_JOINS,
    before_constant_layers,
    find_before_draws,
    find_later_joins,
    find_made_of_weights,
    find_middles,
)
from .ends import LOSS, METRIC_NAME, MODEL, NOTHING, SEEN, UNANCHORED, ModelEnd, ModelEnds
from .loss_steps import PIECES, adds_axes, find_compared_base, stands_for_named
from .losses import DECIDES, LIKES, RESHAPES, LayerContext
from .named import find_unweighted
from .names import is_named
from .op_kinds import DECODERS, changes_state
from .reduction import join_forms, without_rehearsals
from .roles import NodeRoles, union
from .scopes import find_in_scopes
from .shapes import ELEMENTWISE, REDUCTIONS, shape_of

_LOGARITHMS = frozenset(["Log", "Log1p"])
_GUARDS_LOGARITHM = frozenset(
    ["Add", "AddV2", "Cast", "ClipByValue", "Div", "Maximum", "Minimum", "Mul", "RealDiv", "Sub", "Sum"]
)
_DIFFERENCES = frozenset(["SquaredDifference", "Sub"])
_PENALTIES = frozenset(["Abs", "Log1p", "Maximum", "Relu", "Softplus", "Square"])
_LOSS_MATH = ELEMENTWISE | REDUCTIONS
_WITHOUT_GRADIENT_NODES = frozenset(["AddN", "Identity", "Neg"])  # the gradient may pass them unchanged
_LINKS = frozenset(  # from what a layer gives to a mean, a rate or another unit
    ["Add", "AddV2", "Div", "Exp", "Expm1", "Mul", "RealDiv", "Sigmoid", "Softplus", "Sub", "Tanh"]
)
_FIRST_ONLY = re.compile(r"FusedBatchNorm(V\d)?|(Ref)?Merge")  # the other outputs are for gradients
_CROSS_ENTROPY = re.compile(r"(Sparse)?SoftmaxCrossEntropyWithLogits")
_DT_BOOL, _DT_FLOAT = DataType.Value("DT_BOOL"), DataType.Value("DT_FLOAT")
_HANDLES = frozenset(DataType.Value(f"DT_{name}") for name in ("RESOURCE", "VARIANT"))

_STATE = "updates of variables"
_BEFORE_LOGARITHM = "the loss may take the logarithm of something later"
_JUDGED = "the loss may begin where layers of constant weights do"


@dataclass(frozen=True)
class _Feeds:
    """The uses of a node's outputs: kinds of uses, labels met in a loss, joins with inputs on the way there."""

    kinds: frozenset[str]
    labels: int = 0
    joins: int = 0


def find_model_ends(roles: NodeRoles, functions: Mapping[str, FunctionDef]) -> ModelEnds:
    """Finds a model's ends.

    Args:
        functions: of the graph's library.
    """
    return _EndFinder(roles, functions).run()


class _EndFinder:
    """Removes the surroundings of the model, starting at the ends of the graph."""

    def __init__(self, roles: NodeRoles, functions: Mapping[str, FunctionDef]) -> None:
        self.roles, self.graph, self.functions = roles, roles.graph, functions
        self.context = LayerContext(roles, functions)
        self.inner = self.context.inner
        self.removed: dict[int, _Feeds] = {}  # what was taken away
        self.is_logarithm = set[int]()  # and what guards it
        self.is_flattening = set[int]()
        self.is_differentiated = set[int]()  # what a gradient of the model is made of, and nothing else takes
        self.ends: list[ModelEnd] = []
        self.alternatives: list[ModelEnd] = []
        self.links: dict[int, list[int]] = {}  # named forms of a tensor that the loss takes beside it, by its base

    def run(self) -> ModelEnds:
        by_products = self.context.by_products()
        for index in reversed(self.graph.order):
            if not self.inner[index]:
                continue
            feeds = self._feeds(index)
            if feeds is None:
                self._add_idle_ports(index)
                continue
            is_hidden = self.roles.depth[index] > 0 or not self.graph.ops[index] or index in by_products
            is_hidden = is_hidden or self.context.drawn[index] is not None
            if is_hidden or (not feeds.kinds and self.graph.is_awaited[index]) or self._is_part(index, feeds):
                self.removed[index] = feeds
                if not is_hidden and feeds.kinds == {SEEN}:
                    self._add_named(index)
            else:
                self._add_ends(index, feeds)
        if any(end.feeds == LOSS and not end.labels for end in self.ends):
            self.alternatives += find_middles(self.context, self.removed)
        else:
            middles = find_middles(self.context, self.removed)
            self.alternatives += [one for one in middles if is_named(self.graph.nodes[one.tensor[0]])]
        if any(end.doubt == TWO_JOINS for end in self.ends):
            self.alternatives += find_later_joins(self.context, self.removed)
        self.alternatives += [*find_before_draws(self.context, self.removed), *find_made_of_weights(self.roles)]
        found = join_forms(self.context, without_rehearsals(self.context, self.ends[::-1]))
        ends = [*found, *find_unweighted(self.roles)]
        return ModelEnds(ends, self.alternatives, self._find_trained(), find_in_scopes(self.context, ends))

    def _find_trained(self) -> list[ModelEnd]:
        """Finds what the loss compares with labels though the model goes on from it; without labels, with its input."""
        roles, found = self.roles, []
        for index in self.graph.order:
            if not self.inner[index] or index in self.removed or self.roles.depth[index] or not self.graph.ops[index]:
                continue
            if roles.is_scalar[index] or self.context.decided[index] is not None:
                continue
            met, ports = 0, set[int]()
            for consumer, port in self.graph.consumers[index]:
                labels = self._compares(consumer)
                if labels:
                    met, ports = met | labels, ports | {port}
            head = self.context.head[index]
            found += [ModelEnd((index, port), LOSS, head, met, note="the loss is made of it") for port in sorted(ports)]
        return found

    def _compares(self, index: int) -> int:
        """Returns the labels that a node of a loss compares the model with; its inputs if it has no labels."""
        roles, known = self.roles, self.roles.differentiated
        if index in roles.gradients or roles.is_outcome[index] or (known and index not in known):
            return 0
        if not self.inner[index]:
            return roles.above[index] & roles.labels if self._is_in_loss(index) else 0
        if index in self.removed:
            return 0 if roles.is_scalar[index] else self.removed[index].labels
        is_difference = self.graph.ops[index] in _DIFFERENCES and index in self.context.joins and not roles.labels
        return roles.above[index] if is_difference else 0

    def _feeds(self, index: int) -> _Feeds | None:
        """Returns what a node's outputs feed, gradients excluded; None if the model itself takes one."""
        roles = self.roles
        kinds, labels, joins = set[str](), 0, 0
        for consumer, _ in self.graph.consumers[index]:
            if consumer in roles.gradients or (consumer in roles.of_model and index not in roles.of_model):
                continue
            if self.inner[consumer]:
                if consumer in self.is_differentiated:
                    continue
                if consumer not in self.removed:
                    return None
                behind = self.removed[consumer]
                if self.context.drawn[consumer] is not None and not behind.kinds:
                    continue
                known = roles.differentiated  # an unused scalar may be the loss: then it has a gradient
                may_be_loss = self.context.decided[consumer] is None and (not known or consumer in known)
                kinds |= behind.kinds or {LOSS if may_be_loss else SEEN}
                # That a term of a loss is added to one that has labels says nothing about what the term is made of.
                labels |= 0 if self.roles.is_scalar[consumer] else behind.labels
                joins = max(joins, behind.joins + (consumer in self.context.joins))
            elif changes_state(self.graph.ops[consumer]):
                kinds.add(_STATE)
            elif roles.is_outcome[consumer]:
                kinds.add(SEEN)
            elif self._is_in_loss(consumer):
                kinds.add(LOSS)
                labels |= roles.above[consumer] & roles.labels
            elif roles.above[consumer]:
                kinds.add(SEEN)
        labels = 0 if labels and self._is_weighted_penalty(index, labels) else labels
        return _Feeds(frozenset(kinds), labels, joins)

    def _is_in_loss(self, index: int) -> bool:
        """Returns True if a node fed by labels leads to a loss, not to a metric."""
        op, known = self.graph.ops[index], self.roles.differentiated
        if not self.roles.above[index] or op in DECIDES:
            return False
        return not known or index in known or op in _WITHOUT_GRADIENT_NODES

    def _is_part(self, index: int, feeds: _Feeds) -> bool:
        """Returns True if an end belongs to what surrounds the model, not to the model."""
        op, roles = self.graph.ops[index], self.roles
        is_start = op in PIECES or (roles.is_scalar[index] and roles.has_training)
        if is_start and not feeds.kinds and index in roles.differentiated_by_model:
            self.is_differentiated.add(index)
            return True
        if feeds.kinds == {_STATE} or (feeds.kinds and self.context.decided[index] is not None):
            return True
        is_loss = self.context.is_behind_join[index] and roles.is_scalar[index]
        if not feeds.kinds and not roles.has_training and not is_loss:
            return False
        if roles.is_layer[index]:
            return False
        if op in _LOSS_MATH and roles.is_scalar[index]:
            return self.context.is_reduced[index]
        if not feeds.kinds:
            return False
        if LOSS not in feeds.kinds:
            return op in _LOSS_MATH | RESHAPES | PIECES and not (op in ELEMENTWISE and self._is_scored(index))
        return self._begins_loss(index, feeds)

    def _is_scored(self, index: int) -> bool:
        """Returns True if a metric compares with labels what a model makes of its output, as in units of its own."""
        graph, labels = self.graph, self.roles.labels
        for consumer, _ in graph.consumers[index]:
            if not self.inner[consumer]:
                if graph.ops[consumer] in _DIFFERENCES and self.roles.above[consumer] & labels:
                    return not self.roles.is_scalar[index]
            elif graph.ops[consumer] in PIECES | RESHAPES and self._is_scored(consumer):
                return True
        return False

    def _begins_loss(self, index: int, feeds: _Feeds) -> bool:
        """Returns True if an end that feeds the loss is a step of the loss."""
        op = self.graph.ops[index]
        if op in _LOGARITHMS or (feeds.kinds == {LOSS} and self._guards_logarithm(index)):
            self.is_logarithm.add(index)
            return True
        if not feeds.labels:
            return self.context.is_behind_join[index] or (op in _LOSS_MATH and not self._meets_another(index))
        if op == "Reshape":
            shape = self.graph.inputs[index][1][0] if len(self.graph.inputs[index]) > 1 else index
            if self.graph.ops[shape] != "Const" and self._is_for_cross_entropy(index):
                self.is_flattening.add(index)
                return True  # tf.nn makes a matrix of logits of any rank
        if self._is_step_beside(index, feeds) or stands_for_named(self.context, index):
            return True
        if op in RESHAPES or adds_axes(self.graph, index):
            before = self.graph.inputs[index][0][0]
            return self._has_other_uses(before, index) or self._meets_loss_earlier(before)
        is_form = op in ELEMENTWISE and self._meets_loss_earlier(index)
        node = self.graph.nodes[index]
        if is_form and is_named(node) and op in _LINKS and not METRIC_NAME.search(node.name.rpartition("/")[2]):
            self.links.setdefault(self.context.base[index], []).append(index)
        return is_form

    def _is_step_beside(self, index: int, feeds: _Feeds) -> bool:
        """Returns True if the loss alone takes an unnamed tensor that is made of another one that the loss takes."""
        if not feeds.kinds <= {LOSS, SEEN} or is_named(self.graph.nodes[index]):
            return False
        return find_compared_base(self.context, index, self._is_in_loss) >= 0

    def _is_weighted_penalty(self, index: int, labels: int) -> bool:
        """Returns True if weights of rows multiply a step of a loss, made of one tensor, and no label meets it."""
        takers = [taker for taker, _ in self.graph.consumers[index] if taker not in self.roles.gradients]
        weights = {taker for taker in takers if self.graph.ops[taker] == "Mul" and not self.inner[taker]}
        others = [taker for taker in takers if taker not in weights]
        if not weights or any(not self.roles.is_outcome[one] and not self.roles.is_scalar[one] for one in others):
            return False
        met = union(self.roles.above[taker] & self.roles.labels for taker in weights)
        steps = self._steps(index)
        return labels == met and not _PENALTIES.isdisjoint(steps) and "Log" not in steps  # labels weigh logarithms

    def _steps(self, index: int) -> set[str]:
        """Returns the ops that a node is made with, element by element, of one other; none if it has other forms."""
        base, steps, waiting = self.context.base[index], set[int](), [index]
        while waiting:
            at = waiting.pop()
            if at != base and at not in steps and self.inner[at] and self.graph.ops[at] not in LIKES:
                steps.add(at)
                waiting += [source for source, _ in self.graph.inputs[at]]
        for at in {base, *steps} - {index}:
            takers = {taker for taker, _ in self.graph.consumers[at] if self.roles.above[taker]} - self.roles.gradients
            others = [one for one in takers - steps if self.graph.ops[one] not in LIKES]
            if any(self.context.decided[taker] is None for taker in others):
                return set()
        return {self.graph.ops[at] for at in steps}

    def _meets_another(self, index: int) -> bool:
        """Returns True if a node's output is combined with one that another input of the model gave, as of a twin."""
        above, inputs = self.roles.above, self.graph.inputs
        return not self.roles.is_scalar[index] and any(
            self.inner[other] and not above[other] & above[index]
            for consumer, _ in self.graph.consumers[index]
            if self.inner[consumer]
            for other, _ in inputs[consumer]
        )

    def _guards_logarithm(self, index: int) -> bool:
        """Returns True if an end only limits a logarithm's argument: a clip, an epsilon, a norm, one minus it."""
        op, given = self.graph.ops[index], self.graph.inputs[index]
        if op in ("Div", "RealDiv") and not self.inner[given[0][0]]:
            return False  # one over something is more than that: so is a sigmoid written
        return op in _GUARDS_LOGARITHM and any(c in self.is_logarithm for c, _ in self.graph.consumers[index])

    def _has_other_uses(self, index: int, but: int) -> bool:
        return self.inner[index] and any(
            consumer != but and consumer not in self.roles.gradients and self.roles.above[consumer]
            for consumer, _ in self.graph.consumers[index]
        )

    def _meets_loss_earlier(self, index: int) -> bool:
        """Returns True if the tensor that an end is made from, element by element, also feeds the loss directly."""
        base = self.context.base[index]
        return base != index and any(
            not self.inner[consumer] and consumer not in self.roles.gradients and self._is_in_loss(consumer)
            for consumer, _ in self.graph.consumers[base]
        )

    def _add_ends(self, index: int, feeds: _Feeds) -> None:
        kind = next((kind for kind in (LOSS, SEEN) if kind in feeds.kinds), NOTHING)
        decides_on = self.context.decided[index]
        drawing = [c for c, _ in self.graph.consumers[index] if self.inner[c] and self.context.drawn[c] is not None]
        note = f"{self.graph.nodes[drawing[0]].name} draws at random from it" if drawing else ""
        for port, dtype in self._ports(index, bool(feeds.kinds)):
            head, is_bool = self.context.head[index], dtype == _DT_BOOL
            end = ModelEnd((index, port), kind, head, feeds.labels, decides_on, is_bool=is_bool, note=note)
            base = find_compared_base(self.context, index, self._is_in_loss) if kind == LOSS and feeds.labels else -1
            if base >= 0:
                self._add_compared(end, base)
            elif kind == LOSS:
                end.doubt = self._doubt(index, feeds)
            self.ends.append(end)
        if decides_on is not None and self.roles.has_training:
            self.alternatives.append(
                ModelEnd(decides_on, MODEL, self.context.head[decides_on[0]], doubt="a decision is made on it")
            )

    def _add_compared(self, end: ModelEnd, base: int) -> None:
        """Adds what a named end is made of, which the loss takes too: both are taken if the author named it as well."""
        name, both = self.graph.name, is_named(self.graph.nodes[base])
        end.doubt = "" if both else f"the loss also takes {name((base, 0))}, which it is made of"
        end.is_beside, end.note = both, f"the loss takes it beside {name((base, 0))}"
        if all(one.tensor != (base, 0) for one in self.ends):
            note = "the loss is made of it"
            self.ends.append(ModelEnd((base, 0), LOSS, self.context.head[base], end.labels, note=note))

    def _add_named(self, index: int) -> None:
        """Adds a tensor that its author named, and that metrics or summaries take, to what may be meant."""
        if is_named(self.graph.nodes[index]) and not self.roles.is_scalar[index]:
            self.alternatives.append(ModelEnd((index, 0), SEEN, self.context.head[index]))

    def _add_idle_ports(self, index: int) -> None:
        """Adds what a decoder gives beside what is taken of it, such as how likely its answer is."""
        if self.graph.ops[index] in DECODERS and not self.roles.depth[index]:
            used = {port for _, port in self.graph.consumers[index]}
            ports = [port for port, dtype in self._ports(index, False) if port not in used and dtype == _DT_FLOAT]
            self.ends += [ModelEnd((index, port), NOTHING, self.context.head[index]) for port in ports]

    def _doubt(self, index: int, feeds: _Feeds) -> str:
        """Returns the reason why another tensor than this end may be the output; that tensor joins the alternatives."""
        op, given = self.graph.ops[index], self.graph.inputs[index]
        base = self.context.base[index]
        if base != index:
            other = "the loss begins with what is made of it, element by element"
            self.alternatives.append(ModelEnd((base, 0), MODEL, self.context.head[base], doubt=other))
        if not feeds.labels:
            judged = before_constant_layers(self.context, index)
            if judged is not None:
                self.alternatives.append(ModelEnd(judged, MODEL, self.context.head[judged[0]], doubt=_JUDGED))
                return _JUDGED
            return (UNANCHORED, "", TWO_JOINS)[min(feeds.joins, 2)]
        links = self.links.get(base, [])
        if links:
            doubt = f"the loss also takes {self.graph.nodes[links[-1]].name}, which is made of it"
            self.alternatives += [
                ModelEnd((at, 0), MODEL, self.context.head[at], note="the loss takes it, and what it is made of")
                for at in links
            ]
            return doubt
        is_logits = self._is_for_cross_entropy(index)
        before = shape_of(self.graph, given[0], self.roles.producer) if op == "Reshape" else None
        keeps_rows = before is not None and all(size == 1 for size in before[1:-1])
        if (
            op == "LogSoftmax"
            or (op == "Reshape" and is_logits and not keeps_rows)
            or (op in REDUCTIONS and not is_logits and not self._is_in_model(index))
        ):
            doubt = f"a {op} in front of a loss may belong to it"
            self.alternatives.append(ModelEnd(given[0], MODEL, self.context.head[given[0][0]], doubt=doubt))
            return doubt
        if op in ELEMENTWISE and not self.roles.is_layer[index]:
            takers = [c for c, _ in self.graph.consumers[index] if c not in self.roles.gradients]
            guards = [c for c in takers if c in self.is_logarithm and self.graph.ops[c] not in _LOGARITHMS]
            if len(guards) < len(takers):
                return ""
            self.alternatives += [
                ModelEnd((c, 0), MODEL, self.context.head[c], doubt=_BEFORE_LOGARITHM) for c in guards
            ]
            return _BEFORE_LOGARITHM if guards else ""
        return ""

    def _is_in_model(self, index: int) -> bool:
        """Returns True if a layer is here, or the model has a gradient that flows through it."""
        return self.roles.is_layer[index] or index in self.roles.differentiated_by_model

    def _is_for_cross_entropy(self, index: int) -> bool:
        """Returns True if only a cross entropy takes a node's output: its input is logits."""
        return all(
            _CROSS_ENTROPY.fullmatch(self.graph.ops[consumer]) or consumer in self.is_flattening
            for consumer, _ in self.graph.consumers[index]
            if consumer not in self.roles.gradients and self.roles.above[consumer]
        )

    def _ports(self, index: int, is_used: bool) -> list[tuple[int, int]]:
        """The outputs that may be ends, and their dtypes: those that something takes, or all of them."""
        node = self.graph.nodes[index]
        used = sorted({port for _, port in self.graph.consumers[index]}) if is_used else []
        dtypes = output_dtypes(node, self.functions) or (0,) * (max(used, default=0) + 1)
        ports = [0] if _FIRST_ONLY.fullmatch(node.op) else used or range(len(dtypes))
        return [(port, dtypes[port]) for port in ports if port < len(dtypes) and dtypes[port] not in _HANDLES]
