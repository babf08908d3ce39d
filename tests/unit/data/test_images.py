"""Folders of images as rows: pixels in the model's size, shape and range, or the files' bytes; classes by folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.table import read_rows
from pipeline.errors import DataError
from pipeline.inputs import DataOptions, DataSource, files_below
from pipeline.signature import Array, Decision, Signature, TensorSpec
from pipeline.tasks.chain.input_files import _files_of_data
from pipeline.training.examples import read_given_rows

COLOR = (0, 51, 255)
Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    def draw_image(name: str, size: tuple[int, int] = (3, 2), mode: str = "RGB", color: object = COLOR) -> Path:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, color).save(path)  # type: ignore[arg-type]
        return tmp_path / "images"

    return draw_image


def of(dtype: str, *row: int | None, labels: tuple[str, ...] = ()) -> Signature:
    decision = Decision("y", labels=labels) if labels else None
    return Signature([TensorSpec("x", dtype, (None, *row))], [TensorSpec("y", "float32", (None, 3))], decision)


def scaled(folder: Path, signature: Signature, *limits: float) -> Array:
    return read_given_rows(DataSource(folder, DataOptions(range=limits)), signature)["x"]  # type: ignore[arg-type]


def test_integers_are_the_pixels(draw: Draw) -> None:
    rows = read_rows(draw("a.png"), of("uint8", 2, 3, 3))
    assert (rows["x"].dtype, rows["x"].shape) == (np.uint8, (1, 2, 3, 3))
    assert rows["x"][0, 1, 2].tolist() == list(COLOR)
    assert "labels" not in rows
    assert read_rows(draw("a.png"), of("int32", None, None, 3))["x"].shape == (1, 2, 3, 3)
    assert read_rows(draw("a.png"), of("uint8", 3, 2, 3))["x"].shape == (1, 3, 2, 3)  # resized


def test_floats_need_the_range_that_the_model_takes(draw: Draw) -> None:
    folder = draw("a.png")
    with pytest.raises(DataError, match=r"--data-range 0,1 or --data-range=-1,1"):
        read_rows(folder, of("float32", 2, 3, 3))
    for limits, wanted in (((0, 1), [0, 0.2, 1]), ((-1, 1), [-1, -0.6, 1]), ((0, 255), [0, 51, 255])):
        pixels = scaled(folder, of("float32", 2, 3, 3), *limits)
        assert pixels.dtype == np.float32
        assert np.allclose(pixels[0, 0, 0], wanted)


def test_narrow_integers_are_never_wrapped(draw: Draw) -> None:
    folder = draw("a.png")
    with pytest.raises(DataError, match="--data-range=-128,127"):
        read_rows(folder, of("int8", 2, 3, 3))
    assert scaled(folder, of("int8", 2, 3, 3), -128, 127)[0, 0, 0].tolist() == [-128, -77, 127]
    with pytest.raises(DataError, match="pixels of 0 to 256 do not fit"):
        scaled(folder, of("uint8", 2, 3, 3), 0, 256)


@pytest.mark.parametrize(
    ("row", "shape"), [((3, 2, 3), (3, 2, 3)), ((2, 3, 1), (2, 3, 1)), ((2, 3), (2, 3)), ((2, 3, 4), (2, 3, 4))]
)
def test_channels_are_those_of_the_input(draw: Draw, row: tuple[int, ...], shape: tuple[int, ...]) -> None:
    folder = draw("a.png", color=(40, 40, 40))
    pixels = read_rows(folder, of("uint8", *row))["x"]
    assert pixels.shape[1:] == shape
    assert pixels.ravel()[0] == 40


def test_channels_may_come_first(draw: Draw) -> None:
    rows = read_rows(draw("a.png"), of("uint8", 3, 2, 7))["x"]
    assert rows.shape == (1, 3, 2, 7)
    assert rows[0, :, 0, 0].tolist() == list(COLOR)


def test_a_graph_that_decodes_gets_the_bytes_of_the_files(draw: Draw) -> None:
    draw("a.png"), draw("b.JPG")
    folder = draw("c.gif")
    rows = read_rows(folder, of("string"))["x"].tolist()
    assert rows == [(folder / name).read_bytes() for name in ("a.png", "b.JPG", "c.gif")]


@pytest.mark.parametrize(
    ("folders", "known", "labels"),
    [
        (["cat", "ant"], (), [0, 1]),  # ant is 0; paths are sorted
        (["cat", "ant"], ("cat", "dog", "ant"), [2, 0]),
        (["10", "9", "0"], (), [0, 10, 9]),
    ],
)
def test_class_folders_are_labels(draw: Draw, folders: list[str], known: tuple[str, ...], labels: list[int]) -> None:
    for name in folders:
        folder = draw(f"{name}/a.png")
    assert read_rows(folder, of("uint8", 2, 3, 3, labels=known))["labels"].tolist() == labels


def test_what_is_no_image_is_left_out_or_named(draw: Draw) -> None:
    folder = draw("a.png")
    (folder / "notes.txt").write_text("about")
    (folder / ".DS_Store").write_text("hidden")
    assert len(read_rows(folder, of("uint8", 2, 3, 3))["x"]) == 1
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"b\.png: no readable image"):
        read_rows(folder, of("uint8", 2, 3, 3))


@pytest.mark.parametrize(
    ("images", "signature", "said"),
    [
        (["a.png", "cat/b.png"], of("uint8", 2, 3, 3), "some images are in a class folder and some are not"),
        (["x/cat/b.png"], of("uint8", 2, 3, 3), "class folders have folders"),
        (["cta/b.png"], of("uint8", 2, 3, 3, labels=("cat", "dog")), "a folder is no class .got cta"),
        (["a.png"], of("float32", 18), "this input takes no images"),
        (["a.png"], of("string", 3), "one string for each row"),
    ],
)
def test_images_that_are_no_rows_are_refused(draw: Draw, images: list[str], signature: Signature, said: str) -> None:
    for name in images:
        folder = draw(name)
    with pytest.raises(DataError, match=said):
        read_rows(folder, signature)


def test_images_of_different_sizes_need_a_size(draw: Draw) -> None:
    draw("a.png")
    with pytest.raises(DataError, match=r"b\.png: .*different ones .got 5 x 4, wanted 2 x 3"):
        read_rows(draw("b.png", (4, 5)), of("uint8", None, None, 3))


def test_deep_images_are_not_cut_to_8_bits(draw: Draw) -> None:
    with pytest.raises(DataError, match="more than 8 bits"):
        read_rows(draw("a.png", mode="I;16", color=300), of("uint8", 2, 3, 1))


def test_more_images_than_memory_are_refused_before_any_is_decoded(draw: Draw) -> None:
    with pytest.raises(DataError, match="at most 4,294,967,296 bytes, 0 images"):
        read_rows(draw("a.png"), of("uint8", 40_000, 40_000, 3))


def test_each_file_of_a_folder_decides_the_stage(draw: Draw) -> None:
    draw("cat/a.png")
    folder = draw("dog/.hidden.png")
    assert [path.name for path in files_below(folder)] == ["a.png"]
    assert _files_of_data(folder) == {"data cat/a.png": folder / "cat" / "a.png"}
    assert _files_of_data(folder / "cat" / "a.png") == {"data": folder / "cat" / "a.png"}
