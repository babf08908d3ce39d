"""Lookup tables."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, raw, v1, weight


def words(default: int = -1, name: str = "table") -> Any:
    """A table from constants."""
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([b"a", b"b"], [0, 1]), default, name=name)


def _file(content: bytes) -> str:
    """A vocabulary file, whose path has to live as long as the checkpoint is frozen."""
    path = Path(tempfile.mkdtemp(prefix="vocabulary-")) / "words.txt"
    path.write_bytes(content)
    return str(path)


def _rows(found: Any) -> Any:
    with v1.variable_scope(v1.get_variable_scope(), reuse=tf.compat.v1.AUTO_REUSE):
        return tf.gather(weight("w", [6, 2]), tf.cast(found, tf.int32) + 1)


@case("Tables", EQUAL, "strings to numbers, from constants")
def table(t: Any) -> Any:
    return _rows(words().lookup(t))


@case("Tables", EQUAL, "numbers to strings, from constants", feeds={"k": np.array([7, 8, 9])}, has_weights=False)
def table_of_numbers(k: Any) -> Any:
    weight("w", [1])
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([7, 8], tf.int64), tf.constant([b"x", b"y"]))
    return tf.lookup.StaticHashTable(filler, b"?").lookup(k)


@case("Tables", EQUAL, "a vocabulary file, by line number")
def table_from_file(t: Any) -> Any:
    known = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            _file(b"a\nb\nc\n"),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )
    return _rows(known.lookup(t))


@case("Tables", EQUAL, "a vocabulary file, lines to words", feeds={"k": np.array([0, 2, 9])}, has_weights=False)
def table_from_file_to_words(k: Any) -> Any:
    weight("w", [1])
    return v1.raw_ops.LookupTableFindV2(
        table_handle=_words_by_line(_file(b"a\nb\nc")).resource_handle, keys=k, default_value=b"?"
    )


def _words_by_line(path: str) -> Any:
    index = tf.lookup.TextFileIndex
    filler = tf.lookup.TextFileInitializer(path, tf.int64, index.LINE_NUMBER, tf.string, index.WHOLE_LINE)
    return tf.lookup.StaticHashTable(filler, b"?")


@case("Tables", EQUAL, "columns of a file, with another delimiter, and only the first lines")
def table_from_columns(t: Any) -> Any:
    filler = tf.lookup.TextFileInitializer(
        _file(b"a,3\nb,1\nc,4\n"), tf.string, 0, tf.int64, 1, vocab_size=2, delimiter=","
    )
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "a file with the ends of lines of Windows")
def table_from_windows_file(t: Any) -> Any:
    filler = tf.lookup.TextFileInitializer(
        _file(b"a\r\nb\r\n"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "buckets for unknown words")
def table_with_buckets(t: Any) -> Any:
    filler = tf.lookup.KeyValueTensorInitializer([b"a", b"b"], tf.constant([0, 1], tf.int64))
    return _rows(tf.lookup.StaticVocabularyTable(filler, 3).lookup(t))


_FILES: list[Path] = []


@case(
    "Tables",
    REFUSED,
    "the vocabulary file is gone",
    damage=lambda prefix: _FILES[0].unlink(missing_ok=True),
    mentions="words.txt",
)
def table_from_missing_file(t: Any) -> Any:
    _FILES[:] = [Path(_file(b"a\nb\n"))]
    index = tf.lookup.TextFileIndex
    filler = tf.lookup.TextFileInitializer(str(_FILES[0]), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "used in a branch", flow=BOTH)
def table_in_cond(t: Any) -> Any:
    known = words()
    return _rows(tf.cond(tf.size(t) > 0, lambda: known.lookup(t), lambda: tf.zeros_like(known.lookup(t))))


@case("Tables", EQUAL, "used in a loop", flow=BOTH)
def table_in_loop(t: Any) -> Any:
    known = words()
    return _rows(tf.map_fn(known.lookup, t, fn_output_signature=tf.int32))


@case("Tables", EQUAL, "used in a function")
def table_in_function(t: Any) -> Any:
    known = words()
    return _rows(tf.function(lambda a: known.lookup(a))(t))


@case("Tables", EQUAL, "used twice, and asked for its size")
def table_used_twice(t: Any) -> Any:
    known = words()
    return _rows(known.lookup(t)) + _rows(known.lookup(tf.strings.join([t, ""]))) + tf.cast(known.size(), tf.float32)


@case("Tables", EQUAL, "two tables, one behind the other")
def two_tables(t: Any) -> Any:
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant([2, 3]))
    return _rows(tf.lookup.StaticHashTable(filler, 4).lookup(words().lookup(t)))


@case("Tables", EQUAL, "the old way to make one")
def index_table_from_tensor(t: Any) -> Any:
    return _rows(
        tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer([b"c", b"a"], tf.constant([0, 1], tf.int64)), 1
        ).lookup(t)
    )


@case("Tables", EQUAL, "a table that no output needs")
def table_unused(t: Any) -> Any:
    words().lookup(t)
    tf.lookup.experimental.MutableHashTable(tf.string, tf.int32, -1)
    return tf.strings.join([t, tf.as_string(weight("s", []))])


@case("Tables", REFUSED, "a table that is filled while it runs")
def mutable_table(t: Any) -> Any:
    return _rows(tf.lookup.experimental.MutableHashTable(tf.string, tf.int32, -1, checkpoint=False).lookup(t))


@case("Tables", REFUSED, "a dense table that is filled while it runs")
def dense_table(t: Any) -> Any:
    dense = tf.lookup.experimental.DenseHashTable(
        tf.string, tf.int32, -1, empty_key="", deleted_key="-", checkpoint=False
    )
    return _rows(dense.lookup(t))


@case("Tables", REFUSED, "an assignment to a variable fills the table")
def table_from_variable(t: Any) -> Any:
    values = v1.get_variable("values", initializer=tf.constant([0, 1]))
    with tf.control_dependencies([values.assign([1, 0])]):
        filler = tf.lookup.KeyValueTensorInitializer(tf.constant([b"a", b"b"]), values.read_value())
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "two nodes of one table, by its shared name")
def table_of_two_nodes(t: Any) -> Any:
    one, other = (raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int32, shared_name="shared") for _ in range(2))
    filler = raw.LookupTableImportV2(table_handle=one, keys=tf.constant([b"a", b"b"]), values=tf.constant([0, 1]))
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, filler)
    return _rows(raw.LookupTableFindV2(table_handle=other, keys=t, default_value=-1))


@case("Tables", EQUAL, "a table of the first kind, by reference")
def table_by_reference(t: Any) -> Any:
    known = raw.HashTable(key_dtype=tf.string, value_dtype=tf.int32)
    filler = raw.InitializeTable(table_handle=known, keys=tf.constant([b"a", b"b"]), values=tf.constant([0, 1]))
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, filler)
    return _rows(raw.LookupTableFind(table_handle=known, keys=t, default_value=-1))


@case("Tables", EQUAL, "a table that is a function's argument, and behind an Identity")
def table_as_argument(t: Any) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource), tf.TensorSpec([None], tf.string)], autograph=False)
    def find(handle: Any, a: Any) -> Any:
        return raw.LookupTableFindV2(table_handle=handle, keys=a, default_value=tf.constant(-1))

    return _rows(find.get_concrete_function()(tf.identity(words().resource_handle), t))


@case("Tables", EQUAL, "one table of two, by a branch", flow=BOTH)
def table_chosen(t: Any) -> Any:
    one, other = words(), words(5, "other")
    chosen = tf.cond(
        tf.size(t) > 3, lambda: tf.identity(one.resource_handle), lambda: tf.identity(other.resource_handle)
    )
    return _rows(raw.LookupTableFindV2(table_handle=chosen, keys=t, default_value=-1))


@case("Tables", EQUAL, "the value of unknown words is a variable")
def table_default_of_variable(t: Any) -> Any:
    default = v1.get_variable("default", initializer=2)
    return _rows(
        raw.LookupTableFindV2(table_handle=words().resource_handle, keys=t, default_value=default.read_value())
    )


@case("Tables", EQUAL, "a table's whole content")
def table_exported(x: Any) -> Any:
    return x * weight("w", [3]) + tf.cast(tf.reduce_sum(words().export()[1]), tf.float32)


@case("Tables", EQUAL, "filled with what is computed from constants")
def table_of_computed(t: Any) -> Any:
    keys = tf.strings.join([["a", "b"], ["", " "]])
    return _rows(tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.range(2) * 2), -1).lookup(t))


def _lines(content: bytes, **options: Any) -> Any:
    index = tf.lookup.TextFileIndex
    _FILES[:] = [Path(_file(content))]
    filler = tf.lookup.TextFileInitializer(
        str(_FILES[0]), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER, **options
    )
    return tf.lookup.StaticHashTable(filler, -1)


@case("Tables", EQUAL, "a file whose lines do not count from 0")
def table_from_line_2_on(t: Any) -> Any:
    return _rows(_lines(b"a\nb\n", value_index_offset=2).lookup(t))


@case("Tables", EQUAL, "numbers of a file, with signs and blanks", feeds={"k": np.array([-1, 1, 5])})
def table_of_signed_numbers(k: Any) -> Any:
    filler = tf.lookup.TextFileInitializer(_file(b" -1\t0.1\n1\t 1e300 \n"), tf.int64, 0, tf.float64, 1)
    return tf.lookup.StaticHashTable(filler, -1.0).lookup(k) * weight("w", [], dtype=tf.float64)


def _rewrite(content: bytes) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        _FILES[0].write_bytes(content)

    return damage


for _name, _content in {
    "empty vocabulary": b"",
    "blank line in a vocabulary": b"a\n\nb\n",
    "word twice in a vocabulary": b"a\nb\na\n",
    "vocabulary shorter than said": b"a\n",
}.items():
    case("Tables", REFUSED, "TensorFlow refuses the file too", name=_name, damage=_rewrite(_content), mentions="fill")(
        lambda t, size=2 if "said" in _name else None: _rows(_lines(b"a\nb\n", vocab_size=size).lookup(t))
    )


@case(
    "Tables",
    REFUSED,
    "the file has a number that only Python takes for one",
    mentions="1_0",
    damage=_rewrite(b"a 1_0\n"),
)
def table_of_no_number(t: Any) -> Any:
    _FILES[:] = [Path(_file(b"a 1\n"))]
    filler = tf.lookup.TextFileInitializer(str(_FILES[0]), tf.string, 0, tf.int64, 1, delimiter=" ")
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", REFUSED, "filled from a variable: with its first value or with the restored one", mentions="variable")
def table_of_a_variable(t: Any) -> Any:
    values = v1.get_variable("values", initializer=tf.constant([0, 1]))
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([b"a", b"b"]), v1.Variable.initialized_value(values))
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", REFUSED, "filled at random", mentions="random")
def table_of_random(t: Any) -> Any:
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([b"a", b"b"]), tf.random.uniform([2], 0, 2, tf.int32))
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", REFUSED, "filled by Python", mentions="Python")
def table_of_python(t: Any) -> Any:
    values = tf.ensure_shape(tf.numpy_function(lambda: np.array([0, 1], np.int32), [], tf.int32), [2])
    return _rows(tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], values), -1).lookup(t))


@case("Tables", EQUAL, "nodes have the names that the file's columns would get")
def table_names_taken(t: Any) -> Any:
    known = _lines(b"a\nb\n")
    [filler] = [op for op in v1.get_default_graph().get_operations() if op.type.startswith("InitializeTable")]
    taken = tf.constant([b"q"], name=f"{filler.name}/keys"), tf.constant(3, name=f"{filler.name}/values")
    return _rows(known.lookup(t)) + tf.cast(tf.size(taken[0]) + taken[1], tf.float32)
