"""The error tree: its sentences, and its way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import (
    DamagedArtifact,
    DataError,
    PipelineError,
    SettingError,
    StageCrashed,
    StoreError,
    first_line,
    nearest,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PipelineError)]
optional_text = st.none() | st.text(max_size=20)


def test_a_sentence_says_where_what_got_wanted_and_what_to_do_next() -> None:
    error = DataError("unknown label", where="a.tsv:3", got="'hum'", wanted="ham or spam", next_step="Correct it")
    assert str(error) == "a.tsv:3: unknown label (got 'hum', wanted ham or spam). Correct it"


def test_what_is_not_known_is_not_said() -> None:
    assert str(SettingError("out of range")) == "out of range"
    assert str(SettingError("out of range", got=0)) == "out of range (got 0)"
    assert str(SettingError("out of range", wanted="1")) == "out of range (wanted 1)"


def test_a_value_that_is_false_is_said() -> None:
    error = SettingError("out of range", where="", got=0, wanted=False)
    assert (error.where, error.got, error.wanted) == ("", "0", "False")
    assert "got 0" in str(error)
    assert str(SettingError("out of range", got="")) == "out of range (got )"


@pytest.mark.parametrize("kind", CLASSES)
@given(what=st.text(), where=optional_text, got=optional_text, wanted=optional_text, next_step=optional_text)
def test_an_error_comes_out_of_a_pickle_as_itself(
    kind: type[PipelineError],
    what: str,
    where: str | None,
    got: str | None,
    wanted: str | None,
    next_step: str | None,
) -> None:
    error = kind(what, where=where, got=got, wanted=wanted, next_step=next_step)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_attribute_that_was_added_later_travels_too() -> None:
    error = StageCrashed("an unexpected error")
    error.attempts = 3  # type: ignore[attr-defined]
    assert copy.copy(error).attempts == 3


def test_every_class_stands_in_the_drawn_tree_under_its_parent() -> None:
    lines = [match for line in str(errors.__doc__).splitlines() if (match := re.match(r"([ │├└─]*)(\w+) {2,}", line))]
    drawn: dict[str, str | None] = {}
    stack: list[tuple[int, str]] = []
    for match in lines:
        depth = len(match[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        drawn[match[2]] = stack[-1][1] if stack else None
        stack.append((depth, match[2]))
    assert drawn == {kind.__name__: None if kind is PipelineError else kind.__bases__[0].__name__ for kind in CLASSES}


def test_damage_is_an_error_of_the_store() -> None:
    assert issubclass(DamagedArtifact, StoreError)


def test_the_nearest_name_is_offered() -> None:
    assert nearest("spma", ["spam", "multiply_add"]) == "did you mean 'spam'?"


def test_all_names_are_listed_where_none_is_near() -> None:
    assert nearest("xyz", ["spam", "multiply_add", "spam"]) == "known are multiply_add, spam"
    assert nearest("xyz", []) == "none is known"


def test_a_sentence_has_no_character_that_a_terminal_would_obey() -> None:
    hostile = "w\x1b[2Ky\rok\x9b1A\u202e\x00"
    error = PipelineError("it differs", where=hostile, got=hostile, next_step=f"look at {hostile}")
    assert not set("\x1b\r\x9b\u202e\x00") & set(str(error))
    assert error.where == hostile  # for programs
    assert "two\nlines" in str(PipelineError("two\nlines"))


_GATHER, _STACK = "indices[0] = 7 is not in [0, 3)", '  File "/app/model.py", line 3, in <module>\n\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("no such file\nat line 3", "no such file", id="the first line"),
        pytest.param("Cannot feed value:\n  shape (3,)", "Cannot feed value: shape (3,)", id="a line that announces"),
        pytest.param("", "ValueError", id="no message"),
        pytest.param(
            f"Graph execution error:\n\nDetected at node Gather defined at (most recent call last):\n"
            f"<stack traces unavailable>\n{_GATHER}\n\t [[{{{{node Gather}}}}]] [Op:__inference_signature_wrapper_9]",
            f"{_GATHER} (node Gather)",
            id="a loaded function",
        ),
        pytest.param(
            f"Graph execution error:\n\nDetected at node a/Gather defined at (most recent call last):\n{_STACK * 3}"
            f"{_GATHER}\n\t [[{{{{node a/Gather}}}}]] [Op:__inference_f_1]",
            f"{_GATHER} (node a/Gather)",
            id="a traced function",
        ),
        pytest.param(
            f"Graph execution error:\n\nDetected at node 'Gather' defined at (most recent call last):\n{_STACK}"
            f"Node: 'Gather'\n2 root error(s) found.\n  (0) {_GATHER}\n\t [[{{{{node Gather}}}}]]\n\t [[y/_3]]\n"
            f"  (1) {_GATHER}\n\nOriginal stack trace for 'Gather':\n{_STACK}",
            f"{_GATHER} (node Gather)",
            id="a session",
        ),
        pytest.param(
            "Graph execution error:\n\nUnknown image file format.\nOne of JPEG, PNG required.\n\t [[{{node Decode}}]]",
            "Unknown image file format. One of JPEG, PNG required. (node Decode)",
            id="a node in a function, and a sentence of two lines",
        ),
        pytest.param(
            "Exception encountered when calling Embedding.call().\n\n\x1b[1m{{function_node __wrapped__GatherV2_}} "
            f"{_GATHER} [Op:GatherV2]\x1b[0m\n\nArguments received by Embedding.call():\n  * inputs=7",
            _GATHER,
            id="a layer of Keras",
        ),
        pytest.param(
            f"in user code:\n\n{_STACK}    ValueError: Dimensions must be equal, but are 2 and 3\n",
            "Dimensions must be equal, but are 2 and 3",
            id="code that is traced",
        ),
        pytest.param("Graph execution error:\n\n", "Graph execution error:", id="nothing else is said"),
    ],
)
def test_the_sentence_that_tells_what_went_wrong_is_kept(text: str, sentence: str) -> None:
    assert first_line(ValueError(text)) == sentence


def test_a_cut_sentence_says_that_it_is_cut() -> None:
    assert first_line("x" * 9_000) == "x" * 599 + "…"
