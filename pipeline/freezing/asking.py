"""Says what freezing needs as the commands to type: each was tried on the graph before it is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.source import open_source
from pipeline.checkpoint.vocabularies import FROM_FILE, vocabularies_of
from pipeline.errors import CheckpointError, FreezeError, PipelineError, UnsafeModel
from pipeline.graph.discovery import (
    Candidate,
    discover_outputs,
    find_together,
    rank_before_draws,
    rank_inputs,
    rank_outputs,
)
from pipeline.graph.discovery.losses import DROPS
from pipeline.graph.nodes import node_of
from pipeline.graph.unsupported import CALLS_PYTHON, CHANGES_STATE, DRAWS, refusal_of
from pipeline.inputs import ImportedCheckpoint
from pipeline.safety.gate import Gate
from pipeline.safety.models import require_still
from pipeline.signature import Signature

from .beside import find_beside
from .dropouts import find_dropout_pins
from .inference.mode import offer_inference, training_norm
from .masks import DropoutJudge, drops
from .needs import Needs, find_draws, find_needs, join_options
from .passes.batch_norms import find_norm_pins, find_training_norms
from .passes.frames import refuse_inner_draw
from .passes.inputs import hangs_on_updates
from .quantized import find_assigned_ranges, find_evaluation_graphs, refuse_training_graph
from .state import Kept, find_results, find_state, passed_on
from .write.constants import Constant, FrozenGraph

_ALLOWS = r" --allow-ops (\S+)"
_MOST_CANDIDATES = 5
_ALWAYS_DROPS = (
    " (this is a training graph: a dropout without a switch always draws. Better give the graph that the model is used"
    " with: --graph-file, for `freeze` --graph)"
)
_MOST_SIGNATURES = 10  # of more the first are tried
_MOST_OUTPUTS = 20  # of more none is tried
_MOST_NODES = 30_000  # of larger graphs no candidate is tried


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Args:
        door: the command without the options for inputs, outputs and pins.
        outputs, inputs, pins: those that were given.
        gate: tells which ops a command has to allow; None if it need not be looked at.
    """

    door: str
    outputs: Sequence[str] = ()
    inputs: Sequence[str] = ()
    pins: Mapping[str, str] | None = None
    gate: Gate | None = None

    def command(self, outputs: Iterable[str], needs: Needs) -> str:
        """Returns the whole command for some outputs, with the ops that it has to allow."""
        pins, outputs, inputs = {**(self.pins or {}), **needs.pins}, [*outputs], [*self.inputs, *needs.inputs]
        ops = self.gate.ops_for(outputs or self.gate.source.outputs.values(), inputs) if self.gate else []
        door = f"{self.door} {self.inference_option}" if needs.is_inference else self.door
        return f"{_allowing(door, ops)} {join_options(outputs, inputs, pins)}".rstrip()

    @property
    def inference_option(self) -> str:
        """The option that rewrites a training graph, as this command has it."""
        return "--inference yes" if self.door.startswith("luigi") else "--inference"

    def commands(self, outputs: Collection[str], needs: Needs) -> list[str]:
        """Returns the whole commands, of which one is right; more than one if the graph does not tell which."""
        return [self.command(outputs, one) for one in (needs, *needs.others)]

    def needed(self, outputs: Collection[str], needs: Needs) -> str:
        """Returns what to add, and the whole command."""
        commands = self.commands(outputs, needs)
        if len(commands) == 1:
            return f"{self._add(needs)}. The whole command: {commands[0]}"
        return "\n  ".join([f"{'; '.join(needs.reasons)}. One of these is the whole command:", *commands])

    def _add(self, needs: Needs) -> str:
        options = " ".join(filter(None, [self.inference_option if needs.is_inference else "", needs.options()]))
        return f"add {options} ({'; '.join(needs.reasons)})"


def _allowing(door: str, ops: Sequence[str]) -> str:
    """Returns the command that allows these ops too."""
    if not ops:
        return door
    given = re.search(_ALLOWS, door)
    allowed = ",".join(dict.fromkeys([*(given[1].split(",") if given else []), *ops]))
    return f"{re.sub(_ALLOWS, '', door)} --allow-ops {allowed}"


