"""The names of lm-eval's own tasks, read from its files in a fraction of a second: its index takes several."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from moextend.errors import UnknownName

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
    for folder, _, files in os.walk(_folder()):
        for name in files:
            if "yaml" in name or "." not in name:
                for entry in _ENTRY.finditer(Path(folder, name).read_bytes()):
                    found.update(_WORD.findall((entry[1] or entry[2] or b"").decode(errors="replace")))
    return frozenset(found)


def _folder() -> Path:
    spec = find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"
