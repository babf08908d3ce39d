"""Models that mean harm are stopped before anything of them is run, each with a sentence that says what it could do."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import redteam
from pipeline import cli
from pipeline.checkpoint.source import open_source
from pipeline.errors import CandidateError, CheckpointError, PipelineError, SettingError, StoreError, UnsafeModel
from pipeline.freezing import freeze
from pipeline.freezing.inspection import inspect
from pipeline.graph.lazy import load_lazily
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.ops import TABLE
from pipeline.graph.protos import AssetFileDef, AttrValue, BundleEntryProto, MetaGraphDef, SavedModel
from pipeline.graph.wire import encode_field
from pipeline.safety import dangers, harm_of, is_idle, safe_ops
from pipeline.safety.graphs import find_dangers
from pipeline.safety.models import require_safe_saved_model, require_safe_source
from pipeline.settings import CostsSettings, Settings
from pipeline.store.artifact import ArtifactPaths
from pipeline.tasks.chain.job import Job, Parameters
from pipeline.tasks.chain.plan import Chain
from pipeline.validation.checks.material import checkpoint_limits
from pipeline.validation.compare.weights import compare_weights
from pipeline.workers import child
from pipeline.workers.sandbox import kept_environment
from redteam import (
    CANARY,
    FLOAT,
    STRING,
    call,
    calling,
    filled,
    function,
    honest,
    listed,
    node,
    numbers,
    shape,
    strings,
    text,
    write_canary,
    write_canary_inside,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"


def job_for(root: Path, place: Path, **given: str) -> Job:
    request = Parameters(checkpoint=str(place), name="stranger", output_root=str(root / "out"), **given)
    return Job.from_parameters(request, Settings(costs=CostsSettings(seconds=0)))


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, so that nothing can run in one."""

    def started(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(child.Child, "__init__", started)  # not the name, which a module loaded now would keep


# Graphs that act: WriteFile and its kind, wherever they stand.


def acting(op: str, *inputs: str, **attributes: Any) -> Callable[[Path], Path]:
    """A checkpoint with a node of an op that the output waits for."""
    return lambda folder: redteam.checkpoint(
        folder, honest(text("evil/path", "/etc/hostname"), evil(op, *inputs, **attributes), y=[f"evil/{op}"])
    )


def evil(op: str, *inputs: str, **attributes: Any) -> Any:
    return node(f"evil/{op}", op, *inputs, **attributes)


def in_a_node(folder: Path) -> Path:
    return redteam.checkpoint(folder, honest(*write_canary(folder)))


def behind_the_output(folder: Path) -> Path:
    return redteam.checkpoint(folder, honest(*write_canary(folder), y=["evil/WriteFile"]))


def behind_the_restoring(folder: Path) -> Path:
    return redteam.checkpoint(folder, honest(*write_canary(folder), restore=["evil/WriteFile"]))


def in_a_function(folder: Path) -> Path:
    nodes = honest(call("evil/call", "innocent"), restore=["evil/call"])
    return redteam.checkpoint(folder, nodes, [function("innocent", *write_canary_inside(folder))])


def in_a_function_of_a_function(folder: Path, y: Sequence[str] = ("evil/call",)) -> Path:
    functions = [function("outer", call("inner_call", "inner")), function("inner", *write_canary_inside(folder))]
    return redteam.checkpoint(folder, honest(call("evil/call", "outer"), y=y), functions)


def in_a_function_that_nobody_calls(folder: Path) -> Path:
    return redteam.checkpoint(folder, functions=[function("sleeper", *write_canary_inside(folder))])


def in_a_function_that_another_may_be_exchanged_for(folder: Path) -> Path:
    """TensorFlow's optimizer may take one function for another that says it does the same."""
    functions = [function("slow", text("nothing", "")), function("fast", *write_canary_inside(folder))]
    for one in functions:
        one.attr["api_implements"].s = b"the same"
    return redteam.checkpoint(folder, honest(call("evil/call", "slow"), y=["evil/call"]), functions)


def in_a_function_called_tanh(folder: Path, y: Sequence[str] = ("evil/Tanh",)) -> Path:
    inner = [function("Tanh", *write_canary_inside(folder))]
    return redteam.checkpoint(folder, honest(evil("Tanh"), y=y), inner)


def a_function_called_write_file(folder: Path, y: Sequence[str] = ("evil/WriteFile",)) -> Path:
    return redteam.checkpoint(folder, honest(evil("WriteFile"), y=y), [function("WriteFile", text("nothing", ""))])


def behind_an_input(folder: Path) -> Path:
    """What is fed is read from a file, and the node of another output waits for the reading."""
    read = node("evil/ReadFile", "ReadFile", "evil/path")
    rows = node("rows", "DecodeRaw", "evil/ReadFile", out_type=FLOAT, little_endian={"b": True})
    other = node("other", "Identity", "rows", T=FLOAT, _class={"list": {"s": [b"loc:@rows"]}})
    made = honest(text("evil/path", "/etc/hostname"), read, rows, other)
    made[-1].input[0] = "rows"
    made[-1].attr["_class"].list.s.append(b"loc:@other")
    return redteam.checkpoint(folder, made)


def at_the_start_of_a_saved_model(folder: Path) -> Path:
    return redteam.saved_model(folder, honest(*write_canary(folder)), init="evil/WriteFile")


def at_the_old_start_of_a_saved_model(folder: Path) -> Path:
    return redteam.saved_model(folder, honest(*write_canary(folder)), legacy_init="evil/WriteFile")


def in_another_graph_of_a_saved_model(folder: Path) -> Path:
    other = MetaGraphDef(graph_def=redteam.graph(honest(*write_canary(folder))))
    other.meta_info_def.tags.append("train")
    return redteam.saved_model(folder, others=[other])


def filled_from_elsewhere(path: str = "/etc/passwd") -> list[Any]:
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=redteam.INT64)
    filler = node("fill", "InitializeTableFromTextFileV2", "t", "evil/path", key_index={"i": -2})
    return [text("evil/path", path), table, filler]


def beside_the_served_graph(folder: Path, *tags: str) -> Path:
    """A SavedModel of two graphs: loading the other one fills a table from a file of its builder's machine."""
    other = MetaGraphDef(graph_def=redteam.graph(honest(*filled_from_elsewhere())))
    other.meta_info_def.tags.extend(tags)
    other.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "fill"
    return redteam.saved_model(folder, others=[other])


def a_table_from_elsewhere_in_a_graph_of_the_same_tags(folder: Path) -> Path:
    return beside_the_served_graph(folder, "serve", "serve")


def a_table_from_elsewhere_in_the_served_graph_of_two(folder: Path) -> Path:
    other = MetaGraphDef(graph_def=redteam.graph(honest()))
    other.meta_info_def.tags.append("train")
    return redteam.saved_model(folder, honest(*filled_from_elsewhere()), init="fill", others=[other])


