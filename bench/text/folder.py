"""A user's folder of lm-eval YAMLs, made ready for lm-eval."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import yaml

from moextend.errors import InputError, SpecError
from moextend.files import atomic, digest

MARKS = ("{folder}", "{data}", "{lm_eval}")
"""Stand in a YAML for the folder that it lies in (lm-eval resolves data files against the current one), for the
workspace's data/, and for the folder of lm-eval's own tasks."""
_READERS = {"arrow", "csv", "json", "parquet", "text"}
_DATASET = re.compile(r"^dataset_path:\s*['\"]?([^'\"#\n]+?)['\"]?\s*(?:#.*)?$", re.MULTILINE)
_CODE = (".yaml", ".yml", ".py", ".txt")


def stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of every file of a folder: changes when one of them does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def checked(folder: Path, *, where: str) -> Path:
    """The folder itself; InputError where it is none, SpecError where one of its YAMLs cannot be read."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}.", where=where, mend="Name the folder of the lm-eval YAMLs.")
    for path in sorted(folder.rglob("*.yaml")):
        try:
            # Composed and not loaded: lm-eval's own tags (!function) are no business of ours.
            yaml.compose(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            raise SpecError(f"not valid YAML ({problem}).", where=place, mend="Mend the YAML.") from error
    return folder


def rendered(folder: Path, workspace: Path) -> Path:
    """A copy of the folder in the workspace's cache with the marks filled in, or itself where no YAML has one."""
    code = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _CODE and path.is_file() and "__pycache__" not in path.parts
    )
    texts = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in code}
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


def _own_tasks() -> Path:
    """The folder of lm-eval's own tasks."""
    found = find_spec("lm_eval")
    assert found is not None and found.submodule_search_locations, "lm-eval is a dependency"
    return Path(found.submodule_search_locations[0]) / "tasks"


def only_local_data(folder: Path) -> bool:
    """Whether all YAMLs of a folder read files: then the cache of `datasets` may lie in the workspace."""
    named = [
        name.strip()
        for path in folder.rglob("*.yaml")
        for name in _DATASET.findall(path.read_text(encoding="utf-8"))
    ]
    return all(name in _READERS or Path(name).is_dir() for name in named)
