"""Compares a Keras file with the model that a class built, and loads what Keras's `load_weights` leaves behind.

`load_weights` reads numbers alone. A lookup layer's vocabulary is an asset, a text file in the archive; an activation,
an axis or a bin's boundaries are options in the file's description of its layers. The built model would keep its own.

    assets       loaded into the built layers, as Keras loads a whole model
    options      compared, layer by layer, paired as Keras pairs weights: by class and order
    weights      counted: `load_weights` leaves out the groups of layers that the built model lacks
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import h5py
import keras

from pipeline.errors import CheckpointError, first_line

from . import keras2

_ASSETS = "assets/"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# What says nothing of the answers, or is known only to one version of Keras.
_SILENT = re.compile(
    r"name|.*_initializer|.*_regularizer|.*_constraint|.*_config|trainable|seed|dtype|.*_dtype|momentum|synchronized|"
    r"implementation|unroll|sparse|ragged|optional|lora_\w+|input_layers|output_layers|inbound_nodes|"
    r"batch_(?:input_)?shape|input_shape|(?:recurrent_)?dropout|stateful|module|registered_name|time_major|idf_weights|"
    r"vocabulary_size"
)
_TRAINING_ONLY = re.compile(r"\w*Dropout\w*|Gaussian\w*|Random\w+|ActivityRegularization|InputLayer|AutoContrast")
_LEFT_OUT = re.compile(r"^(?:optimizer|metrics|compile_metrics|_?loss_tracker|.*seed_generator)(?:/|$)")
_MOST = 6  # words of a vocabulary that a message shows


def take_assets(model: keras.Model, path: Path) -> list[str]:
    """Loads a file's vocabularies and other assets into the built layers, and requires the same layers in both.

    Args:
        model: a built model, with the weights of the file.
        path: a Keras file that is safe to open.

    Returns:
        Notes for the manifest: what differed from what the code made.

    Raises:
        CheckpointError: an option, a layer or a vocabulary of the file is not that of the model.
    """
    if not _holds_more_than_weights(path):
        return _compare_weights_alone(model, path)
    with TemporaryDirectory() as folder:
        own = Path(folder) / "own.keras"
        with _recorded(model) as places:
            model.save(own)
        with zipfile.ZipFile(own) as archive:
            config = json.loads(archive.read(_CONFIG))
        _Comparison(model, path).compare(_config_of(path), config)
        if not zipfile.is_zipfile(path):
            return _own_vocabularies(model, path)
        _require_same_weights(path, own)
        return _load_assets(path, own, places, Path(folder))


def _compare_weights_alone(model: keras.Model, path: Path) -> list[str]:
    with h5py.File(path, "r") as file:
        is_by_layer = (
            "layer_names" in file.attrs or "model_weights" in file
        )  # the older form, which Keras counts itself
    if not is_by_layer:
        with TemporaryDirectory() as folder:
            own = Path(folder) / "own.weights.h5"
            model.save_weights(own)
            _require_same_weights(path, own)
    return _own_vocabularies(model, path)


def _own_vocabularies(model: keras.Model, path: Path) -> list[str]:
    """Returns notes on the lookup layers, for a file that is no archive and so has no assets."""
    layers = _layers(model)
    inner = [id(getattr(layer, "_lookup_layer", None)) for layer in layers]  # of a TextVectorization
    return [
        f"layer {layer.name}: its vocabulary is your code's, because {path.name} holds none"
        for layer in layers
        if hasattr(layer, "get_vocabulary") and hasattr(layer, "save_assets") and id(layer) not in inner
    ]


def _holds_more_than_weights(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        return True
    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


def _config_of(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_CONFIG))
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["model_config"])


def _layers(model: keras.Model) -> list[keras.Layer]:
    waiting, found = [model], list[keras.Layer]()
    while waiting:
        layer = waiting.pop(0)
        for inner in layer._layers:  # Keras has no public walk of the layers within layers
            if not any(inner is one for one in found):
                found.append(inner)
                waiting.append(inner)
    return found


@contextmanager
def _recorded(model: keras.Model) -> Iterator[dict[str, keras.Layer]]:
    """Yields the layers with assets by their folder in an archive, filled while the model is saved."""
    places: dict[str, keras.Layer] = {}
    watched = [layer for layer in _layers(model) if hasattr(layer, "save_assets")]

    def watch(layer: keras.Layer) -> None:
        save = layer.save_assets

        def save_assets(folder: str) -> None:
            places[str(folder).replace("\\", "/")] = layer
            save(folder)

        layer.__dict__["save_assets"] = save_assets

    for layer in watched:
        watch(layer)
    try:
        yield places
    finally:
        for layer in watched:
            layer.__dict__.pop("save_assets", None)


def _assets(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith(_ASSETS) and not name.endswith("/")
        }


def _load_assets(path: Path, own: Path, places: dict[str, keras.Layer], scratch: Path) -> list[str]:
    """Loads the assets that differ into their layers."""
    notes, theirs, ours = [], _assets(path), _assets(own)
    for folder in sorted({name.rpartition("/")[0] for name in theirs}):
        files = {name: text for name, text in theirs.items() if name.rpartition("/")[0] == folder}
        if all(ours.get(name) == text for name, text in files.items()):
            continue
        layer = next((one for place, one in places.items() if place.endswith(f"/{folder}")), None)
        if layer is None:
            raise _misfit(
                path, f"the file holds {min(files)}, which no layer of your code takes", "Build the same layers"
            )
        kept = f"layer {layer.name}: the file's vocabulary is {_words(files)}, your code's is {_own_words(layer)}"
        if not any(name in ours for name in files):  # its words were given, so it takes no others
            if not hasattr(layer, "get_vocabulary") or _own_words(layer, whole=True) != _words(files, whole=True):
                raise _misfit(path, kept, "Leave out the argument vocabulary in your code: the file's is then loaded")
            continue
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch / "theirs", list(files))
        try:
            layer.load_assets(str(scratch / "theirs" / folder))
        except Exception as exc:  # a layer of the user's may raise anything
            next_step = f"Give the layer as many words in your code, or let build() return {_load_line(path)}"
            raise _misfit(path, f"{kept}, and it takes no other: {first_line(exc)}", next_step) from exc
        notes.append(f"{kept}: the file's is taken")
    return notes


def _words(files: dict[str, bytes], whole: bool = False) -> str:
    words = [word for text in files.values() for word in text.decode("utf-8", "replace").splitlines()]
    return _shown(words, whole)


def _own_words(layer: keras.Layer, whole: bool = False) -> str:
    return _shown([str(word) for word in layer.get_vocabulary()] if hasattr(layer, "get_vocabulary") else [], whole)


def _shown(words: list[str], whole: bool = False) -> str:
    more = f" … ({len(words)} in all)" if len(words) > _MOST and not whole else ""
    return ", ".join(word or "''" for word in (words if whole else words[:_MOST])) + more


def _require_same_weights(path: Path, own: Path) -> None:
    """Requires as many arrays in both; their places depend on the version of Keras."""
    theirs, ours = _weights_of(path), _weights_of(own)
    if len(theirs) > len(ours):
        more = ", ".join(sorted(set(theirs) - set(ours))[:_MOST])
        raise _misfit(path, f"the file has weights that your code lacks: {more}", "Build the same layers")
    if len(theirs) < len(ours):
        more = ", ".join(sorted(set(ours) - set(theirs))[:_MOST])
        raise _misfit(path, f"the file lacks weights of your code: {more}", "Build the same layers")


def _weights_of(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return _arrays_of(file)
    with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as member:
        return _arrays_of(member)


def _arrays_of(opened: IO[bytes]) -> list[str]:
    found: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not _LEFT_OUT.match(name):
            found.append(name)

    with h5py.File(opened, "r") as file:
        file.visititems(note)
    return found


def _misfit(path: Path, what: str, next_step: str) -> CheckpointError:
    return CheckpointError(what, where=path, next_step=next_step)


def _load_line(path: Path) -> str:
    return f"keras.models.load_model({str(path.absolute())!r}, compile=False)"


def _weights_line(path: Path) -> str:
    """Returns the commands that take a file's weights alone."""
    if zipfile.is_zipfile(path):
        copy = f"{path.stem}_weights"
        unpack = shlex.join([Path(sys.executable).name, "-m", "zipfile", "-e", str(path), copy])
        return f"{unpack}; then the same command with --checkpoint {shlex.quote(f'{copy}/{_WEIGHTS}')}"
    copy = f"{path.stem}_weights.h5"
    code = (
        f"import h5py, shutil; shutil.copy({str(path)!r}, {copy!r}); del h5py.File({copy!r}, 'a').attrs['model_config']"
    )
    return f"python -c {shlex.quote(code)}; then the same command with --checkpoint {shlex.quote(copy)}"


