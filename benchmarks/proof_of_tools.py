"""Proves the graphs that TensorFlow's own tools make of the corner cases' checkpoints.

python benchmarks/proof_of_tools.py                  all cases: some 15 minutes, most of them the tools'
python benchmarks/proof_of_tools.py --every 4        every fourth case
python benchmarks/proof_of_tools.py loop branch      cases with one of these words in their names
python benchmarks/proof_of_tools.py --keep FOLDER    keeps the graphs there, and proves those that are there already

A graph is right if a session gives the restored session's bits, and close if its floats are within 1e-4; other graphs
are wrong. The exit code is 1 if a wrong one is proved, or less than 90 % of the right and close ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "helpers")]

import corpus  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from corpus.oracle import by_freeze_graph  # noqa: E402
from tensorflow.compat import v1  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # noqa: E402
from tensorflow.python.grappler import tf_optimizer  # noqa: E402
from tensorflow.python.tools import optimize_for_inference_lib, strip_unused_lib  # noqa: E402

from pipeline.checkpoint.source import open_source  # noqa: E402
from pipeline.validation.proof.folded_values import compute  # noqa: E402
from pipeline.validation.proof.model import model_of_files  # noqa: E402
from pipeline.validation.proof.prove import Proof, compare_models  # noqa: E402

BOUND = 0.9
Made = tuple[bytes, Sequence[str], Sequence[str]]  # a graph, its inputs and its outputs


def node(tensor: str) -> str:
    return tensor.split(":")[0]


def tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def by_grappler(graph_def: Any, outputs: Sequence[str], optimizers: Sequence[str] = ()) -> bytes:
    """What a session's own optimizer makes of a frozen graph."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        meta = v1.train.export_meta_graph(graph=graph, graph_def=graph.as_graph_def())
    meta.collection_def["train_op"].node_list.value.extend(map(node, outputs))
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.extend(optimizers)
    return bytes(tf_optimizer.OptimizeGraph(config, meta).SerializeToString())


def by_v2(prefix: Path, outputs: Sequence[str], inputs: Sequence[str], folder: Path) -> Made:
    """What TensorFlow 2's converter makes of a SavedModel of the checkpoint."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, str(prefix))
        given = {f"i{number}": graph.get_tensor_by_name(name) for number, name in enumerate(inputs)}
        wanted = {f"o{number}": graph.get_tensor_by_name(tensor(name)) for number, name in enumerate(outputs)}
        v1.saved_model.simple_save(session, str(folder), given, wanted, v1.tables_initializer())
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    frozen = convert_variables_to_constants_v2(served)
    fed = dict(zip(sorted(served.structured_input_signature[1]), (one.name for one in frozen.inputs), strict=True))
    fetched = dict(zip(sorted(served.structured_outputs), (one.name for one in frozen.outputs), strict=True))
    names = [fed[f"i{number}"] for number in range(len(inputs))]
    return (
        bytes(frozen.graph.as_graph_def().SerializeToString()),
        names,
        [fetched[f"o{number}"] for number in range(len(outputs))],
    )


def tools(
    case: Any, prefix: Path, outputs: Sequence[str], inputs: Sequence[str], folder: Path
) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Yields the tools by name, each as a function that makes its graph."""
    frozen = by_freeze_graph(prefix, outputs, folder / "frozen.pb")
    graph_def = v1.GraphDef.FromString(frozen)
    fetched, fed = [*map(node, outputs)], [*map(node, inputs)]
    dtypes = [tf.as_dtype(one.dtype).as_datatype_enum for one in case.feeds.values()]

    def made(make: Callable[[], Any]) -> Callable[[], Made]:
        def call() -> Made:
            found = make()
            return found if isinstance(found, bytes) else bytes(found.SerializeToString()), inputs, outputs

        return call

    def optimized() -> Any:
        return optimize_for_inference_lib.optimize_for_inference(graph_def, fed, fetched, dtypes)

    yield "freeze_graph", made(lambda: frozen)
    yield "optimize_for_inference", made(optimized)
    yield "strip_unused", made(lambda: strip_unused_lib.strip_unused(graph_def, fed, fetched, dtypes))
    yield "Grappler", made(lambda: by_grappler(graph_def, outputs))
    yield (
        "Grappler, constants alone",
        made(lambda: by_grappler(graph_def, outputs, ["constfold", "dependency", "pruning"])),
    )
    yield "convert_variables_to_constants_v2", lambda: by_v2(prefix, outputs, inputs, folder / "saved")


def judge(made: Made, case: Any, wanted: Any) -> str:
    """Returns `right`, `close`, `wrong`, or `does not run`."""
    raw, inputs, outputs = made
    feeds = dict(zip(inputs, case.feeds.values(), strict=True))
    try:
        found = corpus.answers_of(raw, [*map(tensor, outputs)], feeds)
    except (tf.errors.OpError, TypeError, ValueError, KeyError):
        return "does not run"
    if corpus.is_same(found, wanted):
        return "right"
    pairs = zip(found, wanted, strict=True)
    return "close" if all(is_close(one, other) for one, other in pairs) else "wrong"


