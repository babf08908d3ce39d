"""Find tasks.cfg, check it key by key, and read the settings from it; declare Luigi's parameters."""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import luigi
import luigi.configuration
import luigi.retcodes  # loaded because this declares its section
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from pipeline.errors import SettingError, nearest
from pipeline.settings import Operations, Settings
from pipeline.training.models.source import PROJECT_FILES

# Other sections of Luigi's documentation: their keys are free, or belong to modules that are not loaded here.
_OTHER_SECTIONS = frozenset[str]().union(
    ["DEFAULT", "cors", "execution_summary", "logging", "recursively", "resources", "simulate"],
    ["task_history", "task_visibility"],
    ["batch_notifier", "datadog", "email", "notifications", "prometheus", "sendgrid", "smtp"],
    ["azureblob", "bigquery", "dropbox", "elasticsearch", "hdfs", "mongodb", "mysqldb"],
    ["postgres", "redshift", "s3", "salesforce", "snakebite", "webhdfs"],
    ["external_daily_snapshot", "hadoop", "hive", "kubernetes", "pig", "sge", "spark"],
)
_CENTRAL = ("--scheduler-host", "--scheduler-url")
_KINDS: dict[str, Any] = {"int": luigi.IntParameter, "float": luigi.FloatParameter, "str": luigi.Parameter}
_Task = TypeVar("_Task", bound=type[luigi.Task])


def with_parameters(declaration: type) -> Callable[[_Task], _Task]:
    """Give a task one Luigi parameter for each field of a dataclass: a class decorator.

    A field that is empty by default may be left out or given empty: Luigi's OptionalParameter.
    """

    def add_parameters(task: _Task) -> _Task:
        for item in fields(declaration):
            kind: Any = luigi.OptionalParameter if item.default == "" else _KINDS[str(item.type)]
            parameter = kind(default=item.default, description=item.metadata["description"])
            parameter.__set_name__(task, item.name)  # Python itself does this only in the body of a class
            setattr(task, item.name, parameter)
        return task

    return add_parameters


def _config_class(section: str, settings: Any) -> type[luigi.Config]:
    """Make a Luigi config class with one parameter for each setting: `[section] key`, `--section-key`."""
    parameters = {
        item.name: _KINDS[str(item.type)](default=item.default, description=item.metadata["description"])
        for item in fields(settings)
    }
    return type(section, (luigi.Config,), {**parameters, "__module__": __name__, "__doc__": settings.__doc__})


def _sections(settings: Any) -> dict[str, tuple[type[luigi.Config], type]]:
    return {
        item.name: (_config_class(item.name, item.default_factory), item.default_factory)
        for item in fields(settings)
        if item.default_factory is not MISSING and isinstance(item.default_factory, type)
    }


_SECTIONS, _OPERATIONS = _sections(Settings), _sections(Operations)


def read_settings() -> Settings:
    """Read the settings from tasks.cfg, the override file and the command line.

    Raises:
        SettingError: a value has the wrong type or is out of range, or a file has an unknown section or key.
    """
    return Settings(**_read(_SECTIONS))


def read_operations() -> Operations:
    """Read the settings that say how and where the work is done.

    Raises:
        SettingError: as `read_settings`.
    """
    return Operations(**_read(_OPERATIONS))


def _read(sections: Mapping[str, Any]) -> dict[str, Any]:
    for path in config_files():
        state = path.stat() if path.exists() else None
        _check_config_once(path, state and (state.st_mtime_ns, state.st_size, state.st_ino))
    return {name: settings(**_values(name, config)) for name, (config, settings) in sections.items()}


def _values(section: str, config: Any) -> dict[str, Any]:
    try:
        return dict(config().param_kwargs)
    except ValueError as exc:
        key = next(iter(re.findall(r"'(\w+)'$", str(exc))), "")
        where = f"[{section}] {key}".rstrip()
        raise SettingError("the value has the wrong type", where=where, got=exc.__cause__ or exc) from exc


def find_config() -> None:
    """Make Luigi read the project's tasks.cfg, then the file in LUIGI_CONFIG_PATH, which overrides it."""
    for path in config_files():
        luigi.configuration.add_config_path(str(path))
    if any(word.split("=")[0] in _CENTRAL for word in sys.argv[1:]):
        # Whoever names a central scheduler wants to use it. Without this, local_scheduler in tasks.cfg would win.
        luigi.configuration.get_config().set("core", "local_scheduler", "false")


def config_files() -> Iterator[Path]:
    """Yield the configuration files; later ones override earlier ones."""
    if (PROJECT_FILES / "tasks.cfg").is_file():
        yield PROJECT_FILES / "tasks.cfg"
    if override := os.environ.get("LUIGI_CONFIG_PATH"):
        yield Path(override)


def check_config(path: Path) -> None:
    """Reject unknown sections and keys, which Luigi ignores silently.

    Raises:
        SettingError: the file is missing or unreadable, or has an unknown section or key; the message
            suggests the nearest known name.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeDecodeError) as exc:
        raise SettingError("the settings cannot be read", where=path, got=exc) from exc
    sections = frozenset(Register.task_names())
    for section in parser.sections():
        if section in sections:
            known = {name for name, _ in Register.get_task_cls(section).get_params()}
            for key in parser.options(section):
                # Luigi accepts a-b for a_b only if no file has a_b. tasks.cfg has all keys, so a-b would be ignored.
                if key not in known:
                    raise SettingError(
                        "unknown key", where=f"{path}, section [{section}]", got=key, next_step=nearest(key, known)
                    )
        elif section not in _OTHER_SECTIONS:
            raise SettingError(
                "unknown section",
                where=path,
                got=f"[{section}]",
                next_step=nearest(section, sections | _OTHER_SECTIONS),
            )


@lru_cache(maxsize=16)
def _check_config_once(path: Path, _state: tuple[int, ...] | None) -> None:
    check_config(path)


def build_parsers_once() -> None:
    """Make Luigi keep the parsers of its command line.

    Luigi parses the same command line three times in a run, and builds three parsers each time: seven of these nine
    are equal to an earlier one. A parser depends on the arguments below and on the classes of tasks that are loaded.
    """
    build: Any = CmdlineParser._build_parser

    @cache
    def build_once(classes: tuple[type, ...], root_task: str | None, help_all: bool) -> Any:
        return build(root_task, help_all)

    def build_parser(root_task: str | None = None, help_all: bool = False) -> Any:
        return build_once(tuple(Register._get_reg().values()), root_task, help_all)

    CmdlineParser._build_parser = staticmethod(build_parser)  # type: ignore[method-assign]
