"""Costs: measured numbers of runners with known costs, and runners that fail."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import pytest
from jobs import FRUIT, job_for, run
from measured import LARGE, PLAIN, SLOW, artifact, checkpoint, register
from reports import make_facts

from pipeline.formats.benchmark.measure import artifact_size, measure_costs
from pipeline.formats.benchmark.worker import time_runs
from pipeline.formats.registry import refuse
from pipeline.report.costs import costs as report_costs
from pipeline.settings import CostsSettings
from pipeline.tasks.chain import results
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.chain.report_facts import collect_report_facts
from pipeline.tasks.model import MeasureCosts, ValidateModel, WriteReport
from pipeline.tasks.summary import summary_lines
from pipeline.workers.child import load_meanwhile, run_in_subprocess

PROJECT = Path(__file__).resolve().parents[3]
QUICK = CostsSettings(seconds=0.05)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measures a checkpoint and candidates, by the source texts of their runners."""

    def measure(
        settings: CostsSettings = QUICK,
        rows: int = 100,
        batch: int | None = None,
        is_bare: bool = True,
        **sources: str,
    ) -> dict[str, Any]:
        sources = {"checkpoint": PLAIN, **sources}
        register(tmp_path, monkeypatch, is_bare, **sources)
        reference = checkpoint(tmp_path / "artifacts/checkpoint", rows, batch)
        candidates = {name: artifact(tmp_path / "artifacts" / name, batch) for name in sources if name != "checkpoint"}
        (tmp_path / "costs").mkdir(exist_ok=True)
        costs = measure_costs(reference, candidates, settings, tmp_path / "costs")
        assert json.loads((tmp_path / "costs/costs.json").read_text()) == costs
        assert {path.name for path in (tmp_path / "costs").iterdir()} == {"costs.json", "costs.csv"}
        return costs

    return measure


def test_each_second_is_counted_where_it_was_spent(measure: Any) -> None:
    costs = measure(CostsSettings(seconds=0.4), slow=SLOW)
    slow, plain = costs["formats"]["slow"], costs["formats"]["checkpoint"]
    assert slow["problem"] is None
    assert slow["import_seconds"] >= 1.2
    assert 0.6 <= slow["load_seconds"] < 1.2
    assert 0.3 <= slow["first_answer_seconds"] < 0.6
    for batch in slow["batches"].values():
        assert 20 <= batch["p50_ms"] < 300  # the first answer is none of them
    assert slow["rows_per_second"] == slow["batches"]["64"]["rows_per_second"] <= 64 / 0.02
    assert plain["import_seconds"] < 1.2
    assert plain["load_seconds"] < 0.3
    assert plain["batches"]["1"]["p50_ms"] < 20


def test_numbers_fit_each_other(measure: Any) -> None:
    costs = measure()
    for entry in costs["formats"].values():
        assert {*entry["batches"]} == {"1", "64"}
        for size, batch in entry["batches"].items():
            assert 0 < batch["p50_ms"] <= batch["p95_ms"] <= batch["p99_ms"]
            assert batch["runs"] >= 3
            assert batch["rows_per_second"] > 0
            # A mean lies between the median of half the runs at no time at all, and the slowest.
            assert batch["rows_per_second"] <= int(size) * 2000 / batch["p50_ms"]
        assert entry["is_stable"] == all(batch["is_stable"] for batch in entry["batches"].values())
    assert costs["schema"] == 1
    assert costs["rows"] == 64
    assert costs["machine"]["cores"] >= 1
    assert costs["machine"]["memory_bytes"] > 2**28
    assert costs["machine"]["cpu"]
    assert costs["recommendation"]


def test_memory_is_that_of_the_format_and_of_no_other_process(measure: Any) -> None:
    ours = bytearray(b"x") * 300_000_000  # of the process that asks: a process that it starts must not begin with that
    formats = measure(large=LARGE)["formats"]
    assert len(ours) == 300_000_000
    assert formats["checkpoint"]["peak_bytes"] < 150_000_000
    assert 150_000_000 < formats["large"]["peak_bytes"] - formats["checkpoint"]["peak_bytes"] < 300_000_000


def test_a_format_is_opened_where_no_library_was_loaded_before(measure: Any) -> None:
    alone = """
        import sys
        loaded = {"numpy", "tensorflow", "luigi", "pandas", "onnxruntime"} & sys.modules.keys()
        assert not loaded, loaded
        """
    costs = measure(alone="import textwrap\n" + alone.replace("        ", "") + PLAIN)
    assert costs["formats"]["alone"]["problem"] is None


