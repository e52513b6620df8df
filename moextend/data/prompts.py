"""One item of a task, the prompt it becomes, and items of one image joined into a conversation."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from moextend.bench.scorers import own_answer
from moextend.bench.task import TaskSpec
from moextend.data.images import MARK, ImageRef
from moextend.errors import SpecError

if TYPE_CHECKING:
    from moextend.model.generation import Prompt

LETTERS = string.ascii_uppercase
OWN_PLACEHOLDERS = ("question", "choices")
"""Placeholders of a prompt that are no columns."""


@dataclass(frozen=True)
class Item:
    """One question (or caption) with its images and its gold answers."""

    id: str
    images: tuple[ImageRef, ...]
    question: str
    answers: tuple[str, ...]
    """One gold answer, or those of several annotators."""
    choices: tuple[str, ...] | None = None
    position: int | None = field(default=None, kw_only=True)
    """Place of the right choice, where the answer does not say it: another choice has the same text."""
    kind: str | None = None
    group: str | None = None
    """Items of one image share it."""
    row: str = ""
    """File and row, for error messages."""
    fields: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The columns that the prompt names beside question and choices."""

    @property
    def image_name(self) -> str:
        """The file name of the first image; "" for images in memory, and where there is none."""
        path = self.images[0].path if self.images else None
        return path.name if path else ""


def placeholders(task: TaskSpec) -> tuple[str, ...]:
    """Names in braces in the task's prompt, each once; SpecError where the braces are not balanced."""
    try:
        parts = [part for text in _prompts(task) for part in string.Formatter().parse(text)]
    except ValueError as error:
        raise _prompt_error(
            task, f"cannot be read ({error}).", "Write a brace that is text twice: {{ or }}."
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if not name.isidentifier():
            raise _prompt_error(
                task, f"no placeholder '{{{name}}}'.", "Name a column, or write {{ and }} for braces."
            )
    return tuple(dict.fromkeys(names))


def template(task: TaskSpec, item: Item) -> str:
    """The prompt that `item` gets: the task's, or its `open_prompt` where there are no choices."""
    return task.open_prompt if item.choices is None and task.open_prompt is not None else task.prompt


def _prompts(task: TaskSpec) -> tuple[str, ...]:
    return (task.prompt,) if task.open_prompt is None else (task.prompt, task.open_prompt)


def prompt_text(task: TaskSpec, item: Item) -> str:
    """The task's prompt filled for `item`, with one `<image>` mark for each of its images.

    A line that names a column which is empty for this item is left out.
    """
    values = {name: value.replace(MARK, "") for name, value in item.fields.items()}
    # A mark in the question would be taken for an image that is not there.
    values["question"] = item.question.replace(MARK, "").strip()
    names = placeholders(task)
    if "choices" in names:
        if task.columns.choices is None:
            raise _prompt_error(
                task, "names {choices}, but the task has none.", "Set columns.choices, or take it out."
            )
        values["choices"] = choice_lines(item.choices or ())
    for name in names:
        if name not in values:
            raise _prompt_error(
                task, f"no placeholder '{{{name}}}'.", "Known: {question}, {choices}, columns."
            )
    filled = _marks(task, item, len(item.images))
    for name, value in item.fields.items():
        if not value:  # no label before nothing
            line = rf"[^\n]*\{{{re.escape(name)}\}}[^\n]*"
            filled = re.sub(rf"{line}\n|\n{line}\Z", "", filled)
    if item.choices is None:
        # One free question among others with choices: no empty line for them.
        filled = filled.replace("{choices}\n", "")
    return filled.format(**values)


def render_prompt(task: TaskSpec, item: Item) -> Prompt:
    """The prompt of `item`: its text and its images (not decoded)."""
    from moextend.model.generation import Prompt

    return Prompt(prompt_text(task, item), item.images)


def target_text(task: TaskSpec, item: Item) -> str:
    """What a model should learn to say to the item's prompt: the answer most annotators gave, or its letter."""
    return own_answer(task.scorer, item)


def choice_lines(choices: Sequence[str]) -> str:
    """The choices as lines "A. ...", "B. ..."; an empty one has no line, and the others keep their letters."""
    lines = zip(LETTERS, choices, strict=False)
    return "\n".join(f"{letter}. {choice}" for letter, choice in lines if choice)


def _marks(task: TaskSpec, item: Item, images: int) -> str:
    """The item's template with as many image marks as it has images."""
    prompt = template(task, item)
    marks = prompt.count(MARK)
    if marks == images:
        return prompt
    if images == 0:
        return prompt.replace(f"{MARK}\n", "").replace(MARK, "").lstrip()
    if marks == 1:
        return prompt.replace(MARK, MARK * images)
    raise _prompt_error(
        task,
        f"has {marks} {MARK} marks, but {item.row or item.id} has {images} images.",
        f"Write {MARK} once, where the images stand.",
    )


def _prompt_error(task: TaskSpec, what: str, hint: str) -> SpecError:
    return SpecError(what, where=f"{task.path or task.task}: prompt", hint=hint)


class Turns(Sequence[tuple[Item, ...]]):
    """Conversations: items of one group, cut into pieces of at most `n`, built when asked for."""

    def __init__(self, items: Sequence[Item], n: int, groups: Sequence[str | None]) -> None:
        self._items = items
        by_group: dict[str, list[int]] = {}
        for i, group in enumerate(groups):
            by_group.setdefault(f"={group}" if group is not None else f"#{i}", []).append(i)
        self._pieces = [
            tuple(members[start : start + n])
            for members in by_group.values()
            for start in range(0, len(members), n)
        ]

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, at: int) -> tuple[Item, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[Item, ...]]: ...
    def __getitem__(self, at: int | slice) -> tuple[Item, ...] | list[tuple[Item, ...]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return tuple(self._items[i] for i in self._pieces[at])

    def __iter__(self) -> Iterator[tuple[Item, ...]]:
        return (self[i] for i in range(len(self)))


def turns(items: Sequence[Item], n: int) -> Turns:
    """Items of one group joined into conversations of at most `n` turns, in order of first appearance."""
    groups = getattr(items, "groups", None)
    return Turns(items, n, groups() if groups else [item.group for item in items])
