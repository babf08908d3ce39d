"""Opens the frozen corner cases in other TensorFlows, and counts how many load and how many agree.

    make runtimes
    python benchmarks/runtimes.py .environments/*/bin/python

Each case of `tests/corpus` that can be frozen is frozen here, and answered here with the optimizer off. Each other
interpreter answers the same rows, by the file that `[validation] runtimes` sends it. `same bits` are answers equal to
the bit, `within bounds` those within the bounds for another runtime, `differs` all others; what does not load is told
with its sentence. It prints a table in Markdown, then the sentences.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus

from pipeline.errors import PipelineError
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.compare.tolerance import all_within, tolerance_for
from pipeline.validation.runtimes.client import Runtime
from pipeline.validation.runtimes.requests import OpenRequest
from pipeline.workers.child import Limits

HERE = "same bits", "within bounds", "differs", "does not load", "does not run"


def make(case: corpus.Case, folder: Path) -> tuple[list[np.ndarray], list[str]] | None:
    """Freezes a case into an artifact's folder; returns the answers here, and the outputs. None if it is refused."""
    stored = corpus.store(case, folder, versions=1)
    path = folder / "artifact" / "model.pb"
    path.parent.mkdir()
    pb = corpus.by_us(stored.prefixes[0], stored.outputs, corpus.inputs_of(case), path)
    answers = corpus.answers_of(pb, stored.outputs, case.feeds)
    inputs = [
        TensorSpec(name, "string" if array.dtype.kind in "OSU" else array.dtype.name, None, name)
        for name, array in zip(corpus.inputs_of(case), case.feeds.values(), strict=True)
    ]
    outputs = [TensorSpec(f"y{at}", "float32", None, name) for at, name in enumerate(stored.outputs)]
    Signature(inputs, outputs).write(path.parent / "signature.json")
    return answers, stored.outputs


def judge(runtime: Runtime, case: corpus.Case, folder: Path, answers: list[np.ndarray]) -> tuple[str, str]:
    """Returns what becomes of a case in an interpreter, and the sentence."""
    request, signature = (
        OpenRequest.of_artifact("frozen", folder, 1),
        Signature.read(folder / "signature.json"),
    )
    try:
        if unknown := runtime.unknown(request.ops, request.consumer):
            return "does not load", "; ".join(unknown)
        runner = runtime.open(request, signature)
    except PipelineError as exc:
        return "does not load", str(exc.got)
    try:
        feeds = dict(zip(corpus.inputs_of(case), case.feeds.values(), strict=True))
        found = [*runner.run(feeds).values()]
    except PipelineError as exc:
        return "does not run", str(exc.got)
    if corpus.is_same(found, answers):
        return "same bits", ""
    bounds = [tolerance_for(ValidationSettings(), array.dtype.name, "runtime") for array in answers]
    if all(map(all_within, answers, found, bounds)):
        return "within bounds", ""
    first, second = ([array.ravel()[:3].tolist() for array in side] for side in (answers, found))
    return "differs", f"{first} became {second}"


def main(commands: list[str]) -> None:
    cases = [case for case in corpus.CASES if case.must == corpus.EQUAL]
    counts: dict[str, Counter[str]] = {command: Counter() for command in commands}
    told: list[str] = []
    names = {}
    with tempfile.TemporaryDirectory() as root:
        made = {}
        for at, case in enumerate(cases):
            folder = Path(root) / str(at)
            folder.mkdir()
            made[case.name] = (folder / "artifact", make(case, folder)[0])
        for command in commands:
            with Runtime(command, Limits(120)) as runtime:
                names[command] = f"{runtime.library_of('graph')}, Python {runtime.facts['python']}"
                for case in cases:
                    word, sentence = judge(runtime, case, *made[case.name])
                    counts[command][word] += 1
                    if sentence:
                        told.append(f"{names[command]}: {case.name}: {word}: {' '.join(sentence.split())[:300]}")
    print(f"| TensorFlow | {' | '.join(HERE)} |\n|---|{'---|' * len(HERE)}")
    for command in commands:
        print(f"| {names[command]} | {' | '.join(str(counts[command][word]) for word in HERE)} |")
    print(f"\n{len(cases)} cases\n")
    print("\n".join(told))


if __name__ == "__main__":
    main(sys.argv[1:])