def report_door(imported: ImportedCheckpoint) -> str:
    """Returns the command that takes an imported checkpoint through the whole chain."""
    start = "luigi --module pipeline WriteReport --checkpoint"
    return " ".join([start, *map(shlex.quote, [imported.path, *imported.options])])


def command_beside(imported: ImportedCheckpoint, outputs: Iterable[str]) -> str:
    """Returns the command that takes other outputs of an imported checkpoint, all else as it was given."""
    return Asked(report_door(imported), (), imported.inputs, imported.pins).command(outputs, Needs())


def open_asked(
    place: Path | str,
    graph: Path | None,
    signature: str | None,
    outputs: Sequence[str],
    door: str,
    tags: Sequence[str] = (),
) -> Source:
    """Opens what is to be frozen, as `checkpoint.source.open_source`.

    Raises:
        FreezeError: also if a SavedModel has several signatures or functions and none is chosen; the message has the
            whole command for each that can be frozen.
        CheckpointError: also if it has several graphs, and it is not clear which one is meant; as above.
    """
    try:
        return open_source(place, graph, signature, outputs, tags=tags)
    except CheckpointError as unclear:
        if tags or (options := re.findall(r"--tags \S+", unclear.next_step or "")) == []:
            raise
        one = f"Choose one by its tags, {(unclear.next_step or '').partition(': ')[2]}:"
        step = "\n  ".join([one, *(f"{door} {option}" for option in options)])
        raise CheckpointError(
            unclear.what, where=unclear.where, got=unclear.got, wanted=unclear.wanted, next_step=step
        ) from unclear
    except FreezeError as unclear:
        is_open = signature is None and not outputs
        known = open_source(place, graph, is_key_needed=False, tags=tags) if is_open else None
        if known is None or known.outputs or len(known.signature_keys) < 2:
            raise
        keys = [key for key in known.signature_keys[:_MOST_SIGNATURES] if _is_freezable(place, graph, key, tags)]
        commands = [f"{door} --signature {shlex.quote(key)}" for key in keys or known.signature_keys]
        each = "this command freezes it:" if len(keys) == 1 else "each of these commands freezes one of them:"
        step = each if keys else "say which of them to freeze:"
        raise _with_step(unclear, "\n  ".join([step, *commands])) from unclear


def _is_freezable(place: Path | str, graph: Path | None, key: str, tags: Sequence[str]) -> bool:
    try:
        source = open_source(place, graph, key, tags=tags)
        require_still(source, source.outputs.values(), source.inputs.values())
    except PipelineError:
        return False
    needs = find_needs(source, [*source.outputs.values()], [*source.inputs.values()], {})
    return isinstance(needs, Needs) and needs.is_by_default


def require_rows(source: Source, imported: ImportedCheckpoint, signature: Signature) -> None:
    """Checks that no input is a mode: rows of data have no value for it.

    Raises:
        FreezeError: one is; the message has the whole command.
    """
    names = {node_of(spec.tensor_name) for spec in signature.inputs} - set(map(node_of, imported.inputs))
    if source.outputs or not names:
        return
    outputs = [spec.tensor_name.removesuffix(":0") for spec in signature.outputs]
    candidates = rank_inputs(source.graph, outputs)
    modes = [one.tensor for one in candidates if one.is_mode and node_of(one.tensor) in names]
    if not modes:
        return
    needs = find_needs(source, outputs, imported.inputs, imported.pins)
    if isinstance(needs, Needs):
        asked = Asked(report_door(imported), outputs, imported.inputs, imported.pins)
        also = _also(source, replace(asked, outputs=imported.outputs), outputs, imported.inputs, needs)
        raise FreezeError(
            "an input decides how the model computes: it is no data, and rows have no value for it",
            where=", ".join(modes),
            next_step=f"{asked.needed(outputs, needs)}{also}",
        )


def freeze_door(
    place: object,
    graph: object = None,
    signature: str | None = None,
    averages: bool = False,
    tags: Sequence[str] = (),
) -> str:
    """Returns the command `freeze` for a checkpoint."""
    options = [*(["--graph", str(graph)] if graph else []), *(["--signature", signature] if signature else [])]
    options += ["--tags", ",".join(tags)] if tags else []
    options += ["--averages"] if averages else []
    return " ".join(["python -m pipeline freeze", *map(shlex.quote, [str(place), *options])])


