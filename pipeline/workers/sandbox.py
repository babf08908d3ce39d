"""Sandbox for a process that opens untrusted files: an empty working folder, and an environment without secrets.

A graph is checked before it is run; the sandbox limits the damage of anything that the checks miss. Relative file names
in a graph lead to an empty folder, and tokens, keys and passwords in the environment are removed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# Python, TensorFlow and the libraries below it need these to behave as outside the sandbox.
_KEPT = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|USER|LOGNAME|TERM|SYSTEMROOT"
    r"|(TF|OMP|MKL|KMP|OPENBLAS|XLA|CUDA|NVIDIA|ROCR|HIP|ORT|KERAS|PYTHON|MALLOC|COVERAGE|ASAN|DYLD|LD)_?\w*"
)
_SECRET = re.compile(r"TF_(VAR|TOKEN|CLI)_.*|.*(TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|API_KEY|PRIVATE_KEY|AUTH).*", re.I)


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that the sandbox keeps: known names, except those that look like secrets."""
    return {name: value for name, value in environment.items() if _KEPT.fullmatch(name) and not _SECRET.fullmatch(name)}


def enter_sandbox(folder: Path) -> None:
    """Make a folder the working folder and home of this process, and reduce its environment.

    Args:
        folder: an empty folder, as an absolute path.
    """
    sys.path[:] = [str(Path(path).absolute()) for path in sys.path]
    kept = kept_environment(os.environ)
    os.environ.clear()
    os.environ.update(kept, HOME=str(folder))
    os.chdir(folder)
