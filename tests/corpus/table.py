"""The page of the corner cases: what TensorFlow's tools and ours do with each."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from .cases import EQUAL, GROUPS, REFUSED, Array, Case, v1
from .oracle import Answers, Stored, answers_of, by_freeze_graph, by_us, inputs_of, is_same, store

PAGE = Path(__file__).parents[2] / "docs" / "corner_cases.md"
_HEAD = """# Corner cases of freezing

What becomes of each case of `tests/corpus/`, against TensorFlow {version}. Made by `python -m tests.corpus --table`.

- **equal**: a .pb whose outputs are, to the bit, those of a live session that restored the checkpoint
- **wrong**: a .pb that fails when it is imported or run in a new process, or gives other outputs, or of what no .pb
  can hold
- **refused**: an error instead of a .pb

`freeze_graph` is run with `input_meta_graph`; it restores by the graph's first Saver, as its command does by default.
`convert_variables_to_constants` is run in the program that built the graph and restored the variables, so damaged files
never reach it (-). Both are given nodes, for they know no ports. An input that they dropped is not fed.

| | freeze_graph | convert_variables_to_constants | ours |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What the tools do with a case."""

    case: Case
    by_freeze_graph: str
    by_v1_util: str
    by_us: str


def _in_process(pb: bytes, outputs: list[str], feeds: Mapping[str, Array]) -> Answers | str:
    """What a .pb gives in this process, or where it fails."""
    logging.disable()
    try:
        graph_def = v1.GraphDef.FromString(pb)
        with tf.Graph().as_default():
            tf.import_graph_def(graph_def, name="")
    except Exception:
        return "import fails"
    there = {node.name for node in graph_def.node}  # TensorFlow's tools drop inputs that no output uses
    feeds = {name: array for name, array in feeds.items() if name.split(":")[0] in there}
    try:
        return answers_of(pb, outputs, feeds)
    except Exception:
        return "run fails"


class Judge:
    """Runs .pb files in a process that knows nothing of how they were made; a new one where it dies of one."""

    def __init__(self) -> None:
        self._pool = self._fresh()

    def _fresh(self) -> concurrent.futures.ProcessPoolExecutor:
        return concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def verdict(self, case: Case, stored: Stored, make: Callable[[], bytes | Exception | None]) -> str:
        """One cell of the table."""
        try:
            pb = make()
        except Exception:
            return REFUSED
        if not isinstance(pb, bytes):
            return "-" if pb is None else REFUSED
        try:
            found = self._pool.submit(_in_process, pb, stored.outputs, dict(case.feeds)).result(120)
        except concurrent.futures.process.BrokenProcessPool:
            self._pool = self._fresh()
            return "wrong (the process dies)"
        if isinstance(found, str):
            return f"wrong ({found})"
        if stored.answers[0] is None or not is_same(found, stored.answers[0]):
            return "wrong (outputs)"
        return EQUAL if case.must == EQUAL else "wrong (state or chance inside)"

    def row(self, case: Case, folder: Path) -> Row:
        """What the tools do with a case."""
        stored = store(case, folder, versions=1, with_v1_util=True)
        [prefix], outputs = stored.prefixes, stored.outputs
        return Row(
            case,
            self.verdict(case, stored, lambda: by_freeze_graph(prefix, outputs, folder / "theirs.pb")),
            self.verdict(case, stored, lambda: stored.by_v1_util),
            self.verdict(case, stored, lambda: by_us(prefix, outputs, inputs_of(case), folder / "ours.pb")),
        )

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def page(rows: Sequence[Row]) -> str:
    """The table in Markdown, with its sums."""
    found = {row.case.name: row for row in rows}
    lines = []
    for kind in (EQUAL, "wrong", REFUSED):
        counts = [
            sum(cell.startswith(kind) for cell in cells)
            for cells in zip(*((row.by_freeze_graph, row.by_v1_util, row.by_us) for row in rows), strict=True)
        ]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |\n")
    for group, cases in GROUPS.items():
        lines.append(
            f"\n## {group}\n\n| case | what is peculiar | freeze_graph | convert_variables_to_constants | ours |\n"
        )
        lines.append("|---|---|---|---|---|\n")
        for one in cases:
            row = found[one.name]
            cells = [one.name, one.why, row.by_freeze_graph, row.by_v1_util, row.by_us]
            lines.append(f"| {' | '.join(cells)} |\n")
    return _HEAD.format(version=tf.__version__) + "".join(lines)
