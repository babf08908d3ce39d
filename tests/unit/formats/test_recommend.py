"""Recommendations of formats, for generated numbers."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.formats.benchmark.recommend import recommend


def entry(
    p50_ms: float = 1.0,
    rows_per_second: float = 1000.0,
    peak_bytes: int = 600_000_000,
    import_seconds: float = 2.0,
    load_seconds: float = 0.5,
    first_answer_seconds: float = 0.1,
    size_bytes: int = 1_000_000,
    is_stable: bool = True,
    problem: str | None = None,
) -> dict[str, Any]:
    """Builds a format's entry in costs.json."""
    batch = {"p50_ms": p50_ms, "p95_ms": 2 * p50_ms, "p99_ms": 3 * p50_ms, "runs": 9, "is_stable": is_stable}
    return {
        "size_bytes": size_bytes,
        "import_seconds": import_seconds,
        "load_seconds": load_seconds,
        "first_answer_seconds": first_answer_seconds,
        "batches": {
            "1": {**batch, "rows_per_second": 1000 / p50_ms},
            "64": {**batch, "p50_ms": 64000 / rows_per_second, "rows_per_second": rows_per_second},
        },
        "rows_per_second": rows_per_second,
        "is_stable": is_stable,
        "peak_bytes": peak_bytes,
        "problem": problem,
    }


def failed(problem: str = "it crashed") -> dict[str, Any]:
    """Builds the entry of a format that could not be measured."""
    batch = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "runs", "rows_per_second", "is_stable"))
    line = dict.fromkeys(entry())
    return {**line, "size_bytes": 1_000_000, "batches": {"1": batch, "64": batch}, "problem": problem}


def test_each_choice_is_told_with_its_number_and_that_of_the_checkpoint() -> None:
    text = recommend(
        {
            "checkpoint": entry(p50_ms=0.5),
            "frozen": entry(p50_ms=0.2, rows_per_second=12_000),
            "tflite": entry(p50_ms=0.3, import_seconds=0.1, peak_bytes=60_000_000),
        }
    )
    assert text.split(". ") == [
        "Lowest latency: frozen, 0.2 ms at batch 1 (checkpoint: 0.5 ms at batch 1)",
        "Highest throughput: frozen, 12,000 rows/s at batch 64 (checkpoint: 1,000 rows/s at batch 64)",
        "Smallest memory: tflite, 60 MB (checkpoint: 600 MB)",
        "Fastest start: tflite, 0.7 s (checkpoint: 2.6 s).",
    ]


def test_where_the_checkpoint_is_best_the_next_best_is_told() -> None:
    text = recommend({"checkpoint": entry(p50_ms=0.2), "frozen": entry(p50_ms=0.9), "mmap": entry(p50_ms=0.5)})
    assert "Lowest latency: checkpoint, 0.2 ms at batch 1 (mmap: 0.5 ms at batch 1)." in text


@pytest.mark.parametrize(("p50_ms", "differs"), [(1.09, False), (1.11, True), (0.92, False), (0.9, True)])
def test_a_difference_within_noise_is_not_called_one(p50_ms: float, differs: bool) -> None:
    text = recommend({"checkpoint": entry(p50_ms=1.0), "frozen": entry(p50_ms=p50_ms)})
    assert ("Lowest latency" in text) == differs
    assert ("No difference above noise in latency, throughput, memory and start." in text) == (not differs)


def test_formats_that_are_as_good_as_the_best_are_named_with_it() -> None:
    text = recommend({"checkpoint": entry(), "frozen": entry(p50_ms=0.5), "mmap": entry(p50_ms=0.48)})
    assert "Lowest latency: frozen and mmap, 0.48 ms at batch 1 (checkpoint: 1 ms at batch 1)." in text


def test_times_that_did_not_settle_differ_only_by_a_factor_of_two_and_that_is_said() -> None:
    for p50_ms, differs in ((0.6, False), (0.4, True)):
        text = recommend({"checkpoint": entry(is_stable=False), "frozen": entry(p50_ms=p50_ms)})
        assert ("Lowest latency: frozen" in text) == differs
        assert "The times of checkpoint did not settle" in text
    slow = recommend({"checkpoint": entry(is_stable=False), "frozen": entry(import_seconds=0.3, load_seconds=1.0)})
    assert "Fastest start" not in slow
    assert "The .pb takes" not in slow


