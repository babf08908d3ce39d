"""One-off commands beside Luigi's: `python -m pipeline COMMAND …`, or `freeze-pipeline COMMAND …`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
