"""The templates and styles of the report. This is a package, so that they count as code of what imports it."""

from pathlib import Path

TEMPLATES = Path(__file__).parent
