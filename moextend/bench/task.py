"""The spec of a task: one YAML file in `tasks/`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator

from moextend.data.cells import AnswerForm
from moextend.data.examples import Columns, Layout
from moextend.errors import InputError, SpecError
from moextend.util import content, spec
from moextend.util.lookup import MOST_TOKENS
from moextend.util.spec import Spec, unset

TaskIdentity = Literal["none", "given", "inferred"]
"""Task identity at inference. none: not used. given: every input comes with its task. inferred: the method infers the
task from the input."""

Mode = Literal["sequence", "joint", "independent"]
"""Training of the tasks: one after the other, all at once, or each from the base."""

ALLOW_CODE = "HF_ALLOW_CODE_EVAL"
"""Environment variable that is "1" if code from a model may run (the one of Hugging Face evaluate)."""


def code_allowed() -> bool:
    """Whether code from a model may run."""
    return os.environ.get(ALLOW_CODE) == "1"


SEED = "{seed}"
"""Part of the path of data that is another for each seed."""
HAND = "data:"
"""Prefix of a path of something that the user puts below data/ of the workspace."""


def put_by_hand(path: str, workspace: Path) -> Path | None:
    """Where the user puts it below data/ of the workspace; None for another path."""
    return workspace / "data" / path.removeprefix(HAND) if path.startswith(HAND) else None


NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")
"""Pattern of names of tasks, which become part of file and folder names."""


def check_name(name: str) -> str:
    """The name of a task; ValueError if it is invalid."""
    if not NAME.fullmatch(name):
        raise ValueError(
            "a task's name has at most 100 letters, digits, '-', '_', '.' and '+', starting with a letter or digit"
        )
    return name


class Join(Spec):
    """Images (or sounds) in a separate table, once each."""

    config: str
    """Configuration of the same data set with the images."""
    split: str
    """Its split with the images."""
    by: str
    """Column of the items with the id of their image."""
    id: str = "id"
    """Column of that table with the id."""
    image: str = "image"
    """Column of that table with the image (or sound); the items get a column of this name."""


class Data(Spec):
    """Source of the items of a task."""

    path: str
    """A file or folder (relative to the YAML), `data:<folder>` in the workspace's data/, a hub id, or `world:<name>`
    of the generated world. `{seed}` in it is the seed of a run: each has data of its own. Elsewhere it is 0."""
    config: str | None = None
    """Configuration of a hub data set."""
    revision: str | None = None
    """Pinned revision of a hub data set."""
    train: str | None = "train"
    """Name of the training split; null for a task that is only scored. One split that is both: `NAME[train]`."""
    test: str = "test"
    """Name of the scored split; `NAME[test]`: a tenth of the split, at least 30 items, at most half, by content."""
    images: str | None = None
    """Base folder of relative paths of images and other media (as in `path`), besides the folder of the data."""
    join: Join | None = None
    """Table of the images, if it is another one."""
    where: dict[str, str] | None = unset(None)
    """Column -> regular expression that its whole cell matches: other rows are left out. Named groups become columns:
    {key: "digits/(?P<number>[0-9]+)"} has a column number."""
    each: tuple[str, ...] | None = unset(None)
    """Columns with lists of one entry per item: a row has several items."""
    absent: tuple[str, ...] | None = unset(None)
    """Texts of empty cells, such as "nan"."""
    shuffle: bool = unset(False)
    """Order of the items by the hash of their medium (or group): the first ones are a sample also of sorted data."""
    prepare: str = ""
    """How to get data that the user has to provide."""

    @property
    def located(self) -> str:
        """The path of a run, or of seed 0."""
        return self.path.replace(SEED, "0")

    @field_validator("where")
    @classmethod
    def _are_patterns(cls, where: dict[str, str] | None) -> dict[str, str] | None:
        """Refuses what is no regular expression, and a group whose name occurs twice."""
        groups: list[str] = []
        for pattern in (where or {}).values():
            try:
                groups += re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression ({error})") from error
        if twice := [name for name in groups if groups.count(name) > 1]:
            raise ValueError(f"the group '{twice[0]}' occurs twice")
        return where


class TextTask(Spec):
    """A task of lm-eval."""

    task: str
    """Name of the task or group in lm-eval."""
    path: str | None = None
    """Folder of lm-eval YAMLs, relative to this file; null for lm-eval's own tasks."""
    metric: str = "acc"
    """One of the task's metrics in lm-eval."""
    limit: int | None = None
    """Maximum number of items; null: all."""
    num_fewshot: int | None = None
    """Examples in the prompt; null: the task's own number."""
    runs_code: bool = unset(False)
    """Whether scoring runs code from the model: only with `--allow-code`."""
    trust_remote_code: bool = unset(False)
    """Whether Python code in the folder's YAML files may run; that of lm-eval and of the package may."""
    revisions: dict[str, str] = unset({})
    """Pinned revisions of its hub data sets: name of the data set -> revision."""
    data: str | None = None
    """Path of data that the user has to provide: `data:` and a path below data/ of the workspace."""
    prepare: str = ""
    """How to get it."""