NOTING = """
import json

class Runner:
    def __init__(self, folder):
        self.file = open(folder / "seen", "w")

    def run(self, batch):
        print(json.dumps(batch["x"][:, 0].tolist()), file=self.file, flush=True)
        return {"y": batch["x"]}

def open_runner(folder, signature, threads):
    assert threads == 3
    return Runner(folder)
"""


def test_every_format_gets_the_same_rows_from_the_first_on_again_where_they_are_few(
    measure: Any, tmp_path: Path
) -> None:
    settings = CostsSettings(seconds=0.05, batch_sizes="4,1", threads=3)
    costs = measure(settings, rows=3, checkpoint=NOTING, other=NOTING)
    assert costs["rows"] == 3
    for format in ("checkpoint", "other"):
        lines = [json.loads(line) for line in (tmp_path / "artifacts" / format / "seen").read_text().splitlines()]
        assert lines[:6] == [[0], [0], [0], [1], [2], [0]]  # the first answer, one to prepare, then row by row
        assert {tuple(line) for line in lines if len(line) > 1} == {(0, 1, 2, 0)}


def test_a_fixed_batch_is_measured_at_its_size_alone(measure: Any, tmp_path: Path) -> None:
    costs = measure(CostsSettings(seconds=0.05, threads=3), rows=6, batch=4, checkpoint=NOTING)
    assert {*costs["formats"]["checkpoint"]["batches"]} == {"4"}
    seen = (tmp_path / "artifacts/checkpoint/seen").read_text().splitlines()
    assert {len(json.loads(line)) for line in seen} == {4}
    [line] = _table(tmp_path)
    assert line["batch_size"] == "4"


def test_a_batch_has_no_more_rows_than_fit_into_its_memory_and_the_tables_say_how_many(
    measure: Any, tmp_path: Path
) -> None:
    row = 2 * (4 + 4)  # two numbers in, two numbers out
    costs = measure(CostsSettings(seconds=0.05, threads=3, batch_mb=50 * row / 1e6), checkpoint=NOTING)
    assert {*costs["formats"]["checkpoint"]["batches"]} == {"1", "50"}
    assert [line["batch_size"] for line in _table(tmp_path)] == ["1", "50"]
    shown = report_costs(replace(make_facts(tmp_path), costs=costs), with_drawings=True)
    assert shown is not None
    assert {"p50, 1 row", "p50, 50 rows"} <= {*shown.columns}


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "costs/costs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_same_numbers(measure: Any, tmp_path: Path) -> None:
    costs = measure(slow=SLOW, bad="raise RuntimeError('no, really')")
    lines = _table(tmp_path)
    assert [(line["format"], line["batch_size"]) for line in lines] == [
        (format, size) for format in ("checkpoint", "slow", "bad") for size in ("1", "64")
    ]
    for line in lines:
        entry = costs["formats"][line["format"]]
        told = {**entry, **entry["batches"][line["batch_size"]]}
        for name in line.keys() - {"format", "batch_size"}:
            assert line[name] == ("" if told[name] is None else str(told[name]))


def test_the_size_is_that_of_the_files_which_are_opened(tmp_path: Path) -> None:
    def sized(format: str, **files: int) -> int:
        folder = tmp_path / format / str(len(files))
        for name, size in files.items():
            path = folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        return artifact_size(format, folder)

    beside = {"signature_json": 1000, "manifest_json": 1000}
    assert sized("frozen", model_pb=7, **beside) == 7
    assert sized("mmap", graph_pb=7, weights__a=10, weights__b=20, **beside) == 37
    rows = {"validation_npz": 1000, "goldens_npz": 1000, "checkpoint": 1000}
    assert sized("checkpoint", model_ckpt_meta=1, model_ckpt_index=2, model_ckpt_data=3, **rows, **beside) == 6
    assert sized("checkpoint", saved__model=0, **beside) == 0
    assert sized("checkpoint", **{"model_ckpt_data": 3}) == 3
    (tmp_path / "saved/saved_model/variables").mkdir(parents=True)
    (tmp_path / "saved/saved_model/variables/variables.index").write_bytes(bytes(5))
    (tmp_path / "saved/saved_model/saved_model.pb").write_bytes(bytes(6))
    assert artifact_size("checkpoint", tmp_path / "saved") == 11


# What fails.


def opening(statement: str) -> str:
    """Source of a runner that executes a statement when it is opened."""
    return PLAIN.replace("    return Runner()", f"    {statement}\n    return Runner()")


def at_64(statement: str) -> str:
    """Source of a runner that executes a statement for a batch of 64 rows."""
    return PLAIN.replace(
        "        return {", f"        if len(batch['x']) == 64:\n            {statement}\n        return {{"
    )