def saving_behind_the_output(folder: Path) -> Path:
    return redteam.checkpoint(folder, honest(y=["save/SaveV2"]))


def saving_behind_the_restoring(folder: Path) -> Path:
    return redteam.checkpoint(folder, honest(restore=["save/SaveV2"]))


def saving_at_the_start(folder: Path) -> Path:
    return redteam.saved_model(folder, init="save/SaveV2")


def saving_behind_a_table(folder: Path) -> Path:
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=FLOAT)
    keys, values = strings("keys", "a"), filled("values", 1)
    filler = node("fill", "LookupTableImportV2", "t", "keys", "values", "^save/SaveV2", Tin=STRING, Tout=FLOAT)
    return redteam.checkpoint(folder, honest(table, keys, values, filler))


def restoring_from_elsewhere(folder: Path) -> Path:
    other = [
        text("evil/path", "/home/somebody/model"),
        node("evil/RestoreV2", "RestoreV2", "evil/path", "save/names", "save/slices", dtypes=listed(FLOAT)),
    ]
    return redteam.checkpoint(folder, honest(*other, restore=["evil/RestoreV2"]))


def a_table_from_a_file_elsewhere(folder: Path) -> Path:
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=redteam.INT64)
    numbered = {"key_index": {"i": -2}, "value_index": {"i": -1}, "vocab_size": {"i": -1}, "delimiter": {"s": b"\t"}}
    filler = node("fill", "InitializeTableFromTextFileV2", "t", "evil/path", **numbered)
    return redteam.checkpoint(folder, honest(text("evil/path", "/etc/passwd"), table, filler))


def a_table_from_what_is_restored_elsewhere(folder: Path) -> Path:
    other = node("evil/RestoreV2", "RestoreV2", "evil/path", "save/names", "save/slices", dtypes=listed(STRING, FLOAT))
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=FLOAT)
    filler = node("fill", "LookupTableImportV2", "t", other.name, f"{other.name}:1", Tin=STRING, Tout=FLOAT)
    return redteam.checkpoint(folder, honest(text("evil/path", "/home/somebody/model"), other, table, filler))


def restoring_from_elsewhere_in_a_data_set(folder: Path) -> Path:
    """The function is given paths of a data set, and what stands beside them is the checkpoint's own."""
    names = [strings("names", "w"), strings("slices", "")]
    inner = node("read", "RestoreV2", "element", "names:output:0", "slices:output:0", dtypes=listed(FLOAT))
    body = function("each", *names, inner)
    for name in ("element", "captured"):
        body.signature.input_arg.add(name=name, type=STRING)
    outside = [
        strings("evil/paths", "/home/somebody/model"),
        node("evil/set", "TensorSliceDataset", "evil/paths"),
        numbers("evil/count", 1),
        node("evil/map", "ParallelMapDatasetV2", "evil/set", "save/Const", "evil/count", f=calling("each")),
        node("evil/each", "DatasetToSingleElement", "evil/map"),
    ]
    return redteam.checkpoint(folder, honest(*outside, restore=["evil/each"]), [body])


def a_table_from_what_no_loader_takes_for_an_asset(folder: Path) -> Path:
    place = redteam.saved_model(folder, assets=["words.txt"])
    model = SavedModel.FromString((place / "saved_model.pb").read_bytes())
    [meta] = model.meta_graphs
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=redteam.INT64)
    filler = node("fill", "InitializeTableFromTextFileV2", "t", "evil/path", key_index={"i": -2})
    meta.graph_def.node.extend([text("evil/path", "/etc/passwd"), table, filler])
    second = AssetFileDef(filename="words.txt")
    second.tensor_info.name = "evil/path:0"
    meta.collection_def["saved_model_assets"].any_list.value.add().value = second.SerializeToString()
    (place / "saved_model.pb").write_bytes(model.SerializeToString())
    return place


def a_table_from_a_file_above(folder: Path) -> Path:
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=redteam.INT64)
    filler = node("fill", "InitializeTableFromTextFileV2", "t", "evil/path", key_index={"i": -2})
    return redteam.checkpoint(folder, honest(text("evil/path", f"{folder}/../../secret"), table, filler))


