"""A user's folder of lm-eval YAMLs, made ready for lm-eval."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from moextend.errors import InputError, SpecError
from moextend.files import atomic, digest

MARK = "{folder}"
"""Stands in a YAML for the folder that it lies in: lm-eval resolves data files against the current one."""
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


def rendered(folder: Path, cache: Path) -> Path:
    """A copy of the folder under `cache` with `{folder}` filled in, or itself where no YAML names it."""
    code = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _CODE and path.is_file() and "__pycache__" not in path.parts
    )
    texts = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in code}
    if not any(MARK in text for name, text in texts.items() if name.suffix != ".py"):
        return folder
    target = cache / digest(str(folder.resolve()), {str(name): text for name, text in texts.items()})
    for name, text in texts.items():
        here = str((folder / name).resolve().parent)
        with atomic(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
            if name.suffix != ".py":
                temporary.write_text(text.replace(MARK, here), encoding="utf-8")
    return target


def only_local_data(folder: Path) -> bool:
    """Whether all YAMLs of a folder read files: then the cache of `datasets` may lie in the workspace."""
    named = [
        name.strip()
        for path in folder.rglob("*.yaml")
        for name in _DATASET.findall(path.read_text(encoding="utf-8"))
    ]
    return all(name in _READERS or Path(name).is_dir() for name in named)
