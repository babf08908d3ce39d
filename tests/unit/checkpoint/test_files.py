"""Checkpoints on disk: found by what people give for them, refused where they are not whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.checkpoint.files import complete_prefixes, files_of, find_prefix, name_of, require_files, step_of
from pipeline.errors import CheckpointError


def save(folder: Path, name: str, shards: int = 1, age: int = 0) -> Path:
    """The files of a checkpoint, last written `age` seconds before a fixed time."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.index", f"{name}.meta", *(f"{name}.data-{k:05}-of-{shards:05}" for k in range(shards))]
    for file in names:
        (folder / file).write_bytes(b"bytes")
        os.utime(folder / file, (10**9 - age, 10**9 - age))
    return folder / name


def name_in_state_file(folder: Path, path: str) -> None:
    text = f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "model-0"\n'
    (folder / "checkpoint").write_text(text)


@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_a_checkpoint_is_found_by_its_prefix_and_by_each_of_its_files(tmp_path: Path, ending: str) -> None:
    prefix = save(tmp_path, "model.ckpt-5")
    save(tmp_path, "model.ckpt-50")
    assert find_prefix(Path(f"{prefix}{ending}")) == str(prefix)


def test_a_relative_prefix_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "model")
    monkeypatch.chdir(tmp_path)
    assert find_prefix(Path("model")) == str(Path("model"))
    assert find_prefix(Path()) == str(Path("model"))
    require_files(Path("model"))


@pytest.mark.parametrize("stated", ["model-1", "/somewhere/else/model-1", "../was/here/model-1"])
def test_in_a_folder_the_state_file_decides_wherever_it_points(tmp_path: Path, stated: str) -> None:
    save(tmp_path, "model-1", age=100)
    save(tmp_path, "model-2")
    name_in_state_file(tmp_path, stated)
    assert find_prefix(tmp_path) == str(tmp_path / "model-1")


@pytest.mark.parametrize("text", [None, "", 'model_checkpoint_path: "model-9"\n', "\udcff"])
def test_without_a_state_file_that_holds_the_newest_whole_checkpoint_is_taken(tmp_path: Path, text: str | None) -> None:
    save(tmp_path, "model-1", age=100)
    save(tmp_path, "model-2", age=50)
    save(tmp_path, "model-3").with_name("model-3.data-00000-of-00001").unlink()
    if text is not None:
        (tmp_path / "checkpoint").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert find_prefix(tmp_path) == str(tmp_path / "model-2")


def test_a_half_checkpoint_is_not_taken_though_the_state_file_names_it(tmp_path: Path) -> None:
    save(tmp_path, "model-1", age=100)
    save(tmp_path, "model-2").with_name("model-2.data-00000-of-00001").unlink()
    name_in_state_file(tmp_path, "model-2")
    assert find_prefix(tmp_path) == str(tmp_path / "model-1")


def test_checkpoints_are_listed_by_age_and_then_by_step(tmp_path: Path) -> None:
    for name, age in [("model-10", 5), ("model-9", 5), ("model-2", 0), ("model-30", 9), ("other", 5)]:
        save(tmp_path, name, age=age)
    listed = [name_of(prefix) for prefix in complete_prefixes(tmp_path)]
    assert listed == ["model-30", "other", "model-9", "model-10", "model-2"]


