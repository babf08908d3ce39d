"""Rules of ops whose input is an index: its bound is the length of what it points into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .shapes import broadcast
from .step import Made, Rules, Step
from .tensors import UNKNOWN, Dim, Dims, Open, Value, anything

_MOST_NUMBERS = 4096


def gather(step: Step) -> Value:
    """Rows of a table, or elements of an input."""
    params, indices = step.value(0), step.value(1)
    axis = step.single(2) if step.node.op == "GatherV2" and len(step.given) > 2 else 0
    chosen = step.whole_numbers(1)
    if params.numbers is not None and chosen is not None and params.dims is not None and len(params.dims) == 1:
        numbers = tuple(params.numbers[number] for number in chosen)
        return Value(indices.dims, numbers=numbers)
    if axis is None or params.dims is None or not params.dims:
        return Value(origins=params.origins)
    at = axis % len(params.dims)
    if chosen:
        step.facts.at_least(params.dims[at], max(chosen) + 1)
    step.index(1, params.dims[at])
    inner = step.number("batch_dims")
    if at == 0 and not inner and _is_batch(params.dims):
        step.row_numbers(1)
    if indices.dims is None:
        return Value(origins=params.origins)
    return replace(params.shaped((*params.dims[:at], *indices.dims[inner:], *params.dims[at + 1 :])), looked=())


def _is_batch(dims: Dims | None) -> bool:
    """Returns True for what has the rows of the inputs as its own."""
    first = dims[0] if dims else None
    return isinstance(first, Open) and first.size.is_batch and not first.changes


def gather_nd(step: Step) -> Value:
    params, indices = step.dims(0), step.dims(1)
    depth = indices[-1] if indices else None
    if params is None or not isinstance(depth, int) or indices is None:
        step.index(1, anything())
        return UNKNOWN
    sizes = [dim for dim in params[:depth] if isinstance(dim, int)]
    is_known = len(sizes) + _is_batch(params) == depth and bool(sizes)  # numbers of rows come from no input
    step.index(1, min(sizes) if is_known else anything())
    return Value((*indices[:-1], *params[depth:]))


def one_hot(step: Step) -> Value:
    depth, dims, axis = step.single(1), step.dims(0), step.number("axis", -1)
    step.index(0, depth if depth is not None else anything())
    if dims is None:
        return UNKNOWN
    at = axis % (len(dims) + 1)
    return Value((*dims[:at], anything() if depth is None else depth, *dims[at:]))


def labels(step: Step) -> Made:
    """Classes of a sparse softmax."""
    logits = step.dims(0)
    step.index(1, logits[-1] if logits else anything())
    return [Value(logits[:1] if logits else None), Value(logits)]


def in_top_k(step: Step) -> Value:
    logits = step.dims(0)
    step.index(1, logits[-1] if logits else anything())
    return Value(logits[:1] if logits else None)


def segments(step: Step) -> Value:
    """Sums of parts: the last input is their number."""
    counts, data = step.value(2).numbers or (), step.dims(0)
    count: Dim = counts[0] if len(counts) == 1 and isinstance(counts[0], int | Open) else anything()
    step.index(1, count)
    step.row_numbers(1)
    return Value((count, *data[1:]) if data else None)


def sorted_segments(step: Step) -> Value:
    """Rows of a table are summed by numbers that rise from 0."""
    data = step.dims(0)
    if data:
        step.index(1, data[0])
        if _is_batch(data):
            step.row_numbers(1)
    step.within(2, 0)
    step.row_numbers(2, is_rising=True)
    return Value((Open(step.facts.batch), *data[1:]) if data else None)


def rising(step: Step) -> Value:
    step.within(1, 0)
    step.row_numbers(1, is_rising=True)
    data = step.dims(0)
    return Value((anything(), *data[1:]) if data else None)


def bincount(step: Step) -> Value:
    size = step.single(1)
    step.index(0, size if size is not None else anything())
    return Value((anything() if size is None else size,))


def reverse_sequence(step: Step) -> Value:
    dims, axis = step.dims(0), step.number("seq_dim")
    length = dims[axis] if dims and axis < len(dims) else None
    step.within(1, 0, length if isinstance(length, int) else None)
    return step.value(0)


def scatter(step: Step) -> Value:
    shape = step.value(2).numbers
    depth = (step.dims(0) or (None,))[-1]
    sizes = [each for each in shape or () if isinstance(each, int)]
    step.index(0, min(sizes[:depth]) if isinstance(depth, int) and sizes and len(sizes) >= depth else anything())
    if depth == 1 and _is_batch(_dims(shape)):
        step.row_numbers(0)
    return Value(_dims(shape))


def scatter_onto(step: Step) -> Value:
    target, depth = step.dims(0), (step.dims(1) or (None,))[-1]
    sizes = [dim for dim in target or () if isinstance(dim, int)]
    if depth == 1 and _is_batch(target):
        step.row_numbers(1)
    step.index(1, min(sizes[:depth]) if isinstance(depth, int) and sizes and len(sizes) >= depth else anything())
    return step.value(0)


def range_(step: Step) -> Value:
    """Numbers up to an input: a length."""
    ends = [step.single(number) for number in range(3)]
    start, limit, delta = ends
    upto = step.value(1).numbers
    if (start, delta) == (0, 1) and upto and isinstance(upto[0], Open) and upto[0].size.largest is not None:
        return Value((upto[0],))
    if start is None or limit is None or not delta or (limit - start) // delta > _MOST_NUMBERS:
        return Value((anything(),), rows=1 if (start, limit, delta) == (0, None, 1) else None)
    numbers = tuple(range(start, limit, delta))
    return Value((len(numbers),), numbers=numbers)


def decode(step: Step) -> Made:
    """What CTC decodes has no more steps than there are."""
    dims = step.rank(0, 3)
    step.within(1, 0, dims[0] if dims and isinstance(dims[0], int) else None)
    return []


def compare(step: Step) -> Value:
    """Numbers from 0 on are compared with lengths: of steps, of which there are no more than numbers."""
    for one, other in ((0, 1), (1, 0)):
        numbers = step.whole_numbers(one)
        is_whole = all("int" in origin.leaf.dtype for origin in step.value(other).origins)
        if is_whole and numbers is not None and len(numbers) > 1 and numbers == [*range(len(numbers))]:
            step.within(other, 0, len(numbers))
    return broadcast(step)


def _dims(numbers: Sequence[Dim | float | None] | None) -> tuple[Dim, ...] | None:
    if numbers is None:
        return None
    return tuple(each if isinstance(each, int | tuple) else anything() for each in numbers)


RULES: Rules = {
    **dict.fromkeys(("Gather", "GatherV2", "ResourceGather"), gather),
    **dict.fromkeys(("GatherNd", "ResourceGatherNd"), gather_nd),
    "OneHot": one_hot,
    "SparseSoftmaxCrossEntropyWithLogits": labels,
    **dict.fromkeys(("InTopK", "InTopKV2"), in_top_k),
    **dict.fromkeys([f"UnsortedSegment{kind}" for kind in ("Sum", "Max", "Min", "Prod")], segments),
    **dict.fromkeys([f"SparseSegment{kind}" for kind in ("Sum", "Mean", "SqrtN")], sorted_segments),
    **dict.fromkeys([f"SparseSegment{kind}WithNumSegments" for kind in ("Sum", "Mean", "SqrtN")], sorted_segments),
    **dict.fromkeys([f"Segment{kind}" for kind in ("Sum", "Mean", "Max", "Min", "Prod")], rising),
    **dict.fromkeys(("Bincount", "DenseBincount"), bincount),
    "ReverseSequence": reverse_sequence,
    "ScatterNd": scatter,
    **dict.fromkeys(("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub"), scatter_onto),
    "Range": range_,
    **dict.fromkeys(("CTCGreedyDecoder", "CTCBeamSearchDecoder"), decode),
    **dict.fromkeys(("Less", "LessEqual", "Greater", "GreaterEqual"), compare),
}
