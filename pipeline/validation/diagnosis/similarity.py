"""Similarities of a variable that differs: to its own transpose, its own rounding, or another checkpoint's value.

They are found by reading files, without running a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.checkpoint.bundle import Bundle, open_checkpoint
from pipeline.checkpoint.files import complete_prefixes, name_of, step_of
from pipeline.errors import CheckpointError, PipelineError
from pipeline.signature import Array
from pipeline.store.file_names import CHECKPOINT_PREFIX, DEPLOY_FOLDER, MANIFEST_FILE
from pipeline.store.manifest import Manifest

from ..compare.weights import VariablePair

AVERAGE = "/ExponentialMovingAverage"  # suffix of TensorFlow's moving averages
TRANSPOSED, FLOAT16, BFLOAT16 = "transposed", "float16", "bfloat16"
_MAX_CHECKPOINTS = 50
_MAX_AXES = 4


@dataclass(frozen=True)
class ValueSource:
    """Source of a value: a checkpoint, by its prefix, and whether the value is a moving average there."""

    prefix: str
    is_average: bool

    @property
    def title(self) -> str:
        """The checkpoint's name for users, with its step if the name contains one."""
        step, name = step_of(self.prefix), name_of(self.prefix)
        inside = Path(self.prefix).parent.name
        return f"step {step} ({inside}/{name})" if step >= 0 else f"{inside}/{name}"


@dataclass(frozen=True)
class Similarity:
    """Similarities of one variable's value in the candidate.

    Args:
        differing: number of elements that differ; all of them if the shapes do.
        reference, candidate: the values at the first element that differs, as text.
        largest: the largest difference; None if undefined.
        kinds: some of `transposed`, `float16`, `bfloat16`.
        sources: other sources of the candidate's value.
        reference_sources: other sources of the checkpoint's value.
    """

    name: str
    key: str
    elements: int
    differing: int
    reference: str
    candidate: str
    largest: float | None
    kinds: frozenset[str] = frozenset()
    sources: frozenset[ValueSource] = field(default_factory=frozenset)
    reference_sources: frozenset[ValueSource] = field(default_factory=frozenset)


def similarities(pairs: Iterable[VariablePair], prefix: Path, other_prefixes: Sequence[str]) -> list[Similarity]:
    """Finds similarities of each variable that differs.

    Args:
        prefix: the deployed checkpoint.
        other_prefixes: other checkpoints of the same model; damaged ones are skipped.

    Raises:
        CheckpointError: the deployed checkpoint is damaged.
    """
    bundles = [open_checkpoint(prefix), *_readable(other_prefixes)]
    return [_find_similarity(pair, bundles) for pair in pairs]


def _readable(prefixes: Sequence[str]) -> Iterator[Bundle]:
    for prefix in prefixes:
        try:
            yield open_checkpoint(prefix)
        except CheckpointError:
            continue


def _find_similarity(pair: VariablePair, bundles: Sequence[Bundle]) -> Similarity:
    is_other = _is_different(pair.reference, pair.candidate)
    first = int(np.argmax(is_other)) if is_other is not None and is_other.any() else 0
    shown = [str(side.ravel()[first]) if side.size > first else "nothing" for side in (pair.reference, pair.candidate)]
    return Similarity(
        name=pair.name,
        key=pair.key,
        elements=pair.reference.size,
        differing=pair.reference.size if is_other is None else int(is_other.sum()),
        reference=shown[0],
        candidate=shown[1],
        largest=_largest(pair.reference, pair.candidate),
        kinds=frozenset(kind for kind, is_so in _KIND_TESTS if is_so(pair.reference, pair.candidate)),
        sources=frozenset(_find_sources(pair.key, pair.candidate, bundles)),
        reference_sources=frozenset(_find_sources(pair.key, pair.reference, bundles)),
    )


