"""Example of a team's own Luigi project, which deploys models that are proven. Run it from the project's root:

python examples/team.py
"""

import filecmp
import shutil
from pathlib import Path

import luigi
from luigi.util import inherits

import pipeline


@inherits(pipeline.FreezeModel)  # its parameters: model, checkpoint, name, output_root, ...
class Deploy(luigi.Task):
    """Copy the .pb of a model to where the server reads it, once it is proven."""

    served = luigi.Parameter(default="served")

    def requires(self):
        return {"frozen": self.clone(pipeline.FreezeModel), "proof": self.clone(pipeline.ValidateModel)}

    def output(self):
        return luigi.LocalTarget(f"{self.served}/{self.name}.pb")

    def complete(self):
        # Luigi takes a task for complete if its output exists, and does not look at what it requires.
        is_current = all(task.complete() for task in self.deps())
        return is_current and self.output().exists() and filecmp.cmp(self.frozen, self.output().path, shallow=False)

    def run(self):
        with self.output().temporary_path() as path:  # complete, or not there
            shutil.copy(self.frozen, path)

    @property
    def frozen(self):
        return Path(self.input()["frozen"].path) / "model.pb"  # an artifact's target is its folder


class DeployAll(luigi.WrapperTask):
    """Deploy two models; one that fails does not stop the other."""

    output_root = luigi.Parameter(default="output")

    def requires(self):
        yield Deploy(name="numbers", model="multiply_add", output_root=self.output_root)
        yield Deploy(name="fruit", model="examples/fruit.py:Fruit", output_root=self.output_root)


if __name__ == "__main__":
    result = luigi.build([DeployAll()], local_scheduler=True, log_level="WARNING", detailed_summary=True)
    print(result.summary_text)
    raise SystemExit(0 if result.scheduling_succeeded else 1)