@pytest.mark.parametrize("is_bare", [True, False])
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("import os\nos._exit(3)", "ended with exit code 3 while its libraries were imported"),
        (opening("raise RuntimeError('half a file')"), "half a file"),
        (opening("import os; os.abort()"), "ended by SIGABRT while it was opened"),
        (opening("import os; os.kill(os.getpid(), 9)"), "by SIGKILL, mostly for lack of memory, while"),
        (
            opening("import time; time.sleep(60)"),
            "no answer within 3 s while it was opened ([costs] lim",
        ),
        (PLAIN.replace("return {", 'raise ValueError("no row")\n        return {'), "no row"),
        (at_64("import os; os._exit(0)"), "ended with exit code 0 while it was timed"),
        (at_64("import time; time.sleep(60)"), "no answer within 3 s while it was timed"),
    ],
)
def test_a_format_that_fails_has_a_sentence_in_the_place_of_its_numbers_and_the_others_have_theirs(
    measure: Any, source: str, sentence: str, is_bare: bool
) -> None:
    if not is_bare:
        load_meanwhile([])  # the time of the import, once for all, is no format's
        run_in_subprocess("os:getpid")
    settings = CostsSettings(seconds=0.05, limit_seconds=3)
    formats = measure(settings, is_bare=is_bare, bad=source, good=PLAIN)["formats"]
    bad = formats["bad"]
    assert sentence in bad["problem"]
    assert "\n" not in bad["problem"]
    assert bad["size_bytes"] == 0  # which is known without opening it
    numbers = [value for name, value in bad.items() if name not in ("size_bytes", "batches", "problem")]
    numbers += [value for batch in bad["batches"].values() for value in batch.values()]
    assert len(numbers) == 18
    assert {*numbers} == {None}
    for format in ("checkpoint", "good"):
        assert formats[format]["problem"] is None
        assert formats[format]["rows_per_second"] > 0


def test_a_format_that_needs_tensorflow_counts_as_in_an_interpreter_of_its_own(measure: Any) -> None:
    source = "import sys\nwas_loaded = 'tensorflow' in sys.modules\nimport tensorflow\n" + LARGE
    formats = {}
    for processes in ("shared", "own"):
        checked = f"{source}assert was_loaded == {processes == 'shared'}\n"
        formats[processes] = measure(replace(QUICK, processes=processes), is_bare=False, large=checked)["formats"][
            "large"
        ]
    shared, own = formats["shared"], formats["own"]
    assert shared["problem"] is own["problem"] is None
    assert shared["peak_bytes"] == pytest.approx(own["peak_bytes"], rel=0.1)
    assert shared["import_seconds"] > 1  # TensorFlow's, although it was loaded before


def test_what_a_library_prints_is_not_taken_for_an_answer(measure: Any) -> None:
    loud = "import os\nprint('INFO: ready')\nos.system('echo from a process of its own')\n" + PLAIN
    assert measure(loud=loud)["formats"]["loud"]["problem"] is None


def test_a_format_that_was_refused_is_not_opened_and_has_the_reason(measure: Any, tmp_path: Path) -> None:
    refused = artifact(tmp_path / "artifacts/refused")
    refuse("refused", "it has no op for strings", refused)
    entry = measure(refused=PLAIN)["formats"]["refused"]
    assert entry["problem"] == "it has no op for strings"
    assert entry["size_bytes"] is entry["peak_bytes"] is None


def test_no_seconds_measure_nothing_but_sizes(measure: Any, tmp_path: Path) -> None:
    (artifact(tmp_path / "artifacts/checkpoint") / "model.ckpt.index").write_bytes(bytes(9))
    costs = measure(CostsSettings(seconds=0), checkpoint="raise SystemExit")
    assert costs["formats"]["checkpoint"]["size_bytes"] == 9
    assert costs["formats"]["checkpoint"]["problem"] == "not measured, for [costs] seconds is 0"
    assert costs["recommendation"] == "No costs are known: not measured, for [costs] seconds is 0."


def test_without_rows_there_is_nothing_to_measure_on(measure: Any) -> None:
    costs = measure(rows=0)
    assert costs["formats"]["checkpoint"]["problem"] == "there are no validation rows to measure it on"


