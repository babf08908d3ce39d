"""Import TensorFlow in the fork server, so that the processes of all stages start with it loaded.

The fork server never runs TensorFlow: a process that has run a session must not fork.
"""

import os

# At import TensorFlow writes messages about missing accelerators to standard error, at any log level.
_stderr = os.dup(2)
_before = set(os.environ)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import pandas  # noqa: F401
    import tensorflow  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
SET_BY_LIBRARIES = set(os.environ) - _before  # variables
