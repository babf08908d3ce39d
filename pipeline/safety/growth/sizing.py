"""Rules of the ops whose output has a size that a number in an input or attribute decides, and nothing else does."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

from pipeline.graph.protos import DecodeError, TensorProto

from .shaping import Inputs, Operator, Result, Rule, pad
from .values import STRING_BYTES, UNKNOWN, Dims, Number, Unknown, Value, add, axis_of, broadcast, dims_of, shape_from


def shape_at(index: int) -> Rule:
    """Returns the rule of an op that makes a tensor of the shape in one of its inputs."""

    def rule(op: Operator, given: Inputs) -> Value:
        return Value(shape_from(given[index]), op.item("dtype"))

    return rule


def shape_of_attribute(name: str) -> Rule:
    """Returns the rule of an op that makes a tensor of the shape in an attribute."""

    def rule(op: Operator, given: Inputs) -> Value:
        return Value(op.dims(name), op.item("dtype"))

    return rule


def rows_at(index: int, data: int = 0, above: int | None = None) -> Rule:
    """Returns the rule of an op that makes as many rows as a number in an input says, each like a row of the data.

    Args:
        above: the input whose rank is replaced by the rows; None for one.
    """

    def rule(op: Operator, given: Inputs) -> Value:
        replaced = (1,) if above is None else given[above].dims
        row = (given[data].dims or ())[len(replaced) :] if replaced is not None else ()
        return given[data].shaped([length_from(given[index].number), *row], max(given[data].item, 4))

    return rule


def length_from(number: Number | None) -> int:
    """Returns a length; -1 if it is unknown."""
    return -1 if number is None or number < 0 else int(number)


def image_of(index: int, item: int = 1) -> Rule:
    """Returns the rule of an op that makes images of the height and width in an input."""

    def rule(op: Operator, given: Inputs) -> Value:
        batch, *_, depth = (-1, -1) if given[0].dims is None else given[0].dims
        return Value((batch, *shape_from(given[index])[:2], depth), max(item, given[0].item))

    return rule


def crop_and_resize(op: Operator, given: Inputs) -> Value:
    depth = given[0].dims[-1] if given[0].dims else -1
    boxes = given[1].dims[0] if given[1].dims else -1
    return Value((boxes, *shape_from(given[3])[:2], depth), 4)


def number_sampled(op: Operator, given: Inputs) -> Result:
    count = op.integer("num_sampled")
    true = Value(given[0].dims, 4)
    return [Value((count,), 8), true, Value((count,), 4)]


def samples_per_row(op: Operator, given: Inputs) -> Value:
    rows = given[0].dims[0] if given[0].dims else -1
    return Value((rows, length_from(given[1].number)), 4)


def shape_and_more(op: Operator, given: Inputs) -> Value:
    more = given[1].dims or ()
    return Value((*shape_from(given[0]), *more), max(4, given[1].item))


def sobol(op: Operator, given: Inputs) -> Value:
    return Value((length_from(given[1].number), length_from(given[0].number)), 4)


def one_hot(op: Operator, given: Inputs) -> Value:
    indices, depth = given[0].dims, length_from(given[1].number)
    dims = list(indices or ())
    axis = op.integer("axis", -1)
    dims.insert(len(dims) if axis == -1 else axis_of(axis, len(dims) + 1), depth)
    return Value(tuple(dims), max(1, given[2].item))


def counted(size: int, rows: int | None = None) -> Rule:
    """Returns the rule of a histogram of as many bins as an input says."""

    def rule(op: Operator, given: Inputs) -> Value:
        dims = given[rows].dims if rows is not None else None
        batch = dims[:1] if dims is not None and (len(dims) == 2 or op.op == "RaggedBincount") else ()
        return Value((*batch, length_from(given[size].number)), 4)

    return rule


def segments(op: Operator, given: Inputs) -> Value:
    """The rows are one more than the last number of a segment."""
    numbers = given[2 if op.op.startswith("Sparse") else 1].numbers
    if not numbers:
        raise Unknown
    row = dims_of(given[0])[1:]
    return given[0].shaped([1 + max(int(number or 0) for number in numbers), *row])


def stitch(op: Operator, given: Inputs) -> Value:
    count = len(given) // 2
    places = [int(number or 0) for one in given[:count] for number in one.numbers or ()]
    data, where = given[count], given[0]
    row = dims_of(data)[len(dims_of(where)) :]
    return data.shaped([-1 - max(places, default=0), *row])


# Sparse tensors.


def sparse_sum(op: Operator, given: Inputs) -> Value:
    shape, axes = shape_from(given[2]), given[3].numbers
    if axes is None:
        raise Unknown
    gone = {axis_of(axis, len(shape)) for axis in axes}
    return given[1].shaped(length for axis, length in enumerate(shape) if axis not in gone)


def sparse_product(op: Operator, given: Inputs) -> Value:
    shape, dense = shape_from(given[2]), dims_of(given[3])
    row, column = (1 if op.integer("adjoint_a") else 0), (0 if op.integer("adjoint_b") else 1)
    return given[3].shaped([shape[row], dense[column]])


def filled_rows(op: Operator, given: Inputs) -> Result:
    rows = shape_from(given[2])[0]
    return [Value((-abs(rows), 2), 8), Value((-abs(rows),), given[1].item), Value((rows,), 1), UNKNOWN]


def sparse_matrix(shape: int) -> Rule:
    """Returns the rule of an op that makes a sparse matrix: its handle has the shape, and takes nothing by itself."""

    def rule(op: Operator, given: Inputs) -> Value:
        return Value(shape_from(given[shape]), 0)

    return rule


def dense_matrix(op: Operator, given: Inputs) -> Value:
    return Value(given[0].dims, op.item("type"))


# Space and time.


def space_to_batch(op: Operator, given: Inputs) -> Value:
    paddings = given[1 if op.op == "SpaceToBatch" else 2].numbers
    dims = given[0].dims
    if paddings is None:
        raise Unknown
    dims = (-1,) * (1 + len(paddings) // 2) if dims is None else dims
    more = [int(one or 0) + int(other or 0) for one, other in zip(paddings[::2], paddings[1::2], strict=True)]
    padded = [add(length, pad) for length, pad in zip(dims[1:], more, strict=False)]
    return given[0].shaped([dims[0], *padded, *dims[1 + len(padded) :]])  # as many elements, in another order


def patches(op: Operator, given: Inputs) -> Value:
    dims, sizes, steps = dims_of(given[0]), op.integers("ksizes"), op.integers("strides")
    inner = [windows(*each, op.text("padding")) for each in zip(dims[1:-1], sizes[1:-1], steps[1:-1], strict=True)]
    return given[0].shaped([dims[0], *inner, dims[-1] * math.prod(sizes)])


def windows(length: int, size: int, step: int, padding: str) -> int:
    """Returns how many windows lie along a length; more than one for each step of it is none of `SAME` and `VALID`."""
    if length < 0 or step <= 0:
        return -1
    return -(-length // step) if padding == "SAME" else max(0, (length - size) // step + 1)


def padded_convolution(op: Operator, given: Inputs) -> Value:
    return convolution(op, [pad(op, given), given[2]])


def convolution(op: Operator, given: Inputs) -> Value:
    """Only what is padded by itself, and the number of filters, count; the window's size takes little away."""
    dims, filters = dims_of(given[0]), dims_of(given[1])
    pads, steps = op.integers("explicit_paddings"), op.integers("strides")
    depth = filters[-1] * filters[-2] if op.op.startswith("Depthwise") else filters[-1]
    if op.text("data_format") in ("", "NHWC", "NDHWC"):
        inner = range(1, len(dims) - 1)
        lengths = [dims[0], *(_convolved(axis, dims, filters, pads, steps) for axis in inner), depth]
    else:
        lengths = [dims[0], depth, *(-1 for _ in dims[2:])]
    return given[0].shaped(lengths)


