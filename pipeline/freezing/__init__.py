"""The freeze engine: turns a checkpoint into a .pb, or into a graph with mapped weights, without TensorFlow.

freeze       the public function: finds inputs and outputs, freezes, writes
engine       runs all passes in order: a graph and a checkpoint become a frozen graph
passes/      one rewriting pass per module; each takes a Graph and returns a new one
write/       writes the .pb (streamed), the format mmap, weights as float16
describe     signature and origin of a frozen graph
inspection   reports the contents of a checkpoint, a SavedModel or a GraphDef
"""