class TaskSpec(Spec):
    """One task: learned, scored, or both."""

    task: Annotated[str, AfterValidator(check_name)]
    """Its name, and the name of its file."""
    version: int | str
    """Incremented with every change that can change scores."""
    kind: Literal["vqa", "text", "caption"]
    """vqa: questions about images, sounds or other media, or about text. caption: media without questions. text: a
    task of lm-eval."""
    description: str = ""
    """One sentence, for lists."""
    source: str = ""
    """Source of the data, and the paper."""
    licence: str = ""
    """Of the data."""
    non_commercial: bool = False
    """Whether the licence forbids commercial use."""
    data: Data | None = None
    """Required, except for text tasks."""
    columns: Columns = Columns()
    """Columns by role."""
    prompt: str = "<image>\n{question}\nAnswer the question using a single word or phrase."
    """Template with marks of media (`<image>`, `<audio>`, in any order), `{question}`, `{choices}` and other columns of
    the data. `{question:capitalize}` has a capital at its start and the rest in lower case."""
    open_prompt: str | None = unset(None)
    """Prompt of an item without choices among items with choices; null: `prompt`."""
    answer_as: AnswerForm | None = unset(None)
    """Form of answers in the data; null: a number with choices is a position, everything else is text."""
    scorer: str = "exact@1"
    """Name and version of the scorer."""
    max_new_tokens: int = Field(default=16, ge=1, le=MOST_TOKENS)
    """Maximum number of tokens of an answer."""
    needs: Literal["judge"] | None = unset(None)
    """Requirement of scoring that this package lacks: "judge" is a language model that grades free text."""
    lm_eval: TextTask | None = None
    """Required for text tasks."""
    path: Path | None = Field(default=None, exclude=True)
    """File of the spec."""

    @property
    def layout(self) -> Layout:
        """How the rows of its data become items."""
        return Layout(
            self.columns, self.prompt, self.open_prompt, answer_as=self.answer_as,
            absent=(self.data.absent if self.data else None) or (), where=str(self.path or self.task),
        )  # fmt: skip

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the media in its data; none for text."""
        return () if self.data is None else self.columns.modalities

    @property
    def is_seeded(self) -> bool:
        """Whether each seed has data of its own."""
        return self.data is not None and SEED in self.data.path

    def of_seed(self, seed: int) -> Self:
        """The task with the data of a seed."""
        if self.data is None or not self.is_seeded:
            return self
        own = self.data.model_copy(update={"path": self.data.path.replace(SEED, str(seed))})
        return self.model_copy(update={"data": own})

    def folder(self) -> Path:
        """Base folder of relative paths of this task."""
        return self.path.parent if self.path else Path()

    def predictions(self, folder: Path, key: str) -> Path:
        """File of the predictions with `key` in `folder`; SpecError for a name that leaves the folder."""
        try:
            return folder / f"{check_name(self.task)}-{key}.jsonl"
        except ValueError as error:
            raise SpecError(f"{error} (found {self.task!r}).", where="task", hint="Rename it.") from error

    def refuse_needs(self) -> None:
        """Raises InputError if scoring needs something that this package lacks."""
        if self.needs is not None:
            raise InputError(
                "a judge (a language model that grades free text) is needed, and moextend has none.",
                where=f"{self.path or self.task}: needs",
                hint="Choose another task.",
            )

    def reading(self) -> dict[str, Any]:
        """Settings besides columns and prompt that determine how rows become items; unset ones are left out."""
        data = self.data.model_dump(include={"where", "each", "absent", "shuffle"}) if self.data else {}
        return {**data, **self.model_dump(include={"open_prompt", "answer_as"})}


def read_task(path: Path) -> TaskSpec:
    """Task from a YAML file, checked without opening its data."""
    task = spec.read(TaskSpec, path).model_copy(update={"path": path.resolve()})
    if task.task != path.stem:
        raise SpecError(
            f"the task is called '{task.task}', and its file '{path.stem}'.",
            where=f"{path}: task",
            hint="Give both the same name.",
        )
    if task.kind == "text" and task.lm_eval is None:
        raise SpecError("a text task needs the key.", where=f"{path}: lm_eval", hint="Name the lm-eval task.")
    if task.kind != "text" and task.lm_eval is not None:
        raise SpecError(
            f"a {task.kind} task is not scored by lm-eval.",
            where=f"{path}: lm_eval",
            hint="Remove the key, or set kind: text.",
        )
    if task.kind != "text" and task.data is None:
        raise SpecError(f"a {task.kind} task needs the key.", where=f"{path}: data", hint="Name the data.")
    return task


def find_task(name: str, workspace: Path, *, where: str | None = None) -> TaskSpec:
    """Task `name` of the workspace or the package."""
    return read_task(content.find("tasks", name, workspace, where=where))
