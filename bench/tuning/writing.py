"""Writes chosen settings into a sequence of the workspace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from moextend.bench.sequence import SequenceSpec, read_sequence
from moextend.bench.tuned import Tuned
from moextend.bench.workspace import new_sequence
from moextend.bench.workspace.edit import Draft
from moextend.bench.workspace.yaml_edit import edit_mapping, quoted
from moextend.util import files

KEY = "tuned"


def draft_of(sequence: SequenceSpec, workspace: Path, to: str | None = None) -> Draft:
    """The sequence to write to: the tuned one, or with `to` a copy of this name; one of the package is copied.

    Raises:
        InputError: `to` is no name.
    """
    assert sequence.path is not None, "it is read from a file"
    own = workspace / "registry" / f"{to or sequence.path.stem}.yaml"
    if files.exists(own):
        read_sequence(own)
        return Draft(own, own.read_text(encoding="utf-8"))
    text = sequence.path.read_text(encoding="utf-8")
    if to is None:
        inside = sequence.path.parent == own.parent.resolve()
        return Draft(sequence.path if inside else own, text)
    path = new_sequence.new_path(to, workspace, where="--to")
    return Draft(
        path, re.sub(r"^sequence:.*$", lambda _: f"sequence: {quoted(to)}", text, flags=re.MULTILINE)
    )


def with_settings(draft: Draft, found: Mapping[str, Tuned]) -> Draft:
    """The draft with these methods' settings under `tuned`; those of other methods stay."""
    entries = {**draft.sequence.tuned, **found}
    records = {
        method: entry.model_dump(mode="json", exclude_defaults=True) for method, entry in entries.items()
    }
    return Draft(draft.path, edit_mapping(draft.text, KEY, records, where=str(draft.path)))