def require_kept(source: Source, asked: Asked, pins: Mapping[str, str], outputs: Sequence[str], fed: list[str]) -> None:
    """Checks that no pin makes a dropout drop everything.

    Args:
        source: as it was before anything was pinned.
        pins: by the nodes' names.
        outputs, fed: tensors.

    Raises:
        FreezeError: one does; the message has the whole command with what is right.
    """
    judge = DropoutJudge(source.graph, outputs, fed) if pins else None
    for name, value in pins.items():
        found = judge.judge({name: value}) if judge else None
        if judge is None or found is None or not drops(found):
            continue
        wrong = {other for other, given in pins.items() if drops(judge.judge({other: given}))}
        right = {other: given for other, given in (asked.pins or {}).items() if node_of(other) not in wrong}
        kept = {other: given for other, given in pins.items() if other not in wrong}
        needs = find_needs(source, outputs, fed, kept)
        step = replace(asked, pins=right).needed(asked.outputs or outputs, needs) if isinstance(needs, Needs) else None
        raise FreezeError(
            f"this value makes a dropout drop everything: {found.node}", where=f"--pin {name}={value}", next_step=step
        )


def meet_needs(
    source: Source, asked: Asked, fetched: Mapping[str, str], fed: Mapping[str, str], refused: FreezeError
) -> Needs:
    """Finds what a refused graph needs.

    Returns:
        The needs, if they are nothing but the graph's own placeholders, with their defaults or to be fed.

    Raises:
        FreezeError: it needs more; the message has the whole command. Or no command helps: then as it was refused.
    """
    outputs = list(fetched.values())
    needs = find_needs(source, outputs, list(fed.values()), {})
    if isinstance(needs, Needs):
        if not needs.inputs and not needs.pins and not needs.is_inference:
            raise refused
        if needs.is_by_default:
            return needs
        also = _also(source, asked, outputs, list(fed.values()), needs)
        raise _with_step(refused, f"{asked.needed(fetched, needs)}{also}")
    quantized = find_assigned_ranges(source, outputs)
    if quantized:
        raise refuse_training_graph(quantized, [*_evaluation_commands(source, asked, outputs)]) from refused
    instead = [*_instead(source, asked, fetched, fed)]
    refused = refuse_inner_draw(source.graph, refused)
    is_state = CHANGES_STATE.cause in refused.what
    state = find_state(source.graph, outputs, list(fed.values())) if is_state else []
    if state:
        where = (refused.where or "").removesuffix("/computed")  # an input was put in its place
        step = _keep_outside(source, asked, fetched, fed, state, instead, refused)
        raise FreezeError(refused.what, where=where, next_step=step) from refused
    if instead:
        each = "this command freezes it:" if len(instead) == 1 else "one of these commands freezes it:"
        each = _built_for_training(source, outputs) + each
        raise _with_step(refused, "\n  ".join([each, *instead]))
    raise refused


def _keep_outside(
    source: Source,
    asked: Asked,
    fetched: Mapping[str, str],
    fed: Mapping[str, str],
    state: Sequence[Kept],
    instead: Sequence[str],
    refused: FreezeError,
) -> str:
    """Returns what to do about a model that keeps state: serve it, or let the caller keep the state."""
    names = ", ".join(one.name for one in state[:_MOST_CANDIDATES])
    names += f" and {len(state) - _MOST_CANDIDATES} more" if len(state) > _MOST_CANDIDATES else ""
    verb = "is" if len(state) == 1 else "are"
    serve = "serve the SavedModel" if source.kind == "SavedModel" else "serve it from its checkpoint"
    told = f"the model keeps state between calls ({names} {verb} read and written at each call): no .pb can hold that; "
    lines = [f"  {line}" for line in instead]
    lines += [f"  {words}\n    {command}" for words, command in _kept_outside(source, asked, fetched, fed, state)]
    if not lines and " in function " in (refused.where or ""):
        return f"{told}{serve}. {refused.next_step}"
    one = "or one of these commands freezes it" if len(lines) > 1 else "or this command freezes it"
    return "\n".join([f"{told}{serve}{f', {one}:' if lines else ''}", *lines])