def is_close(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind not in "fc":
        return one.dtype == other.dtype and np.array_equal(one, other)
    return np.allclose(one, other, 1e-4, 1e-5, equal_nan=True)


def make_graphs(case: Any, folder: Path) -> None:
    """Writes the graphs of all tools, with what a session says of each."""
    stored = corpus.store(case, folder, versions=1)
    inputs, [prefix], facts = corpus.inputs_of(case), stored.prefixes, {}
    facts = {"prefix": str(prefix.relative_to(folder)), "inputs": inputs, "outputs": stored.outputs, "tools": {}}
    try:
        found = [*tools(case, prefix, stored.outputs, inputs, folder)]
    except BaseException:  # freeze_graph refuses the case, or ends the process
        found = []
    for name, make in found:
        try:
            made = make()
        except Exception:
            facts["tools"][name] = {"state": "refused"}
            continue
        (folder / f"{name}.pb").write_bytes(made[0])
        state = judge(made, case, stored.answers[0])
        facts["tools"][name] = {"state": state, "inputs": [*made[1]], "outputs": [*made[2]]}
    (folder / "facts.json").write_text(json.dumps(facts))


def prove(facts: Mapping[str, Any], own: Mapping[str, Any], folder: Path, name: str) -> Proof:
    """Compares a tool's graph with the checkpoint's."""
    reference = model_of_files("checkpoint", open_source(folder / facts["prefix"]), facts["inputs"], facts["outputs"])
    source = open_source(folder / f"{name}.pb")
    candidate = model_of_files("candidate", source, own["inputs"], own["outputs"])
    candidate = replace(
        candidate,
        inputs=dict(zip(map(tensor, own["inputs"]), reference.inputs.values(), strict=True)),
        outputs=dict(zip(reference.outputs, map(tensor, own["outputs"]), strict=True)),
    )
    return compare_models(reference, candidate, compute)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of cases' names")
    parser.add_argument("--keep", type=Path, help="a folder for the graphs")
    parser.add_argument("--every", type=int, default=1, help="of how many cases one is taken")
    args = parser.parse_args()
    base = args.keep or Path(tempfile.mkdtemp(prefix="tools-"))
    counts, seconds = dict[str, Counter[tuple[str, str]]](), 0.0
    cases = [case for case in corpus.CASES if case.must == corpus.EQUAL][:: args.every]
    cases = [case for case in cases if not args.words or any(word in case.name for word in args.words)]
    folders = [base / case.name.replace(" ", "_").replace("/", "_") for case in cases]
    for case, folder in zip(cases, folders, strict=True):
        if not (folder / "facts.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            # In a process of its own: some tools end theirs. This one runs TensorFlow only after the last fork.
            maker = multiprocessing.get_context("fork").Process(target=make_graphs, args=(case, folder))
            maker.start()
            maker.join()
    for case, folder in zip(cases, folders, strict=True):
        if not (folder / "facts.json").is_file():
            print(f"a tool ended the process: {case.name}")
            continue
        facts = json.loads((folder / "facts.json").read_text())
        for name, own in facts["tools"].items():
            word, state, start = "", own["state"], time.process_time()
            if state in ("right", "close", "wrong"):
                proof = prove(facts, own, folder, name)
                word = proof.word
                seconds += time.process_time() - start
                if (word == "proved") == (state == "wrong"):
                    print(f"{name} | {state}, {word} | {case.name} |", *[reason[:200] for reason in proof.reasons[:2]])
            counts.setdefault(name, Counter())[state, word] += 1
    if args.keep is None:
        shutil.rmtree(base)
    sys.exit(not print_table(counts, seconds))


def print_table(counts: Mapping[str, Counter[tuple[str, str]]], seconds: float) -> bool:
    """Prints a row for each tool; returns True if the bound is kept, and nothing wrong is proved."""
    print("\n| tool | graphs | right | close | proved | wrong | of them proved | refused or does not run |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    good, proved, false = 0, 0, 0
    for name, own in counts.items():
        by_state = Counter[str]()
        for (state, _), count in own.items():
            by_state[state] += count
        ours = own["right", "proved"] + own["close", "proved"]
        good, proved, false = (
            good + by_state["right"] + by_state["close"],
            proved + ours,
            false + own["wrong", "proved"],
        )
        rest = by_state["refused"] + by_state["does not run"]
        cells = (
            own.total(),
            by_state["right"],
            by_state["close"],
            ours,
            by_state["wrong"],
            own["wrong", "proved"],
            rest,
        )
        print(f"| {name} |", " | ".join(map(str, cells)), "|")
    print(f"\n{proved} of {good} right or close graphs are proved ({proved / max(1, good):.1%}), {false} wrong ones.")
    print(f"All proofs: {seconds:.0f} CPU s.")
    return proved >= BOUND * good and not false


if __name__ == "__main__":
    main()
