"""The parameters of every task on one model, each declared once: name, default and description.

Luigi's parameters are generated from this class (`tasks.config.with_parameters`), a row of a batch list fills it
directly, and the documentation prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.formats.registry import CANDIDATES
from pipeline.settings import setting


@dataclass(frozen=True)
class Parameters:
    """Values that a user gives, as text; empty if not given. Each is an option of the same name (`--graph-file`)."""

    model: str = setting(
        "",
        "the model: a bundled name (spam, multiply_add), package.module:Name, or path/to/file.py:Name; "
        "spam if no checkpoint is given. With a Keras file also path/to/layers.py, the classes that it needs",
    )
    checkpoint: str = setting(
        "",
        "an existing checkpoint (prefix, file or folder), SavedModel or .keras file to start from; "
        "with --model, the code gives the graph and this file the weights, or for a Keras file the code of its layers",
    )
    inputs: str = setting("", "with --checkpoint: comma-separated tensors to feed; detected if not given")
    outputs: str = setting("", "with --checkpoint: comma-separated tensors to fetch; detected if not given")
    pin: str = setting("", "with --checkpoint: comma-separated name=value pairs; these placeholders become constants")
    signature: str = setting(
        "", "with --checkpoint: the signature to use, if a SavedModel has several; or the function, if it has none"
    )
    tags: str = setting(
        "", "with --checkpoint: the comma-separated tags of the graph to take, if a SavedModel has several"
    )
    averages: str = setting(
        "",
        "with --checkpoint: yes to take the moving averages (VARIABLE/ExponentialMovingAverage) that it holds beside "
        "its variables",
    )
    inference: str = setting(
        "",
        "with --checkpoint: yes if its graph was built for training: batch norm takes its moving averages, and dropout "
        "is off",
    )
    graph_file: str = setting(
        "",
        "with --checkpoint: the file of its graph (.meta, .pb, .pbtxt), if it is in another folder or has another name",
    )
    candidate: str = setting(
        "",
        "with --checkpoint or --model: an existing .pb, SavedModel, mmap folder, .tflite or .onnx to compare with the "
        "checkpoint; nothing is frozen then",
    )
    candidate_names: str = setting(
        "",
        "with --candidate: comma-separated name=tensor pairs: the candidate's tensor for an input or output, "
        "if its name does not match",
    )
    candidate_signature: str = setting(
        "", "with --candidate: the signature to use, if a SavedModel or .tflite has several"
    )
    name: str = setting("", "folder under the output root; the name of the model or checkpoint if not given")
    data: str = setting("", "the data file; the model's own data, or generated rows, if not given")
    data_separator: str = setting(
        "",
        "the character between the cells of the data file, or its name (comma, semicolon, tab, pipe, space); that of "
        "its header if not given",
    )
    data_range: str = setting(
        "",
        "for folders of images: the numbers that black and white become, such as 0,1 or -1,1; 0,255 leaves pixels as "
        "they are",
    )
    output_root: str = setting("output", "where artifacts are written: a folder, or a URL such as s3://bucket/path")
    formats: str = setting(
        "",
        f"comma-separated formats to make and to validate, from {', '.join(CANDIDATES)}; frozen if not given. "
        "With --candidate: the candidate's format, if its content does not show it",
    )
    warm_start: str = setting("", "a checkpoint whose weights are the initial weights of the training")
    warm_start_map: str = setting(
        "", "with --warm-start: comma-separated name=key pairs: the checkpoint's key for a variable, if the two differ"
    )
    allow_ops: str = setting(
        "",
        "with --checkpoint or --candidate: comma-separated ops to allow in a third-party graph although they can do "
        "more than compute (WriteFile, PyFunc, …), or Lambda for the Python code in a Keras file",
    )