def _kept_outside(
    source: Source, asked: Asked, fetched: Mapping[str, str], fed: Mapping[str, str], state: Sequence[Kept]
) -> Iterator[tuple[str, str]]:
    """Yields the ways to let the caller keep the state, each in words and as a command."""
    moved = _move_state(source, asked, fetched, fed, state)
    if moved is not None:
        yield f"the state becomes an input and an output of each call: {moved[0]}", moved[1]
    results = find_results(source.graph, list(fetched.values()), list(fed.values()))
    needs = find_needs(source, list(fetched.values()), [*fed.values(), *results], {}) if results else None
    if isinstance(needs, Needs):
        whole = replace(asked, inputs=[*asked.inputs, *results]).command(fetched, needs)
        yield f"what {' and '.join(results)} gives becomes an input: the caller keeps the state", whole


def _move_state(
    source: Source, asked: Asked, fetched: Mapping[str, str], fed: Mapping[str, str], state: Sequence[Kept]
) -> tuple[str, str] | None:
    """Returns which output is fed to which input at the next call, and the command; None if there is no such way."""
    if not all(one.is_movable for one in state):
        return None
    graph, given = source.graph, list(fed.values())
    known = {passed_on(graph, tensor): name for name, tensor in fetched.items()}
    written = {passed_on(graph, str(one.written)): str(one.written) for one in state}
    more = [tensor for value, tensor in written.items() if value not in known]
    every = find_state(graph, [*fetched.values(), *more], given)
    if len(every) > len(state):  # the new values need, or wait for, more of it
        return _move_state(source, asked, fetched, fed, every)
    inputs = [name for name in asked.inputs if not hangs_on_updates(graph, node_of(source.inputs.get(name, name)))]
    kept = [tensor for tensor in given if not hangs_on_updates(graph, node_of(tensor))]
    reads = [name for one in state for name in one.reads if name not in kept]
    needs = find_needs(source, [*fetched.values(), *more], [*kept, *reads], {})
    if not isinstance(needs, Needs):
        return None
    names = {one.name: known.get(passed_on(graph, str(one.written)), str(one.written)) for one in state}
    pairs = "; ".join(f"{names[one.name]} is what {' and '.join(one.reads)} takes next ({one.name})" for one in state)
    return pairs, replace(asked, inputs=[*inputs, *reads]).command([*fetched, *more], needs)


def _evaluation_commands(source: Source, asked: Asked, outputs: Sequence[str]) -> Iterator[str]:
    option = "--graph-file" if asked.door.startswith("luigi") else "--graph"
    for path, found, needs in find_evaluation_graphs(source, outputs):
        door = re.sub(rf" {option} ('[^']*'|\S+)", "", asked.door)
        yield replace(asked, door=f"{door} {option} {shlex.quote(str(path))}", inputs=()).command(found, needs)


def _also(source: Source, asked: Asked, outputs: Sequence[str], inputs: Sequence[str], needs: Needs) -> str:
    """Returns the line on what may be wanted beside outputs that were found, for the end of a command."""
    if asked.outputs or source.outputs:
        return ""
    beside = find_beside(_meant(source, needs), outputs, [*inputs, *needs.inputs], needs.pins)
    return f"\n  also there: {beside}: {asked.command(beside.outputs, needs)}" if beside else ""


def _meant(source: Source, needs: Needs) -> Source:
    """Returns the source as the command of these needs takes it."""
    return (offer_inference(source) or source) if needs.is_inference else source


def _with_step(error: FreezeError, next_step: str) -> FreezeError:
    return FreezeError(error.what, where=error.where, got=error.got, wanted=error.wanted, next_step=next_step)


def _instead(source: Source, asked: Asked, fetched: Mapping[str, str], fed: Mapping[str, str]) -> Iterator[str]:
    """Yields commands for other outputs, and for draws that are made inputs."""
    outputs = list(fetched.values())
    yield from _without_dropout(source, asked, fetched, list(fed.values()))
    yield from _instead_of_all(source, asked, fetched, list(fed.values()))
    for candidate, needs in _freezable(source, asked, rank_before_draws(source.graph, outputs)):
        yield "\n    ".join([str(candidate), *asked.commands([candidate.tensor], needs)])
    drawn = find_draws(source, outputs, list(fed.values()))
    if drawn is not None:
        told = _ALWAYS_DROPS if _drops(source, drawn.inputs) else ""
        asked, rows = _without_data(asked, drawn.inputs)
        yield f"the same outputs, and the random numbers become inputs{told}{rows}\n    {asked.command(fetched, drawn)}"


