"""Searches: candidates that agree on all rows of the data, and are wrong where nobody looks; in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.npz import NpzReader, save_arrays
from pipeline.errors import PipelineError, RunnerError, StageCrashed
from pipeline.formats.runner import RepeatedBatch, RowRange
from pipeline.formats.runner_process import run_repeatedly
from pipeline.graph.demands import Demand, Demands
from pipeline.settings import SEARCHES, ValidationSettings
from pipeline.signature import Batch, Decision, Signature, TensorSpec
from pipeline.validation.checks.leaks import find_leaks
from pipeline.validation.checks.material import Material
from pipeline.validation.checks.registry import CHECK_FUNCTIONS
from pipeline.validation.checks.sizes import Sizes
from pipeline.validation.results.recorder import ResultsRecorder
from pipeline.validation.validate import _check as check_candidate

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # edge cases overflow
Array = np.ndarray[Any, Any]
Model = Callable[[Batch], dict[str, Array]]
DRAW = np.random.default_rng(5)
W = DRAW.normal(size=(6, 3)).astype(np.float32)
X = DRAW.normal(size=(300, 6)).astype(np.float32)
TEXTS = np.array([b"free call now", b"see you at home", b"ok", b"win the prize now, call"] * 20, object)
KEYS = [f"word{number}".encode() for number in range(300)] + [b"free", b"call", b"now", b"home"]


@dataclass
class FunctionRunner:
    """A side that is a function, in this process."""

    format: str
    model: Model
    folder: Path = Path()
    has_ended: bool = False
    asked: list[Batch | RowRange] = field(default_factory=list)

    def run(self, batch: Batch | RowRange) -> dict[str, Array]:
        return self.model(batch.rows.read(batch.start, batch.stop) if isinstance(batch, RowRange) else dict(batch))

    def ask(self, batch: Batch | RowRange) -> None:
        self.asked.append(batch)

    def answer(self) -> dict[str, Array]:
        return self.run(self.asked.pop(0))

    def discard_pending(self) -> None:
        self.asked.clear()

    def run_repeatedly(self, batch: Batch, calls: int) -> dict[int, dict[str, Array]]:
        return run_repeatedly(self, RepeatedBatch(batch, calls))

    def unoptimized(self) -> FunctionRunner:
        return self

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Kind:
    """A model, the rows that it is validated on, and what its graph would demand."""

    model: Model
    rows: Mapping[str, Array]
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    demands: Demands = field(default_factory=Demands)
    decision: Decision | None = None


def probabilities(batch: Batch) -> dict[str, Array]:
    logits = batch["x"] @ W
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {"y": (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)}


def logits(batch: Batch) -> dict[str, Array]:
    return {"y": batch["x"] @ W}


def is_over(batch: Batch) -> dict[str, Array]:
    return {"y": (batch["x"] @ W)[:, 0] > 0.25}


TABLE = DRAW.normal(size=300_000).astype(np.float32)


def embedded(batch: Batch) -> dict[str, Array]:
    if (batch["id"] < 0).any() or (batch["id"] >= len(TABLE)).any():
        raise RunnerError("the model failed on the batch", got="an index is not in the table")
    return {"y": TABLE[batch["id"]]}


def bag(values: Mapping[bytes, float]) -> Model:
    """Adds what each word of a text weighs."""
    return lambda batch: {
        "y": np.array([sum(values.get(word, -0.5) for word in text.split()) for text in batch["x"]], np.float32)
    }


WEIGHTS = {key: float(np.sin(number)) for number, key in enumerate(KEYS)}
FLOATS = (TensorSpec("x", "float32", (None, 6)),)
TEXT = (TensorSpec("x", "string", (None,)),)
SCORE = TensorSpec("y", "float32", (None,))
KINDS = {
    "classes": Kind(
        probabilities,
        {"x": X},
        FLOATS,
        TensorSpec("y", "float32", (None, 3)),
        decision=Decision("y", None, ("a", "b", "c")),
    ),
    "logits": Kind(logits, {"x": X}, FLOATS, TensorSpec("y", "float32", (None, 3))),
    "truth": Kind(is_over, {"x": X}, FLOATS, TensorSpec("y", "bool", (None,))),
    "ids": Kind(
        embedded,
        {"id": DRAW.integers(0, 1000, 200)},
        (TensorSpec("id", "int64", (None,)),),
        SCORE,
        Demands({"id": Demand("int64", (), (), 0, len(TABLE) - 1)}),
    ),
    "text": Kind(bag(WEIGHTS), {"x": TEXTS}, TEXT, SCORE),
}


def search(
    folder: Path, kind: Kind, candidate: Model, format: str = "frozen", settings: ValidationSettings | None = None
) -> tuple[dict[str, str], ResultsRecorder]:
    """Makes the four checks; returns by check how it ended, and what was recorded."""
    settings = settings or ValidationSettings(checks=",".join(SEARCHES))
    signature = Signature(kind.inputs, (kind.output,), kind.decision)
    save_arrays(folder / "rows.npz", dict(kind.rows))
    rows = NpzReader(folder / "rows.npz")
    material = Material(signature, rows, None, {}, Sizes(settings.batch_size, 1_000_000), settings=settings)
    material.demands, material.table_keys = kind.demands, {"string": KEYS}
    ended = {}
    with ResultsRecorder("m", signature, settings, folder / "results.csv") as recorder:
        sides: Any = FunctionRunner("checkpoint", kind.model), FunctionRunner(format, candidate)
        for check in SEARCHES:
            skipped = CHECK_FUNCTIONS[check](recorder, *sides, material)
            failed = [one for one in recorder.findings.values() if one.check == check and not one.has_passed]
            ended[check] = "skipped" if skipped else "failed" if failed else "passed"
    return ended, recorder


def off(kind: str, is_wrong: Callable[[Array], Any], by: float = 0.25) -> Model:
    """A candidate whose rows of some inputs are off."""
    model = KINDS[kind].model

    def run(batch: Batch) -> dict[str, Array]:
        answers = model(batch)["y"].copy()
        (rows,) = batch.values()
        wrong = np.array([bool(is_wrong(row)) for row in rows])
        answers[wrong] += np.float32(by)
        return {"y": answers}

    return run


def off_by_batch(kind: str, is_wrong: Callable[[int], bool]) -> Model:
    model = KINDS[kind].model
    return lambda batch: {"y": model(batch)["y"] + np.float32(is_wrong(len(next(iter(batch.values())))))}


def swapped(one: int, other: int) -> Model:
    values = dict(WEIGHTS)
    values[KEYS[one]], values[KEYS[other]] = values[KEYS[other]], values[KEYS[one]]
    return bag(values)


class Stateful:
    """Counts its calls, and remembers the last row."""

    def __init__(self, kind: str, calls: int = 0, is_moved: Callable[[Array], bool] | None = None) -> None:
        self.model, self.calls, self.is_moved, self.count = KINDS[kind].model, calls, is_moved, 0
        self.last: Array | None = None

    def __call__(self, batch: Batch) -> dict[str, Array]:
        self.count += 1
        (rows,) = batch.values()
        answers = self.model(batch)["y"].copy()
        if self.is_moved is not None and self.last is not None and self.is_moved(self.last):
            answers[0] += np.float32(0.5)
        self.last = rows[-1]
        return {"y": answers + np.float32(0 < self.calls <= self.count)}


def behind_large(batch: Batch) -> dict[str, Array]:
    """A row behind one beyond 50, in the same batch, is off."""
    answers = probabilities(batch)["y"].copy()
    answers[1:][np.abs(batch["x"][:-1]).max(axis=1) > 50] += 0.1
    return {"y": answers}


def without_soft_hyphens(batch: Batch) -> dict[str, Array]:
    return KINDS["text"].model({"x": np.array([text.replace(b"\xc2\xad", b"") for text in batch["x"]], object)})


# By name: the kind of model, the candidate, and the checks that must fail.
WRONG: dict[str, tuple[str, Callable[[], Model], set[str]]] = {
    "for batches of 3": ("classes", lambda: off_by_batch("classes", lambda size: size == 3), {"sizes"}),
    "for batches of 65 to 255": ("classes", lambda: off_by_batch("classes", lambda size: 65 <= size <= 255), {"sizes"}),
    "for batches over 256": ("classes", lambda: off_by_batch("classes", lambda size: size > 256), {"sizes"}),
    "for numbers over 8": ("logits", lambda: off("logits", lambda row: np.abs(row).max() > 8), {"ladders"}),
    "for one number over 8, by little": (
        "classes",
        lambda: off("classes", lambda row: row[2] > 8 and np.abs(row).sum() < 20, 1e-3),
        {"ladders"},
    ),
    "for ids from 100,000 to 200,000": ("ids", lambda: off("ids", lambda id: 100_000 <= id < 200_000), {"ladders"}),
    "for the last id": ("ids", lambda: off("ids", lambda id: id == len(TABLE) - 1), {"ladders"}),
    "for texts of 500 to 5,000 bytes": (
        "text",
        lambda: off("text", lambda text: 500 <= len(text) <= 5000),
        {"ladders"},
    ),
    "for texts over 60,000 bytes": ("text", lambda: off("text", lambda text: len(text) > 60_000), {"ladders"}),
    "two rare words swapped": ("text", lambda: swapped(17, 251), {"ladders"}),
    "soft hyphens left out": ("text", lambda: without_soft_hyphens, {"ladders"}),
    "a threshold that has moved by a thousandth": (
        "truth",
        lambda: lambda batch: {"y": (batch["x"] @ W)[:, 0] > 0.2502},
        {"boundary"},
    ),
    "near the edge between two classes": (
        "classes",
        lambda: off("classes", lambda row: np.ptp(np.sort(probabilities({"x": row[None]})["y"][0])[-2:]) < 1e-4, 1e-3),
        {"boundary"},
    ),
    "after a thousand calls": ("classes", lambda: Stateful("classes", 1000), {"repeated"}),
    "behind a row, in the next call": (
        "classes",
        lambda: Stateful("classes", is_moved=lambda row: bool(np.abs(row).max() > 50)),
        {"repeated"},
    ),
    "behind a row, in the same batch": ("classes", lambda: behind_large, {"repeated"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_candidate_that_is_wrong_where_nobody_looks_is_found(name: str, tmp_path: Path) -> None:
    kind, make, checks = WRONG[name]
    candidate = make()
    rows = {key: values[:64] for key, values in KINDS[kind].rows.items()}
    usual, candidate_answers = KINDS[kind].model(rows)["y"], make()(rows)["y"]
    assert np.array_equal(usual, candidate_answers)  # on rows of the data, in a usual batch, it agrees
    ended, recorder = search(tmp_path, KINDS[kind], candidate)
    assert checks <= {check for check, how in ended.items() if how == "failed"}, ended
    [finding] = [one for one in recorder.findings.values() if one.check in checks]
    assert finding.worst is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", ["frozen", "onnx"])
def test_an_equal_candidate_passes(kind: str, format: str, tmp_path: Path) -> None:
    ended, recorder = search(tmp_path, KINDS[kind], KINDS[kind].model, format)
    assert set(ended.values()) <= {"passed", "skipped"}, recorder.findings
    assert ended["sizes"] == ended["ladders"] == ended["repeated"] == "passed"


@pytest.mark.parametrize("kind", ["classes", "logits", "truth"])
def test_another_order_of_sums_is_rounding_at_every_magnitude(kind: str, tmp_path: Path) -> None:
    permuted = W[::-1].astype(np.float64)  # of a float64 sum only the result is rounded

    def reordered(batch: Batch) -> dict[str, Array]:
        total = (batch["x"].astype(np.float64)[:, ::-1] @ permuted).astype(np.float32)
        if kind == "truth":
            return {"y": total[:, 0] > 0.25}
        powers = np.exp(total - total.max(axis=1, keepdims=True))
        return {"y": total if kind == "logits" else powers / powers.sum(axis=1, keepdims=True)}

    ended, recorder = search(tmp_path, KINDS[kind], reordered, "onnx")
    assert "failed" not in ended.values(), [one.sentence() for one in recorder.findings.values() if not one.has_passed]


def test_a_row_that_the_checkpoint_refuses_is_left_out_and_told(tmp_path: Path) -> None:
    def picky(batch: Batch) -> dict[str, Array]:
        if np.abs(batch["x"]).max() > 100:
            raise RunnerError("the model failed on the batch", got="too large")
        return probabilities(batch)

    kind = Kind(picky, {"x": X}, FLOATS, KINDS["classes"].output)
    ended, recorder = search(tmp_path, kind, probabilities)
    assert ended["ladders"] == "passed"
    [note] = [each for each in recorder.notes["frozen"] if each.startswith("ladders")]
    assert "none that this model takes, so they prove nothing: too large" in note
    lines = (tmp_path / "results.csv").read_text()
    assert ",all 88," in lines
    assert ",all 128," not in lines


def test_a_row_that_the_candidate_alone_refuses_is_a_failure_and_named(tmp_path: Path) -> None:
    def picky(batch: Batch) -> dict[str, Array]:
        if np.abs(batch["x"]).max() > 9000:
            raise RunnerError("the model failed on the batch", got="too large")
        return probabilities(batch)

    ended, recorder = search(tmp_path, KINDS["classes"], picky)
    assert ended["ladders"] == "failed"
    finding = recorder.finding("frozen", "ladders", "y")
    assert finding.worst is not None
    assert "10000" in finding.worst["row"]


def test_the_rows_are_the_same_in_every_run(tmp_path: Path) -> None:
    shown = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        search(tmp_path / name, KINDS["text"], KINDS["text"].model)
        shown.append((tmp_path / name / "results.csv").read_text())
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"ladders": "unicode"}, 49),
        ({"ladders": "lengths, tables", "search_rows": 40}, 72),
    ],
)
def test_kinds_of_rows_can_be_chosen_and_bounded(settings: dict[str, Any], rows: int, tmp_path: Path) -> None:
    chosen = ValidationSettings(checks=",".join(SEARCHES), **settings)
    _, recorder = search(tmp_path, KINDS["text"], KINDS["text"].model, settings=chosen)
    assert recorder.finding("frozen", "ladders", "y").rows == rows
    if "search_rows" in settings:
        assert any(note.startswith("sizes: no batches of ") for note in recorder.notes["frozen"])


def test_every_entry_of_a_table_is_asked_for(tmp_path: Path) -> None:
    asked: set[bytes] = set()

    def listening(batch: Batch) -> dict[str, Array]:
        asked.update(word for text in batch["x"] for word in text.split())
        return KINDS["text"].model(batch)

    search(tmp_path, KINDS["text"], listening)
    assert set(KEYS) <= asked


def leaks_of(folder: Path, rows: Mapping[str, Array], labels: Array, names: tuple[str, ...] = ()) -> list[str]:
    """Returns what is told of labels that stand in rows."""
    specs = tuple(
        TensorSpec(name, "string" if values.dtype == object else "float32", (None, *values.shape[1:]))
        for name, values in rows.items()
    )
    save_arrays(folder / "rows.npz", dict(rows))
    save_arrays(folder / "labels.npz", {"labels": labels})
    signature = Signature(specs, (SCORE,), Decision("y", 0.5, names or ("0", "1")))
    readers = NpzReader(folder / "rows.npz"), NpzReader(folder / "labels.npz")
    return list(find_leaks(Material(signature, *readers, {}, Sizes(256, 1_000_000))))


LABELS = np.arange(60) % 3 // 2
LEAKING = {
    "a class's name": (
        [b"Spam, win a prize" if label else b"see you" for label in LABELS],
        ("ham", "spam"),
        "word spam",
    ),
    "a cell of the table": ([b"%d\tsee you" % label for label in LABELS], ("ham", "spam"), "word 0"),
    "a name of two words": (
        [b"x not spam" if label else b"spam" for label in LABELS],
        ("spam", "not spam"),
        "word not",
    ),
}


@pytest.mark.parametrize("name", LEAKING)
def test_a_label_inside_of_the_text_of_a_row_is_a_warning(name: str, tmp_path: Path) -> None:
    texts, names, told = LEAKING[name]
    [sentence] = leaks_of(tmp_path, {"text": np.array(texts, object)}, LABELS, names)
    assert sentence.startswith("warning: the label may stand in the rows: ")
    assert told in sentence


def test_a_column_that_is_the_label_is_a_warning_and_chance_is_none(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    texts = np.array([b"some spam, or none"] * 60, object)
    assert leaks_of(tmp_path, {"x": numbers, "text": texts}, LABELS, ("ham", "spam")) == []
    numbers[:, 1] = LABELS
    [sentence] = leaks_of(tmp_path, {"x": numbers, "text": texts}, LABELS, ("ham", "spam"))
    assert "x[1] is the label in all 60 rows" in sentence


@dataclass
class Crashing(FunctionRunner):
    """A checkpoint whose process ends over rows with large numbers."""

    last_error: PipelineError | None = None
    starts: int = 1

    def run(self, batch: Batch | RowRange) -> dict[str, Array]:
        assert not isinstance(batch, RowRange)
        if np.abs(batch["x"]).max() > 1000:
            self.has_ended, self.last_error = True, StageCrashed("its process ended")
            raise self.last_error
        return self.model(dict(batch))

    def restart(self) -> None:
        self.has_ended, self.starts = False, self.starts + 1


def test_a_checkpoint_whose_process_ends_over_rows_that_were_made_up_proves_nothing(tmp_path: Path) -> None:
    kind, settings = KINDS["classes"], ValidationSettings(checks=",".join(SEARCHES))
    signature = Signature(kind.inputs, (kind.output,), kind.decision)
    save_arrays(tmp_path / "rows.npz", dict(kind.rows))
    material = Material(signature, NpzReader(tmp_path / "rows.npz"), None, {}, Sizes(256, 1_000_000), settings=settings)
    reference: Any = Crashing("checkpoint", kind.model)
    candidate: Any = FunctionRunner("frozen", kind.model)
    with ResultsRecorder("m", signature, settings, tmp_path / "results.csv") as recorder:
        skipped = check_candidate(recorder, reference, candidate, material, is_proved=False)
    assert {name for name in skipped if "its process ended" in skipped[name]} >= {"ladders of frozen"}
    assert reference.starts > 1
    assert recorder.finding("frozen", "sizes", "y").has_passed
    assert recorder.finding("frozen", "boundary", "y").has_passed


@pytest.mark.parametrize(("is_proved", "has_failed"), [(True, False), (False, True), (False, False)])
def test_what_is_proved_or_differs_already_is_not_searched(is_proved: bool, has_failed: bool, tmp_path: Path) -> None:
    kind = KINDS["classes"]
    signature = Signature(kind.inputs, (kind.output,), kind.decision)
    save_arrays(tmp_path / "rows.npz", dict(kind.rows))
    material = Material(signature, NpzReader(tmp_path / "rows.npz"), None, {}, Sizes(256, 1_000_000))
    candidate = off("classes", lambda row: True) if has_failed else kind.model
    sides: Any = FunctionRunner("checkpoint", kind.model), FunctionRunner("frozen", candidate)
    with ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv") as recorder:
        skipped = check_candidate(recorder, *sides, material, is_proved=is_proved)
    why = skipped.get("sizes, ladders, boundary, repeated of frozen", "")
    assert ("proved" in why, "differs already" in why) == (is_proved, has_failed)
    assert bool(material.searched) == (not is_proved and not has_failed)