def test_imports_of_one_library_that_took_unequally_long_make_no_faster_start() -> None:
    text = recommend({"checkpoint": entry(import_seconds=3.5), "frozen": entry(import_seconds=2.0)})
    assert "Fastest start" not in text
    text = recommend({"checkpoint": entry(import_seconds=3.5), "tflite": entry(import_seconds=0.1)})
    assert "Fastest start: tflite, 0.7 s (checkpoint: 4.1 s)." in text


SLOW = entry(load_seconds=5.0, first_answer_seconds=6.0, peak_bytes=3_000_000_000)


def test_a_pb_that_loads_slower_than_its_checkpoint_is_told_with_the_numbers() -> None:
    text = recommend({"checkpoint": entry(), "frozen": SLOW})
    assert (
        "The .pb takes 11 s to load and to answer first, 18.3 times as long as its checkpoint (0.6 s), "
        "and 3.0 GB of memory (600 MB)." in text
    )
    assert "of weights" not in text  # they are few


@pytest.mark.parametrize(
    ("load_seconds", "is_told"), [(0.48, False), (0.54, False), (0.64, True)]
)  # 0.54 and 0.1 s are 7 % more than 0.6 s
def test_a_pb_that_loads_as_fast_as_its_checkpoint_is_not_blamed(load_seconds: float, is_told: bool) -> None:
    text = recommend({"checkpoint": entry(), "frozen": entry(load_seconds=load_seconds)})
    assert ("The .pb takes" in text) == is_told


def test_small_files_that_load_in_no_time_are_not_compared_by_their_ratio() -> None:
    quick = {"load_seconds": 0.01, "first_answer_seconds": 0.01}
    text = recommend({"checkpoint": entry(**quick), "frozen": entry(load_seconds=0.05, first_answer_seconds=0.01)})
    assert "The .pb takes" not in text


def test_from_100_mb_of_weights_on_what_loads_at_once_is_recommended() -> None:
    mmap = entry(load_seconds=0.1, first_answer_seconds=0.03)
    large = {"checkpoint": entry(size_bytes=100_000_000), "frozen": SLOW, "mmap": mmap}
    assert "With 100 MB of weights take mmap instead where processes start often: 0.13 s, 600 MB." in recommend(large)
    tflite = entry(import_seconds=0.2, load_seconds=0.5, peak_bytes=200_000_000)  # slower to load, but not to import
    assert "take tflite instead where processes start often: 0.6 s, 200 MB." in recommend({**large, "tflite": tflite})
    large["checkpoint"] = entry(size_bytes=99_999_999)
    assert "of weights" not in recommend(large)


def test_where_mmap_was_not_measured_the_checkpoint_is_recommended_and_mmap_named() -> None:
    text = recommend({"checkpoint": entry(size_bytes=400_000_000), "frozen": SLOW})
    assert "With 400 MB of weights take checkpoint instead" in text
    assert "The format mmap (--formats) was not measured" in text


def test_a_format_with_a_problem_is_never_recommended() -> None:
    text = recommend({"checkpoint": entry(), "frozen": entry(), "onnx": failed()})
    assert "onnx" not in text
    assert recommend({"checkpoint": failed(), "frozen": failed()}) == "No costs are known: it crashed."
    assert recommend({"checkpoint": failed(), "frozen": failed("it hung")}) == "No costs are known."
    alone = recommend({"checkpoint": entry(), "frozen": failed()})
    assert alone == "There are numbers of checkpoint alone, so nothing to compare."


def test_a_format_that_is_not_proven_equal_is_never_recommended_however_good_its_numbers() -> None:
    formats = {"checkpoint": entry(), "frozen": entry(p50_ms=0.5), "tflite_int8": entry(p50_ms=0.1)}
    assert "Lowest latency: tflite_int8" in recommend(formats)
    text = recommend(formats, left_out={"tflite_int8"})
    assert "Lowest latency: frozen" in text
    assert text.endswith("Left out: tflite_int8, not proven equal.")


def test_batch_sizes_that_not_all_formats_have_are_not_compared() -> None:
    other = entry()
    other["batches"] = {"64": other["batches"]["64"]}
    text = recommend({"checkpoint": entry(p50_ms=9), "frozen": other})
    assert "at batch 1" not in text
    other["batches"] = {"4": other["batches"]["64"]}
    assert "No difference above noise in memory and start." in recommend({"checkpoint": entry(), "frozen": other})