def _without_data(asked: Asked, inputs: Sequence[str]) -> tuple[Asked, str]:
    """Leaves out a data file that has no rows for new inputs, and says so."""
    words = shlex.split(asked.door)
    path = words[words.index("--data") + 1] if "--data" in words[:-1] else ""
    if not path:
        return asked, ""
    from pipeline.data.table import names_of_rows  # loads NumPy, which freezing mostly does without

    missing = [name for name in inputs if name not in names_of_rows(Path(path))]
    if not missing:
        return asked, ""
    kept = [
        word
        for at, word in enumerate(words)
        if not word.startswith("--data") and not (at and words[at - 1].startswith("--data"))
    ]
    rows = f" (--data is left out: {path} would need {', '.join(missing)} too)"
    return replace(asked, door=shlex.join(kept)), rows


def _built_for_training(source: Source, outputs: Sequence[str]) -> str:
    """Returns the sentence on a batch norm that nothing switches to its averages; empty if there is none."""
    norms = find_training_norms(source.graph, outputs, ())
    if not norms or _norm_pins(source, outputs, ()):
        return ""
    return (
        f"this graph is built for training: its batch norm takes the batch's own statistics (node {norms[0].name}), "
        "and no command below changes that. Better give the graph that is built for inference, where batch norm takes "
        "the averages (--graph-file, for `freeze` --graph). Otherwise "
    )


def _norm_pins(source: Source, outputs: Sequence[str], fed: Sequence[str]) -> dict[str, str]:
    """Returns the pins that switch batch norms to their averages; a SavedModel is loaded as it is."""
    return {} if source.kind == "SavedModel" else find_norm_pins(source.graph, outputs, fed)


def training_note(source: Source, asked: Asked, fetched: Mapping[str, str], fed: list[str], frozen: FrozenGraph) -> str:
    """Returns the sentence on a frozen graph whose batch norm takes the batch's own statistics; empty if none does.

    Args:
        fetched: the outputs' tensors by name.
        fed: the inputs' tensors.
    """
    nodes = [node for node in frozen.nodes if not isinstance(node, Constant)]
    name = training_norm(source, nodes)
    needs = find_needs(source, list(fetched.values()), fed, {}) if name is not None else None
    if not isinstance(needs, Needs) or not needs.is_inference:
        return ""
    return (
        f"batch norm is in training mode: {name} takes the statistics of the batch, so that a row's answer depends on "
        f"the rows beside it; {needs.reasons[0]}: {asked.command(fetched, needs)}"
    )


def _without_dropout(source: Source, asked: Asked, fetched: Mapping[str, str], fed: list[str]) -> Iterator[str]:
    """Yields the command that switches dropouts of a constant rate off."""
    outputs = list(fetched.values())
    pins = find_dropout_pins(source.graph, outputs, fed)
    needs = find_needs(source, outputs, fed, pins) if pins else None
    if isinstance(needs, Needs):
        whole = asked.command(fetched, replace(needs, pins={**pins, **needs.pins}))
        yield f"the same outputs, with dropout switched off, as a model is used\n    {whole}"


def _instead_of_all(source: Source, asked: Asked, fetched: Mapping[str, str], fed: list[str]) -> Iterator[str]:
    """Yields the command for those of several outputs that can be frozen."""
    if not 1 < len(fetched) <= _MOST_OUTPUTS or len(source.graph.node) > _MOST_NODES:
        return
    good = [name for name, tensor in fetched.items() if isinstance(find_needs(source, [tensor], fed, {}), Needs)]
    if good:
        needs = find_needs(source, [fetched[name] for name in good], fed, {})
        if isinstance(needs, Needs):
            rest = ", ".join(name for name in fetched if name not in good)
            yield f"without {rest}\n    {asked.command(good, needs)}"


def _drops(source: Source, drawn: Sequence[str]) -> bool:
    """Returns True if all that is drawn decides what a dropout drops."""
    graph = source.graph
    behind = [
        graph.descendants([node_of(name)]) for name in drawn if refusal_of(graph.nodes[node_of(name)].op) is DRAWS
    ]
    return bool(behind) and all(
        any(graph.nodes[name].op in DROPS and "dropout" in name.lower() for name in after) for after in behind
    )