class _Comparison:
    """Compares the description of a file's layers with that of a built model."""

    def __init__(self, model: keras.Model, path: Path) -> None:
        self._path, self._is_keras2 = path, keras2.is_keras2(path)
        self._built = {layer.name: layer for layer in _layers(model)}

    def compare(self, theirs: Any, ours: Any) -> None:
        """Compares two models' descriptions; a class of the user's that describes no layers has nothing to compare.

        Raises:
            CheckpointError: they differ.
        """
        self._options(theirs.get("config"), ours.get("config"), "the model")

    def _differ(self, where: str, option: str, theirs: Any, ours: Any) -> CheckpointError:
        what = f"{where}: {option} is {_brief(theirs)} in the file, {_brief(ours)} in your code"
        return _misfit(self._path, what, f"Correct your code. If it is meant so: {_weights_line(self._path)}")

    def _options(self, theirs: Any, ours: Any, where: str) -> None:
        if not (isinstance(theirs, dict) and isinstance(ours, dict)):
            return
        for key in sorted(theirs.keys() & ours.keys()):
            if _SILENT.fullmatch(key) or (self._is_keras2 and key == "axis"):
                continue
            one, other = theirs[key], ours[key]
            if key == "layers" and isinstance(one, list) and isinstance(other, list):
                self._layer_lists(one, other, where)
            elif key == "vocabulary" and one != other:
                self._vocabulary(one, other, where, ours)
            else:
                self._values(one, other, where, key)

    def _values(self, theirs: Any, ours: Any, where: str, option: str) -> None:
        if isinstance(theirs, dict) and isinstance(ours, dict):
            kinds = [_kind(theirs), _kind(ours)]
            if "__lambda__" in kinds:  # bytes of code, which differ by the place of its file
                return
            if kinds[0] != kinds[1]:
                raise self._differ(where, option, kinds[0], kinds[1])
            if not kinds[0] or isinstance(theirs.get("config"), dict):
                first, second = ((one.get("config") if kinds[0] else one) for one in (theirs, ours))
                self._options(first, second, f"{where}, {option}")
                return
            theirs, ours = theirs.get("config"), ours.get("config")
        if _plain(theirs) != _plain(ours) and not (isinstance(theirs, dict) or isinstance(ours, dict)):
            raise self._differ(where, option, theirs, ours)

    def _vocabulary(self, theirs: Any, ours: Any, where: str, options: dict[str, Any]) -> None:
        """Compares words that were given in the file with those that a layer learned in the code."""
        if theirs is None:
            return  # its words are an asset, which is compared as such
        layer: Any = self._built.get(str(options.get("name")))
        if ours is None and hasattr(layer, "get_vocabulary"):
            ours = [str(word) for word in layer.get_vocabulary(include_special_tokens=False)]
        if isinstance(theirs, list) and [str(word) for word in theirs] != [str(word) for word in ours or []]:
            raise self._differ(where, "vocabulary", theirs, ours)

    def _layer_lists(self, theirs: list[Any], ours: list[Any], where: str) -> None:
        by_kind = [_by_kind(theirs), _by_kind(ours)]
        pairs: dict[str, str] = {}
        for kind in sorted(by_kind[0].keys() | by_kind[1].keys()):
            first, second = by_kind[0].get(kind, []), by_kind[1].get(kind, [])
            if len(first) != len(second):
                if _TRAINING_ONLY.fullmatch(kind):
                    continue
                raise self._differ(where, f"the number of layers {kind}", len(first), len(second))
            names = [[_name(one) for one in side] for side in (first, second)]
            if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
                if kind != "InputLayer" and any(self._has_weights(name) for name in names[1]):
                    raise self._differ(where, f"the order of layers {kind}", names[0], names[1])
                second = sorted(second, key=lambda one, order=names[0]: order.index(_name(one)))  # type: ignore[misc]
            for one, other in zip(first, second, strict=True):
                pairs[_name(one)] = _name(other)
                if not _TRAINING_ONLY.fullmatch(kind):
                    self._options(one.get("config"), other.get("config"), f"layer {_name(one)}")
        self._wires(theirs, ours, pairs)

    def _has_weights(self, name: str) -> bool:
        layer = self._built.get(name)
        return layer is not None and bool(layer.weights)

    def _wires(self, theirs: list[Any], ours: list[Any], pairs: dict[str, str]) -> None:
        """Compares what each layer takes, where both sides have all layers."""
        names = [{_name(one) for one in side} for side in (theirs, ours)]
        if names[0] != pairs.keys() or names[1] != set(pairs.values()):
            return
        by_name = {_name(one): one for one in ours}
        for one in theirs:
            first, second = (
                list(_sources(one.get("inbound_nodes"))),
                list(_sources(by_name[pairs[_name(one)]].get("inbound_nodes"))),
            )
            if first and second and [pairs.get(name, name) for name in first] != second:
                raise self._differ(f"layer {_name(one)}", "what it takes", first, second)


def _by_kind(layers: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for layer in layers:
        if isinstance(layer, dict):
            found.setdefault(_kind(layer), []).append(layer)
    return found


def _kind(one: dict[str, Any]) -> str:
    return re.split("[.>]", str(one.get("class_name", "")))[-1]


def _name(layer: dict[str, Any]) -> str:
    inner = layer.get("config")
    return str(layer.get("name") or (inner.get("name") if isinstance(inner, dict) else ""))


def _sources(value: Any) -> Iterator[str]:
    """Yields the layers whose outputs a layer takes, in the order of its arguments."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        for key in sorted(value.keys() - {"keras_history"}):
            yield from _sources(value[key])
    elif isinstance(value, list):
        for one in value:
            yield from _sources(one)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return _plain(value[0]) if len(value) == 1 else [_plain(one) for one in value]
    return value


def _brief(value: Any) -> str:
    text = _shown([str(one) for one in value]) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]} …"
