"""The freeze engine: a checkpoint's files to a .pb, without TensorFlow.

graph       how nodes name each other; what an output hangs on
variables   which variables a graph has, and under which key a Saver keeps each
pruning     what is kept for the outputs, and what may not be in a .pb
handles     where a resource variable's handle goes, through calls, branches and loops
rewriting   rules by op that turn readers of variables into readers of constants
tables      lookup tables that bring their content along
writing     the .pb, streamed
"""
