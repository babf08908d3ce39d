"""`python -m pipeline freeze CHECKPOINT`: freeze a checkpoint into one .pb, without TensorFlow."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from pipeline.errors import printable
from pipeline.freezing.freeze import Frozen, freeze
from pipeline.inputs import parse_pairs, split_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        help="a Saver's checkpoint: its prefix, one of its files, its series or its folder; the folder of a "
        "SavedModel; or a .pb or .pbtxt beside its checkpoint",
    )
    parser.add_argument(
        "--outputs",
        default="",
        help="comma-separated names of tensors; default: those of the signature, or the obvious ones",
    )
    parser.add_argument(
        "--inputs", default="", help="comma-separated placeholders to keep, or inner tensors to make inputs of"
    )
    parser.add_argument(
        "--signature", help="of a SavedModel with several, which one; without any, the function, such as __call__"
    )
    parser.add_argument(
        "--tags",
        default="",
        help="of a SavedModel with several graphs, the comma-separated tags of one; none for no tags",
    )
    parser.add_argument(
        "--graph", type=Path, help="the graph's file (.meta, .pb, .pbtxt), where it is not beside the checkpoint"
    )
    parser.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="make a placeholder a constant, such as is_training=false; may be given several times",
    )
    parser.add_argument(
        "--format",
        default="frozen",
        metavar="frozen|mmap",
        help="frozen, one .pb (default); or mmap, a folder with a small graph and files of weights that are mapped "
        "into memory, for models that take long to load or are beyond 2 GiB",
    )
    parser.add_argument(
        "--weights",
        default="exact",
        metavar="exact|float16",
        help="exact (default); or float16, which stores floats at half the size or less",
    )
    parser.add_argument(
        "--averages",
        action="store_true",
        help="take the moving averages (VARIABLE/ExponentialMovingAverage) that the checkpoint holds beside variables",
    )
    parser.add_argument(
        "--inference",
        action="store_true",
        help="for a graph that was built for training: batch norm takes its moving averages, and dropout is off",
    )
    parser.add_argument(
        "--allow-ops",
        default="",
        help="comma-separated ops that may stand in the graph though they could do more than compute, such as PyFunc",
    )
    parser.add_argument(
        "-o", "--to", type=Path, help="the file to write (default: model.pb), or the folder of the format mmap (mmap)"
    )


def run(given: argparse.Namespace) -> int:
    """Freeze the checkpoint and print the result."""
    gc.disable()  # all objects live to the end, so that collecting garbage only costs time
    done = freeze(
        given.checkpoint,
        split_list(given.outputs),
        split_list(given.inputs),
        given.to,
        graph=given.graph,
        signature=given.signature,
        pins=parse_pairs("--pin", ",".join(given.pin)),
        format=given.format,
        weights=given.weights,
        allow_ops=split_list(given.allow_ops),
        averages=given.averages,
        inference=given.inference,
        tags=split_list(given.tags),
    )
    for line in _lines(done):
        print(printable(line))
    return 0


def _lines(done: Frozen) -> list[str]:
    lines = [f"note         {note}" for note in done.notes]
    if done.signature is not None:
        lines += [f"input        {spec}" for spec in done.signature.inputs]
        lines += [f"output       {spec}" for spec in done.signature.outputs]
        lines += [f"frozen       {done.variables:,} variables, {done.nodes:,} nodes"]
    lines += [f"also there   {done.beside}"] if done.beside else []
    return [*lines, str(done.path)]