def test_a_measurement_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "measured_stuck.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'half')!r}).write_text(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'half')!r}, {str(tmp_path / 'pid')!r})\n"
        "time.sleep(60)\n"
    )
    place = checkpoint(tmp_path / "checkpoint")
    code = (
        "import sys; from pathlib import Path; from pipeline.formats.benchmark.measure import measure_costs\n"
        "from pipeline.formats.registry import FORMATS, Format; from pipeline.settings import CostsSettings\n"
        "FORMATS['checkpoint'] = Format('measured_stuck:open_runner')\n"
        f"measure_costs(Path({str(place)!r}), {{}}, CostsSettings(), Path({str(tmp_path)!r}))\n"
    )
    paths = os.pathsep.join([str(PROJECT), str(tmp_path)])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    try:
        pid = int(_when_there(tmp_path / "pid"))
        assert Path(f"/proc/{pid}").exists()
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while _is_at_work(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _when_there(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path.read_text()


def _is_at_work(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# Windows.


class Clock:
    """Clock that advances only during a run."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timed(durations: Any, seconds: float) -> tuple[list[float], bool, float]:
    clock = Clock()

    def run(number: int) -> None:
        clock.now += durations(number)

    times, is_stable = time_runs(run, seconds, clock)
    return times, is_stable, clock.now


def test_equal_times_are_stable_after_three_windows() -> None:
    times, is_stable, spent = timed(lambda number: 0.001, 0.8)
    assert is_stable
    assert times == pytest.approx([0.001] * len(times))
    assert spent == pytest.approx(0.3, abs=0.01)


def test_times_that_settle_are_counted_from_there_on() -> None:
    # Windows of 0.1 s: two and a half of them have ten runs each.
    times, is_stable, spent = timed(lambda number: 0.01 * (1 + number // 10) if number < 20 else 0.002, 2.4)
    assert is_stable
    assert max(times) == pytest.approx(0.002)
    assert spent < 2.0


def test_times_that_go_on_changing_are_not_stable_when_the_time_is_over() -> None:
    times, is_stable, spent = timed(lambda number: 0.001 * 1.01**number, 0.8)
    assert not is_stable
    assert spent >= 0.8
    assert len(times) >= 3


@pytest.mark.parametrize(("drift", "is_stable"), [(0.02, True), (0.03, False)])
def test_three_windows_agree_within_5_percent(drift: float, is_stable: bool) -> None:
    # A window of 0.1 s has ten runs; each window's take longer than those of the one before.
    clock, starts = Clock(), list[float]()

    def run(number: int) -> None:
        if not starts or clock.now >= starts[-1] + 0.1:
            starts.append(clock.now)
        clock.now += 0.01 * (1 + drift * len(starts))

    assert time_runs(run, 0.8, clock)[1] == is_stable


def test_a_run_that_takes_longer_than_there_is_time_is_made_once() -> None:
    assert timed(lambda number: 5.0, 0.5) == ([5.0], False, 5.0)


# In the chain.


def test_the_stage_measures_every_format_once_and_the_report_knows(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{FRUIT}:Fruit", costs={"seconds": 0.05})
    assert run(job) == jobs.ALL_STAGES
    costs = results.read_costs(job)
    assert [*costs["formats"]] == ["checkpoint", "frozen"]
    for entry in costs["formats"].values():
        assert entry["problem"] is None
        assert entry["size_bytes"] > 0
        assert entry["peak_bytes"] > 200_000_000  # TensorFlow
        assert entry["import_seconds"] > entry["batches"]["1"]["p50_ms"] / 1000 > 0
    assert collect_report_facts(job, Chain(job).before("report")).costs == costs
    assert run(job) == set()
    again = job_for(tmp_path, f"{FRUIT}:Fruit")
    assert (
        Chain(again).examine("report")["costs"].reasons[0].startswith("setting costs.seconds changed: was 0.05, is 0")
    )
    assert run(again) == {"costs", "report"}


def test_a_format_that_failed_validation_is_not_recommended_in_the_report(tmp_path: Path) -> None:
    job = job_for(tmp_path)
    run(job)
    assert "Left out" not in results.read_costs(job)["recommendation"]
    path = job.folder("validation") / "verdict.json"
    verdict = json.loads(path.read_text())
    for check in verdict["checks"]:
        check["verdict"] = "failed" if (check["format"], check["check"]) == ("frozen", "edge") else check["verdict"]
    path.write_text(json.dumps(verdict))
    assert results.read_costs(job)["recommendation"].endswith("Left out: frozen, not proven equal.")


def test_the_task_waits_for_the_validation_and_the_report_for_the_task(tmp_path: Path) -> None:
    given = {"model": "multiply_add", "output_root": str(tmp_path)}
    costs = MeasureCosts(**given)
    assert ValidateModel(**given) in [*costs.requires()]
    assert costs in [*WriteReport(**given).requires()]
    run(job_for(tmp_path), "validation")
    Chain(job_for(tmp_path)).build("costs")
    assert (
        summary_lines(Chain(job_for(tmp_path)), "costs")[-1]
        == f"costs        {tmp_path / 'multiply_add/costs/costs.csv'}"
    )
