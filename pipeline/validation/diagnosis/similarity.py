"""What a weight that differs is like instead: its own transpose, its own rounding, or another checkpoint's value.

Everything here reads files: no graph is run.
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
from pipeline.store.files import CHECKPOINT_PREFIX, DEPLOY_FOLDER, MANIFEST_FILE
from pipeline.store.manifest import Manifest

from ..compare.weights import Pair

AVERAGE = "/ExponentialMovingAverage"  # what TensorFlow's moving averages end in
TRANSPOSED, FLOAT16, BFLOAT16 = "transposed", "float16", "bfloat16"
_MOST_CHECKPOINTS = 50
_MOST_AXES = 4


@dataclass(frozen=True)
class Place:
    """Where a value stands: a checkpoint, and whether it is the moving average there.

    Args:
        prefix: the checkpoint's.
    """

    prefix: str
    is_average: bool

    @property
    def title(self) -> str:
        """The checkpoint as people know it: its step where its name tells one."""
        step, name = step_of(self.prefix), name_of(self.prefix)
        inside = Path(self.prefix).parent.name
        return f"step {step} ({inside}/{name})" if step >= 0 else f"{inside}/{name}"


@dataclass(frozen=True)
class Resemblance:
    """What the candidate's value of one variable is like.

    Args:
        differing: how many of its elements differ; all of them where the shapes do.
        kinds: some of `transposed`, `float16`, `bfloat16`.
        places: where the candidate's value stands.
        own: the places other than its own where the checkpoint's value stands.
        reference, candidate: the values at the first element that differs, as text.
        largest: the largest difference; None where there is none to take.
    """

    name: str
    key: str
    elements: int
    differing: int
    reference: str
    candidate: str
    largest: float | None
    kinds: frozenset[str] = frozenset()
    places: frozenset[Place] = field(default_factory=frozenset)
    own: frozenset[Place] = field(default_factory=frozenset)


def resemblances(pairs: Iterable[Pair], own: Path, others: Sequence[str]) -> list[Resemblance]:
    """What each of the variables that differ is like.

    Args:
        own: the prefix of the checkpoint that was to be deployed.
        others: the prefixes of other checkpoints of the same model.

    Raises:
        CheckpointError: the checkpoint is damaged; of others, those that are damaged are passed over.
    """
    bundles = [open_checkpoint(own), *_readable(others)]
    return [_resemblance(pair, bundles) for pair in pairs]


def _readable(prefixes: Sequence[str]) -> Iterator[Bundle]:
    for prefix in prefixes:
        try:
            yield open_checkpoint(prefix)
        except CheckpointError:
            continue


def _resemblance(pair: Pair, bundles: Sequence[Bundle]) -> Resemblance:
    is_other = _is_different(pair.ours, pair.theirs)
    first = int(np.argmax(is_other)) if is_other is not None and is_other.any() else 0
    shown = [str(side.ravel()[first]) if side.size > first else "nothing" for side in (pair.ours, pair.theirs)]
    return Resemblance(
        name=pair.name,
        key=pair.key,
        elements=pair.ours.size,
        differing=pair.ours.size if is_other is None else int(is_other.sum()),
        reference=shown[0],
        candidate=shown[1],
        largest=_largest(pair.ours, pair.theirs),
        kinds=frozenset(kind for kind, is_so in _KINDS if is_so(pair.ours, pair.theirs)),
        places=frozenset(_places(pair.key, pair.theirs, bundles)),
        own=frozenset(_places(pair.key, pair.ours, bundles)),
    )


def _is_different(ours: Array, theirs: Array) -> Array | None:
    """Which elements differ in their bits, flat; None where dtype or shape do."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return None
    width = ours.dtype.itemsize
    bits = [np.ascontiguousarray(side).reshape(-1).view(f"V{width}") for side in (ours, theirs)]
    return np.asarray(bits[0] != bits[1])


def _largest(ours: Array, theirs: Array) -> float | None:
    if ours.shape != theirs.shape or not ours.size or "complex" in ours.dtype.name:
        return None
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))


def _is_transposed(ours: Array, theirs: Array) -> bool:
    if ours.ndim < 2 or ours.ndim > _MOST_AXES or ours.size != theirs.size or ours.dtype != theirs.dtype:
        return False
    turned = (np.transpose(ours, axes) for axes in permutations(range(ours.ndim)) if axes != tuple(range(ours.ndim)))
    return any(_is_same(np.ascontiguousarray(each).reshape(theirs.shape), theirs) for each in turned)


def _is_rounded(ours: Array, theirs: Array, narrow: Any) -> bool:
    if ours.dtype.kind != "f" or ours.dtype.itemsize < 4 or ours.shape != theirs.shape:
        return False
    with np.errstate(all="ignore"):
        rounded = ours.astype(narrow)
    return _is_same(rounded.astype(theirs.dtype), theirs) and theirs.dtype.kind in "fV"


_KINDS = (
    (TRANSPOSED, _is_transposed),
    (FLOAT16, lambda ours, theirs: _is_rounded(ours, theirs, np.float16)),
    (BFLOAT16, lambda ours, theirs: _is_rounded(ours, theirs, ml_dtypes.bfloat16)),
)


def _is_same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _places(key: str, value: Array, bundles: Sequence[Bundle]) -> Iterator[Place]:
    """Where a value stands, other than under its own key in its own checkpoint, which comes first."""
    plain = key.removesuffix(AVERAGE)
    for number, bundle in enumerate(bundles):
        for other, is_average in ((plain, False), (plain + AVERAGE, True)):
            if (number or other != key) and _holds(bundle, other, value):
                yield Place(str(bundle.prefix), is_average)


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
    """The prefixes of other checkpoints of the same model, the newest last.

    Those in the artifact's own folder, those of the training whose artifact stands beside it, and those beside the
    files that it was taken over from.

    Args:
        checkpoint: the artifact.
    """
    home = checkpoint.parent.parent if checkpoint.parent.name == ".versions" else checkpoint.parent
    deployed = home / "training" / DEPLOY_FOLDER
    folders = [checkpoint, *sorted(_folders(deployed)), home / "training" / "checkpoints", *_origins(checkpoint)]
    own = str(checkpoint / CHECKPOINT_PREFIX)
    found = [prefix for folder in dict.fromkeys(folders) if folder.is_dir() for prefix in complete_prefixes(folder)]
    return [prefix for prefix in dict.fromkeys(found) if prefix != own][-_MOST_CHECKPOINTS:]


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def _origins(checkpoint: Path) -> Iterator[Path]:
    """The folders of the files that an artifact was made of, as its manifest tells them."""
    if not (checkpoint / MANIFEST_FILE).is_file():
        return
    try:
        files = Manifest.read(checkpoint).notes.get("inputs", {})
    except PipelineError:
        return
    yield from (Path(path).parent for label, path in files.items() if label.startswith("checkpoint"))
