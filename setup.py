"""Put what stands beside the package in this folder into what is built of it; all else is in pyproject.toml.

A checkout has tasks.cfg and the bundled models' data at its root. An installed package has the same below
`pipeline/project/`, so that it works without a checkout.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT_FILES = ("tasks.cfg", "data/spam.tsv", "data/multiply_add.csv")


class BuildWithProjectFiles(build_py):
    """Build the package, and copy the project's files into it; an editable install finds them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in PROJECT_FILES:
            target = Path(self.build_lib, "pipeline/project", name)
            self.mkpath(str(target.parent))
            self.copy_file(name, str(target))


setup(cmdclass={"build_py": BuildWithProjectFiles})
