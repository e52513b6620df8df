"""Finds the YAML of an lmms-eval task by its name and reads it with its includes. Code is never run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from moextend.errors import InputError, SpecError, UnknownName
from moextend.util import bounded_yaml

PREFIX = "lmms:"
"""Prefix of names of lmms-eval tasks."""
_KEY = re.compile(r"""^(["']?)(?:task|group|tag)\1[ \t]*:.*(?:\n(?:[ \t]+.*|-[ \t].*|#.*|))*""", re.MULTILINE)
"""Lines with the names of a task and its groups; only these lines are parsed until the task is found."""


@dataclass(frozen=True)
class Function:
    """A value `!function module.name`: Python code of lmms-eval."""

    name: str


def find(task: str, include: Path | None) -> tuple[Path, dict[str, Any]]:
    """The task's YAML, with its includes."""
    folder = include or _installed()
    if not folder.is_dir():
        raise InputError("no such folder.", where=f"--include-path {folder}", hint="Name a folder of YAMLs.")
    names: list[str] = []
    members: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        own = _names(path.read_text(encoding="utf-8", errors="replace"))
        if own.task == task:
            return path, _read(path)
        names += [own.task] if own.task else []
        for group in own.groups:
            members.setdefault(group, []).extend(own.parts or ([own.task] if own.task else []))
    if task in members:
        raise _is_group(members[task], f"{PREFIX}{task} ({folder})")
    raise UnknownName("lmms-eval task", task, [*names, *members], where=f"{PREFIX}{task}")


@dataclass(frozen=True)
class _Names:
    """Names in a YAML of lmms-eval."""

    task: str | None
    parts: tuple[str, ...]
    """Tasks of a group."""
    groups: tuple[str, ...]
    """Groups and tags that it defines or belongs to."""


def _names(text: str) -> _Names:
    """Names in a YAML, without parsing its other keys; empty if these lines are not valid YAML."""
    found: dict[str, list[str]] = {"task": [], "group": [], "tag": []}
    single = False
    for match in _KEY.finditer(text):
        try:
            value = bounded_yaml.load(match[0], where="", loader=_Loader)
        except InputError:
            continue
        if not isinstance(value, dict):
            continue
        for key, entry in value.items():
            single = single or (key == "task" and not isinstance(entry, list))
            parts = entry if isinstance(entry, list) else [entry]
            found[key] += [str(_part(part)) for part in parts if isinstance(part, str | int | Mapping)]
    tasks = tuple(found["task"])
    groups = (*found["group"], *found["tag"])
    return _Names(tasks[0], (), groups) if single and tasks else _Names(None, tasks, groups)


def _part(part: Any) -> Any:
    """Name of a member of a group."""
    return part.get("task", part.get("group")) if isinstance(part, Mapping) else part


def _is_group(parts: Iterable[Any], where: str) -> InputError:
    named = ", ".join(str(_part(part)) for part in parts)
    return InputError(f"is a group of tasks: {named}.", where=where, hint="Import them one by one.")


def _installed() -> Path:
    found = find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "lmms-eval is not installed.",
            where=PREFIX,
            hint="Install it (pip install lmms-eval), or name a folder of its YAMLs: --include-path FOLDER.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


class _Loader(bounded_yaml.Loader):
    """YAML loader that reads `!function` as a name and runs no code."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
    return Function(str(loader.construct_scalar(node)))


def _include(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise SpecError("uses the tag !include, which is not supported.", hint=_MERGED)


_Loader.add_constructor("!function", _function)
_Loader.add_constructor("!include", _include)
_MERGED = "Copy what it names into one YAML."


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a YAML and of its include; `within`: files whose includes led to it."""
    try:
        config = bounded_yaml.load(bounded_yaml.read_text(path), where=str(path), loader=_Loader)
    except SpecError as error:
        raise SpecError(error.what, where=error.where or str(path), hint=error.hint) from None
    if not isinstance(config, dict):
        return {}
    shared = config.pop("include", None)
    if shared is None:
        return config
    if not isinstance(shared, str):
        raise InputError(
            "includes several files or code; only one file is supported.", where=str(path), hint=_MERGED
        )
    template = path.parent / shared
    if template.resolve() in (path.resolve(), *within):
        raise InputError(f"includes itself (through {shared}).", where=str(path), hint="Remove the include.")
    if not template.is_file():
        raise InputError(f"includes {shared}, which does not exist.", where=str(path), hint="Add the file.")
    return {**_read(template, (*within, path.resolve())), **config}
