"""Adds tasks to the sequences of a workspace: tasks to learn, and tasks that are only scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from moextend.bench.run.plan import DEFAULT
from moextend.bench.sequence import OWN, SequenceSpec, read_sequence
from moextend.bench.task import TaskSpec, read_task
from moextend.bench.workspace import new_sequence
from moextend.bench.workspace.new_sequence import NONE
from moextend.bench.workspace.yaml_edit import insert_item, quoted
from moextend.errors import InputError
from moextend.util import bounded_yaml, content, files, spec

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
    return Draft(path, new_sequence.new_text(path), read="")


def new(
    name: str, workspace: Path, *, base: str | None = None, encoders: Mapping[str, str | None] = NONE
) -> Draft:
    """A new sequence without stages. Raises InputError if the name is invalid or taken."""
    path = new_sequence.new_path(name, workspace, where="bench new sequence")
    return Draft(path, new_sequence.new_text(path, base, encoders), read="")


def add(to: Draft, task: TaskSpec, *, at: int | None = None) -> Draft:
    """Draft with an additional task: a stage at position `at` (from 1; None: last), or a text task to score."""
    if task.task in to.tasks or task.task in to.sequence.retention:
        raise InputError(
            f"task '{task.task}' is already in the sequence.",
            where=str(to.path),
            hint="To move it, move its line in the file. To train on it again, name it again there.",
        )
    if task.kind == "text":
        key, place, item = "retention", len(to.sequence.retention), quoted(task.task)
    else:
        key, place, item = "stages", len(to.tasks) if at is None else at - 1, f"task: {quoted(task.task)}"
        if not 0 <= place <= len(to.tasks):
            raise InputError(
                f"there is no position {at}.",
                where=str(to.path),
                hint=f"Positions: 1 to {len(to.tasks) + 1}.",
            )
    return replace(to, text=insert_item(to.text, key, place, item, where=str(to.path)))


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
