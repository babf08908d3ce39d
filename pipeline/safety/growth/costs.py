"""What ops take besides their outputs: threads, buffers and tables of a size that a number in the model decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from .shaping import Inputs, Operator
from .values import STRING_BYTES, Value, elements_of

_THREAD = 1 << 20  # bytes of a thread: what it touches of its stack, and what the system keeps of it
_CALL = 256  # of a call that waits for its result
_BUFFER = 24  # of an element's place in a buffer
_SLOT = 16  # of a place in a hash table
_QUEUED = 40  # of a tensor in a queue

Cost = Callable[[Operator, Inputs], int]


def at_input(index: int, bytes_each: int) -> Cost:
    """Returns the cost of as many as an input says."""

    def cost(op: Operator, given: Inputs) -> int:
        number = given[index].number if -len(given) <= index < len(given) else None
        return 0 if number is None else max(0, int(number)) * bytes_each

    return cost


def at_attribute(name: str, bytes_each: int) -> Cost:
    """Returns the cost of as many as an attribute says."""

    def cost(op: Operator, given: Inputs) -> int:
        return max(0, op.integer(name)) * bytes_each

    return cost


def sum_of(*costs: Cost) -> Cost:
    """Returns the cost of all of them."""
    return lambda op, given: sum(cost(op, given) for cost in costs)


def _table(op: Operator, given: Inputs) -> int:
    value = max(1, elements_of(op.dims("value_shape") or ()))
    key = max(1, given[0].size_bytes) if given else 1
    return max(0, op.integer("initial_num_buckets", 1 << 17)) * (value + key)


def _parsed(op: Operator, given: Inputs) -> int:
    """Dense features of one example."""
    shapes = [*op.integers("dense_shapes"), *op.integers("context_dense_shapes")]
    return sum(shapes) * 4


def _ngrams(op: Operator, given: Inputs) -> int:
    widths, padded = op.integers("ngram_widths"), op.integer("pad_width")
    texts = [len(op.text(name)) for name in ("left_pad", "right_pad", "separator")]
    total = 0
    for width in widths:
        pads = width - 1 if padded < 0 else min(padded, width - 1)
        count = max(0, 2 * pads - width + 2)  # of one word
        total += count * (STRING_BYTES + width * (min(texts[:2]) + texts[2]))
    return total


def _padded_batch(op: Operator, given: Inputs) -> int:
    """One element, of all components."""
    shapes = given[2 : 2 + op.integer("N")]
    return sum(_asked(shape) for shape in shapes)


def _asked(shape: Value) -> int:
    return math.prod(max(1, int(number or 1)) for number in shape.numbers) if shape.numbers else 0


def _buckets(op: Operator, given: Inputs) -> int:
    return max(0, op.integer("max_splits")) * max(0, op.integer("num_buckets")) * 4


def _rows(op: Operator, given: Inputs) -> int:
    """A pointer for each row of a sparse matrix."""
    shape = given[0 if op.op == "SparseMatrixZeros" else 2].numbers or (0,)
    return math.prod(max(1, int(number or 1)) for number in shape[:-1]) * 4


_PARALLEL = at_input(-1, _CALL)

# Names without `Experimental`, which stands before older ones.
COSTS: Mapping[str, Cost] = {
    # Threads.
    "ThreadPoolHandle": at_attribute("num_threads", _THREAD),
    **dict.fromkeys(("PrivateThreadPoolDataset", "MaxIntraOpParallelismDataset"), at_input(1, _THREAD)),
    **dict.fromkeys(("BatchFunction", "Batch"), at_attribute("num_batch_threads", _THREAD)),
    # Calls at the same time, and places in buffers. Some have their number last, behind what the function is given.
    "SlidingWindowDataset": at_input(1, _BUFFER),
    "ParallelMapDataset": _PARALLEL,
    "ParallelMapDatasetV2": _PARALLEL,
    "ParallelFilterDataset": _PARALLEL,
    "ParseExampleDataset": at_input(1, _CALL),
    "ParseExampleDatasetV2": at_input(1, _CALL),
    "ParallelBatchDataset": sum_of(at_input(1, _BUFFER), at_input(2, _CALL)),
    "MapAndBatchDataset": sum_of(at_input(-3, _BUFFER), at_input(-2, _CALL)),
    "InterleaveDataset": at_input(-2, _BUFFER),
    "ParallelInterleaveDataset": sum_of(at_input(-5, _THREAD), at_input(-2, _BUFFER), at_input(-1, _THREAD)),
    "LegacyParallelInterleaveDatasetV2": sum_of(at_input(-4, _THREAD), at_input(-1, _THREAD)),
    "ParallelInterleaveDatasetV2": sum_of(at_input(-3, _CALL), at_input(-1, _CALL)),
    "ParallelInterleaveDatasetV3": sum_of(at_input(-3, _CALL), at_input(-1, _CALL)),
    "ParallelInterleaveDatasetV4": sum_of(at_input(-5, _CALL), at_input(-2, _CALL), at_input(-1, _CALL)),
    **dict.fromkeys(("ShuffleDataset", "ShuffleDatasetV2", "ShuffleDatasetV3"), at_input(1, _BUFFER)),
    **dict.fromkeys(("ShuffleAndRepeatDataset", "ShuffleAndRepeatDatasetV2"), at_input(1, _BUFFER)),
    **dict.fromkeys(("PaddedBatchDataset", "PaddedBatchDatasetV2"), _padded_batch),
    # Queues and tables.
    **dict.fromkeys(("RandomShuffleQueue", "RandomShuffleQueueV2"), at_attribute("min_after_dequeue", _QUEUED)),
    **dict.fromkeys(("MutableDenseHashTable", "MutableDenseHashTableV2", "AnonymousMutableDenseHashTable"), _table),
    # What samplers weigh.
    **dict.fromkeys(
        ("LearnedUnigramCandidateSampler", "ThreadUnsafeUnigramCandidateSampler"),
        at_attribute("range_max", _SLOT),
    ),
    # Trees.
    **dict.fromkeys(("BoostedTreesAggregateStats", "BoostedTreesSparseAggregateStats"), _buckets),
    "BoostedTreesMakeStatsSummary": _buckets,
    "BoostedTreesCreateQuantileStreamResource": at_input(2, _SLOT),
    # Arrays that grow up to the place that is written.
    **dict.fromkeys(("TensorArrayWrite", "TensorArrayWriteV2", "TensorArrayWriteV3"), at_input(1, _QUEUED)),
    **dict.fromkeys(("SparseTensorToCSRSparseMatrix", "SparseMatrixZeros"), _rows),
    # Examples and texts.
    **dict.fromkeys(("ParseExample", "ParseExampleV2", "ParseSingleExample"), _parsed),
    **dict.fromkeys(("ParseSequenceExample", "ParseSequenceExampleV2", "ParseSingleSequenceExample"), _parsed),
    "StringNGrams": _ngrams,
    "Mfcc": at_attribute("filterbank_channel_count", 8),
    "AudioSpectrogram": at_attribute("window_size", 8),
}


@cache
def _cost_of_op(op: str) -> Cost | None:
    return COSTS.get(op.removeprefix("Experimental"))


def cost_of(op: Operator, given: Sequence[Value]) -> int:
    """Returns the bytes that an op takes besides its outputs, as far as constants decide it."""
    cost = _cost_of_op(op.op)
    if cost is None:
        return 0
    try:
        return cost(op, given)
    except (LookupError, ValueError, TypeError, ArithmeticError):  # it is no such op
        return 0