def _convolved(axis: int, dims: Dims, filters: Dims, pads: list[int], steps: list[int]) -> int:
    more = sum(pads[2 * axis : 2 * axis + 2]) if pads else 0
    least = (abs(dims[axis]) + more - abs(filters[axis - 1])) // max(1, steps[axis] if axis < len(steps) else 1)
    return -max(1, least)


def spectrum(op: Operator, given: Inputs) -> Value:
    """The last axes of a Fourier transform are as long as asked for; half of that for real numbers."""
    lengths = list(shape_from(given[1]))
    axes = [int(axis or 0) for axis in given[2].numbers or ()] if len(given) > 2 else list(range(-len(lengths), 0))
    dims = list(given[0].dims or (-1,) * len(lengths))
    for axis, length in zip(axes, lengths, strict=False):
        dims[axis_of(axis, len(dims))] = length
    is_half = op.op.startswith("RFFT")
    if is_half and dims:
        dims[-1] = dims[-1] // 2 + 1 if dims[-1] >= 0 else -1
    return Value(tuple(dims), 4 if op.op.startswith("IRFFT") else 8)


def mfcc(op: Operator, given: Inputs) -> Value:
    rows = list((given[0].dims or (-1, -1, -1))[:2])
    return Value((*rows, op.integer("dct_coefficient_count", 13)), 4)


