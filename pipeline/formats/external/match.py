"""Finds the checkpoint's inputs and outputs in a candidate: by what was said, by name, and by what alone is left.

Never by position. Of a tensor of the signature, in this order:

1. what `--candidate-names` says;
2. the tensor of the same name, or the one that the candidate's own signature calls so; where the two are not the same
   tensor, a name that is not just the tensor's decides, and otherwise it is in doubt;
3. where one is left on either side, of the same dtype and a shape that fits, these two.

`:0` and TFLite's `serving_default_` count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import CandidateError, nearest
from pipeline.signature import Shape, TensorSpec

from .tensors import Port

Find = Callable[[str], Port | None]


@dataclass(frozen=True)
class Pairs:
    """Which tensor of a candidate is which of the signature.

    Args:
        found: by the signature's name.
        reasons: a sentence on each pair that is not of one name.
        missing: tensors of the signature that the candidate has not.
        rest: the candidate's own that are none of the signature's.
    """

    found: Mapping[str, Port]
    reasons: tuple[str, ...]
    missing: tuple[TensorSpec, ...]
    rest: tuple[Port, ...]


def plain(name: str) -> str:
    """A tensor's name without what writers of files add to it."""
    return name.removesuffix(":0").removeprefix("serving_default_")


def pair(
    side: str, specs: Sequence[TensorSpec], ports: Sequence[Port], find: Find | None, said: Mapping[str, str]
) -> Pairs:
    """Pairs one side of a signature with a candidate's tensors.

    Args:
        side: `input` or `output`, for messages.
        ports: what the candidate declares.
        find: gives an inner tensor by its name, where there are such.
        said: the candidate's tensor by the signature's name.

    Raises:
        CandidateError: a name that was said is not there, or it is in doubt which tensor is meant.
    """
    found: dict[str, Port] = {}
    reasons: list[str] = []
    for spec in specs:
        if spec.name in said:
            port = _called(said[spec.name], ports) or (find(said[spec.name]) if find else None)
            if port is None:
                known = [name for port in ports for name in (port.own, port.tensor)]
                raise CandidateError(
                    "the candidate lacks a tensor that was named",
                    where=f"--candidate-names {spec.name}",
                    got=said[spec.name],
                    next_step=nearest(said[spec.name], known),
                )
            reasons.append(f"{side} {spec.name} is {port}, as --candidate-names says")
        else:
            port = _by_name(side, spec, ports, find)
            if port is not None and plain(port.tensor) != plain(spec.tensor_name):
                reasons.append(f"{side} {spec.name} is {port}, by its name")
        if port is not None:
            found[spec.name] = port
    return _with_last(side, specs, ports, found, reasons)


def _called(name: str, ports: Iterable[Port]) -> Port | None:
    """The tensor that goes by a name: what the candidate's signature calls so, or else the tensor of that name."""
    wanted, declared = plain(name), list(ports)
    own = [port for port in declared if plain(port.own) == wanted]
    return next(iter(own or [port for port in declared if plain(port.tensor) == wanted]), None)


def _by_name(side: str, spec: TensorSpec, ports: Sequence[Port], find: Find | None) -> Port | None:
    wanted, name = plain(spec.tensor_name), plain(spec.name)
    by_tensor = next((port for port in ports if plain(port.tensor) == wanted), find(spec.tensor_name) if find else None)
    by_name = next((port for port in ports if plain(port.name) == name), None)
    if by_name is None and find is not None:
        by_name = find(spec.name)
    if by_tensor is None or by_name is None or by_tensor.tensor == by_name.tensor:
        return by_name or by_tensor
    if spec.tensor is not None:  # it has a name of its own, and tensors of that kind are numbered by whoever saves them
        return by_name
    raise CandidateError(
        f"it is not clear which {side} of the candidate is {spec.name}",
        got=f"{by_tensor}, and {by_name}",
        next_step=f"say it with --candidate-names {spec.name}=…",
    )


def _with_last(
    side: str, specs: Sequence[TensorSpec], ports: Sequence[Port], found: dict[str, Port], reasons: list[str]
) -> Pairs:
    taken = {port.tensor for port in found.values()}
    missing = [spec for spec in specs if spec.name not in found]
    rest = [port for port in ports if port.tensor not in taken]
    if len(missing) == len(rest) == 1 and is_alike(missing[0], rest[0]):
        spec, port = missing.pop(), rest.pop()
        found = {**found, spec.name: port}
        reasons = [*reasons, f"{side} {spec.name} is {port}, the only one that is left, of its dtype and shape"]
    return Pairs(found, tuple(reasons), tuple(missing), tuple(rest))


def is_alike(spec: TensorSpec, port: Port) -> bool:
    """Whether a tensor of a candidate may be one of the signature, by dtype and shape."""
    return spec.dtype == port.dtype and _fits(spec.shape, port.shape)


def _fits(one: Shape | None, other: Shape | None) -> bool:
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def told(side: str, specs: Sequence[TensorSpec], ports: Sequence[Port]) -> str:
    """Both lists, for the end of a message."""
    ours = "".join(f"\n  {spec}" for spec in specs) or "\n  none"
    theirs = "".join(f"\n  {port}" for port in ports) or "\n  none"
    return f"The checkpoint's {side}s are{ours}\nThe candidate's are{theirs}"