def _is_different(reference: Array, candidate: Array) -> Array | None:
    """Marks the elements that differ in their bits, flat; None if dtype or shape differ."""
    if reference.dtype != candidate.dtype or reference.shape != candidate.shape:
        return None
    width = reference.dtype.itemsize
    bits = [np.ascontiguousarray(side).reshape(-1).view(f"V{width}") for side in (reference, candidate)]
    return np.asarray(bits[0] != bits[1])


def _largest(reference: Array, candidate: Array) -> float | None:
    if reference.shape != candidate.shape or not reference.size or "complex" in reference.dtype.name:
        return None
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(reference.astype(np.float64) - candidate.astype(np.float64))))


def _is_transposed(reference: Array, candidate: Array) -> bool:
    axes = range(reference.ndim)
    is_like = reference.size == candidate.size and reference.dtype == candidate.dtype
    if not 2 <= reference.ndim <= _MAX_AXES or not is_like:
        return False
    transposed = (np.transpose(reference, order) for order in permutations(axes) if order != tuple(axes))
    return any(_is_same(np.ascontiguousarray(each).reshape(candidate.shape), candidate) for each in transposed)


def _is_rounded(reference: Array, candidate: Array, narrow: Any) -> bool:
    if reference.dtype.kind != "f" or reference.dtype.itemsize < 4 or reference.shape != candidate.shape:
        return False
    with np.errstate(all="ignore"):
        rounded = reference.astype(narrow)
    return _is_same(rounded.astype(candidate.dtype), candidate) and candidate.dtype.kind in "fV"


_KIND_TESTS = (
    (TRANSPOSED, _is_transposed),
    (FLOAT16, lambda reference, candidate: _is_rounded(reference, candidate, np.float16)),
    (BFLOAT16, lambda reference, candidate: _is_rounded(reference, candidate, ml_dtypes.bfloat16)),
)


def _is_same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _find_sources(key: str, value: Array, bundles: Sequence[Bundle]) -> Iterator[ValueSource]:
    """Yields the sources of a value, except its own key in the first bundle, the deployed checkpoint."""
    plain = key.removesuffix(AVERAGE)
    for number, bundle in enumerate(bundles):
        for other, is_average in ((plain, False), (plain + AVERAGE, True)):
            if (number or other != key) and _holds(bundle, other, value):
                yield ValueSource(str(bundle.prefix), is_average)


def _holds(bundle: Bundle, key: str, value: Array) -> bool:
    if key not in bundle.tensors:
        return False
    tensor = bundle.tensors[key]
    if tensor.is_string or tuple(tensor.shape) != value.shape:
        return False
    try:
        return _is_same(bundle.read(key), value)
    except CheckpointError:
        return False


def other_checkpoints(checkpoint: Path) -> list[str]:
    """Finds the prefixes of other checkpoints of the same model, the newest last.

    Searches the artifact's own folder, the training artifact beside it, and the folders that it was imported from.

    Args:
        checkpoint: the artifact.
    """
    home = checkpoint.parent.parent if checkpoint.parent.name == ".versions" else checkpoint.parent
    deployed = home / "training" / DEPLOY_FOLDER
    folders = [checkpoint, *sorted(deployed.glob("*/")), home / "training" / "checkpoints", *_origins(checkpoint)]
    own = str(checkpoint / CHECKPOINT_PREFIX)
    found = [prefix for folder in dict.fromkeys(folders) if folder.is_dir() for prefix in complete_prefixes(folder)]
    return [prefix for prefix in dict.fromkeys(found) if prefix != own][-_MAX_CHECKPOINTS:]


def _origins(checkpoint: Path) -> Iterator[Path]:
    """Yields the folders of the files that an artifact was made from, by its manifest."""
    if not (checkpoint / MANIFEST_FILE).is_file():
        return
    try:
        files = Manifest.read(checkpoint).notes.get("inputs", {})
    except PipelineError:
        return
    yield from (Path(path).parent for label, path in files.items() if label.startswith("checkpoint"))