def spectrogram(op: Operator, given: Inputs) -> Value:
    return Value((-1, 1 + op.integer("window_size") // 2), 4)


def sound(op: Operator, given: Inputs) -> Value:
    samples, channels = op.integer("desired_samples", -1), op.integer("desired_channels", -1)
    return Value((samples if samples >= 0 else -1, channels if channels >= 0 else -1), 4)


# Decompositions.


def square(op: Operator, given: Inputs) -> Result:
    """A full basis of m rows has m columns, however few the matrix has."""
    dims = dims_of(given[0])
    whole = given[0].shaped([*dims[:-2], dims[-2], dims[-2]])
    other = given[0].shaped([*dims[:-2], dims[-1], dims[-1]])
    if not op.integer("full_matrices"):
        raise Unknown
    if op.op == "Qr":
        return [whole, given[0].shaped(dims)]
    return [given[0].shaped([*dims[:-2], min(dims[-2:], key=abs)]), whole, other]


# Texts.


def text_of_width(op: Operator, given: Inputs) -> Value:
    length = max(op.integer("width", -1), op.integer("precision", -1), 0)
    return Value(given[0].dims, STRING_BYTES + length)


def join(op: Operator, given: Inputs) -> Value:
    length = sum(max(0, value.item - STRING_BYTES) for value in given)
    return Value(broadcast(*map(dims_of, given)), STRING_BYTES + length)


def reduce_join(op: Operator, given: Inputs) -> Value:
    dims, axes = dims_of(given[0]), given[1].numbers
    gone = {axis_of(axis, len(dims)) for axis in axes or ()}
    times = math.prod(abs(length) for axis, length in enumerate(dims) if axis in gone)
    kept = [length for axis, length in enumerate(dims) if axis not in gone]
    return given[0].shaped(kept, STRING_BYTES + max(0, given[0].item - STRING_BYTES) * times)


def padded_bytes(op: Operator, given: Inputs) -> Value:
    length = length_from(given[1].number)
    return Value((*(given[0].dims or ()), -(abs(length) // max(1, op.item("out_type")) or 1)), op.item("out_type"))


def serialized(op: Operator, given: Inputs) -> Value:
    return Value((), STRING_BYTES + given[0].size_bytes)


_MOST_UNPACKED = 1 << 30  # bytes of a text, beyond which it is not unpacked further
_ENDLESS = 1 << 40


def decompressed(op: Operator, given: Inputs) -> Value:
    """A constant is unpacked, and forgotten again if it is large; an archive of gigabytes is no model's."""
    if given[0].text is None:
        raise Unknown
    unpacker, kept, size = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), b"", 0
    rest = given[0].text
    try:
        while rest and size <= _MOST_UNPACKED:
            part = unpacker.decompress(rest, 1 << 24)
            size += len(part)
            kept = kept + part if size <= 1 << 24 else b""
            rest = unpacker.unconsumed_tail
    except zlib.error as exc:
        raise Unknown from exc
    if size > _MOST_UNPACKED:
        return Value((), _ENDLESS)
    return Value((), STRING_BYTES + size, text=kept if len(kept) == size else None)


def parse_tensor(op: Operator, given: Inputs) -> Value:
    """A tensor's message may say of one number that it stands for all."""
    if given[0].text is None:
        raise Unknown
    try:
        message = TensorProto.FromString(given[0].text)
    except DecodeError as exc:
        raise Unknown from exc
    return Value(tuple(max(0, dim.size) for dim in message.tensor_shape.dim), max(1, op.item("out_type")))


# Lists of tensors: their handles have the length of the list as their shape.


def list_of(index: int) -> Rule:
    """Returns the rule of an op that makes a list of as many tensors as an input says."""

    def rule(op: Operator, given: Inputs) -> Result:
        made = Value((length_from(given[index].number),), 32)
        return [made, UNKNOWN] if op.op.startswith("TensorArray") else made

    return rule


def list_from(index: int) -> Rule:
    """Returns the rule of an op that makes a list of an input's rows."""

    def rule(op: Operator, given: Inputs) -> Value:
        return Value(dims_of(given[index])[:1], 32)

    return rule


def list_up_to(op: Operator, given: Inputs) -> Value:
    """A list as long as the last place that it is filled at."""
    return Value((1 + max(int(number or 0) for number in given[1].numbers or (0,)),), 32)


def joined_list(op: Operator, given: Inputs) -> list[Value]:
    rows = sum(int(number or 0) for number in given[2].numbers or ())
    return [Value((-max(1, rows), *shape_from(given[1])[1:]), op.item("element_dtype")), UNKNOWN]


def longer_list(op: Operator, given: Inputs) -> Value:
    return Value((add(dims_of(given[0])[0], 1),), 32)


def stacked(op: Operator, given: Inputs) -> Value:
    count = dims_of(given[0])[0] if given[0].dims else -1
    return Value((count, *shape_from(given[1])), op.item("element_dtype"))


def element(shape: int) -> Rule:
    """Returns the rule of an op that takes a tensor out of a list: zeros of a shape, if there is none."""

    def rule(op: Operator, given: Inputs) -> Value:
        return Value(shape_from(given[shape]), op.item("element_dtype"))

    return rule


def gathered_list(op: Operator, given: Inputs) -> Value:
    return Value((*dims_of(given[1]), *shape_from(given[2])), op.item("element_dtype"))


def gathered_array(op: Operator, given: Inputs) -> Value:
    return Value((*dims_of(given[1]), *(op.dims("element_shape") or ())), op.item("dtype"))


# Queues: their handles have the shape of an element.


def queue(op: Operator, given: Inputs) -> Value:
    return Value(op.dims("shapes"), 1)


def dequeue_many(op: Operator, given: Inputs) -> Value:
    return Value((length_from(given[1].number), *(given[0].dims or ())), 1)


def looked_up(op: Operator, given: Inputs) -> Value:
    return given[2].shaped([*dims_of(given[1]), *dims_of(given[2])])


def best_boxes(op: Operator, given: Inputs) -> Result:
    return [Value((-1, op.integer("post_nms_topn"), 4), 4), UNKNOWN]


def most_boxes(op: Operator, given: Inputs) -> Result:
    """Padded to as many boxes as asked for."""
    if op.op == "NonMaxSuppressionV4" and op.integer("pad_to_max_output_size"):
        return [Value((length_from(given[2].number),), 4), UNKNOWN]
    if op.op == "CombinedNonMaxSuppression" and not op.integer("pad_per_class"):
        batch = given[0].dims[0] if given[0].dims else -1
        made = Value((batch, length_from(given[3].number)), 4)
        return [Value((*(made.dims or ()), 4), 4), made, made, UNKNOWN]
    return UNKNOWN


def padded_by_compiler(op: Operator, given: Inputs) -> Value:
    dims, columns = dims_of(given[0]), [one.numbers for one in given[2:5]]
    if any(column is None or len(column) != len(dims) for column in columns):
        raise Unknown
    rows: Iterable[tuple[Number | None, ...]] = zip(*(column or () for column in columns), strict=True)
    lengths = []
    for length, (before, after, between) in zip(dims, rows, strict=True):
        more = int(before or 0) + int(after or 0) + max(0, abs(length) - 1) * int(between or 0)
        lengths.append(add(length, more) if more > 0 else length)
    return given[0].shaped(lengths)