ACTING = {
    "behind the output": (
        behind_the_output,
        r"could write files: op WriteFile in node evil/WriteFile\. If you trust it, .* --allow-ops WriteFile\."
        r" The whole command: .* --allow-ops WriteFile --outputs y$",
    ),
    "behind the restoring": (behind_the_restoring, "could write files: op WriteFile in node evil/WriteFile"),
    "in a function": (in_a_function, r"could write files: op WriteFile in node write \(function innocent\)"),
    "in an inner function": (in_a_function_of_a_function, r"op WriteFile in node write \(function inner\)"),
    "in a function with a safe name": (in_a_function_called_tanh, r"op WriteFile in node write \(function Tanh\)"),
    "in the other one of two functions": (
        in_a_function_that_another_may_be_exchanged_for,
        r"op WriteFile in node write \(function fast\)",
    ),
    "a function with a bad name": (a_function_called_write_file, "op WriteFile in node evil/WriteFile"),
    "at a SavedModel's start": (at_the_start_of_a_saved_model, "op WriteFile in node evil/WriteFile"),
    "at a SavedModel's old start": (at_the_old_start_of_a_saved_model, "op WriteFile in node evil/WriteFile"),
    "in another graph": (in_another_graph_of_a_saved_model, "op WriteFile in node evil/WriteFile"),
    "saving behind the output": (saving_behind_the_output, "could write files: op SaveV2 in node save/SaveV2"),
    "saving behind the restoring": (saving_behind_the_restoring, "could write files: op SaveV2 in node save/SaveV2"),
    "saving at the start": (saving_at_the_start, "could write files: op SaveV2 in node save/SaveV2"),
    "saving behind a table": (saving_behind_a_table, "could write files: op SaveV2 in node save/SaveV2"),
    "restoring from elsewhere": (restoring_from_elsewhere, "could read files: op RestoreV2 in node evil/RestoreV2"),
    "restoring a data set from elsewhere": (
        restoring_from_elsewhere_in_a_data_set,
        r"could read files: op RestoreV2 in node read \(function each\)",
    ),
    "a table from elsewhere": (
        a_table_from_a_file_elsewhere,
        "could read the file /etc/passwd: op InitializeTableFromTextFileV2 in node fill",
    ),
    "a table restored from elsewhere": (
        a_table_from_what_is_restored_elsewhere,
        "could read files: op RestoreV2 in node evil/RestoreV2",
    ),
    "a table from a second list of assets": (
        a_table_from_what_no_loader_takes_for_an_asset,
        "could read the file /etc/passwd: op InitializeTableFromTextFileV2 in node fill",
    ),
    "a table from above": (a_table_from_a_file_above, r"could read the file /.*: op InitializeTable"),
    "a table from elsewhere in a graph of the same tags": (
        a_table_from_elsewhere_in_a_graph_of_the_same_tags,
        "could read the file /etc/passwd: op InitializeTableFromTextFileV2 in node fill",
    ),
    "a table from elsewhere in the served graph": (
        a_table_from_elsewhere_in_the_served_graph_of_two,
        "could read the file /etc/passwd: op InitializeTableFromTextFileV2 in node fill",
    ),
    "ReadFile": (acting("ReadFile", "evil/path"), "could read files: op ReadFile in node evil/ReadFile"),
    "PyFunc": (
        acting("PyFunc", Tin=listed(), Tout=listed(FLOAT), token={"s": b"pyfunc_0"}),
        "could call Python code: op PyFunc in node evil/PyFunc",
    ),
    "EagerPyFunc": (acting("EagerPyFunc", Tin=listed(), Tout=listed()), "could call Python code: op EagerPyFunc"),
    "Abort": (acting("Abort", error_msg={"s": b"!"}), "could end or stall the process: op Abort in node evil/Abort"),
    "ImmutableConst": (
        acting("ImmutableConst", dtype=FLOAT, shape=shape(1), memory_region_name={"s": b"/etc/passwd"}),
        "could read files: op ImmutableConst",
    ),
    "DecodeProtoV2": (acting("DecodeProtoV2", "evil/path"), "could read files: op DecodeProtoV2"),
    "DatasetFromGraph": (
        acting("DatasetFromGraph", "evil/path"),
        "could run code that cannot be looked into: op DatasetFromGraph",
    ),
    "RpcClient": (acting("RpcClient", "evil/path"), "could open connections: op RpcClient"),
    "an op that nobody knows": (
        acting("OwnOp"),
        "could do anything: the effect of this op is unknown: op OwnOp in node",
    ),
    "PrintV2 to a file": (
        acting("PrintV2", "evil/path", output_stream={"s": b"file:///tmp/x"}),
        "could write files or to the terminal: op PrintV2",
    ),
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", ACTING)
def test_a_model_that_acts_is_stopped_before_anything_of_it_is_run(case: str, tmp_path: Path) -> None:
    make, sentence = ACTING[case]
    place = make(tmp_path / "in")
    with pytest.raises(UnsafeModel, match=sentence) as caught:
        Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint")
    assert str(caught.value).startswith(f"{tmp_path / 'in'}")
    assert not (tmp_path / "in" / CANARY).exists()
    assert not (tmp_path / "out" / "stranger" / "checkpoint").exists()


def test_a_table_of_a_graph_that_no_loader_takes_is_not_filled(tmp_path: Path) -> None:
    place = beside_the_served_graph(tmp_path / "in", "train")
    assert require_safe_source(open_source(place)) == []
    assert require_safe_saved_model(place, ()) == []


# The same where no output and no restoring needs it: it is cut away. By case, what a run takes.
LEFT_OUT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "in a node": (in_a_node, ""),
    "in an inner function": (lambda folder: in_a_function_of_a_function(folder, ()), ""),
    "in a sleeper": (in_a_function_that_nobody_calls, ""),
    "in a function with a safe name": (lambda folder: in_a_function_called_tanh(folder, ()), ""),
    "a function with a bad name": (lambda folder: a_function_called_write_file(folder, ()), ""),
    "behind an input": (behind_an_input, "rows"),
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_no_output_needs_is_cut_away_before_anything_is_loaded(case: str, tmp_path: Path) -> None:
    make, inputs = LEFT_OUT[case]
    place = make(tmp_path / "in")
    job = job_for(tmp_path, place, outputs="y", inputs=inputs)
    manifest = Chain(job).build("checkpoint").manifest
    kept = MetaGraphDef.FromString((job.folder("checkpoint") / "model.ckpt.meta").read_bytes())
    assert find_dangers(MetaGraph.of(kept), None) == []
    assert manifest is not None
    assert manifest.notes["allowed"] == []
    [told] = [note for note in manifest.notes["found"] if note.startswith("left out")]
    made = tmp_path / "made.pb"
    assert told in freeze.freeze(place, ["y"], [inputs] if inputs else [], to=made).notes
    assert find_dangers(MetaGraph(load_lazily(made).graph, MetaGraphDef()), None) == []


def test_what_is_left_of_a_graph_is_loaded_and_proved(tmp_path: Path) -> None:
    job = job_for(tmp_path, behind_an_input(tmp_path / "in"), outputs="y", inputs="rows")
    for stage in Chain(job).examine("validation"):
        Chain(job).build(stage)
    verdict = json.loads((job.folder("validation") / "verdict.json").read_text())
    assert verdict["verdict"] == "passed", verdict["reasons"]


IDLE_AT_FREEZING = {"saving behind the output"}  # freezing runs nothing, and leaves it out


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", sorted(ACTING.keys() - IDLE_AT_FREEZING))
def test_the_command_that_freezes_stops_it_too(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, sentence = ACTING[case]
    made = tmp_path / "made.pb"
    assert cli.main(["freeze", str(make(tmp_path / "in")), "--outputs", "y", "-o", str(made)]) == cli.ERROR
    assert re.search(sentence.replace("$", "\n"), capsys.readouterr().err)
    assert not made.exists()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", sorted(ACTING.keys() - IDLE_AT_FREEZING))
def test_inspecting_says_so_and_runs_nothing(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, sentence = ACTING[case]
    place = make(tmp_path / "in")
    assert cli.main(["inspect", str(place)]) == 0
    told = capsys.readouterr().out
    op = sentence.rpartition("op ")[2].split(" ")[0]
    assert re.search(rf"unsafe ops\n  op {op}\w* in node .* \(could ", told), told
    assert not (tmp_path / "in" / CANARY).exists()


@pytest.mark.usefixtures("nothing_runs")
def test_a_frozen_pb_is_not_taken_for_harmless_because_there_is_nothing_to_freeze(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = redteam.frozen(tmp_path / "model.pb", *write_canary(tmp_path))
    assert cli.main(["freeze", str(place)]) == cli.ERROR
    assert "model.pb: this model could write files: op WriteFile in node evil/WriteFile" in capsys.readouterr().err
    assert cli.main(["freeze", str(place), "--allow-ops", "WriteFile"]) == 0
    assert "allowed op WriteFile in node evil/WriteFile: could write files" in capsys.readouterr().out
    assert "unsafe ops\n  op WriteFile in node evil/WriteFile (could write files)" in "\n".join(inspect(place).lines())


def test_all_that_is_dangerous_is_named_at_once(tmp_path: Path) -> None:
    all_three = ["evil/WriteFile", "evil/Abort", "evil/PyFunc"]
    nodes = honest(*write_canary(tmp_path), evil("Abort"), evil("PyFunc"), y=all_three)
    place = redteam.checkpoint(tmp_path, nodes)
    with pytest.raises(
        UnsafeModel, match=r"op WriteFile .*; and op Abort .*, op PyFunc .*--allow-ops WriteFile,Abort,PyFunc"
    ):
        freeze.freeze(place, ["y"])


# What may stand.


@pytest.mark.usefixtures("nothing_runs")
def test_a_saver_and_the_readers_of_a_training_may_stand_where_nothing_runs_them(tmp_path: Path) -> None:
    readers = [
        text("files", "/data/train"),
        node("reader", "TFRecordReaderV2", container={"s": b""}, shared_name={"s": b""}),
        node("queue", "FIFOQueueV2", component_types=listed(STRING)),
        node("read", "ReaderReadV2", "reader", "queue"),
    ]
    place = redteam.checkpoint(tmp_path / "in", honest(*readers))
    assert Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint").is_complete
    assert freeze.freeze(place, ["y"], to=tmp_path / "made.pb").path.is_file()


@pytest.mark.usefixtures("nothing_runs")
def test_a_table_may_be_filled_from_a_file_that_came_with_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    table = node("t", "HashTableV2", key_dtype=STRING, value_dtype=redteam.INT64)
    filler = node("fill", "InitializeTableFromTextFileV2", "t", "path", key_index={"i": -2}, value_index={"i": -1})
    place = redteam.checkpoint(folder, honest(text("path", str(folder / "words.txt")), table, filler))
    (folder / "words.txt").write_text("a\nb\n")
    assert Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint").is_complete


@pytest.mark.usefixtures("nothing_runs")
def test_an_op_that_is_allowed_goes_through_and_the_manifest_records_it(tmp_path: Path) -> None:
    place = behind_the_output(tmp_path / "in")
    job = job_for(tmp_path, place, outputs="y", allow_ops="WriteFile,Abort")
    manifest = Chain(job).build("checkpoint").manifest
    assert manifest is not None
    assert manifest.fingerprint_inputs["settings"]["adopted"]["allow_ops"] == ("Abort", "WriteFile")
    assert manifest.notes["allowed"] == ["op WriteFile in node evil/WriteFile: could write files"]
    [reason] = Chain(job_for(tmp_path, place, outputs="y")).examine("checkpoint")["checkpoint"].reasons
    assert "setting adopted.allow_ops changed: was ['Abort', 'WriteFile'], is ()" in reason
    with pytest.raises(UnsafeModel, match="WriteFile"):
        Chain(job_for(tmp_path, place, outputs="y", allow_ops="Abort")).build("checkpoint")
    done = freeze.freeze(place, ["y"], to=tmp_path / "made.pb", allow_ops=["WriteFile"])
    assert done.notes[0] == "allowed op WriteFile in node evil/WriteFile: could write files"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"allow_ops": "Write File", "checkpoint": "x"}, "not the name of an op.*'Write File'"),
        ({"allow_ops": "WriteFile"}, "the model's own code needs no permission.*--checkpoint"),
        ({"allow_ops": "WriteFile", "model": "spam", "checkpoint": "x"}, "the model's own code needs no permission"),
    ],
)
def test_leave_that_is_none_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Job.from_parameters(Parameters(**given), Settings())


