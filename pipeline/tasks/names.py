"""Names of tasks in logs, in luigid and on the command line.

Ids and representations show the parameters that were given: `FreezeModel(model=spam)`, `FreezeModel_spam_7f3c…`. Tasks
that only this package uses have a namespace, so that they meet no other project's tasks of the same name.
"""

from __future__ import annotations

from typing import Any

import luigi
from luigi.parameter import Parameter

NAMESPACE = "freeze_pipeline"
luigi.namespace(NAMESPACE, scope=__name__)


class NamedByGiven(luigi.Task):
    """A task whose names leave out parameters with their default values.

    What is left out has the same value in every process that reads the names: a default of the code, which no
    configuration file and no command line replaces.
    """

    def to_str_params(self, only_significant: bool = False, only_public: bool = False) -> dict[str, str]:
        """Return the given parameters as text, by name; Luigi makes the id of them, and shows them in luigid."""
        task: Any = super()  # Luigi has no types
        texts: dict[str, str] = task.to_str_params(only_significant, only_public)
        family, declared = self.task_family, dict(task.get_params())
        return {name: text for name, text in texts.items() if not _is_default(declared[name], text, family, name)}

    def __repr__(self) -> str:
        given = self.to_str_params(only_significant=True)
        return f"{self.task_family}({', '.join(f'{name}={text}' for name, text in given.items())})"


def _is_default(parameter: Parameter[Any], text: str, family: str, name: str) -> bool:
    """Return True if a value is the parameter's own default, and a task without it would get the same value."""
    default = parameter._default
    if default is luigi.parameter._no_value or text != parameter.serialize(default):
        return False
    return bool(text == parameter.serialize(parameter.task_value(family, name)))
