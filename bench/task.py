"""What a task is: one YAML in `tasks/`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from moextend.data.cells import AnswerForm
from moextend.data.columns import Columns
from moextend.data.examples import Layout
from moextend.errors import InputError, SpecError
from moextend.util import content, spec
from moextend.util.limits import MOST_TOKENS
from moextend.util.spec import Spec

"""text: as it is. letter: that of the right choice. position: that of the right choice, from 0, as a number or as
text. box: left, top, width, height in pixels of the image."""


TaskIdentity = Literal["none", "given", "inferred"]
"""What a method knows of the task at inference. none: nothing. given: it is named with every input. inferred: the
method finds it out from the input."""

ALLOW_CODE = "HF_ALLOW_CODE_EVAL"
"""Environment variable that is "1" where code that a model writes may run (the one of Hugging Face evaluate)."""


def code_allowed() -> bool:
    """Whether code that a model writes may run here."""
    return os.environ.get(ALLOW_CODE) == "1"


def _unset(default: Any) -> Any:
    """A key that a run's record leaves out while it has its default, so that older records stay what they are."""
    return Field(default, exclude_if=lambda value: value == default)


NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")
"""What a task may be called: its name becomes part of the names of files and folders."""


def check_name(name: str) -> str:
    """The name of a task; ValueError where it is none."""
    if not NAME.fullmatch(name):
        raise ValueError(
            "a task's name has letters, digits, '-', '_', '.' and '+' (100 at the most), a letter or digit first"
        )
    return name


class Join(Spec):
    """Images that stand in a table of their own, once each."""

    config: str
    """Configuration of the same data set that holds them."""
    split: str
    """Its split that holds them."""
    by: str
    """Column of the items that holds the id of their image."""
    id: str = "id"
    """Column of that table with the id."""
    image: str = "image"
    """Column of that table with the image; the items get a column of this name."""


class Data(Spec):
    """Where the items of a task come from."""

    path: str
    """A file or folder (relative to the YAML), `data:<folder>` in the workspace's data/, a hub id, or `world:<name>`
    of the generated world."""
    config: str | None = None
    """Configuration of a hub data set."""
    revision: str | None = None
    """Pinned revision of a hub data set."""
    train: str | None = "train"
    """Name of the split that is learned from; null for a task that is only scored."""
    test: str = "test"
    """Name of the split that is scored."""
    images: str | None = None
    """Where relative paths of images start (a folder as in `path`), besides the folder of the data."""
    join: Join | None = None
    """The images stand in another table."""
    each: tuple[str, ...] | None = _unset(None)
    """Columns whose cells are lists with one entry an item: such a row is as many items."""
    absent: tuple[str, ...] | None = _unset(None)
    """Texts that stand for an empty cell, such as "nan"."""
    prepare: str = ""
    """How to get data that has to be put in place by hand."""


class TextTask(Spec):
    """A task of lm-eval."""

    task: str
    """Name of the task or group in lm-eval."""
    path: str | None = None
    """Folder of lm-eval YAMLs, relative to this file; null for lm-eval's own tasks."""
    metric: str = "acc"
    """One of the task's metrics in lm-eval."""
    limit: int | None = None
    """Items at the most; null scores all."""
    num_fewshot: int | None = None
    """Examples in the prompt; null takes the task's own number."""
    runs_code: bool = _unset(False)
    """Whether scoring runs the code that the model writes: only with `--allow-code`."""
    trust_remote_code: bool = _unset(False)
    """Whether the Python code that the folder's YAMLs name may run; that of lm-eval and of the package may."""
    data: str | None = None
    """Where data lies that has to be put in place by hand: `data:` and a path below data/ of the workspace."""
    prepare: str = ""
    """How to get it."""


class TaskSpec(Spec):
    """One task: something learned, scored, or both."""

    task: Annotated[str, AfterValidator(check_name)]
    """Its name, which is also that of its file."""
    version: int | str
    """Raised whenever scores can change."""
    kind: Literal["vqa", "text", "caption"]
    """vqa: questions, with or without images. caption: images without questions. text: a task of lm-eval."""
    description: str = ""
    """One sentence, for lists."""
    source: str = ""
    """Where the data come from, and the paper."""
    licence: str = ""
    """Of the data."""
    non_commercial: bool = False
    """Whether the licence forbids commercial use."""
    data: Data | None = None
    """Required but for text tasks."""
    columns: Columns = Columns()
    """Which column holds what."""
    prompt: str = "<image>\n{question}\nAnswer the question using a single word or phrase."
    """Template with `<image>`, `{question}`, `{choices}` and other columns of the data."""
    open_prompt: str | None = _unset(None)
    """The prompt of an item without choices, where other items have some; null takes `prompt`."""
    answer_as: AnswerForm | None = _unset(None)
    """How the data write an answer; null takes a number among choices for a position, all else for text."""
    scorer: str = "exact@1"
    """Name and version of the rule that scores an answer."""
    max_new_tokens: int = Field(16, ge=1, le=MOST_TOKENS)
    """Tokens of an answer at the most."""
    needs: Literal["judge"] | None = _unset(None)
    """What scoring needs and this package does not have: "judge" is a language model that grades free text."""
    lm_eval: TextTask | None = None
    """Required for text tasks."""
    path: Path | None = Field(None, exclude=True)
    """The file that this was read from."""

    @property
    def layout(self) -> Layout:
        """How the rows of its data become items."""
        return Layout(
            self.columns, self.prompt, self.open_prompt, answer_as=self.answer_as,
            absent=(self.data.absent if self.data else None) or (), where=str(self.path or self.task),
        )  # fmt: skip

    def folder(self) -> Path:
        """The folder that relative paths of this task start from."""
        return self.path.parent if self.path else Path()

    def predictions(self, folder: Path, key: str) -> Path:
        """The file in `folder` of the answers that `key` names; SpecError where the name could lead elsewhere."""
        try:
            return folder / f"{check_name(self.task)}-{key}.jsonl"
        except ValueError as error:
            raise SpecError(f"{error} (found {self.task!r}).", where="task", hint="Rename it.") from error

    def refuse_needs(self) -> None:
        """InputError where scoring needs what this package does not have."""
        if self.needs is not None:
            raise InputError(
                "a judge (a language model that grades free text) is needed, and there is none here.",
                where=f"{self.path or self.task}: needs",
                hint="Score a run's model in lmms-eval, which has judges: --model moextend --model_args run=FOLDER.",
            )

    def reading(self) -> dict[str, Any]:
        """What decides, besides columns and prompt, how rows become items; without what is not set."""
        data = self.data.model_dump(include={"each", "absent"}) if self.data else {}
        return {**data, **self.model_dump(include={"open_prompt", "answer_as"})}


def read_task(path: Path) -> TaskSpec:
    """The task in a YAML file, checked as far as it can be without opening its data."""
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
    """The task called `name`, from the workspace or the package."""
    return read_task(content.find("tasks", name, workspace, where=where))