def require_allowed(gate: Gate, asked: Asked) -> None:
    """Refuses a model of which the asked outputs need what could do more than compute; `asked.gate` is `gate`.

    Outputs that are not named are those that the graph's structure leaves no doubt of; if it leaves some, the ops that
    each choice has to allow stand in its command.

    Raises:
        UnsafeModel: a needed op is not allowed; the message has the whole command. Or it would exceed the memory.
    """
    source = gate.source
    try:
        gate.enter()
        if gate.refused:
            gate.require(_wanted(source, asked), [source.inputs.get(name, name) for name in asked.inputs])
    except UnsafeModel as unsafe:
        raise offer_allowance(source, asked, unsafe) from unsafe


def _wanted(source: Source, asked: Asked) -> list[str]:
    if asked.outputs or source.outputs:
        return [source.outputs.get(name, name) for name in asked.outputs] or [*source.outputs.values()]
    try:
        return discover_outputs(source.graph)
    except FreezeError:
        return []


def offer_allowance(source: Source, asked: Asked, unsafe: UnsafeModel) -> UnsafeModel:
    """Returns the refusal of ops that can be allowed, with the whole command that allows them and all else it needs."""
    found = re.search(r"allow it with --allow-ops (\S+)", unsafe.next_step or "")
    if found is None:
        return unsafe
    missing = [path.name for path in vocabularies_of(source.graph).values() if not path.is_file()]
    if missing and set(found[1].split(",")) <= FROM_FILE:
        step = f"Copy {' and '.join(dict.fromkeys(missing))} beside the checkpoint, into {source.graph_file.parent}"
        return UnsafeModel(unsafe.what, where=unsafe.where, got="no such file", next_step=step)
    # Names come from the graph: a command with control characters is not shown.
    commands = [one for one in _whole_commands(source, asked) if all(line.isprintable() for line in one.splitlines())]
    if not commands:
        python = _python_refused(source, asked, found[1].split(","))
        told = f"Allowing it does not help: {python}" if python else unsafe.next_step
        return UnsafeModel(unsafe.what, where=unsafe.where, got=unsafe.got, wanted=unsafe.wanted, next_step=told)
    is_open = len(commands) == 1 and not (asked.outputs or asked.inputs)
    more = line_beside(source, asked.door, asked.gate) if is_open else ""
    also = f"\n  also there: {more}" if more and more.isprintable() else ""
    single = f"The whole command: {commands[0]}{also}"
    step = single if len(commands) == 1 else "\n  ".join(["One of these is the whole command:", *commands])
    allow = f"{unsafe.next_step}. "
    if not re.search(_ALLOWS, commands[0]):  # it is cut away, or other outputs do without it
        is_python = all(refusal_of(op) is CALLS_PYTHON for op in found[1].split(","))
        allow = "A .pb cannot carry Python code: what" if is_python else "What"
        allow = f"{allow} it gives becomes an input, and the rows bring it. " if "--inputs" in commands[0] else ""
    return UnsafeModel(
        unsafe.what, where=unsafe.where, got=unsafe.got, wanted=unsafe.wanted, next_step=f"{allow}{step}"
    )


def _python_refused(source: Source, asked: Asked, ops: Sequence[str]) -> FreezeError | None:
    """Returns how freezing refuses Python code where it cannot be cut away, as in a function; None if it does not."""
    outputs = [source.outputs.get(name, name) for name in asked.outputs] or [*source.outputs.values()]
    if not outputs or not all(refusal_of(op) is CALLS_PYTHON for op in ops):
        return None
    try:
        refused = find_needs(source, outputs, [source.inputs.get(name, name) for name in asked.inputs], {})
    except FreezeError:  # an output that does not exist
        return None
    is_python = isinstance(refused, FreezeError) and CALLS_PYTHON.cause in refused.what
    return refused if isinstance(refused, FreezeError) and is_python else None


