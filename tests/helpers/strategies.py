"""What the property tests draw from."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
json_scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
words = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)


def nested(leaves: st.SearchStrategy) -> st.SearchStrategy:
    """Values of leaves, in lists and mappings."""
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    )


# By kind, as a manifest records them: what decided a stage.
fingerprint_inputs = st.dictionaries(
    st.sampled_from(["settings", "files", "upstream", "code", "versions", "name"]),
    st.dictionaries(words, json_scalars | st.dictionaries(words, json_scalars, min_size=1, max_size=2), max_size=3),
    max_size=3,
)

FLOATS = [np.dtype(name) for name in ("float16", "float32", "float64")] + [np.dtype(ml_dtypes.bfloat16)]
INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)]


@st.composite
def float_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays `[rows, elements]` of one float dtype, near each other, far apart, and of special values."""
    dtype = draw(st.sampled_from(FLOATS))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    if dtype.kind == "f":
        values = npst.arrays(dtype, shape, elements=npst.from_dtype(dtype))
        first, second = draw(values), draw(values)
    else:
        patterns = npst.arrays(np.uint16, shape)
        first, second = draw(patterns).view(dtype), draw(patterns).view(dtype)
    near = draw(npst.arrays(np.int8, shape, elements=st.integers(-3, 3)))
    bits = first.view(f"i{dtype.itemsize}")
    with np.errstate(over="ignore"):
        close = (bits + near).astype(bits.dtype).view(dtype)
    return first, np.where(draw(npst.arrays(bool, shape)), close, second)


@st.composite
def integer_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays `[rows, elements]` of one integer dtype, its extremes included."""
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    elements = st.sampled_from([limits.min, limits.max, 0, 1]) | npst.from_dtype(dtype)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    values = npst.arrays(dtype, shape, elements=elements)
    return draw(values), draw(values)


@st.composite
def named_arrays(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Arrays by name, strings (any bytes) among them."""
    arrays: dict[str, np.ndarray] = {}
    for name in draw(st.lists(words, max_size=3, unique=True)):
        shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        dtype = draw(st.sampled_from([np.dtype(object), np.dtype(bool), np.dtype("complex64"), *FLOATS[:3], *INTEGERS]))
        if dtype.kind == "O":
            elements = st.binary(max_size=4) | st.sampled_from([b"a\0", b"\0\0", b""])
            items = draw(st.lists(elements, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
            flat = np.empty(len(items), dtype=object)
            flat[:] = items
            arrays[f"kind/{name}"] = flat.reshape(shape)
        else:
            arrays[name] = draw(npst.arrays(dtype, shape))
    return arrays
