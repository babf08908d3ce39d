"""Lend Luigi the defaults of the package, as the weakest ones: the user's own configuration comes first.

The defaults of our own sections hold in every process. Those of Luigi's sections, such as `[core]`, hold only where the
root task of the command is ours: a run of another project's task that requires ours, or only imports us, keeps its own
scheduler, workers and exit codes.
"""

from __future__ import annotations

import configparser
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache, lru_cache
from operator import is_
from pathlib import Path
from typing import Any

import luigi
import luigi.configuration
from luigi.configuration import LuigiConfigParser, LuigiTomlParser
from luigi.task_register import Register

from pipeline.training.models.source import PROJECT_FILES

from .command_line import is_our_command, is_ours
from .config_file import LUIGI_SECTIONS, write_value

PROJECT_CONFIG = PROJECT_FILES / "tasks.cfg"
# Sections of Luigi's documentation whose keys are free, or belong to modules that are not loaded here.
OTHER_SECTIONS = frozenset[str]().union(
    ["DEFAULT", "cors", "execution_summary", "logging", "recursively", "resources", "simulate"],
    ["task_history", "task_visibility"],
    ["batch_notifier", "datadog", "email", "notifications", "prometheus", "sendgrid", "smtp"],
    ["azureblob", "bigquery", "dropbox", "elasticsearch", "hdfs", "mongodb", "mysqldb"],
    ["postgres", "redshift", "s3", "salesforce", "snakebite", "webhdfs"],
    ["external_daily_snapshot", "hadoop", "hive", "kubernetes", "pig", "sge", "spark"],
)
_KEYS_OF_SCHEDULERS = [
    f"{start}scheduler_{kind}" for start in ("", "default_") for kind in ("host", "port", "url")
]  # in [core]; those with default_ are Luigi's former names
_Values = dict[str, dict[str, str]]
_lent: list[tuple[str, str]] = []  # what Luigi's sections got for the command
_known: list[object] = []  # the configuration and the classes that our own sections were last lent to


def is_our_section(name: str) -> bool:
    """Return True if a section holds the parameters of a class of this package."""
    owner = Register._get_reg().get(name)
    return isinstance(owner, type) and is_ours(owner)


def our_classes() -> dict[str, type]:
    """Return the classes of this package by name, also where Luigi's register has another project's in its place."""
    return {task.get_task_family(): task for task in reversed(Register._reg) if is_ours(task)}


def lend_to_our_sections() -> None:
    """Give Luigi what tasks.cfg says on our own tasks and settings, except keys of other projects' sections."""
    config: Any = luigi.configuration.get_config()
    now = [config, *Register._reg]
    if len(now) == len(_known) and all(map(is_, now, _known)):
        return
    _known[:] = now
    _luigi_values.cache_clear()
    values = {name: keys for name, keys in _project_values().items() if name not in {*LUIGI_SECTIONS, *OTHER_SECTIONS}}
    foreign = _foreign_sections(values)
    for section, key, value in list(_unset(values)):
        if section not in foreign or (_is_changed(section, key, value) and key not in _foreign_keys(section)):
            config.set(section, key, value)


def _is_changed(section: str, key: str, value: str) -> bool:
    """Return True if a class of ours has the key, and not this value by itself."""
    task: Any = our_classes().get(section)
    kind = None if task is None else dict(task.get_params()).get(key)
    return kind is not None and write_value(key, kind._default) != value


def _foreign_keys(section: str) -> set[str]:
    return {
        name
        for task in Register._reg
        if task.get_task_family() == section and not is_ours(task)
        for name, _ in task.get_params()
    }


def lend_to_command(arguments: Namespace) -> None:
    """Give Luigi our defaults for its own sections if the root task of a command is ours, or else take them back."""
    config: Any = luigi.configuration.get_config()
    for section, key in _lent:
        _remove(config, section, key)
    _lent.clear()
    lend_to_our_sections()
    if not is_our_command(arguments):
        return
    theirs = None
    # Whoever names a central scheduler wants to use it.
    if arguments.core_scheduler_host or arguments.core_scheduler_url:
        arguments.core_local_scheduler = arguments.core_local_scheduler or "false"
    elif any(config.has_option("core", key) for key in _KEYS_OF_SCHEDULERS):
        theirs = ("core", "local_scheduler")
    for section, key, value in list(_unset(_luigi_values())):
        if (section, key) != theirs:
            config.set(section, key, _as_number(config, section, value))
            _lent.append((section, key))


@cache
def _luigi_values() -> _Values:
    """The defaults of sections that are not ours: what tasks.cfg says there, or else what the classes declare."""
    values = {
        name: {item.name: write_value(item.name, item.default) for item in fields(declaration)}
        for name, declaration in LUIGI_SECTIONS.items()
    }
    written = _project_values()
    lent = {name for name in written if name in LUIGI_SECTIONS or name in OTHER_SECTIONS} | _foreign_sections(written)
    return values | {name: {**values.get(name, {}), **written[name]} for name in lent}


def _foreign_sections(names: Iterable[str]) -> set[str]:
    """Return the sections that hold the parameters of a class of Luigi or of another project."""
    owners = Register._get_reg()  # Luigi makes it anew each time
    return {name for name in names if name in owners and not (isinstance(owners[name], type) and is_ours(owners[name]))}


def _unset(values: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield those values that Luigi's configuration does not have."""
    config: Any = luigi.configuration.get_config()
    for section, keys in values.items():
        for key, value in keys.items():
            if not config.has_option(section, key):
                yield section, key, value


def _remove(config: Any, section: str, key: str) -> None:
    if isinstance(config, LuigiTomlParser):
        config.data[section].pop(key, None)
    else:
        config.remove_option(section, key)


def _as_number(config: Any, section: str, value: str) -> str | int:
    """Luigi reads TOML's resources as they are."""
    return int(value) if section == "resources" and isinstance(config, LuigiTomlParser) and value.isdecimal() else value


def _project_values() -> _Values:
    return _values_of(PROJECT_CONFIG)


@cache
def _values_of(path: Path) -> _Values:
    """The values of a file; of a file that is missing or unreadable none, which `check_config` reports."""
    try:
        return read_values(path)
    except (OSError, configparser.Error, ValueError):
        return {}


def read_values(path: Path) -> _Values:
    """Return the values of a file by section, as they are written there; a file that has not changed is read once.

    Raises: as `read_config`.
        configparser.Error: a value refers to nothing.
    """
    state = path.stat()
    return _read_values(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=1)
def _read_values(path: Path, _state: tuple[int, ...]) -> _Values:
    parser, found = read_config(path), dict[str, dict[str, str]]()
    for section in parser.sections():
        found[section] = dict(parser.items(section, raw=True))
        if any("%" in value or "$" in value for value in found[section].values()):
            parser.items(section)  # raises the error of a value that refers to nothing
    return found


def read_config(path: Path) -> configparser.ConfigParser:
    """Parse a file as Luigi does, without adding it to Luigi's configuration.

    Raises:
        OSError, configparser.Error, UnicodeDecodeError: it cannot be read.
    """
    parser: configparser.ConfigParser = LuigiConfigParser()
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    return parser
