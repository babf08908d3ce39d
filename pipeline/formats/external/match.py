"""Matches the checkpoint's inputs and outputs with a candidate's tensors.

Never by position. For each tensor of the signature, in this order:

1. the tensor that `--candidate-names` gives;
2. the tensor of the same name, in the graph or in the candidate's own signature; if these are two different tensors,
   the signature's name wins if the checkpoint's signature has its own names, and otherwise it is an error;
3. if one tensor is left on each side, and dtype and shape are compatible, these two.

`:0` and TFLite's `serving_default_` are ignored in names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import CandidateError, nearest
from pipeline.signature import TensorSpec, shapes_fit

from .tensors import CandidateTensor

Find = Callable[[str], CandidateTensor | None]


@dataclass(frozen=True)
class TensorMatch:
    """The candidate's tensors for one side of the signature.

    Args:
        found: the candidate's tensor by the signature's name.
        reasons: a sentence for each match with different names.
        missing: tensors of the signature that the candidate lacks.
        rest: tensors of the candidate that the signature lacks.
    """

    found: Mapping[str, CandidateTensor]
    reasons: tuple[str, ...]
    missing: tuple[TensorSpec, ...]
    rest: tuple[CandidateTensor, ...]


def bare_name(name: str) -> str:
    """Returns a tensor's name without `:0` and the prefix that TFLite adds."""
    return name.removesuffix(":0").removeprefix("serving_default_")


def match_tensors(
    side: str,
    specs: Sequence[TensorSpec],
    tensors: Sequence[CandidateTensor],
    find: Find | None,
    names: Mapping[str, str],
) -> TensorMatch:
    """Matches one side of a signature with a candidate's tensors.

    Args:
        side: `input` or `output`, for messages.
        tensors: the tensors that the candidate declares.
        find: finds any tensor of the graph by name; None if the candidate is no GraphDef.
        names: the candidate's name by the signature's name, from `--candidate-names`.

    Raises:
        CandidateError: a given name does not exist, or several tensors may be meant.
    """
    found: dict[str, CandidateTensor] = {}
    reasons: list[str] = []
    for spec in specs:
        if spec.name in names:
            tensor = _find_declared(names[spec.name], tensors) or (find(names[spec.name]) if find else None)
            if tensor is None:
                known = [name for tensor in tensors for name in (tensor.name, tensor.graph_name)]
                raise CandidateError(
                    "the candidate lacks a tensor that was named",
                    where=f"--candidate-names {spec.name}",
                    got=names[spec.name],
                    next_step=nearest(names[spec.name], known),
                )
            reasons.append(f"{side} {spec.name} is {tensor}, as --candidate-names says")
        else:
            tensor = _find_by_name(side, spec, tensors, find)
            if tensor is not None and bare_name(tensor.graph_name) != bare_name(spec.tensor_name):
                reasons.append(f"{side} {spec.name} is {tensor}, by its name")
        if tensor is not None:
            found[spec.name] = tensor
    return _match_remaining(side, specs, tensors, found, reasons)


def _find_declared(name: str, tensors: Iterable[CandidateTensor]) -> CandidateTensor | None:
    """Finds a declared tensor by its name in the candidate's signature, or else by its name in the graph."""
    bare_tensor, declared = bare_name(name), list(tensors)
    own = [tensor for tensor in declared if bare_name(tensor.name) == bare_tensor]
    return next(iter(own or [tensor for tensor in declared if bare_name(tensor.graph_name) == bare_tensor]), None)


def _find_by_name(
    side: str, spec: TensorSpec, tensors: Sequence[CandidateTensor], find: Find | None
) -> CandidateTensor | None:
    bare_tensor, name = bare_name(spec.tensor_name), bare_name(spec.name)
    by_tensor = next(
        (tensor for tensor in tensors if bare_name(tensor.graph_name) == bare_tensor),
        find(spec.tensor_name) if find else None,
    )
    by_name = next((tensor for tensor in tensors if bare_name(tensor.signature_name) == name), None)
    if by_name is None and find is not None:
        by_name = find(spec.name)
    if by_tensor is None or by_name is None or by_tensor.graph_name == by_name.graph_name:
        return by_name or by_tensor
    if spec.tensor is not None:  # the signature has its own names; such tensors get numbered names when they are saved
        return by_name
    raise CandidateError(
        f"it is not clear which {side} of the candidate is {spec.name}",
        got=f"{by_tensor}, and {by_name}",
        next_step=f"say it with --candidate-names {spec.name}=…",
    )


def _match_remaining(
    side: str,
    specs: Sequence[TensorSpec],
    tensors: Sequence[CandidateTensor],
    found: dict[str, CandidateTensor],
    reasons: list[str],
) -> TensorMatch:
    matched = {tensor.graph_name for tensor in found.values()}
    missing = [spec for spec in specs if spec.name not in found]
    rest = [tensor for tensor in tensors if tensor.graph_name not in matched]
    if len(missing) == len(rest) == 1 and is_compatible(missing[0], rest[0]):
        spec, tensor = missing.pop(), rest.pop()
        found = {**found, spec.name: tensor}
        reasons = [*reasons, f"{side} {spec.name} is {tensor}, the only one that is left, of its dtype and shape"]
    return TensorMatch(found, tuple(reasons), tuple(missing), tuple(rest))


def is_compatible(spec: TensorSpec, tensor: CandidateTensor) -> bool:
    """Returns True if dtype and shape of a candidate's tensor are compatible with the signature.

    Integers with a scale and a zero point stand for real numbers, so they are compatible with floats.
    """
    is_same = spec.dtype == tensor.dtype or (bool(tensor.quantized) and spec.dtype.startswith("float"))
    return is_same and shapes_fit(spec.shape, tensor.shape)


def describe_tensors(side: str, specs: Sequence[TensorSpec], tensors: Sequence[CandidateTensor]) -> str:
    """Lists the tensors of both sides, for the end of an error message."""
    ours = "".join(f"\n  {spec}" for spec in specs) or "\n  none"
    theirs = "".join(f"\n  {tensor}" for tensor in tensors) or "\n  none"
    return f"The checkpoint's {side}s are{ours}\nThe candidate's are{theirs}"