def test_what_is_allowed_is_run_as_it_says(tmp_path: Path) -> None:
    """The corpus is alive: what is stopped above would have acted. And a table that is restored is filled."""
    folder = tmp_path / "in"
    table = node("t", "MutableHashTableV2", key_dtype=STRING, value_dtype=FLOAT)
    filler = node("fill", "LookupTableImportV2", "t", "keys", "save/RestoreV2", Tin=STRING, Tout=FLOAT)
    restored = [table, strings("keys", "a", "b"), filler]
    nodes = honest(*write_canary(folder), *restored, restore=["evil/WriteFile"])
    job = job_for(tmp_path, redteam.checkpoint(folder, nodes), outputs="y", allow_ops="WriteFile")
    for stage in Chain(job).examine("validation"):
        Chain(job).build(stage)
    assert (folder / CANARY).read_text() == "harm"
    verdict = json.loads((job.folder("validation") / "verdict.json").read_text())
    assert verdict["verdict"] == "passed", verdict["reasons"]


# The lists.


def test_every_op_of_tensorflow_is_safe_or_has_its_harm_and_none_is_both() -> None:
    known = {line.split(" ")[0] for line in TABLE.read_text().splitlines()}
    assert safe_ops() <= known
    assert safe_ops().isdisjoint(dangers())
    assert known <= safe_ops() | dangers().keys()
    assert all(re.fullmatch(r"[a-z][\w ]+", harm) for harm, _ in dangers().values())


def test_what_was_found_dangerous_by_reading_tensorflow_is_refused() -> None:
    checked = SHARED / "unsafe_ops.txt"
    if not checked.is_file():
        pytest.skip("the list is not here")
    ops = [line.split("\t")[1] for line in checked.read_text().splitlines() if line]
    assert len(ops) > 100
    assert [op for op in ops if harm_of(op) is None] == []


def test_few_ops_may_stand_idle_and_none_that_acts_by_itself() -> None:
    idle = {op for op in dangers() if is_idle(op)}
    assert {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "TFRecordReaderV2", "ReaderReadV2"} <= idle
    assert idle.isdisjoint({"WriteFile", "ReadFile", "PyFunc", "Abort", "PrintV2", "RpcClient", "ImmutableConst"})
    assert len(idle) < 50


# Tables of TensorFlow 2, whose functions the loader calls with what they have captured.


@pytest.mark.parametrize(("is_asset", "found"), [(True, []), (False, ["InitializeTableFromTextFileV2"])])
def test_a_captured_path_is_that_of_an_asset_or_refused(is_asset: bool, found: list[str], tmp_path: Path) -> None:
    fill = node("fill", "InitializeTableFromTextFileV2", "table", "path", key_index={"i": -2})
    body = function("init", fill)
    for name in ("table", "path"):
        body.signature.input_arg.add(name=name, type=STRING)
    meta = MetaGraphDef(graph_def=redteam.graph(honest(), [body]))
    meta.object_graph_def.concrete_functions["init"].bound_inputs.extend([0, 1])
    objects = [meta.object_graph_def.nodes.add() for _ in range(2)]
    objects[0].resource.SetInParent()
    (objects[1].asset if is_asset else objects[1].constant).SetInParent()
    assert [danger.op for danger in find_dangers(MetaGraph.of(meta), tmp_path)] == found


def test_a_table_that_the_checkpoint_holds_is_filled_from_it(tmp_path: Path) -> None:
    table = node("t", "MutableHashTableV2", key_dtype=STRING, value_dtype=FLOAT)
    restore = node("save/t", "RestoreV2", "save/Const", "save/names", "save/slices", dtypes=listed(STRING, FLOAT))
    filler = node("fill", "LookupTableImportV2", "t", "save/t", "save/t:1", Tin=STRING, Tout=FLOAT)
    place = redteam.checkpoint(tmp_path / "in", honest(table, restore, filler))
    assert Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint").is_complete


