"""Imported once by the fork server, so that every stage's process starts with TensorFlow at hand.

Only imported, never run: a process that has run a TensorFlow session must not fork.
"""

import os

# Before its own logging is set up, TensorFlow writes that it finds no accelerator, whatever the log level says.
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import pandas  # noqa: F401
    import tensorflow  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
