"""The freeze engine: a checkpoint's files to a .pb, or to a graph with mapped weights, without TensorFlow.

graph       how nodes name each other; what an output hangs on
ops         what ops give: dtypes of outputs, and how many; a table of TensorFlow's ops, one a line
soundness   whether a graph is one at all
savedmodel  a SavedModel folder as a graph and a checkpoint; loading: what opening one does to its graph
variables   which variables a graph has, and under which key a Saver keeps each
feeding     inner tensors that become inputs
preparing   switches that are settled
settling    what constants decide: branches, and draws that make no difference
bodies      what functions keep for their results
pruning     what is kept for the outputs, and what may not be in a .pb
tables      lookup tables that bring their content along
rewriting   turns readers of variables into readers of constants; rules: by op; handles: where those of variables go
pinning     placeholders that become constants
sources     opens whatever holds a graph: a checkpoint, a SavedModel, a GraphDef
describing  the signature of what is frozen, and what each output comes from
assembling  all of these in their order: a graph and a checkpoint to a frozen graph
constants   variables as constants whose values are still in the checkpoint, streamed from there
halving     float variables as float16
writing     the .pb, streamed
readers     which constants may lie in memory that cannot be written
mapping     the format mmap: a small graph beside raw files of weights
"""