# Candidates.


def adopt(tmp_path: Path, candidate: Path, **given: str) -> Any:
    place = redteam.checkpoint(tmp_path / "honest")
    job = job_for(tmp_path, place, outputs="y", candidate=str(candidate), **given)
    Chain(job).build("checkpoint")
    return Chain(job).build("candidate")


CANDIDATES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a .pb": (
        lambda folder: redteam.frozen(folder / "model.pb", *write_canary(folder), y=["evil/WriteFile"]),
        "model.pb: this model could write files: op WriteFile in node evil/WriteFile",
    ),
    "a .pb, beside": (
        lambda folder: redteam.frozen(folder / "model.pb", *write_canary(folder)),
        "could write files: op WriteFile",
    ),
    "a .pb, inside": (
        lambda folder: redteam.frozen(
            folder / "model.pb",
            call("c", "f"),
            y=["c"],
            functions=[function("f", *write_canary_inside(folder))],
        ),
        r"op WriteFile in node write \(function f\)",
    ),
    "a .pb that saves": (
        lambda folder: redteam.frozen(
            folder / "model.pb",
            text("to", str(folder / CANARY)),
            strings("names", "w"),
            strings("slices", ""),
            node("save", "SaveV2", "to", "names", "slices", "w", dtypes=listed(FLOAT)),
            y=["save"],
        ),
        "could write files: op SaveV2 in node save",
    ),
    "a SavedModel": (at_the_start_of_a_saved_model, "op WriteFile in node evil/WriteFile"),
    "a SavedModel's save": (saving_at_the_start, "op SaveV2 in node save/SaveV2"),
    "a SavedModel's output": (
        lambda folder: redteam.saved_model(folder, honest(y=["save/SaveV2"])),
        "op SaveV2 in node save/SaveV2",
    ),
    "a .tflite": (
        lambda folder: redteam.tflite(folder / "model.tflite", "OwnOp"),
        "could do anything: the effect of this op is unknown: custom op OwnOp",
    ),
    "a .tflite with TensorFlow": (
        lambda folder: redteam.tflite(folder / "model.tflite", "FlexWriteFile"),
        "could write files: custom op FlexWriteFile",
    ),
    "a .tflite that is too large": (
        lambda folder: redteam.tflite(folder / "model.tflite", "FlexAbs", [2**31 - 1, 2**31 - 1]),
        "could take more memory than there is: tensor x",
    ),
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", CANDIDATES)
def test_a_candidate_that_acts_is_stopped_before_any_runtime_opens_it(case: str, tmp_path: Path) -> None:
    make, sentence = CANDIDATES[case]
    (tmp_path / "in").mkdir()
    place = make(tmp_path / "in")
    with pytest.raises(UnsafeModel, match=sentence):
        adopt(tmp_path, place)
    assert not (tmp_path / "in" / CANARY).exists()
    assert not (tmp_path / "out" / "stranger" / "candidate").exists()


@pytest.mark.usefixtures("nothing_runs")
def test_a_candidate_whose_op_is_allowed_is_taken_and_told(tmp_path: Path) -> None:
    place = redteam.frozen(tmp_path / "in" / "model.pb", *write_canary(tmp_path / "in"), y=["evil/WriteFile"])
    manifest = adopt(tmp_path, place, allow_ops="WriteFile").manifest
    assert manifest.notes["allowed"] == ["op WriteFile in node evil/WriteFile: could write files"]
    assert manifest.fingerprint_inputs["settings"]["candidate"]["allow_ops"] == ("WriteFile",)


@pytest.mark.usefixtures("nothing_runs")
def test_mapped_weights_are_files_of_their_own_folder(tmp_path: Path) -> None:
    place = redteam.checkpoint(tmp_path / "large", large(), length=1 << 15)
    folder = freeze.freeze(place, ["y"], to=tmp_path / "mapped", format="mmap").path
    assert adopt(tmp_path, folder).is_complete
    [weights] = (folder / "weights").iterdir()
    weights.rename(tmp_path / "secret")
    weights.symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeModel, match=r"\.bin: a link leads out of the model's folder .got .*/secret"):
        adopt(tmp_path / "other", folder)


def large(weights: str = "w") -> list[Any]:
    """The nodes of the honest model with weights that are large enough to be mapped."""
    nodes = honest()
    for one in nodes:
        one.name = weights if one.name == "w" else one.name
        one.input[:] = [weights if name == "w" else name for name in one.input]
    nodes[1].attr["shape"].shape.dim[0].size = 1 << 15
    return nodes


def onnx_model(folder: Path, location: str = "", domain: str = "", dims: tuple[int, ...] = (2,)) -> Path:
    onnx = pytest.importorskip("onnx")
    w = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [3.0, -2.0])
    w.dims[:] = dims
    if location:
        w.ClearField("float_data")
        w.data_location = onnx.TensorProto.EXTERNAL
        w.external_data.add(key="location", value=location)
    made = onnx.helper.make_node("Mul", ["x", "w"], ["y"], name="evil", domain=domain)
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]) for name in "xy"]
    inner = onnx.helper.make_graph([made], "g", [], [ports[1]], [w])
    chosen = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    c = onnx.helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
    graph = onnx.helper.make_graph([chosen], "g", [ports[0]], [ports[1]], [c])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return folder / "model.onnx"


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"domain": "com.evil"},
            "could do anything: the effect of ops of the domain com.evil is unknown: op com.evil.Mul",
        ),
        (
            {"location": "../../secret"},
            r"could read files: tensor w lies outside of the model's folder .got '../../secret'",
        ),
        ({"location": "/etc/passwd"}, "could read files: tensor w"),
        ({"location": "C:\\secret"}, "could read files: tensor w"),
        ({"location": "..\\secret"}, "could read files: tensor w"),
        ({"dims": (2**40,)}, "could take more memory than there is: tensor w"),
    ],
)
def test_an_onnx_model_with_ops_or_files_of_others_is_stopped(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsafeModel, match=sentence):
        adopt(tmp_path, onnx_model(tmp_path / "in", **options))


# One file, two readings: what stands twice, of which one reader takes the first and another the last.


