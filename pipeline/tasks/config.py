"""Declare Luigi's parameters, and read the settings from tasks.cfg, the user's files and the command line."""

from __future__ import annotations

import configparser
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import luigi
import luigi.configuration
import luigi.retcodes  # loaded because this declares its section
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from pipeline.errors import SettingError
from pipeline.settings import Operations, Settings

from .command_line import be_strict, is_our_command, runs_our_command, shared_formatter
from .config_check import check_config, check_users_file
from .config_defaults import PROJECT_CONFIG, lend_to_command


class _Int(luigi.IntParameter):
    """An integer: TOML has numbers too, and Luigi would cut 1.5 to 1."""

    def parse(self, text: Any) -> int:
        return int(str(text))


class _Float(luigi.FloatParameter):
    """A number; true, which TOML has, is none."""

    def parse(self, text: Any) -> float:
        return float(str(text))


class _Text(luigi.Parameter[str]):
    """A text; a list or a number of TOML is none."""

    def parse(self, text: Any) -> str:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not a text; quote it")
        return text


class _NumberOrText(luigi.Parameter[str]):
    """A number or a text, which the settings tell apart; true is neither."""

    def parse(self, text: Any) -> str:
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise ValueError(f"{text!r} is neither a number nor a text")
        return str(text)


_KINDS: dict[str, Any] = {"int": _Int, "float": _Float, "str": _Text, "float | str": _NumberOrText}
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


class _Yielding(Register):
    """Class of our sections: in Luigi's register they give way to another project's task or section of the same name.

    Two classes of one name would both be unusable on the command line. From files, both are still read.
    """

    @property
    def _visible_in_registry(cls) -> bool:
        return cls.__name__ not in _names_of_others(len(Register._reg), Register._reg[-1])


@lru_cache(maxsize=1)
def _names_of_others(_registered: int, _newest: type) -> frozenset[str]:
    """Return the names of the classes that do not give way. Luigi's register is read thousands of times in a run."""
    return frozenset(other.__name__ for other in Register._reg if not isinstance(other, _Yielding))


def _config_class(section: str, settings: Any) -> type[luigi.Config]:
    """Make a Luigi config class with one parameter for each setting: `[section] key`, `--section-key`."""
    parameters = {
        item.name: _KINDS[str(item.type)](default=item.default, description=item.metadata["description"])
        for item in fields(settings)
    }
    kind: Any = _Yielding  # Luigi has no types
    made = kind(section, (luigi.Config,), {**parameters, "__module__": __name__, "__doc__": settings.__doc__})
    return cast(type[luigi.Config], made)


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
    is_ours = runs_our_command()
    for path in config_files():
        state = path.stat() if path.exists() else None
        _check_once(path, is_ours, state and (state.st_mtime_ns, state.st_size, state.st_ino))
    return {name: settings(**_values(name, config)) for name, (config, settings) in sections.items()}


def _values(section: str, config: Any) -> dict[str, Any]:
    try:
        return dict(config().param_kwargs)
    except (ValueError, configparser.InterpolationError) as exc:
        key = next(iter(re.findall(r"'(\w+)'$", str(exc))), "")
        where = f"[{section}] {key}".rstrip()
        raise SettingError("the value has the wrong type", where=where, got=exc.__cause__ or exc) from exc


def config_files() -> Iterator[Path]:
    """Yield the configuration files; later ones override earlier ones.

    The first is the project's tasks.cfg, if there is one; all others are the user's.
    """
    if PROJECT_CONFIG.is_file():
        yield PROJECT_CONFIG
    override = named_file()
    found: list[str] = type(luigi.configuration.get_config())._config_paths
    yield from (path for path in map(Path, found) if path != override and path.is_file())
    if override is not None:
        yield override


def named_file() -> Path | None:
    """Return the file that LUIGI_CONFIG_PATH names."""
    override = os.environ.get("LUIGI_CONFIG_PATH")
    return Path(override) if override else None


@lru_cache(maxsize=16)
def _check_once(path: Path, is_our_command: bool, _state: tuple[int, ...] | None) -> None:
    if path == PROJECT_CONFIG:
        check_config(path)
    else:
        check_users_file(path, path == named_file(), is_our_command)


def set_up_parsers() -> None:
    """Make Luigi keep the parsers of its command line, and lend its configuration our defaults for a task of ours.

    Luigi parses the same command line three times in a run, and builds three parsers each time: seven of these nine
    are equal to an earlier one. A parser depends on the arguments below and on the classes of tasks that are loaded.
    Only what a parser returns says which task is the root, and only later does Luigi read its own settings.
    """
    build: Any = CmdlineParser._build_parser

    @cache
    def build_once(classes: tuple[type, ...], root_task: str | None, help_all: bool) -> Any:
        with shared_formatter():
            parser = build(root_task, help_all)
        if root_task is not None:
            parse = parser.parse_args
            if is_our_command(Namespace(root_task=root_task)):
                be_strict(parser, root_task)

            def parse_args(*args: Any, **kwargs: Any) -> Namespace:
                arguments: Namespace = parse(*args, **kwargs)
                if parser.allow_abbrev and is_our_command(arguments):  # a range of our tasks
                    be_strict(parser, root_task)
                    arguments = parse(*args, **kwargs)
                lend_to_command(arguments)
                return arguments

            parser.parse_args = parse_args
        return parser

    def build_parser(root_task: str | None = None, help_all: bool = False) -> Any:
        return build_once(tuple(Register._reg), root_task, help_all)

    CmdlineParser._build_parser = staticmethod(build_parser)  # type: ignore[method-assign]
