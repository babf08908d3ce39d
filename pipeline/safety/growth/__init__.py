"""Bounds the memory that constants can blow up, from below, without TensorFlow and without computing large tensors.

    values     what is known of a tensor: its shape, and its numbers if they are few
    arithmetic numbers and shapes of small tensors that decide the shapes of others
    shaping    rules of the ops that make, cut, join and stretch tensors
    sizing     rules of the ops that make as much as a number says
    rules      by op of TensorFlow: the rule for its outputs
    costs      by op: threads, buffers and tables that it makes besides its outputs
    nodes      a node, and what is known of a constant
    graphs     walks through a graph, its functions and its loops
    others     operators of other runtimes, under the names of TensorFlow's
    onnx_rules, onnx_graphs     those of ONNX, and the walk through its graphs and functions
    tflite_graphs               those of TensorFlow Lite, and the walk through its subgraphs

What is unknown counts as small: a length as one, a shape as nothing. So an honest model is never refused for what its
inputs could be, only for what it asks for by itself. What depends on inputs is held by the memory limit of the process.
"""
