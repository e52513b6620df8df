"""Adds tasks to the sequences of a workspace: tasks to learn, and tasks that are only scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from moextend.bench.run.plan import DEFAULT
from moextend.bench.sequence import OWN, SequenceSpec, read_sequence
from moextend.bench.task import NAME, TaskSpec, read_task
from moextend.bench.workspace.yaml_edit import append_item, quoted, set_value
from moextend.errors import InputError, short
from moextend.util import bounded_yaml, content, files, spec

HEAD = """# The tasks that this workspace learns, in order. Edit it as you like; moextend bench add-task adds a task.
# Everything but the tasks was copied from the package's sequence '{name}'.
"""
FRESH = """# The tasks that this workspace learns, in order. Edit it as you like; moextend bench add-task adds a task.
# The training settings are a start and not tuned: choose them for this base.
sequence: {name}
version: 1
description: The tasks of this workspace.
base: {base}
{align}stages: []
retention: []   # text tasks that are only scored: what the base should not forget
train: {{steps: 200, batch_size: 16, learning_rate: 5.0e-4}}
"""
ALIGN = (
    "# The projector of {} is random until it is aligned; name a caption task here:\n"
    "# align: {{task: MY-CAPTIONS, steps: 300, batch_size: 16, learning_rate: 1.0e-3}}\n"
)
NONE: Mapping[str, str | None] = MappingProxyType({})
"""No encoder is named."""
ENCODERS = {"vision": "the image encoder", "audio": "the audio encoder"}
"""Key of `base` -> what it names."""


def new_text(path: Path, base: str | None = None, encoders: Mapping[str, str | None] = NONE) -> str:
    """YAML of a new sequence at `path`: the package's default without stages, or a plain one for another base.

    Args: encoders: key of `base` -> encoder.
    """
    default = content.package_folder("registry") / f"{DEFAULT}.yaml"
    named = {key: encoder for key, encoder in encoders.items() if encoder is not None}
    if base in (None, DEFAULT) and named in ({}, {"vision": DEFAULT}):
        return _emptied(default, path)
    fields = {"model": base or DEFAULT, **named}
    return FRESH.format(
        name=quoted(path.stem),
        base="{" + ", ".join(f"{key}: {quoted(value)}" for key, value in fields.items()) + "}",
        align="".join(ALIGN.format(ENCODERS[key]) for key in named),
    )


def new_path(name: str, workspace: Path, *, where: str) -> Path:
    """File of a new sequence. Raises InputError if the name is invalid or taken."""
    if not NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        raise InputError(
            f"'{short(name, 60)}' is not a name.",
            where=where,
            hint="Use letters, digits, '-', '_', '.' and '+', starting with a letter or digit, and no file extension.",
        )
    known = content.names("registry", workspace)
    if name in known:
        raise InputError(
            f"a sequence '{name}' already exists ({known[name]}).", where=where, hint="Choose another name."
        )
    return workspace / "registry" / f"{name}.yaml"


def run_command(sequence: str) -> str:
    """Command that runs a sequence of the workspace."""
    return "moextend bench run" + ("" if sequence == OWN else f" {sequence}")


def _emptied(path: Path, to: Path) -> str:
    text = set_value(path.read_text(encoding="utf-8"), "stages", [], where=str(path))
    text = re.sub(r"^(#.*\n)+", "", text)
    text = re.sub(r"^sequence:.*$", f"sequence: {quoted(to.stem)}", text, flags=re.MULTILINE)
    text = re.sub(r"^description:.*$", "description: The tasks of this workspace.", text, flags=re.MULTILINE)
    text = re.sub(r"^version:.*$", "version: 1", text, flags=re.MULTILINE)
    # Tuned on the package's tasks, not on those of this workspace.
    tuned = r"^#.*bench tune.*\ntuned:\n(?: .*\n)+"
    text = re.sub(tuned, f"tuned_from: {path.stem}\n", text, flags=re.MULTILINE)
    return HEAD.format(name=path.stem) + text


MODAL = "tiny-modal"
"""Sequence of the package with tasks of images and sounds."""


@dataclass(frozen=True)
class Draft:
    """YAML of a sequence during editing; only `write` changes the file."""

    path: Path
    """Its file in the workspace."""
    text: str
    read: str | None = None
    """Text of the file when it was read, "" for a file to be made; None: not known."""

    @property
    def sequence(self) -> SequenceSpec:
        """The current sequence. Raises SpecError if an edit made it invalid."""
        found = spec.parse(
            SequenceSpec, bounded_yaml.load(self.text, where=str(self.path)), where=str(self.path)
        )
        return found.model_copy(update={"path": self.path})

    @property
    def tasks(self) -> list[str]:
        """Tasks to learn, in order."""
        return [stage.task for stage in self.sequence.stages]

    def write(self) -> Path:
        """Writes the file, with its own line ends, if it is a valid sequence.

        Raises:
            InputError: it has changed since it was read.
        """
        assert self.sequence
        now = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if self.read not in (None, now):
            raise InputError(
                "was changed by somebody else meanwhile.", where=str(self.path), hint="Run the command again."
            )
        ends = "\r\n" if self.path.exists() and b"\r\n" in self.path.read_bytes() else "\n"
        files.write_text(self.path, self.text.replace("\n", ends))
        return self.path


def draft(name: str | None, workspace: Path) -> Draft:
    """Sequence to edit: the workspace's own or `name`; one of the package is copied first.

    The workspace's own is created if it is missing: the package's default without stages.
    """
    path = workspace / "registry" / f"{name or OWN}.yaml"
    if path.exists():
        read_sequence(path)
        text = path.read_text(encoding="utf-8")
        return Draft(path, text, read=text)
    if name is not None:
        found = content.find("registry", name, workspace, where="--sequence")
        text = found.read_text(encoding="utf-8")
        return Draft(path, text, read="") if found.stem == name else Draft(found, text, read=text)
    return Draft(path, new_text(path), read="")


def new(
    name: str, workspace: Path, *, base: str | None = None, encoders: Mapping[str, str | None] = NONE
) -> Draft:
    """A new sequence without stages. Raises InputError if the name is invalid or taken."""
    path = new_path(name, workspace, where="bench new sequence")
    return Draft(path, new_text(path, base, encoders), read="")


def add(to: Draft, task: TaskSpec) -> Draft:
    """Draft with one more stage, or one more text task to score."""
    if task.task in to.tasks or task.task in to.sequence.retention:
        raise InputError(
            f"task '{task.task}' is already in the sequence.",
            where=str(to.path),
            hint="To move it, move its line in the file. To train on it again, name it again there.",
        )
    key, item = (
        ("retention", quoted(task.task)) if task.kind == "text" else ("stages", f"task: {quoted(task.task)}")
    )
    return replace(to, text=append_item(to.text, key, item, where=str(to.path)))


def next_default(kind: str, to: Draft, *, modality: str | None = None) -> TaskSpec:
    """Next task of a kind in the package that is not in the draft; tasks of the default sequence come first, then those
    of `MODAL`.

    Args: modality: a modality of the task's media; None: all of them have an encoder in the draft.
    """
    known = {path.stem: path for path in sorted(content.package_folder("tasks").glob("*.yaml"))}
    first: list[str] = []
    for name in (DEFAULT, MODAL):
        sequence = read_sequence(content.package_folder("registry") / f"{name}.yaml")
        first += [*(stage.task for stage in sequence.stages), *sequence.retention]
    used = {*to.tasks, *to.sequence.retention}
    encoders = set(to.sequence.base.encoders_in(Path()))
    for name in dict.fromkeys([*first, *known]):
        if name in known and name not in used:
            task = read_task(known[name])
            fits = encoders.issuperset(task.modalities) if modality is None else modality in task.modalities
            if task.kind == kind and fits and _at_hand(task):
                return task
    raise InputError(
        f"all {modality or kind} tasks that ship with the package are in the sequence.",
        where=str(to.path),
        hint="Name your own: --data PATH (a file, a folder or a hub id).",
    )


def _at_hand(task: TaskSpec) -> bool:
    """Whether the task needs no download and no data from the user."""
    if task.lm_eval is not None:
        return task.lm_eval.path is not None and not task.lm_eval.data
    return task.data is not None and task.data.path.startswith("world:")