def two_valued(is_first_large: bool) -> AttrValue:
    """The values of `w`, each of them changed by 0.99; in the short or in the long form."""
    value = AttrValue()
    value.tensor.dtype = FLOAT
    value.tensor.tensor_shape.dim.add(size=1 << 15)
    changed = [3.99, -1.01]
    if is_first_large:
        value.tensor.float_val.extend(changed * (1 << 14))
    else:
        value.tensor.tensor_content = struct.pack("<2f", *changed) * (1 << 14)
    return value


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("is_first_large", [True, False])
def test_weights_that_stand_twice_are_no_proof(is_first_large: bool, tmp_path: Path) -> None:
    place = redteam.checkpoint(tmp_path / "honest", large(), length=1 << 15)
    Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint")
    checkpoint = tmp_path / "out" / "stranger" / "checkpoint"
    pb = freeze.freeze(place, ["y"], to=tmp_path / "in" / "model.pb").path
    (tmp_path / "in" / "signature.json").write_bytes((checkpoint / "signature.json").read_bytes())
    assert not compare_weights(checkpoint, tmp_path / "in").problem
    pb.write_bytes(redteam.twice(pb.read_bytes(), "w", two_valued(is_first_large).SerializeToString()))
    found = compare_weights(checkpoint, tmp_path / "in")
    assert "an attribute of node 'w' stands twice" in str(found.problem)
    with pytest.raises(CandidateError, match="an attribute of node 'w' stands twice"):
        adopt(tmp_path, pb)


@pytest.mark.usefixtures("nothing_runs")
def test_a_graph_whose_attribute_stands_twice_is_not_frozen(tmp_path: Path) -> None:
    place = redteam.checkpoint(tmp_path / "in")
    meta = tmp_path / "in" / "model.ckpt.meta"
    graph = MetaGraphDef.FromString(meta.read_bytes()).graph_def.SerializeToString()
    other = AttrValue()
    other.tensor.dtype = STRING
    twice = redteam.twice(graph, "save/names", other.SerializeToString())
    Path(f"{place}.pb").write_bytes(twice)
    with pytest.raises(CheckpointError, match="an attribute of node 'save/names' stands twice"):
        freeze.freeze(place, ["y"], graph=Path(f"{place}.pb"))
    meta.write_bytes(encode_field(2, twice))
    with pytest.raises(CheckpointError, match="an attribute of node 'save/names' stands twice"):
        freeze.freeze(place, ["y"])
    folder = redteam.saved_model(tmp_path / "saved")
    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    rest = model.meta_graphs[0]
    rest.ClearField("graph_def")
    served = encode_field(2, rest.SerializeToString() + encode_field(2, twice))
    (folder / "saved_model.pb").write_bytes(served)
    with pytest.raises(CheckpointError, match="an attribute of node 'save/names' stands twice"):
        freeze.freeze(folder, ["y"])


# Small on disk, and more than there is.


def declared(folder: Path, *nodes: Any, functions: Any = ()) -> Path:
    return redteam.checkpoint(folder, honest(*nodes), functions)


def doubling(folder: Path) -> Path:
    """Forty functions of which each calls the next one twice."""
    functions = [function(f"f{k}", call("a", f"f{k + 1}"), call("b", f"f{k + 1}")) for k in range(40)]
    return declared(folder, call("c", "f0"), functions=[*functions, function("f40", text("t", ""))])


def deep(folder: Path) -> Path:
    functions = [function(f"f{k}", call("a", f"f{k + 1}")) for k in range(300)]
    return declared(folder, call("c", "f0"), functions=[*functions, function("f300", text("t", ""))])


def endless(folder: Path) -> Path:
    return declared(folder, call("c", "f"), functions=[function("f", call("a", "g")), function("g", call("b", "f"))])


def claimed(folder: Path, **fields: Any) -> Path:
    entry = BundleEntryProto(**{"dtype": FLOAT, "size": 4 * 10**15, **fields})
    entry.shape.dim.add(size=10**15)
    return redteam.checkpoint(folder, entry=entry)


TOO_LARGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a constant": (
        lambda folder: declared(folder, filled("big", 10**6, 10**6)),
        r"op Const in node big .*4e\+03 GB more than is stored",
    ),
    "many constants": (
        lambda folder: declared(folder, *(filled(f"big{k}", 10**8) for k in range(10))),
        r"op Const in node big\d",
    ),
    "a constant in a function": (
        lambda folder: declared(folder, functions=[function("f", filled("big", 10**12))]),
        r"op Const in node big \(function f\)",
    ),
    "a placeholder": (
        lambda folder: declared(folder, node("big", "Placeholder", dtype=FLOAT, shape=shape(-1, 10**6, 10**6))),
        "op Placeholder in node big",
    ),
    "a variable": (
        lambda folder: declared(folder, node("big", "VariableV2", dtype=FLOAT, shape=shape(10**12))),
        "op VariableV2 in node big",
    ),
    "a Fill": (
        lambda folder: declared(
            folder, numbers("dims", 10**6, 10**6), filled("one"), node("big", "Fill", "dims", "one", T=FLOAT)
        ),
        r"op Fill in node big \(got 4e\+03 GB",
    ),
    "random numbers": (
        lambda folder: declared(folder, numbers("dims", 10**12), node("big", "RandomUniform", "dims", dtype=FLOAT)),
        "op RandomUniform in node big",
    ),
    "lengths beyond all numbers": (
        lambda folder: declared(folder, filled("big", *[2**62] * 30)),
        "op Const in node big",
    ),
    "functions that double": (
        doubling,
        r"call each other without an end in sight .got function f\d+ expands to more than",
    ),
    "functions without end": (endless, "got function [fg] calls itself"),
    "functions too deep": (deep, "got 301 calls within each other, at function f0"),
    "an index of petabytes": (claimed, r"'w' lies outside the file .got 8 bytes, wanted >= 4000000000000000"),
    "an index of strings of petabytes": (
        lambda folder: claimed(folder, dtype=STRING),
        "'w' lies outside the file",
    ),
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_would_take_more_than_there_is_is_stopped_before_memory_is_taken(case: str, tmp_path: Path) -> None:
    make, sentence = TOO_LARGE[case]
    place = make(tmp_path / "in")
    for _ in range(2):
        with pytest.raises((UnsafeModel, CheckpointError), match=sentence):
            Chain(job_for(tmp_path, place, outputs="y")).build("checkpoint")
    with pytest.raises((UnsafeModel, CheckpointError), match=sentence):
        freeze.freeze(place, ["y"], to=tmp_path / "made.pb")


def test_constants_that_are_honest_may_be_large(tmp_path: Path) -> None:
    place = declared(tmp_path / "in", filled("zeros", 10**6, 10))
    assert freeze.freeze(place, ["y"], to=tmp_path / "made.pb").path.is_file()


# Names and paths.


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "..\\x", "C:\\x", "a\0b", "x" * 300, "é", ".hidden", ""]
)
def test_no_name_leads_out_of_the_output_root(name: str, tmp_path: Path) -> None:
    with pytest.raises((StoreError, SettingError), match="not a valid folder name"):
        ArtifactPaths(tmp_path, name)


@pytest.mark.parametrize("name", ["CON", "nul", "Com1", "LPT9.txt", "aux.tar.gz", "prn.", "model.", "model.."])
def test_names_that_windows_keeps_for_itself_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Windows"):
        ArtifactPaths(tmp_path, name)