def _whole_commands(source: Source, asked: Asked) -> Iterator[str]:
    outputs = [source.outputs.get(name, name) for name in asked.outputs]
    if not outputs:
        yield from find_commands(source, asked.door, asked.gate)
        return
    inputs = [source.inputs.get(name, name) for name in asked.inputs]
    try:
        needs = find_needs(source, outputs, inputs, asked.pins or {})
    except FreezeError:  # an output that does not exist: said after the ops are allowed
        return
    if isinstance(needs, Needs):
        yield from asked.commands(asked.outputs, needs)


def _freezable(source: Source, asked: Asked, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Needs]]:
    for candidate in candidates[:_MOST_CANDIDATES]:
        if len(source.graph.node) > _MOST_NODES:
            yield candidate, Needs()
            continue
        needs = find_needs(source, [candidate.tensor], asked.inputs, {})
        if isinstance(needs, Needs):
            yield candidate, needs


def ask_for_outputs(source: Source, asked: Asked, unclear: FreezeError) -> FreezeError:
    """Returns the error for outputs that are not clear, with a command for each candidate that can be frozen."""
    candidates = rank_outputs(source.graph)
    found = [*_freezable(source, asked, candidates)]
    if not found:
        return unclear
    offers = [*_all_together(source, asked), *((str(one), asked.commands([one.tensor], needs)) for one, needs in found)]
    lines = ["\n    ".join([what, *commands]) for what, commands in offers]
    hint = ", or several of them, comma-separated" if len(found) > 1 else ""
    step = f"Choose one{hint}; any other tensor can be added (--outputs A,B):"
    return _with_step(unclear, "\n  ".join([step, *lines]))


def _all_together(source: Source, asked: Asked) -> Iterator[tuple[str, list[str]]]:
    """Yields what may be wanted together, with the command, or the commands of which one is right."""
    for outputs, what in find_together(source.graph) if len(source.graph.node) <= _MOST_NODES else []:
        needs = find_needs(source, outputs, asked.inputs, {})
        if isinstance(needs, Needs):
            yield f"{', '.join(outputs)}: {what}", asked.commands(outputs, needs)


def line_beside(source: Source, door: str, gate: Gate | None = None) -> str:
    """Returns what may be wanted beside the outputs that are found, with the whole command; empty if there is none."""
    if source.outputs or not source.has_variables:
        return ""
    try:
        found = discover_outputs(source.graph)
    except FreezeError:
        return ""
    needs = find_needs(source, found, [], {})
    beside = find_beside(_meant(source, needs), found, needs.inputs, needs.pins) if isinstance(needs, Needs) else None
    asked = Asked(door, gate=gate)
    return f"{beside}: {asked.command(beside.outputs, needs)}" if beside and isinstance(needs, Needs) else ""


def find_commands(source: Source, door: str, gate: Gate | None = None) -> Iterator[str]:
    """Yields the commands that freeze a graph, the likeliest first, each tried; none for a graph without variables."""
    asked = Asked(door, gate=gate)
    if not source.has_variables:
        return
    if source.outputs:
        outputs = dict(source.outputs)
        needs = find_needs(source, list(outputs.values()), list(source.inputs.values()), {})
        if isinstance(needs, Needs):
            yield from asked.commands([], needs)
        else:
            yield from _commands_for_state(source, asked, outputs)
        return
    try:
        found = discover_outputs(source.graph)
    except FreezeError:
        found = []
    if found:
        needs = find_needs(source, found, [], {})
        if isinstance(needs, Needs):
            yield from asked.commands(found, needs)
        elif find_assigned_ranges(source, found):
            yield from _evaluation_commands(source, asked, found)
        else:
            fetched = dict(zip(found, found, strict=True))
            yield from _instead(source, asked, fetched, {})
            yield from _commands_for_state(source, asked, fetched)
    else:
        yield from (command for _, commands in _all_together(source, asked) for command in commands)
        for candidate, needs in _freezable(source, asked, rank_outputs(source.graph)):
            yield from asked.commands([candidate.tensor], needs)


def _commands_for_state(source: Source, asked: Asked, fetched: Mapping[str, str]) -> Iterator[str]:
    """Yields the commands that let the caller keep the state of a model; none for a model without state."""
    fed = dict(source.inputs)
    state = find_state(source.graph, list(fetched.values()), list(fed.values()))
    for words, command in _kept_outside(source, asked, fetched, fed, state) if state else ():
        yield f"{words}\n    {command}"
