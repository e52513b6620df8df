"""lm-eval's files: the names of its own tasks, and a user's folder of YAML files, prepared for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from moextend.errors import InputError, UnknownName
from moextend.util import bounded_yaml
from moextend.util.files import atomic, digest, stamp

MARKS = ("{folder}", "{data}", "{lm_eval}")
"""Placeholders in a YAML file for its own folder (lm-eval resolves data files against the current one), for the
workspace's data/, and for the folder of lm-eval's own tasks."""
_PICKLED = {"pandas"}
"""Readers of `datasets` that unpickle, which can run code."""
_CODE = (".yaml", ".yml", ".py", ".txt")


def stamps(folder: Path) -> tuple[tuple[str, str], ...]:
    """Path and stamp of every file of a folder, to detect changes."""
    return tuple((str(path), stamp(path.stat())) for path in _files(folder))


def code(folder: Path) -> list[tuple[str, str]]:
    """Relative path and content of the Python files of a folder, which its YAML files may use."""
    return [
        (path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8", errors="replace"))
        for path in _files(folder, ".py")
    ]


def _files(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and (not suffixes or path.suffix in suffixes)
    )


def checked(folder: Path, *, where: str) -> Path:
    """The folder; InputError if it is not a folder, SpecError if one of its YAML files cannot be read."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}.", where=where, hint="Name the folder of the lm-eval YAMLs.")
    for path in _files(folder, ".yaml"):
        # Composed, not loaded: lm-eval's own tags (!function) are code.
        bounded_yaml.compose(bounded_yaml.read_text(path), where=str(path))
    return folder


def rendered(folder: Path, workspace: Path) -> Path:
    """A copy of the folder in the workspace's cache without placeholders, or the folder itself if it has none."""
    texts = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in _files(folder, *_CODE)}
    if not any(mark in text for name, text in texts.items() if name.suffix != ".py" for mark in MARKS):
        return folder
    named = {str(name): text for name, text in texts.items()}
    target = workspace / ".cache" / "lm-eval" / digest(str(folder.resolve()), str(workspace.resolve()), named)
    for name, text in texts.items():
        here = str((folder / name).resolve().parent)
        with atomic(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
            if name.suffix != ".py":
                places = (here, str((workspace / "data").resolve()), str(_own_tasks()))
                for mark, place in zip(MARKS, places, strict=True):
                    text = text.replace(mark, place)
                temporary.write_text(text, encoding="utf-8")
    return target


def refuse_code(folder: Path, made_of: Path, *, where: str) -> None:
    """Raises InputError with file and line if a YAML file, or one that it includes, makes lm-eval run code.

    Code is a tag such as !function, a metric that lm-eval does not have (it is downloaded as a script), and pickled
    data. lm-eval's own YAML files are trusted. `folder` is the result of `rendered` for `made_of`.
    """
    seen: set[Path] = set()
    for path in _files(folder, ".yaml", ".yml"):
        for place, what in _code(path, seen):
            raise InputError(
                f"runs Python code ({what}).",
                where=f"{where}: {place.replace(str(folder.resolve()), str(made_of))}",
                hint="If you have read that code and trust it: add-task --trust-remote-code, or in the task "
                "trust_remote_code: true under lm_eval.",
            )


def _code(path: Path, seen: set[Path]) -> Iterator[tuple[str, str]]:
    """(place, code) of all code in a YAML file and the files that it includes."""
    path = path.resolve()
    if path in seen or path.is_relative_to(_own_tasks().resolve()) or not path.is_file():
        return
    seen.add(path)
    known = _metrics()
    for key, node in _nodes(bounded_yaml.compose(bounded_yaml.read_text(path), where=str(path))):
        place, value = f"{path}:{node.start_mark.line + 1}", str(node.value)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            yield place, f"{node.tag} {value}" if isinstance(node, yaml.ScalarNode) else node.tag
        elif key == "metric" and isinstance(node, yaml.ScalarNode) and value not in known:
            yield place, f"metric: {value}"
        elif key == "hf_evaluate" and value.lower() == "true":
            yield place, "hf_evaluate: true"
        elif key == "dataset_path" and value in _PICKLED:
            yield place, f"dataset_path: {value}"
        elif key == "include" and isinstance(node, yaml.ScalarNode):
            yield from _code(path.parent / Path(value).expanduser(), seen)


def _nodes(node: yaml.Node | None, key: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """All nodes with their keys; nodes of a list have the key of the list."""
    if node is None:
        return
    yield key, node
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(name)
            yield from _nodes(value, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value, key)


def _metrics() -> frozenset[str]:
    """Names of lm-eval's own metrics."""
    from lm_eval.api.registry import metric_registry

    return frozenset(metric_registry)


def _own_tasks() -> Path:
    """The folder of lm-eval's own tasks."""
    found = find_spec("lm_eval")
    assert found is not None and found.submodule_search_locations, "lm-eval is a dependency"
    return Path(found.submodule_search_locations[0]) / "tasks"


_ENTRY = re.compile(
    rb"""^[ \t]*(?:-[ \t]+)?["']?(?:task|group|tag)["']?[ \t]*:([^\r\n]*)|^[ \t]*-[ \t]+([^\r\n]{1,100}?)\r?$""",
    re.MULTILINE,
)
"""A line that names a task, a group or a tag, or an entry of a list that may do so."""
_WORD = re.compile(r"[^\s,'\"\[\]]+")


def check_name(name: str, *, where: str) -> None:
    """UnknownName where lm-eval surely has no task, group or tag of this name; some other words pass, too."""
    known = _words()
    if name not in known:
        raise UnknownName(
            "lm-eval task", name, filter(re.compile(r"\w[\w.+-]*").fullmatch, known), where=where
        )


@cache
def _words() -> frozenset[str]:
    """The words of such lines in lm-eval's YAMLs and in the templates that they include (some without a suffix)."""
    found: set[str] = set()
    for folder, _, files in os.walk(_own_tasks()):
        for name in files:
            if "yaml" in name or "." not in name:
                for entry in _ENTRY.finditer(Path(folder, name).read_bytes()):
                    found.update(_WORD.findall((entry[1] or entry[2] or b"").decode(errors="replace")))
    return frozenset(found)