@pytest.mark.parametrize("name", ["console", "null", "com", "com10", "a.b", "spam-3", "v1.0"])
def test_names_like_them_are_taken(name: str, tmp_path: Path) -> None:
    assert ArtifactPaths(tmp_path, name).home == tmp_path / name


@pytest.mark.parametrize("weights", ["../../../w", "/etc/w", "w" * 300, "w\\..\\x", "CON"])
def test_names_in_a_graph_stay_within_the_folder_of_mapped_weights(weights: str, tmp_path: Path) -> None:
    place = redteam.checkpoint(tmp_path / "in", large(weights), length=1 << 15)
    freeze.freeze(place, ["y"], to=tmp_path / "mapped", format="mmap")
    [file] = (tmp_path / "mapped" / "weights").iterdir()
    assert file.name.startswith("00000-")
    assert len(file.name) < 150
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "mapped"]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a/../../x"])
def test_an_asset_outside_of_its_saved_model_is_refused(name: str, tmp_path: Path) -> None:
    place = redteam.saved_model(tmp_path / "in", assets=[name])
    with pytest.raises(PipelineError, match="an asset lies outside of the SavedModel"):
        Chain(job_for(tmp_path, place)).build("checkpoint")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", ["assets/words.txt", "assets", "notes", "assets.extra/deep/x"])
def test_a_link_out_of_a_saved_model_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    place = redteam.saved_model(tmp_path / "in")
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeModel, match=rf"{name}: a link leads out of the model's folder .got .*/secret"):
        Chain(job_for(tmp_path, place)).build("checkpoint")


@pytest.mark.usefixtures("nothing_runs")
def test_another_graph_in_chunks_beside_the_one_that_is_checked_is_refused(tmp_path: Path) -> None:
    place = redteam.saved_model(tmp_path / "in")
    (place / "saved_model.cpb").write_bytes(b"\0")
    with pytest.raises(UnsafeModel, match=r"saved_model\.cpb: next to the checked graph is another one"):
        Chain(job_for(tmp_path, place)).build("checkpoint")


def test_odd_names_are_told_without_their_control_characters(tmp_path: Path) -> None:
    odd = "a\x1b[2J\nb" + "c" * 500
    place = redteam.checkpoint(tmp_path, honest(node(odd, "Abort"), y=[odd]))
    with pytest.raises(UnsafeModel) as caught:
        freeze.freeze(place, ["y"])
    assert str(caught.value).isprintable()
    assert "node a�[2J�bccc" in str(caught.value)
    assert "… (507 characters)" in str(caught.value)


# Files of Keras.


def archive(path: Path, config: Any, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("config.json", json.dumps(config))
        made.writestr("model.weights.h5", b"")
        for name, content in members.items():
            made.writestr(name, content)
    return path


def bomb(path: Path) -> Path:
    """An archive that says of a member that it is of a petabyte."""
    archive(path, {}, big=bytes(1000))
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1) + 1)
    path.write_bytes(content[: at + 24] + struct.pack("<I", 2**32 - 2) + content[at + 28 :])
    return path


def of_hdf5(path: Path, config: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
    return path


def linked(path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        file["w"] = h5py.ExternalLink("/etc/secret.h5", "/w")
    return path


def stretched(path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_dataset("layers/w", (10**12,), "f4", chunks=(1024,))
    return path


def hdf5(path: Path, fill: Callable[[Any], object], config: Any = "{}", **options: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", **options) as file:
        file.attrs["model_config"] = config
        fill(file)
    return path


def link_elsewhere(file: Any) -> None:
    h5py = pytest.importorskip("h5py")
    file["layers/w"] = h5py.ExternalLink("/etc/secret.h5", "/w")


def with_an_archive_behind(folder: Path) -> Path:
    """HDF5 for Keras, which goes by the name; an honest archive for whoever looks at the end."""
    path, other = hdf5(folder / "m.h5", link_elsewhere), archive(folder / "other.keras", {})
    path.write_bytes(path.read_bytes() + other.read_bytes())
    return path


def behind_a_block_of_something_else(folder: Path) -> Path:
    path = hdf5(folder / "m.h5", link_elsewhere, userblock_size=1024)
    content = path.read_bytes()
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + content[8:])
    return path


def in_an_archive(folder: Path) -> Path:
    path = hdf5(folder / "w.h5", link_elsewhere)
    with zipfile.ZipFile(folder / "m.keras", "w") as made:
        made.writestr("config.json", "{}")
        made.writestr("model.weights.h5", path.read_bytes())
    return folder / "m.keras"


def viewed(file: Any) -> None:
    h5py = pytest.importorskip("h5py")
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/secret.h5", "w", (4,))
    file.create_virtual_dataset("w", layout)


def referring(file: Any) -> None:
    h5py = pytest.importorskip("h5py")
    file.create_dataset("w", (1,), dtype=[("number", "f4"), ("to", h5py.ref_dtype)])


def texts_of_one(file: Any) -> None:
    h5py = pytest.importorskip("h5py")
    file.create_dataset("w", (10**6,), h5py.string_dtype(), chunks=(1000,))
    file.create_dataset("more", data=b"x" * 1_000_000)


def with_layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"layers": [{"class_name": kind, "config": config}]}}


KERAS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a name that leads out": (
        lambda folder: archive(folder / "m.keras", {}, **{"../../evil": b"x"}),
        r"a name in the archive leads out of it .got '../../evil'",
    ),
    "a path": (lambda folder: archive(folder / "m.keras", {}, **{"/etc/evil": b"x"}), "leads out of it"),
    "a path of Windows": (lambda folder: archive(folder / "m.keras", {}, **{"C:\\evil": b"x"}), "leads out of it"),
    "a bomb": (lambda folder: bomb(folder / "m.keras"), r"its archive grows when it is unpacked .got 4.29 GB of"),
    "another SavedModel": (
        lambda folder: archive(folder / "m.keras", with_layer("TFSMLayer", filepath="/tmp/evil")),
        "could run another SavedModel, which is not part of the file: layer TFSMLayer",
    ),
    "pickled code": (
        lambda folder: archive(folder / "m.keras", with_layer("TorchModuleWrapper", module="…")),
        "could call Python code: layer TorchModuleWrapper",
    ),
    "a vocabulary elsewhere": (
        lambda folder: archive(folder / "m.keras", with_layer("StringLookup", vocabulary="/etc/passwd")),
        "could read the file /etc/passwd: vocabulary of layer StringLookup",
    ),
    "a vocabulary elsewhere, in HDF5": (
        lambda folder: of_hdf5(folder / "m.h5", with_layer("TextVectorization", vocabulary="/etc/passwd")),
        "could read the file /etc/passwd: vocabulary of layer TextVectorization",
    ),
    "weights elsewhere": (
        lambda folder: linked(folder / "m.h5"),
        "could read files: weights w lie in another file .got /etc/secret.h5",
    ),
    "an archive behind it": (with_an_archive_behind, "could read files: weights layers/w lie in another file"),
    "a block before it": (behind_a_block_of_something_else, "could read files: weights layers/w lie in another file"),
    "weights elsewhere, in an archive": (in_an_archive, "could read files: weights layers/w lie in another file"),
    "weights in a file that is none": (
        lambda folder: hdf5(folder / "m.h5", lambda f: f.create_dataset("w", (4,), "f4", external=[("/etc/x", 0, 16)])),
        "could read files: weights w lie in another file .got /etc/x",
    ),
    "a view of other weights": (lambda folder: hdf5(folder / "m.h5", viewed), "could read files: weights w"),
    "references": (
        lambda folder: hdf5(folder / "m.h5", referring),
        "looked through to its end .got w holds references",
    ),
    "one text a million times": (
        lambda folder: hdf5(folder / "m.h5", texts_of_one),
        "could take more memory than there is: weights w",
    ),
    "many weights without end": (
        lambda folder: hdf5(
            folder / "m.h5", lambda f: [f.create_dataset(f"w{k}", (10**8,), "f4", chunks=(1024,)) for k in range(8)]
        ),
        r"could take more memory than there is: weights w\d .got [23]\.?\d* GB",
    ),
    "a description that is none": (
        lambda folder: hdf5(folder / "m.h5", bool, [b"{}", b"{}"]),
        "looked through to its end .got a model_config of the type ndarray",
    ),
    "layers in layers without end": (
        lambda folder: hdf5(folder / "m.h5", bool, "[" * 30_000 + "]" * 30_000),
        "looked through to its end .got layers within layers",
    ),
    "a layer by a longer name": (
        lambda folder: of_hdf5(folder / "m.h5", {"class_name": "layers.TFSMLayer", "module": "keras", "config": {}}),
        "could run another SavedModel, which is not part of the file: layer TFSMLayer",
    ),
    "weights without end": (
        lambda folder: stretched(folder / "m.h5"),
        "could take more memory than there is: weights layers/w",
    ),
}


