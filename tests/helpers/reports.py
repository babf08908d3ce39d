"""Facts for reports, made up: a small run that passed, and large ones with everything that a report can tell.

And what a reader finds in what is written from them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pipeline.report import write_report
from pipeline.report.facts import ReportFacts, StageFacts
from pipeline.signature import Decision, Signature, TensorSpec

COLUMNS = [
    "model",
    "format",
    "check",
    "output",
    "row",
    "element",
    "reference",
    "candidate",
    "abs_diff",
    "rel_diff",
    "ulp_diff",
    "verdict",
]


class Page(HTMLParser):
    """Content of a page: texts, tags with their attributes, and unclosed tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def drawings(self) -> list[str | None]:
        """Labels of the charts for screen readers."""
        return [values.get("aria-label") for tag, values in self.tags if tag == "svg"]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def written(folder: Path, facts: ReportFacts) -> tuple[Page, str, ElementTree.Element]:
    """Writes a report; returns its page, summary and XML."""
    write_report(folder, facts)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    xml = ElementTree.fromstring((folder / "junit.xml").read_bytes())
    return page, (folder / "summary.md").read_text(encoding="utf-8"), xml


def row(number: int, diff: str = "0.0", verdict: str = "passed", **values: str) -> list[str]:
    """Builds a line of results.csv, by default for a validation row of `frozen`."""
    cells = dict.fromkeys(COLUMNS, "") | {"model": "sms", "format": "frozen", "check": "equal", "output": "probability"}
    cells |= {"row": str(number), "reference": "0.25", "candidate": "0.25", "abs_diff": diff, "verdict": verdict}
    return [(cells | values)[column] for column in COLUMNS]


def check(**values: Any) -> dict[str, Any]:
    """Builds a check, by default passed and bit-equal."""
    return {
        "format": "frozen", "check": "equal", "output": "probability", "dtype": "float32", "rows": 1115,
        "rows_failed": 0, "bit_equal": True, "max_abs_diff": 0.0, "max_rel_diff": 0.0, "max_ulp_diff": 0,
        "rtol": 1e-5, "atol": 1e-6, "verdict": "passed", "reason": None, "worst": None,
    } | values  # fmt: skip


FAILED = check(
    verdict="failed", rows_failed=1, bit_equal=False, max_abs_diff=0.5, reason="1 of 1,115 rows differs too much.",
    worst={"row": 17, "element": "1;2", "reference": "0.25", "candidate": "0.75"},
)  # fmt: skip
DECISION = {"rows": 1115, "flipped": 0, "nearest_row": 812, "nearest_distance": 0.0031}
METRICS = {"rows": 1115, "accuracy": 0.9928, "labels": ["ham", "spam"], "confusion": [[960, 3], [5, 147]]}


def make_facts(
    folder: Path,
    rows: Sequence[list[str]] = (),
    history: str = "1,0.7,\n2,0.5,0.6\n",
    name: str = "sms",
    **verdict: Any,
) -> ReportFacts:
    """Builds facts, by default of a run that passed; writes its tables to `folder`."""
    with (folder / "results.csv").open("w", newline="", encoding="utf-8", errors="replace") as lines:
        csv.writer(lines).writerows([COLUMNS, *(rows or [row(0), row(1)])])
    (folder / "history.csv").write_text("step,loss,validation_loss\n" + history)
    passed = {"schema": 1, "verdict": "passed", "model": name, "reasons": [], "rows": {"validation": 1115},
              "checks": [check(), check(check="golden", rows=64)],
              "metrics": {"checkpoint": METRICS, "frozen": METRICS}, "decisions": {"frozen": DECISION}}  # fmt: skip
    return ReportFacts(
        name=name,
        verdict=passed | verdict,
        results=folder / "results.csv",
        history=folder / "history.csv",
        signature=Signature(
            (TensorSpec("text", "string", (None,)),), (TensorSpec("probability", "float32", (None,)),),
            Decision("probability", 0.5, ("ham", "spam")),
        ),
        exported="last step, 600 of 600",
        sizes={"frozen/model.pb": 1048576},
        settings={"training": {"steps": 600}},
        versions={"tensorflow": "2.21.0"},
        stages=[StageFacts("frozen", "d1e5", "f1e5", 0.41)],
        command="luigi --module pipeline WriteReport",
    )  # fmt: skip


