"""Check configuration files: Luigi ignores an unknown section or key silently, and a run would go by the default."""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luigi.task_register import Register

from pipeline.errors import SettingError, nearest

from .config_defaults import OTHER_SECTIONS, is_our_section, our_classes, read_config, read_values
from .config_file import LUIGI_SECTIONS

_NEAR = 0.8  # [trainin] and [training]: 0.93
# What Luigi reads from [core] without declaring it.
_UNDECLARED = {"rpc_connect_timeout", "rpc_retry_attempts", "rpc_retry_wait", "rpc_log_retries"}


def check_config(path: Path) -> None:
    """Check tasks.cfg: every section and every key of it.

    Raises:
        SettingError: the file is missing or unreadable, or has an unknown section or key; the message
            suggests the nearest known name.
    """
    try:
        sections = read_values(path)
    except (OSError, configparser.Error, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    tasks, our_own = frozenset(Register.task_names()), our_classes()
    for section, keys in sections.items():
        if section in tasks:
            # Luigi takes a-b for a_b only if no file has a_b. tasks.cfg has all keys, so a-b would be ignored.
            _check_keys(path, section, keys, _parameters(section, our_own))
        elif section not in OTHER_SECTIONS:
            raise _unknown_section(path, section, tasks | OTHER_SECTIONS)


def check_users_file(path: Path, is_named: bool, is_our_command: bool) -> None:
    """Check a file of the user's, of which only our sections are our business.

    Args:
        path: a file that Luigi reads.
        is_named: True for the file that LUIGI_CONFIG_PATH names: a section of nobody's that is called almost like one
            of ours, and holds only keys of that one, is taken for a misspelt name.
        is_our_command: True if the root task of the command is ours: then the sections of Luigi which the named file
            overrides are checked as well.

    Raises:
        SettingError: as `check_config`.
    """
    import difflib  # not needed by users without files of their own

    sections = _read_sections(path)
    tasks = frozenset(Register.task_names())
    ours = frozenset(section for section in tasks if is_our_section(section))
    our_own = our_classes()
    for section, keys in sections.items():
        keys = {key: key.replace("-", "_") for key in keys}
        if section in ours:
            _check_keys(path, section, keys.values(), _parameters(section, our_own))
        elif is_named and is_our_command and section in LUIGI_SECTIONS:
            _check_keys(path, section, keys.values(), _parameters(section, our_own) | _further_keys(section))
        elif is_named and section not in tasks | OTHER_SECTIONS:
            for meant in difflib.get_close_matches(section, ours, 1, _NEAR):
                if keys and set(keys.values()) <= _parameters(meant, our_own):
                    raise _unknown_section(path, section, [meant])


def _read_sections(path: Path) -> Mapping[str, Iterable[str]]:
    """Return the keys of each section, without those of `[DEFAULT]`."""
    try:
        if path.suffix == ".toml":
            import tomllib

            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            return {section: keys for section, keys in values.items() if isinstance(keys, dict)}
        parser = read_config(path)
    except (OSError, configparser.Error, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    return {section: parser._sections[section] for section in parser.sections()}  # type: ignore[attr-defined]


def _parameters(section: str, our_own: Mapping[str, type]) -> set[str]:
    task: Any = our_own.get(section) or Register.get_task_cls(section)
    return {name for name, _ in task.get_params()}


def _further_keys(section: str) -> set[str]:
    """Return what Luigi reads from one of its sections besides the parameters: old names, undeclared ones."""
    task: Any = Register.get_task_cls(section)
    old = {kind._config_path["name"].replace("-", "_") for _, kind in task.get_params() if kind._config_path}
    return old | set(getattr(task, "ignore_unconsumed", ())) | (_UNDECLARED if section == "core" else set())


def _check_keys(path: Path, section: str, keys: Iterable[str], known: set[str]) -> None:
    for key in keys:
        if key not in known:
            raise SettingError(
                "unknown key",
                where=f"{path}, section [{section}]",
                got=key,
                next_step=nearest(key.lower(), known),
            )


def _unknown_section(path: Path, section: str, known: Iterable[str]) -> SettingError:
    return SettingError("unknown section", where=path, got=f"[{section}]", next_step=nearest(section, known))


def _unreadable(path: Path, exc: Exception) -> SettingError:
    return SettingError("the settings cannot be read", where=path, got=exc)
