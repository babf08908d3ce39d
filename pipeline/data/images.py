"""Read a folder of images as rows: a folder of class folders, or images side by side.

An input of numbers takes the decoded pixels: 0 to 255 for integers; for floats the numbers of `--data-range`, since no
file tells what a model was trained on. An input of strings takes the bytes of the files, for a graph that decodes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError, nearest
from pipeline.inputs import files_below
from pipeline.signature import Array, Signature, TensorSpec

from .columns import option, report
from .npz import object_array
from .values import numpy_dtype

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MOST_BYTES = 4 << 30  # of all rows together; decoded pixels are many times larger than their files
_DEEP = ("I", "F")  # modes of more than 8 bits per channel, which a conversion would cut off


@dataclass(frozen=True)
class _Layout:
    """How an input takes the pixels of an image; None where the signature leaves it open."""

    height: int | None
    width: int | None
    channels: int
    channels_first: bool = False
    has_channels: bool = True

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a row."""
        if not self.has_channels:
            return height, width
        return (self.channels, height, width) if self.channels_first else (height, width, self.channels)


def is_folder_of_images(folder: Path) -> bool:
    """Return True if there is an image in a folder, or in one of the folders in it."""
    return any(path.suffix.lower() in _SUFFIXES for path in files_below(folder))


def read_images(folder: Path, signature: Signature) -> dict[str, Array]:
    """Read the images of a folder.

    Args:
        folder: has the images; or a folder of images for each class, whose number is that of its name in the decision's
            labels, or its own if all names are numbers, or that in alphabetical order.

    Returns:
        The rows of the input, in the order of the paths; under `labels` the classes, if there are any.

    Raises:
        DataError: the model has no input for images, a file is no image, or images do not fit the input.
    """
    files = [path for path in files_below(folder) if path.suffix.lower() in _SUFFIXES]
    if len(signature.inputs) != 1:
        raise DataError(
            "a folder of images is for a model with one input",
            where=folder,
            got=", ".join(map(str, signature.inputs)) or "no input",
            next_step="Give an .npz with an array for each input",
        )
    spec = signature.inputs[0]
    others = len(files_below(folder)) - len(files)
    if others:
        report(folder, f"{others} files that are no images are left out")
    rows = {spec.name: _encoded(files, spec) if spec.dtype == "string" else _decoded(folder, files, spec)}
    labels = _classes_of(folder, files, () if signature.decision is None else signature.decision.labels)
    return rows if labels is None else {**rows, "labels": labels}


def _encoded(files: Sequence[Path], spec: TensorSpec) -> Array:
    if spec.shape is not None and len(spec.shape) != 1:
        raise DataError("an input of images has one string for each row", got=spec, wanted=f"{spec.name} string [?]")
    return object_array([path.read_bytes() for path in files])


def _classes_of(folder: Path, files: Sequence[Path], known: Sequence[str]) -> Array | None:
    names = [path.relative_to(folder).parts[:-1] for path in files]
    if not any(names):
        return None
    for path, parts in zip(files, names, strict=True):
        if len(parts) != 1:
            raise DataError(
                "some images are in a class folder and some are not" if not parts else "class folders have folders",
                where=path,
                wanted="all images side by side, or all in one folder for each class",
            )
    classes = sorted({parts[0] for parts in names})
    numbers = _number(folder, classes, known)
    return np.array([numbers[parts[0]] for parts in names], np.int64)