@pytest.mark.parametrize("case", KERAS)
def test_a_file_of_keras_is_stopped_before_keras_opens_it(case: str, tmp_path: Path) -> None:
    from pipeline.training.keras.load import load_file

    make, sentence = KERAS[case]
    with pytest.raises(UnsafeModel, match=sentence):
        load_file(make(tmp_path))


def knotted(file: Any) -> None:
    """Groups in themselves, names that lead nowhere: odd, and without harm."""
    h5py = pytest.importorskip("h5py")
    file.create_dataset("a/w", data=[1.0])
    file["a/self"], file["a/up"] = file["a"], file
    file["b"], file["nowhere"], file["itself"] = (h5py.SoftLink(to) for to in ("/a/w", "/none", "/itself"))
    file.create_dataset("empty", data=h5py.Empty("f4"))


def test_a_file_that_only_looks_odd_is_walked_through(tmp_path: Path) -> None:
    from pipeline.safety.keras_files import require_safe_file

    require_safe_file(hdf5(tmp_path / "m.h5", knotted, userblock_size=512))


def test_a_walk_that_cannot_go_on_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.safety import hdf5_files
    from pipeline.safety.keras_files import require_safe_file

    def fail(*given: Any) -> None:
        raise RuntimeError("unable to open object")

    monkeypatch.setattr(hdf5_files, "_bytes_of", fail)
    path = hdf5(tmp_path / "m.h5", lambda file: file.create_dataset("w", data=[1.0]))
    with pytest.raises(UnsafeModel, match=r"looked through to its end .got unable to open object"):
        require_safe_file(path)


# Processes.


@pytest.mark.usefixtures("nothing_runs")
def test_a_strangers_checkpoint_may_take_no_more_than_a_candidate(tmp_path: Path) -> None:
    job, limits = job_for(tmp_path, redteam.checkpoint(tmp_path / "in"), outputs="y"), child.Limits(600.0, 10**9)
    Chain(job).build("checkpoint")
    assert checkpoint_limits(job.folder("checkpoint"), limits) == limits
    told = json.loads((job.folder("checkpoint") / "signature.json").read_text())
    (tmp_path / "signature.json").write_text(json.dumps({**told, "origin": {}}))
    assert checkpoint_limits(tmp_path, limits) == child.Limits(600.0)  # one's own, which may take the memory it needs


def surroundings() -> dict[str, Any]:
    """What a process sees; run in the child."""
    return {"files": os.listdir("."), "folder": os.getcwd(), "environment": dict(os.environ), "path": list(sys.path)}


SECRETS = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "TF_VAR_password", "PYTHON_API_KEY", "DATABASE_URL", "TF_TOKEN_x")


@pytest.mark.parametrize("is_bare", [False, True])
def test_a_process_that_opens_strangers_files_has_an_empty_folder_and_no_secrets(is_bare: bool, tmp_path: Path) -> None:
    # In a fresh process: the server that others are forked from has the environment that it was started with.
    code = f"""
import json, test_redteam
from pipeline.workers.child import Child
if __name__ == "__main__":
    for is_sandboxed in (True, False):
        with Child("test_redteam:surroundings", is_sandboxed=is_sandboxed, is_bare={is_bare}) as child:
            print(json.dumps(child.receive()))
"""
    (tmp_path / "asks.py").write_text(code)
    given = {**os.environ, **dict.fromkeys(SECRETS, "secret"), "OMP_NUM_THREADS": "2"}
    here = Path(__file__).resolve()
    given["PYTHONPATH"] = os.pathsep.join(map(str, [*here.parents[:3], here.parents[1] / "helpers"]))
    done = subprocess.run(
        [sys.executable, "asks.py"], cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120, check=True
    )
    confined, free = (json.loads(line) for line in done.stdout.splitlines())
    assert confined["files"] == []
    assert not Path(confined["folder"]).exists()  # it is gone with the process
    assert confined["environment"]["HOME"] == confined["folder"]
    assert "secret" not in confined["environment"].values()
    assert {"PATH", "OMP_NUM_THREADS"} <= confined["environment"].keys()
    assert all(Path(path).is_absolute() for path in confined["path"])
    assert free["folder"] == str(tmp_path)
    assert set(SECRETS) <= free["environment"].keys()


def test_what_a_process_keeps_is_told_by_name() -> None:
    kept = ["PATH", "LANG", "LC_ALL", "TMPDIR", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS"]
    kept += ["LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS"]
    gone = [*SECRETS, "HOME", "SSH_AUTH_SOCK", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD", "XYZ"]
    assert [*kept_environment(dict.fromkeys([*kept, *gone], "x"))] == kept
