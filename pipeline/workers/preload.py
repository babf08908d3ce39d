"""Import TensorFlow in the fork server, so that the processes of all stages start with it loaded.

The fork server never runs TensorFlow: a process that has run a session must not fork.
"""

import atexit
import os
from time import perf_counter

from .memory import resident_files

_server = os.getpid()


@atexit.register  # before the import: the last to be called
def _end_at_once() -> None:
    """End the fork server without freeing what TensorFlow holds: that takes a second, and its output stays open."""
    if os.getpid() == _server:
        os._exit(0)


# At import TensorFlow writes messages about missing accelerators to standard error, at any log level.
_stderr = os.dup(2)
_before = set(os.environ)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    started = perf_counter()
    import tensorflow  # noqa: F401

    # What the benchmark of a format, which starts with TensorFlow loaded, counts as its own: see `formats.benchmark`.
    IMPORT_SECONDS = perf_counter() - started
    LIBRARY_BYTES = resident_files()
    import pandas  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
SET_BY_LIBRARIES = set(os.environ) - _before  # variables