def _number(folder: Path, classes: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    if known and not all(name.isdecimal() for name in classes):
        for name in classes:
            if name not in known:
                raise DataError(
                    "a folder is no class",
                    where=folder / name,
                    got=name,
                    wanted=f"one of {', '.join(known)}",
                    next_step=nearest(name, known),
                )
        return {name: number for number, name in enumerate(known)}
    if all(name.isdecimal() for name in classes):
        return {name: int(name) for name in classes}
    numbers = {name: number for number, name in enumerate(classes)}
    report(folder, "classes are numbered by the alphabet: " + ", ".join(f"{k} is {v}" for k, v in numbers.items()))
    return numbers


def _layout(folder: Path, spec: TensorSpec) -> _Layout:
    """Read the size and the channels of images from a shape."""
    row = None if spec.shape is None else spec.shape[1:]
    if row is None:
        return _Layout(None, None, 3)
    if len(row) == 2:
        return _Layout(*row, channels=1, has_channels=False)
    if len(row) == 3 and row[2] in _MODES:
        return _Layout(row[0], row[1], row[2])
    if len(row) == 3 and row[0] in _MODES:
        return _Layout(row[1], row[2], row[0], channels_first=True)
    if len(row) == 3 and row[2] is None:
        return _Layout(row[0], row[1], 3)
    raise DataError(
        "this input takes no images",
        where=folder,
        got=spec,
        wanted="[?, height, width, channels] of numbers, or [?] of strings for a graph that decodes images",
        next_step="Give an .npz with the rows as the model takes them",
    )


def _decoded(folder: Path, files: Sequence[Path], spec: TensorSpec) -> Array:
    layout, kind = _layout(folder, spec), numpy_dtype(spec.dtype)
    low, high = _range(folder, spec, is_float=kind.kind not in "iu")
    size = layout.height, layout.width
    if None in size:
        size = _open_size(files, size)
    height, width = size
    assert height is not None
    assert width is not None
    shape = (len(files), *layout.shape(height, width))
    needed = math.prod(shape) * kind.itemsize
    if needed > _MOST_BYTES:
        most = _MOST_BYTES * len(files) // needed
        raise DataError(
            "so many images take too much memory",
            where=folder,
            got=f"{len(files)} images, {needed:,} bytes when decoded",
            wanted=f"at most {_MOST_BYTES:,} bytes, {most:,} images of this size",
            next_step="Name a folder with fewer images",
        )
    values, resized = np.empty(shape, kind), 0
    for row, path in enumerate(files):
        pixels, is_resized = _pixels(path, layout, (height, width))
        resized += is_resized
        scaled = pixels if (low, high) == (0, 255) else low + pixels.astype(np.float64) * ((high - low) / 255)
        values[row] = (np.rint(scaled) if kind.kind in "iu" else scaled).astype(kind)
    if resized:
        report(folder, f"{resized} of {len(files)} images are resized to {height} x {width} (bilinear)")
    report(folder, f"pixels 0 to 255 became {low:g} to {high:g} of {spec.dtype}")
    return values


def _range(folder: Path, spec: TensorSpec, is_float: bool) -> tuple[float, float]:
    """Return the numbers for black and white."""
    given: tuple[float, float] | None = option("range")
    low, high = given or (0.0, 255.0)
    limits: Any = None if is_float else ml_dtypes.iinfo(numpy_dtype(spec.dtype))  # type: ignore[no-untyped-call]
    if limits is not None and not (limits.min <= min(low, high) and max(low, high) <= limits.max):
        raise DataError(
            f"pixels of {low:g} to {high:g} do not fit this input",
            where=folder,
            got=spec,
            next_step=f"Say what black and white are: --data-range={limits.min},{min(limits.max, limits.min + 255)}",
        )
    if is_float and given is None:
        raise DataError(
            "images do not tell what numbers this model takes for their pixels",
            where=folder,
            got=spec,
            wanted="the numbers for black and white",
            next_step="Give --data-range 0,255 for a model that scales pixels itself, else what it was trained on: "
            "--data-range 0,1 or --data-range=-1,1",
        )
    return low, high


def _open_size(files: Sequence[Path], size: tuple[int | None, int | None]) -> tuple[int, int]:
    """Return the size of all images, for an input that leaves it open."""
    first: tuple[int, int] | None = None
    for path in files:
        with _open(path) as image:
            found = (size[0] or image.height, size[1] or image.width)
        if first is not None and found != first:
            raise DataError(
                "the model takes images of any size, and these have different ones",
                where=path,
                got=f"{found[0]} x {found[1]}",
                wanted=f"{first[0]} x {first[1]}, as in the first image",
                next_step="Resize them to one size, or name a folder with images of one size",
            )
        first = found
    assert first is not None  # there is an image
    return first


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise DataError("no readable image", where=path, got=exc, next_step="Copy it again, or remove it") from exc


def _pixels(path: Path, layout: _Layout, size: tuple[int, int]) -> tuple[Array, bool]:
    """Return the pixels of an image, uint8 as the layout has them, and whether it was resized."""
    with _open(path) as image:
        if image.mode.startswith(_DEEP):
            raise DataError(
                "an image of more than 8 bits for each channel",
                where=path,
                got=f"mode {image.mode}",
                wanted="8 bits",
                next_step="Convert it to 8 bits, or give an .npz",
            )
        try:
            converted = image.convert(_MODES[layout.channels])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            raise DataError("no readable image", where=path, got=exc, next_step="Copy it again, or remove it") from exc
    is_resized = (converted.height, converted.width) != size
    if is_resized:
        converted = converted.resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(converted)
    if pixels.ndim == 2 and layout.has_channels:
        pixels = pixels[:, :, None]
    return (pixels.transpose(2, 0, 1) if layout.channels_first else pixels), is_resized