@pytest.mark.parametrize("name", ["absent", "model.ckpt-4", "folder/absent"])
def test_a_checkpoint_that_is_not_there_is_refused_with_its_neighbours(tmp_path: Path, name: str) -> None:
    save(tmp_path, "model.ckpt-5")
    with pytest.raises(CheckpointError, match="no such checkpoint") as caught:
        find_prefix(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    if "/" not in name:
        assert "model.ckpt-5" in str(caught.value)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-1"\n')
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        find_prefix(tmp_path)


@pytest.mark.parametrize(
    ("name", "step"), [("model.ckpt-12", 12), ("m-0", 0), ("model", -1), ("m-1x", -1), ("m-1-2", 2)]
)
def test_a_step_is_the_number_at_the_end_of_the_name(name: str, step: int) -> None:
    assert step_of(Path("folder-7") / name) == step


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_every_shard_must_be_there(tmp_path: Path, missing: int) -> None:
    prefix = save(tmp_path, "model", shards=3)
    require_files(prefix)
    Path(f"{prefix}.data-{missing:05}-of-00003").unlink()
    with pytest.raises(CheckpointError, match=r"a shard .* is missing \(got 2 shards, wanted 3\)") as caught:
        require_files(prefix)
    assert caught.value.where == f"{prefix}.data-{missing:05}-of-00003"
    assert list(complete_prefixes(tmp_path)) == []


def test_a_checkpoint_without_any_shard_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path, "model")
    Path(f"{prefix}.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"got 0 shards, wanted 1"):
        require_files(prefix)


def test_shards_of_two_savings_do_not_make_up_one(tmp_path: Path) -> None:
    prefix = save(tmp_path, "model", shards=2)
    Path(f"{prefix}.data-00000-of-00002").rename(f"{prefix}.data-00000-of-00001")
    Path(f"{prefix}.data-00000-of-00001").rename(f"{prefix}.data-00000-of-00003")
    with pytest.raises(CheckpointError, match="a shard of the checkpoint is missing"):
        require_files(prefix)


def test_files_of_another_checkpoint_do_not_count(tmp_path: Path) -> None:
    prefix = save(tmp_path, "model-1")
    save(tmp_path, "model-10", shards=2)
    save(tmp_path, "xmodel-1", shards=2)
    assert sorted(path.name for path in files_of(prefix)) == ["model-1.data-00000-of-00001", "model-1.index"]
    require_files(prefix)


def test_names_with_signs_of_patterns_are_plain_names(tmp_path: Path) -> None:
    prefix = save(tmp_path / "a[b]", "mo*d(e)l")
    assert find_prefix(prefix.parent) == str(prefix)
    assert len(files_of(prefix)) == 2


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(tmp_path: Path, ending: str) -> None:
    prefix = save(tmp_path, "model")
    Path(f"{prefix}{ending}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(CheckpointError, match=r"Git LFS pointer .*git lfs pull") as caught:
        require_files(prefix)
    assert caught.value.where == f"{prefix}{ending}"


def test_an_empty_prefix_is_found_by_its_folder_and_by_its_files(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run", "")
    assert str(prefix) == str(tmp_path / "run")
    found = {
        find_prefix(place) for place in (prefix, f"{prefix}/", f"{prefix}/.index", f"{prefix}/.data-00000-of-00001")
    }
    assert found == {f"{tmp_path}/run/"}
    assert sorted(path.name for path in files_of(f"{prefix}/")) == [".data-00000-of-00001", ".index"]
    (prefix / ".data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"shard .* is missing"):
        require_files(f"{prefix}/")


def test_a_series_stands_for_its_newest_complete_checkpoint(tmp_path: Path) -> None:
    for step in (900, 1000, 1100):
        save(tmp_path, f"model.ckpt-{step}", age=2000 - step)
    save(tmp_path, "other.ckpt-5", age=0)
    (tmp_path / "model.ckpt-1100.data-00000-of-00001").unlink()
    assert find_prefix(tmp_path / "model.ckpt") == str(tmp_path / "model.ckpt-1000")
    save(tmp_path, "model.ckpt", age=3000)
    assert find_prefix(tmp_path / "model.ckpt") == str(tmp_path / "model.ckpt")


def test_leftovers_of_broken_saves_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, "model-1", age=100)
    save(tmp_path, "model-2").with_name("model-2.index").write_bytes(b"")
    (tmp_path / "model-3.data-00000-of-00001.tempstate123").write_bytes(b"bytes")
    (tmp_path / "model-3.data-00000-of-00001").write_bytes(b"bytes")
    assert find_prefix(tmp_path) == str(tmp_path / "model-1")


def test_a_checkpoint_of_the_old_format_is_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "export").write_bytes(b"bytes")
    (tmp_path / "README").write_bytes(b"bytes")
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        find_prefix(tmp_path)
    (tmp_path / "export.meta").write_bytes(b"bytes")
    assert find_prefix(tmp_path) == str(tmp_path / "export")
    name_in_state_file(tmp_path, "export")
    assert find_prefix(tmp_path) == str(tmp_path / "export")


@pytest.mark.parametrize("place", ["model", "model-?????-of-00002", "model-00001-of-00002", "model.meta", ""])
def test_shards_of_the_first_format_are_found_by_their_prefix_by_each_of_them_and_by_what_a_saver_returns(
    tmp_path: Path, place: str
) -> None:
    shards = [tmp_path / f"model-{number:05}-of-00002" for number in range(2)]
    for path in (*shards, tmp_path / "model.meta"):
        path.write_bytes(b"bytes")
    name_in_state_file(tmp_path, "model-?????-of-00002")
    assert find_prefix(tmp_path / place) == str(tmp_path / "model")
    assert files_of(tmp_path / "model") == shards
    require_files(tmp_path / "model")
