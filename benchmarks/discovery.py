"""Scores the discovery of inputs and outputs on graphs whose answers are known.

python benchmarks/discovery.py           the counts
python benchmarks/discovery.py --list    and each graph

A graph counts as
    right   the outputs are found untold, and they are those that a user would name
    asked   the message asks, and the right outputs are among the candidates that it shows
    lost    the message asks, and does not show them
    wrong   other outputs are taken, in silence
and of its needs (inputs to cut at, modes to pin) it is counted whether all are found.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from discovery_beside import BESIDE
from discovery_graphs import GRAPHS
from discovery_named import NAMED
from discovery_pieces import Known
from discovery_served import SERVED
from discovery_unseen import UNSEEN
from discovery_values import VALUES

from pipeline.errors import FreezeError
from pipeline.graph.discovery import discover_outputs, rank_before_draws, rank_inputs, rank_outputs
from pipeline.graph.protos import GraphDef, MetaGraphDef

MODELS = Path(os.environ.get("MODELS", Path(__file__).resolve().parents[2] / "shared" / "models"))
SHOWN = 8
# Of strangers' models: the file, its outputs and its inputs, as its folder's README or its own script says.
STRANGERS = {
    "animal-classifier-v4/classifier-model-v4.meta": (["y_pred"], ["x"]),
    "linear-regression/checkpoint/model.meta": (["pred"], ["X"]),
    "linear-regression/graphdef/frozen.pb": (["pred"], ["X"]),
    "old-variable-op/export.meta": (["Add"], ["Placeholder"]),
    "batchnorm-in-cond/regular_model.meta": (["fc1/BiasAdd"], ["input"]),
}


@dataclass(frozen=True)
class Score:
    """How discovery did on one graph; `needs` is whether inputs and modes are found, if the outputs are known."""

    verdict: str
    found: tuple[str, ...]
    needs: bool


def score(known: Known, graph: GraphDef) -> Score:
    """Scores discovery on one graph."""
    right = set(known.outputs)
    try:
        found = discover_outputs(graph)
        before = [candidate.tensor for candidate in rank_before_draws(graph, found)]
        if before:  # such outputs are refused, and these are shown beside them
            shown = {*found, *before}
            return Score("asked" if right <= shown else "lost", tuple(found), _finds_needs(known, graph))
        verdict = "right" if right <= set(found) <= right | set(known.beside) else "wrong"
    except FreezeError:
        found = [candidate.tensor for candidate in rank_outputs(graph)[:SHOWN]]
        verdict = "asked" if right <= set(found) else "lost"
    return Score(verdict, tuple(found), _finds_needs(known, graph))


def _finds_needs(known: Known, graph: GraphDef) -> bool:
    candidates = rank_inputs(graph, known.outputs)
    pinned = {one.tensor for one in candidates if any("--pin" in reason for reason in one.reasons)}
    return pinned == set(known.pins) and {one.tensor for one in candidates} - pinned == set(known.inputs)


def strangers() -> Iterable[tuple[Known, GraphDef]]:
    """Yields the strangers' models that are here, with what is known of them."""
    for name, (outputs, inputs) in STRANGERS.items():
        path = MODELS / name
        if path.is_file():
            content = path.read_bytes()
            is_meta = path.suffix == ".meta"
            graph = MetaGraphDef.FromString(content).graph_def if is_meta else GraphDef.FromString(content)
            pins = {"is_training": "false"} if name.startswith("batchnorm") else {}
            yield Known(name, lambda: None, outputs, inputs=inputs, pins=pins), graph


def table(title: str, scores: dict[str, Score], is_listed: bool) -> None:
    """Prints the counts of a set, and each graph if asked."""
    if is_listed:
        for name, one in scores.items():
            print(f"  {one.verdict:<6} {'needs found' if one.needs else 'needs NOT found':<16} {name}: {one.found}")
    counts = Counter(one.verdict for one in scores.values())
    needs = sum(one.needs for one in scores.values())
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("right", "asked", "lost", "wrong"))
    print(f"{title}: {len(scores)} graphs: {words}; needs found of {needs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each graph")
    given = parser.parse_args()
    for title, graphs in (
        ("own set", GRAPHS),
        ("unseen", UNSEEN),
        ("values", VALUES),
        ("beside", BESIDE),
        ("served", SERVED),
        ("named", NAMED),
    ):
        scores = {known.name: score(known, GraphDef.FromString(known.graph())) for known in graphs}
        table(title, scores, given.list)
    table("strangers", {known.name: score(known, graph) for known, graph in strangers()}, given.list)


if __name__ == "__main__":
    main()
