"""Writes chosen settings into a sequence of the workspace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from moextend.bench.sequence import SequenceSpec, read_sequence
from moextend.bench.tuned import Tuned
from moextend.bench.workspace import new_sequence
from moextend.bench.workspace.edit import Draft
from moextend.bench.workspace.yaml_edit import quoted, set_value
from moextend.errors import InputError
from moextend.util import content, files

KEY = "tuned"


def draft_of(sequence: SequenceSpec, workspace: Path, to: str | None = None) -> Draft:
    """The sequence to write to: its own file, or with `to` a copy of this name in the workspace.

    A sequence of the package is copied to the workspace, where it takes precedence. An existing copy is edited.

    Raises:
        InputError: `to` is no name, or that of a sequence of the package; or the existing copy trains another base or
            other tasks, or otherwise.
    """
    assert sequence.path is not None, "it is read from a file"
    path = sequence.path
    packaged = path.parent == content.package_folder("registry").resolve()
    if to is None and not packaged:
        return Draft(path, _text(path))
    own = workspace / "registry" / (path.name if to is None else f"{to}.yaml")
    if files.exists(own):
        _check_copy(own, sequence)
        return Draft(own, _text(own))
    if to is None:
        return Draft(own, _text(path))
    own = new_sequence.new_path(to, workspace, where="--to")
    renamed = re.sub(r"^sequence:.*$", lambda _: f"sequence: {quoted(to)}", _text(path), flags=re.MULTILINE)
    return Draft(own, renamed)


def _check_copy(path: Path, sequence: SequenceSpec) -> None:
    """Raises InputError unless settings that are tuned on a sequence are tuned for the one in the file, too."""
    copy, tuned = read_sequence(path), read_sequence(sequence.path or path)
    for key in ("base", "align", "stages", "memory", "train", "scoring"):
        if getattr(copy, key) != getattr(tuned, key):
            raise InputError(
                f"is no copy of '{tuned.sequence}': {key} differs.",
                where=str(path),
                hint="Tune that sequence itself, or name a new copy: --to NAME.",
            )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def with_settings(draft: Draft, found: Mapping[str, Tuned]) -> Draft:
    """The draft with these methods' settings under `tuned`; those of other methods stay."""
    entries = {**draft.sequence.tuned, **found}
    records = {
        method: entry.model_dump(mode="json", exclude_defaults=True) for method, entry in entries.items()
    }
    return Draft(draft.path, set_value(draft.text, KEY, records, where=str(draft.path)))
