"""Adds tasks to the sequences of a workspace: tasks to learn, and tasks that are only scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from moextend.bench.run.plan import DEFAULT
from moextend.bench.sequence import OWN, SequenceSpec, read_sequence
from moextend.bench.task import NAME, TaskSpec
from moextend.bench.workspace.yaml_edit import append_item, quoted
from moextend.errors import InputError, short
from moextend.util import bounded_yaml, content, files, spec

HEAD = """# The tasks that this workspace learns, in order. Edit it as you like; moextend bench add-task adds a task.
# {}
"""
COPIED = f"Everything but the tasks was copied from the package's sequence '{DEFAULT}'."
FRESH = "The training settings are a start and not tuned: choose them for this base."
ALIGN = """# The projector of {} is random until it is aligned; name a caption task here:
# align: {{task: MY-CAPTIONS, steps: 300, batch_size: 16, learning_rate: 1.0e-3}}
"""
NONE: Mapping[str, str | None] = MappingProxyType({})
"""No encoder is named."""
ENCODERS = {"vision": "the image encoder", "audio": "the audio encoder"}
"""Key of `base` -> what it names."""


def new_text(path: Path, base: str | None = None, encoders: Mapping[str, str | None] = NONE) -> str:
    """YAML of a new sequence at `path`: the package's default without stages, or a plain one for another base.

    Args: encoders: key of `base` -> encoder.
    """
    named = {key: encoder for key, encoder in encoders.items() if encoder is not None}
    found: dict[str, Any] = {"base": {"model": base or DEFAULT, **named}, "retention": []}
    found["train"] = {"steps": 200, "batch_size": 16, "learning_rate": 5.0e-4}
    head = HEAD.format(FRESH) + "".join(ALIGN.format(ENCODERS[key]) for key in named)
    if base in (None, DEFAULT) and named in ({}, {"vision": DEFAULT}):
        default = content.package_folder("registry") / f"{DEFAULT}.yaml"
        found, head = yaml.safe_load(default.read_text(encoding="utf-8")), HEAD.format(COPIED)
    own = {"sequence": path.stem, "version": 1, "description": "The tasks of this workspace.", "stages": []}
    return head + yaml.safe_dump(
        {**own, **found, **own}, sort_keys=False, width=1000, default_flow_style=None
    )


def _new_path(name: str, workspace: Path) -> Path:
    """File of a new sequence. Raises InputError if the name is invalid or taken."""
    where = "bench new sequence"
    if not NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        hint = "Use letters, digits, '-', '_', '.' and '+', and no file extension."
        raise InputError(f"'{short(name, 60)}' is not a name.", where=where, hint=hint)
    known = content.names("registry", workspace)
    if name in known:
        what = f"a sequence '{name}' already exists ({known[name]})."
        raise InputError(what, where=where, hint="Choose another name.")
    return workspace / "registry" / f"{name}.yaml"


@dataclass(frozen=True)
class Draft:
    """YAML of a sequence during editing; only `write` changes the file."""

    path: Path
    """Its file in the workspace."""
    text: str

    @property
    def sequence(self) -> SequenceSpec:
        """The current sequence. Raises SpecError if an edit made it invalid."""
        where = str(self.path)
        found = spec.parse(SequenceSpec, bounded_yaml.load(self.text, where=where), where=where)
        return found.model_copy(update={"path": self.path})

    def write(self) -> Path:
        """Writes the file, with its own line ends, if it is a valid sequence."""
        assert self.sequence
        ends = "\r\n" if self.path.exists() and b"\r\n" in self.path.read_bytes() else "\n"
        files.write_text(self.path, self.text.replace("\n", ends))
        return self.path


def draft(name: str | None, workspace: Path) -> Draft:
    """Sequence to edit: the workspace's own or `name`; one of the package is copied first.

    The workspace's own is created if it is missing: the package's default without stages.
    """
    path = workspace / "registry" / f"{name or OWN}.yaml"
    if not path.exists() and name is None:
        return Draft(path, new_text(path))
    found = path if path.exists() else content.find("registry", name or OWN, workspace, where="--sequence")
    read_sequence(found)
    return Draft(path if found.stem == path.stem else found, found.read_text(encoding="utf-8"))


def new(
    name: str, workspace: Path, *, base: str | None = None, encoders: Mapping[str, str | None] = NONE
) -> Draft:
    """A new sequence without stages. Raises InputError if the name is invalid or taken."""
    path = _new_path(name, workspace)
    return Draft(path, new_text(path, base, encoders))


def add(to: Draft, task: TaskSpec) -> Draft:
    """Draft with one more stage, or one more text task to score."""
    known = to.sequence
    if task.task in known.retention or task.task in [stage.task for stage in known.stages]:
        hint = "Move its line in the file to move it, or name it again there to train on it again."
        raise InputError(f"task '{task.task}' is already in the sequence.", where=str(to.path), hint=hint)
    key, item = "stages", f"task: {quoted(task.task)}"
    if task.kind == "text":
        key, item = "retention", quoted(task.task)
    return replace(to, text=append_item(to.text, key, item, where=str(to.path)))
