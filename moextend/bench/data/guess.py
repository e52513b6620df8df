"""Creates a task from its data: guesses columns, splits and scorer from names and values."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from moextend.bench.data.open import open_table
from moextend.bench.data.source import find_source
from moextend.bench.task import Data, TaskSpec
from moextend.data.guess import CAPTIONED, NEEDED, AnswerKind, guess, named_splits, text_column
from moextend.data.hub import hub_splits
from moextend.data.source import like_hub_id
from moextend.errors import InputError

RULES: dict[AnswerKind, tuple[str, int]] = {
    "caption": ("cider@1", 64),
    "transcript": ("wer@1", 64),
    "label": ("exact@1", 16),
    "letter": ("letter@1", 16),
    "text": ("rouge-l@1", 128),
    "several": ("vqa@2", 16),
    "word": ("exact@1", 16),
}
"""Kind of answers -> scorer and maximum number of new tokens."""
TOKENS = 16


def guess_task(
    data: str,
    *,
    name: str,
    workspace: Path,
    columns: Mapping[str, str],
    scorer: str | None = None,
    captions: bool = False,
    encoders: Collection[str] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> TaskSpec:
    """Task for `data` (a file, folder, hub id or `world:<name>`), as it would be written in the workspace.

    Args:
        columns: role -> column; takes precedence over the guess.
        captions: the data needs no column of questions.
        encoders: modalities that the base reads; None: all.
        on_note: gets a note for every column that is not used where that may be a mistake.

    Raises:
        InputError: question, answer or image cannot be guessed; the message lists the columns.
    """
    path = workspace.resolve() / "tasks" / f"{name}.yaml"
    where = f"data {data}"
    found = _data(data, path.parent, workspace, where=where)
    task = TaskSpec(task=path.stem, version=1, kind="vqa", data=found, max_new_tokens=TOKENS, path=path)
    table = open_table(task, "test", workspace).table
    if not columns and text_column(table):
        raise InputError(
            f"{table.source} holds plain text; a task needs questions or media (images, sounds) with answers.",
            where=where,
            hint="Name the columns (--columns question=...,answer=...), or train on the text with 'moextend extend'.",
        )
    needs = CAPTIONED if captions else NEEDED
    guessed = guess(table, columns, where=where, needs=needs, encoders=encoders)
    for note in guessed.notes:
        on_note(note)
    rule, tokens = RULES[guessed.answers]
    return task.model_copy(
        update={
            "kind": "caption" if guessed.answers in ("caption", "transcript") else "vqa",
            "data": found.model_copy(update={"each": guessed.each}) if guessed.each else found,
            "columns": guessed.columns,
            "prompt": guessed.prompt,
            "open_prompt": guessed.open_prompt,
            "scorer": scorer or rule,
            "max_new_tokens": tokens,
            "source": data,
        }
    )


def _data(data: str, folder: Path, workspace: Path, *, where: str) -> Data:
    """Path (relative to the YAML if it is in the workspace) and splits; a single split is divided by content."""
    local = Path(data).expanduser()
    if local.exists():
        path = _seen_from(local, folder, workspace)
    elif data.startswith("world:") or like_hub_id(data, local):
        path = data
    else:
        hint = "Name a file, a folder, a hub id or world:<name>."
        raise InputError("no such file or folder.", where=where, hint=hint)
    source = find_source(Data(path=path), folder, workspace, where=where)
    splits = hub_splits(source.hub, where=where) if source.hub else list(source.splits)
    hint = "Write the task's YAML by hand and name data.train and data.test."
    train, test = named_splits(splits, source.name, where=where, hint=hint)
    if test is None:
        return Data(path=path, train=f"{train}[train]", test=f"{train}[test]")
    return Data(path=path, train=train, test=test)


def _seen_from(path: Path, folder: Path, workspace: Path) -> str:
    path = path.resolve()
    inside = path.is_relative_to(workspace.resolve())
    return Path(os.path.relpath(path, folder)).as_posix() if inside else path.as_posix()
