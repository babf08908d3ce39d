"""Files that are damaged, or do not fit the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, v1, weight


def _change(suffix: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        path = Path(f"{prefix}{suffix}")
        path.write_bytes(change(path.read_bytes()))

    return damage


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
DATA = ".data-00000-of-00001"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "meta cut off": _change(".meta", lambda content: content[: len(content) * 2 // 3]),
    "meta of garbage": _change(".meta", lambda content: bytes(range(256)) * 9),
    "meta empty": _change(".meta", lambda content: b""),
    "meta missing": lambda prefix: Path(f"{prefix}.meta").unlink(),
    "meta a Git LFS pointer": _change(".meta", lambda content: LFS),
    "index cut off": _change(".index", lambda content: content[:-9]),
    "index missing": lambda prefix: Path(f"{prefix}.index").unlink(),
    "index a Git LFS pointer": _change(".index", lambda content: LFS),
    "data cut off": _change(DATA, lambda content: content[:-1]),
    "data with a flipped bit": _change(DATA, _flip),
    "data missing": lambda prefix: Path(f"{prefix}{DATA}").unlink(),
    "data a Git LFS pointer": _change(DATA, lambda content: LFS),
}
for _name, _damage in DAMAGES.items():
    case("Files", REFUSED, "damage", name=_name, damage=_damage, has_weights=False)(
        lambda x: tf.multiply(x, weight("w", [3]), name="y")
    )


def _of_shape(*shape: int) -> Callable[[Any], None]:
    """Gives the variables of a .meta another shape than the checkpoint has."""

    def edit(meta: Any) -> None:
        for one in meta.graph_def.node:
            if one.op in ("VarHandleOp", "VariableV2"):
                del one.attr["shape"].shape.dim[:]
                for size in shape:
                    one.attr["shape"].shape.dim.add(size=size)

    return edit


@case(
    "Files",
    REFUSED,
    "another shape in the checkpoint than in the graph",
    res=BOTH,
    edit=_of_shape(1),
    mentions="is not the graph's",
)
def another_shape(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


def _with_key(dtype: Any) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        meta = Path(f"{prefix}.meta").read_bytes()
        with tf.Graph().as_default(), v1.Session() as session:
            saver = v1.train.Saver([v1.get_variable("w", initializer=tf.constant([1, 2, 3], dtype))])
            session.run(v1.global_variables_initializer())
            saver.save(session, str(prefix))
        Path(f"{prefix}.meta").write_bytes(meta)

    return damage


@case(
    "Files",
    REFUSED,
    "another dtype in the checkpoint than in the graph",
    res=BOTH,
    damage=_with_key(tf.int32),
    mentions="is not the graph's",
)
def another_dtype(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Files", REFUSED, "the checkpoint lacks a variable", res=BOTH, damage=_with_key(tf.float32), mentions="lacks")
def lacking(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


@case(
    "Files",
    EQUAL,
    "the checkpoint lacks a variable that no output needs",
    has_weights=False,
    saver=lambda: v1.train.Saver([variable for variable in v1.global_variables() if variable.op.name == "w"]),
)
def lacking_unneeded(x: Any) -> Any:
    weight("u", [3])
    return x * weight("w", [3])
