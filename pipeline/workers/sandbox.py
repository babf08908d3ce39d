"""A process that opens what strangers made: an empty working folder, and an environment without secrets.

A graph is checked before it is run; this is for what a check may miss. Files that it names without a path are looked
for in a folder where nothing is, and what the environment of the pipeline holds (tokens, keys, passwords) is not there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# What Python, TensorFlow and the libraries below need to run as they do outside.
_KEPT = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|USER|LOGNAME|TERM|SYSTEMROOT"
    r"|(TF|OMP|MKL|KMP|OPENBLAS|XLA|CUDA|NVIDIA|ROCR|HIP|ORT|KERAS|PYTHON|MALLOC|COVERAGE|ASAN|DYLD|LD)_?\w*"
)
_SECRET = re.compile(r"TF_(VAR|TOKEN|CLI)_.*|.*(TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|API_KEY|PRIVATE_KEY|AUTH).*", re.I)


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that such a process keeps: by name, and none that looks like a secret."""
    return {name: value for name, value in environment.items() if _KEPT.fullmatch(name) and not _SECRET.fullmatch(name)}


def enter_sandbox(folder: Path) -> None:
    """Confines this process to a folder, its home too, and to what it needs of its environment.

    Args:
        folder: an empty one, absolute.
    """
    sys.path[:] = [str(Path(path).absolute()) for path in sys.path]
    kept = kept_environment(os.environ)
    os.environ.clear()
    os.environ.update(kept, HOME=str(folder))
    os.chdir(folder)
