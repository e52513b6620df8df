"""Creates a task from a user's data: guesses it, checks it, and writes it as a YAML of the workspace."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from moextend.bench.data import check_task, guess_task
from moextend.bench.score.text.folder import check_name
from moextend.bench.scorers.table import find_scorer, search
from moextend.bench.task import NAME, TaskSpec, TextTask
from moextend.errors import InputError, short
from moextend.util import content, files

ALIASES = {"qa": "vqa", "audio": "vqa"}
"""Other names of kinds: questions without media, or about sounds, have the same kind as questions about images."""
AUDIO = "audio"
"""Name for a task about sounds; without questions it is a caption task."""
HEAD = "# Guessed from the data; correct what is wrong, and raise the version when a change moves scores.\n"


def new_task(
    kind: str,
    data: str,
    workspace: Path,
    *,
    name: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    scorer: str | None = None,
    prompt: str | None = None,
    trust_code: bool = False,
    encoders: Collection[str] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> TaskSpec:
    """Task for `data`, as it will be written. Raises InputError if its name is taken or its kind is another one.

    Args:
        trust_code: whether code in a folder of lm-eval YAMLs may run.
        encoders, on_note: see `guess_task`.
    """
    name = free_name(name or default_name(data), workspace)
    if kind == "text":
        if prompt is not None:
            raise InputError(
                "lm-eval sets that of a text task.", where="--prompt", hint="Leave the option out."
            )
        return _text_task(data, name, workspace, trust_code)
    if scorer is not None:
        search(workspace)
        find_scorer(scorer, where="--scorer")

    wanted = ALIASES.get(kind, kind)
    task = guess_task(
        data, name=name, workspace=workspace, columns=columns, scorer=scorer, captions=wanted == "caption",
        encoders={*encoders, AUDIO} if encoders is not None and kind == AUDIO else encoders, on_note=on_note,
    )  # fmt: skip
    if kind == AUDIO:
        if task.columns.audio is None:
            what = "no column holds sounds (WAV, FLAC, OGG, MP3), paths to sounds, or arrays with a sampling_rate."
            raise InputError(what, where=data, hint="Name it: --columns audio=COLUMN.")
    elif task.kind != wanted:
        what = (
            f"looks like a {task.kind} task: its columns {'lack' if wanted == 'vqa' else 'hold'} a question."
        )
        hint = f"Name the columns (--columns question=...), or: moextend bench add-task {task.kind}."
        raise InputError(what, where=data, hint=hint)
    return task if prompt is None else task.model_copy(update={"prompt": prompt})


def check(task: TaskSpec, workspace: Path, base: str | None = None) -> dict[str, Any]:
    """Opens a task's data, renders one example and scores it. Raises InputError if that fails.

    Args: base: model whose tokenizer should know the task's words.
    """
    if task.kind == "text":
        return _check_text(task, workspace)

    found = check_task(task, workspace, base)
    warnings = {"warnings": list(found.warnings)} if found.warnings else {}
    return {"items": found.items, "prompt": found.prompt, "answer": found.answer, **warnings}


def write_task(task: TaskSpec) -> Path:
    """Writes the task's YAML."""
    assert task.path is not None
    files.write_text(task.path, HEAD + as_yaml(task))
    return task.path


def as_yaml(task: TaskSpec) -> str:
    """Task without unset keys, as a person would write it."""
    record = task.model_dump(mode="json", exclude_defaults=True)
    record = {"task": task.task, "version": task.version, "kind": task.kind} | record
    if task.data is not None:
        record["data"] |= {"train": task.data.train, "test": task.data.test}
        columns = task.columns.model_dump(exclude_none=True)
        unnamed = {} if task.columns.audio or task.columns.video or task.columns.media else {"image": None}
        record["columns"] = unnamed | {"question": None} | columns
        record |= {"prompt": task.prompt, "scorer": task.scorer, "max_new_tokens": task.max_new_tokens}
    record.setdefault("licence", "")
    return str(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=100))


def default_name(data: str) -> str:
    """Name of a task from its data: "~/data/My set.jsonl" -> "my-set", "HuggingFaceM4/VQAv2" -> "vqav2"."""
    stem = Path(data.rstrip("/")).name.removeprefix("world:")
    stem = re.sub(r"\.(jsonl?|csv|tsv|parquet|arrow)$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("-.") or "task"


def free_name(name: str, workspace: Path) -> str:
    """The name. Raises InputError if it is invalid or taken."""
    stem = re.sub(r"\.(ya?ml|jsonl?|csv|tsv|parquet|arrow)$", "", name, flags=re.IGNORECASE)
    if stem != name:
        raise InputError(f"'{name}' is the name of a file.", where="--name", hint=f"Write: --name {stem}.")
    if not NAME.fullmatch(name):
        hint = "Use at most 100 letters, digits, '-', '_', '.' and '+'."
        raise InputError(f"'{short(name, 60)}' is not a name.", where="--name", hint=hint)
    known = content.names("tasks", workspace)
    if name in known:
        hint = f"Choose another name, or add that task: moextend bench add-task {name}."
        raise InputError(f"a task '{name}' already exists ({known[name]}).", where="--name", hint=hint)
    return name


def _text_task(data: str, name: str, workspace: Path, trust_code: bool) -> TaskSpec:
    folder, text = Path(data).expanduser(), TextTask(task=data)
    if folder.is_dir():
        text = TextTask(task=name, path=str(folder.resolve()), trust_remote_code=trust_code)
    elif (
        folder.is_file()
        or "/" in data
        or folder.suffix in (".jsonl", ".json", ".csv", ".parquet", ".yaml", ".yml")
    ):
        what = f"'{data}' is {'a file' if folder.is_file() else 'no folder'}; a text task is lm-eval's, or its YAMLs."
        hint = f"Name one, or for questions with answers: moextend bench add-task qa --data {data}."
        raise InputError(what, where="--data", hint=hint)
    path = workspace.resolve() / "tasks" / f"{name}.yaml"
    return TaskSpec(task=name, version=1, kind="text", source=data, lm_eval=text, path=path)


def _check_text(task: TaskSpec, workspace: Path) -> dict[str, Any]:
    assert task.lm_eval is not None
    written = task.path is None or task.path.exists()
    text, where = task.lm_eval, f"{task.path or task.task}: lm_eval.task" if written else "--data"
    if text.path is None:
        check_name(text.task, where=where)
    from moextend.bench.score.text.harness import load

    folder = None if text.path is None else task.folder() / text.path
    loaded = load(text.task, folder, text.num_fewshot, workspace, trusted=text.trust_remote_code, where=where)
    return {"items": {"test": sum(len(part.eval_docs) for part in loaded.tasks.values())}}