def scores(seed: int, rows: int = 1115, shift: float = 0.0) -> dict[str, Any]:
    """Builds the verdict's scores of one side, for two labels."""
    random = np.random.default_rng(seed)
    labels = random.random(rows) < 0.2
    values = np.clip(np.where(labels, random.beta(9, 1.1, rows), random.beta(0.7, 14, rows)) + shift, 0, 1)
    edges = np.linspace(0, 1, 21)
    paths = np.minimum((values * 10).astype(int), 9)
    bins = [values[paths == place] for place in range(10)]
    return {
        "edges": edges.tolist(),
        "by_label": {
            "ham": np.histogram(values[~labels], edges)[0].tolist(),
            "spam": np.histogram(values[labels], edges)[0].tolist(),
        },
        "calibration": [
            {
                "low": place / 10,
                "high": (place + 1) / 10,
                "rows": len(own),
                "mean_score": float(own.mean()) if len(own) else None,
                "share": float(labels[paths == place].mean()) if len(own) else None,
            }
            for place, own in enumerate(bins)
        ],
    }


FORMATS = ("frozen", "mmap", "savedmodel", "onnx", "onnx_int8")
_CHECKS = {"weights": 8, "equal": 1115, "edge": 12, "generated": 74, "stable": 256, "golden": 64, "decisions": 1115}
_SIZES = {"frozen": 5e-9, "mmap": 5e-9, "savedmodel": 0.0, "onnx": 2e-8, "onnx_int8": 4e-3}


def full_facts(folder: Path, is_passed: bool = True) -> ReportFacts:
    """Builds facts for all sections of a report; unless `is_passed`, also with a faulty and a refused format."""
    random = np.random.default_rng(5)
    rows, checks = [], []
    for format in FORMATS:
        for name, count in _CHECKS.items():
            if name != "weights" or format in ("frozen", "mmap"):
                size = 0.0 if name in ("weights", "stable", "decisions") else _SIZES[format]
                checks.append(
                    check(format=format, check=name, rows=count, bit_equal=not size, max_abs_diff=size,
                          max_rel_diff=size * 8, max_ulp_diff=int(size * 1e9))
                )  # fmt: skip
        for number in range(1115):
            reference = float(random.beta(0.4, 1.2))
            candidate = reference + _SIZES[format] * float(random.normal()) / 3
            rows.append(row(number, repr(abs(candidate - reference)), format=format, reference=repr(reference),
                            candidate=repr(candidate)))  # fmt: skip
    facts = make_facts(folder, rows, "".join(f"{n},{2 / (1 + n / 40):.4f},{'' if n % 50 else 0.4 + 1 / n}\n"
                                             for n in range(1, 601)))  # fmt: skip
    verdict = {
        **facts.verdict,
        "rows": {"validation": 1115, "edge": 12, "generated": 74, "stable": 256, "golden": 64},
        "checks": [check(format="checkpoint", check="golden", rows=64), *checks],
        "metrics": {name: METRICS | {"precision": 0.98, "recall": 0.967, "f1": 0.9735}
                    for name in ("checkpoint", *FORMATS)},
        "decisions": {name: DECISION | {"flips": []} for name in FORMATS},
        "scores": {name: scores(3, shift=0.004 * (name == "onnx_int8")) for name in ("checkpoint", *FORMATS)},
        "notes": {"frozen": ["2 of 12 edge rows agree only with TensorFlow's optimizer off."]},
        "rows_per_second": {name: 5000.0 + 700 * index for index, name in enumerate(FORMATS)},
        "causes": {},
    }  # fmt: skip
    facts = replace(
        facts,
        verdict=verdict if is_passed else _failed(verdict),
        sizes={"checkpoint/model.ckpt.data-00000-of-00001": 1048580}
        | {f"{name}/model": 1081961 // (1 + 3 * (name == "onnx_int8")) for name in FORMATS},
        settings={"training": {"steps": 600, "batch_size": 64}, "validation": {"checks": "all", "float32_rtol": 1e-5}},
        stages=[StageFacts(name, f"{index:064x}", f"{index + 77:064x}", 0.4 + index, "2026-03-02T02:31:00+00:00")
                for index, name in enumerate(("training", "checkpoint", *FORMATS, "validation"))],
        inputs={"data": "ab" * 32},
        costs=made_up_costs(),
        graph={"nodes": 148, "parameters": 262145, "parameter_bytes": 1048580,
               "ops": {"Const": 52, "Identity": 17, "MatMul": 2, "StringToHashBucketFast": 1}},
    )  # fmt: skip
    if is_passed:
        return facts
    kept = [f"output/sms/validation/worst/{name}" for name in ("onnx.npz", "reproduce.sh")]
    return replace(facts, worst=kept, results=_with_failures(folder))


def _failed(verdict: dict[str, Any]) -> dict[str, Any]:
    reason = (
        "equal of probability: 31 of 1115 rows differ; the worst is row 17: reference 0.1822, onnx 0.8301 "
        "(bound: rtol 1e-05, atol 1e-06)"
    )
    bad = check(format="onnx", rows_failed=31, bit_equal=False, max_abs_diff=0.6479, max_rel_diff=3.556,
                max_ulp_diff=9881231, verdict="failed", reason=reason,
                worst={"row": 17, "element": "", "reference": "0.1822", "candidate": "0.8301"})  # fmt: skip
    flips = [{"row": n, "reference": "ham", "candidate": "spam", "distance": 0.3178 / n} for n in range(1, 5)]
    decided = bad | {"check": "decisions", "rows_failed": 4, "max_abs_diff": 1.0, "max_ulp_diff": None,
                     "reason": "decisions of probability: 4 of 1115 rows are decided otherwise"}  # fmt: skip
    refusal = "onnx_int8 cannot carry this model: the op StringLower has no ONNX equivalent"
    refused = bad | {"format": "onnx_int8", "check": "made", "output": "file", "reason": refusal, "worst": None,
                     "rows": 0, "rows_failed": 0, "max_abs_diff": None, "max_rel_diff": None, "max_ulp_diff": None,
                     "rtol": None, "atol": None}  # fmt: skip
    kept = [one for one in verdict["checks"] if (one["format"], one["check"]) not in
            {("onnx", "equal"), ("onnx", "decisions")} and one["format"] != "onnx_int8"]  # fmt: skip
    metrics = {name: values for name, values in verdict["metrics"].items() if name != "onnx_int8"}
    cause = {"kind": "weights_differ", "sentence": "the weights differ: variable dense/kernel, first at [3, 0]"}
    return verdict | {
        "verdict": "failed",
        "reasons": [reason, decided["reason"], refusal, f"onnx: {cause['sentence']}"],
        "causes": {"onnx": cause},
        "checks": [*kept, bad, decided, refused],
        "metrics": metrics
        | {"onnx": METRICS | {"accuracy": 0.9892, "precision": 0.955, "recall": 0.967, "f1": 0.961,
                              "confusion": [[956, 7], [5, 147]]}},
        "decisions": {name: told for name, told in verdict["decisions"].items() if name != "onnx_int8"}
        | {"onnx": DECISION | {"flipped": 4, "flips": flips}},
        "scores": {name: told for name, told in verdict["scores"].items() if name != "onnx_int8"}
        | {"onnx": scores(3, shift=0.06)},
        "skipped": {"golden": "no outputs were recorded when the model was trained"},
    }  # fmt: skip


def _with_failures(folder: Path) -> Path:
    path = folder / "results.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        cells = [line for line in csv.reader(lines) if line[1] != "onnx_int8"]
    for number, line in enumerate(cells):
        if line[1] == "onnx" and number % 36 == 0:
            candidate = min(1.0, float(line[6]) + 0.05 + number % 7 / 10)
            line[7], line[8], line[10] = repr(candidate), repr(candidate - float(line[6])), "9881231.0"
            line[11] = "failed"
    with path.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(cells)
    return path


def made_up_costs() -> dict[str, Any]:
    """Builds the content of a costs.json."""
    formats = {}
    for index, name in enumerate(("checkpoint", *FORMATS)):
        formats[name] = {
            "size_bytes": 1081961 // (1 + 3 * (name == "onnx_int8")), "import_seconds": 2.4,
            "load_seconds": 0.8 / (1 + index), "first_answer_seconds": 0.9 / (1 + index),
            "rows_per_second": 9000.0 + 4000 * index,
            "batches": {"1": {"p50_ms": 0.61 / (1 + index), "p95_ms": 0.9, "p99_ms": 1.1 / (1 + index), "runs": 400},
                        "64": {"p50_ms": 4.2 / (1 + index), "p95_ms": 5.0, "p99_ms": 6.1 / (1 + index), "runs": 200}},
            "is_stable": True, "peak_bytes": 630_000_000 - 80_000_000 * index, "problem": None,
        }  # fmt: skip
    formats["savedmodel"] |= {
        "load_seconds": None, "first_answer_seconds": None, "rows_per_second": None, "batches": {}, "peak_bytes": None,
        "problem": "It answered nothing within 60 s.",
    }  # fmt: skip
    return {
        "schema": 1,
        "rows": 1115,
        "formats": formats,
        "recommendation": "onnx_int8 answers soonest and is the smallest; frozen loads in 0.4 s.",
        "machine": {"cpu": "x86_64", "cores": 2, "memory_bytes": 8 << 30},
    }
