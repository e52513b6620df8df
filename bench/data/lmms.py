"""Imports a task of lmms-eval from its YAML. Python code that the YAML names is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from moextend.bench.data.guess import guess_columns
from moextend.bench.data.open import open_table
from moextend.bench.task import Data, TaskSpec
from moextend.errors import InputError, SpecError, UnknownName
from moextend.util import bounded_yaml

PREFIX = "lmms:"
"""Prefix of names of lmms-eval tasks."""
_KEY = re.compile(r"""^["']?(task|group|tag)["']? *:\s*["'[]*([^\s"'#\],]+)""", re.MULTILINE)
"""A line with the name of a task or of its group; only these lines are read until the task is found."""
_MERGED = "Copy what it names into one YAML."
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TEMPLATE = re.compile(r"\{[{%]")
_METRICS = (("anls", "anls@1"), ("relaxed", "relaxed@1"), ("cider", "cider@1"))
"""Word in the name of a metric -> scorer with the same rule."""
_TOKENS = 16


@dataclass(frozen=True)
class Function:
    """A value `!function module.name`: Python code of lmms-eval."""

    name: str


def find(task: str, include: Path | None) -> tuple[Path, dict[str, Any]]:
    """The task's YAML, with its includes."""
    folder = include or _installed()
    if not folder.is_dir():
        raise InputError("no such folder.", where=f"--include-path {folder}", hint="Name a folder of YAMLs.")
    names: dict[str, set[str]] = {"task": set(), "group": set(), "tag": set()}
    for path in sorted(folder.rglob("*.yaml")):
        for key, name in _KEY.findall(path.read_text(encoding="utf-8", errors="replace")):
            if (key, name) == ("task", task):
                return path, _read(path)
            names[key].add(name)
    where = f"{PREFIX}{task} ({folder})"
    if task in names["group"] | names["tag"]:
        raise InputError("is a group of tasks.", where=where, hint="Import its tasks one by one.")
    raise UnknownName("lmms-eval task", task, sorted(names["task"]), where=f"{PREFIX}{task}")


def _installed() -> Path:
    found = find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "lmms-eval is not installed.",
            where=PREFIX,
            hint="Install it (pip install lmms-eval), or name a folder of its YAMLs: --include-path FOLDER.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


class _Loader(bounded_yaml.Loader):
    """YAML loader that reads `!function` as a name and runs no code."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
    return Function(str(loader.construct_scalar(node)))


def _include(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise SpecError("uses the tag !include, which is not supported.", hint=_MERGED)


_Loader.add_constructor("!function", _function)
_Loader.add_constructor("!include", _include)


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a YAML and of its include; `within`: files whose includes led to it."""
    try:
        config = bounded_yaml.load(bounded_yaml.read_text(path), where=str(path), loader=_Loader)
    except SpecError as error:
        raise SpecError(error.what, where=error.where or str(path), hint=error.hint) from None
    if not isinstance(config, dict):
        return {}
    shared = config.pop("include", None)
    if shared is None:
        return config
    if not isinstance(shared, str):
        what = "includes several files or code; only one file is supported."
        raise InputError(what, where=str(path), hint=_MERGED)
    template = path.parent / shared
    if template.resolve() in (path.resolve(), *within):
        raise InputError(f"includes itself (through {shared}).", where=str(path), hint="Remove the include.")
    return {**_read(template, (*within, path.resolve())), **config}


@dataclass(frozen=True)
class Imported:
    """A task, and notes on its differences from the lmms-eval task."""

    task: TaskSpec
    notes: tuple[str, ...]


def import_task(
    task: str,
    *,
    name: str,
    workspace: Path,
    include: Path | None = None,
    columns: Mapping[str, str],
    scorer: str | None = None,
) -> Imported:
    """Imports the lmms-eval task `task` from the folder `include`, else from the installed lmms-eval.

    Raises:
        UnknownName: there is no such task.
        InputError: it is a group, needs a judge or changes its rows by code, or its data cannot be opened.
    """
    path, config = find(task, include)
    where = f"{PREFIX}{task} ({path})"
    _refuse(config, where)
    data, at = _data(config, where), workspace.resolve() / "tasks" / f"{name}.yaml"
    draft = TaskSpec(task=name, version=1, kind="vqa", data=data, path=at)
    there = open_table(draft, "test", workspace).table.columns
    # lmms-eval ignores doc_to_target if code scores, so its column may not exist.
    own = {"question": _column(config.get("doc_to_text")), "answer": _column(config.get("doc_to_target"))}
    found = guess_columns(
        data,
        path=at,
        workspace=workspace,
        columns={
            **{key: column for key, column in own.items() if column in there and column is not None},
            **columns,
        },
        scorer=scorer or _scorer(config),
        source=f"lmms-eval task {task}; hub {data.path}",
        where=where,
    )
    tokens = int((config.get("generation_kwargs") or {}).get("max_new_tokens") or _TOKENS)
    found = found.model_copy(update={"prompt": _prompt(config, found, where), "max_new_tokens": tokens})
    return Imported(found, tuple(_notes(config, found)))


_BY_HAND = "Write the task's YAML by hand (docs/adding.md)"


def _refuse(config: Mapping[str, Any], where: str) -> None:
    """Raises InputError if the task cannot be imported."""
    for key in ("lmms_eval_specific_kwargs", "generation_kwargs", "dataset_kwargs", "metric_list"):
        if isinstance(config.get(key), Function):
            what = f"sets {key} by code ({_shown(config[key])}), which is not run."
            raise InputError(what, where=where, hint=f"{_BY_HAND}.")
    judged = [name for name in _metrics(config) if re.search(r"gpt|judge|llm", name)]
    kind = config.get("output_type", "generate_until")
    if "process_docs" in config:
        what = f"changes its rows by code (process_docs: {_shown(config['process_docs'])}), which is not run."
        hint = f"{_BY_HAND}, or prepare its rows and add them with --data."
    elif judged:
        what = f"needs a judge (a language model that grades free text) for {', '.join(judged)}, and moextend has none."
        hint = "Score a run's model in lmms-eval: --model moextend --model_args run=FOLDER."
    elif kind != "generate_until":
        what = f"has output_type {kind}: only generated answers are imported."
        hint = "Choose the task's variant that generates."
    else:
        return
    raise InputError(what, where=where, hint=hint)


def _data(config: Mapping[str, Any], where: str) -> Data:
    path, more = config.get("dataset_path"), dict(config.get("dataset_kwargs") or {})
    test = config.get("test_split") or config.get("validation_split")
    named = isinstance(path, str) and "data_files" not in more and path not in ("json", "parquet", "csv")
    if not named or not isinstance(test, str):
        what = "names no test_split." if named else "names no data set of the hub."
        raise InputError(what, where=where, hint=f"{_BY_HAND}.")
    return Data(
        path=str(path), config=config.get("dataset_name"), revision=more.get("revision"),
        train=config.get("training_split"), test=test,
    )  # fmt: skip


def _column(value: Any) -> str | None:
    """Column of `doc_to_text` or `doc_to_target`; None if it is not a plain column."""
    if not isinstance(value, str):
        return None
    match = _PLACEHOLDER.fullmatch(value.strip())
    return match[1] if match else value if value.isidentifier() else None


def _prompt(config: Mapping[str, Any], task: TaskSpec, where: str) -> str:
    """Prompt: the template, else the question between lmms-eval's default pre_prompt and post_prompt."""
    text = config.get("doc_to_text")
    mark = "".join(f"<{name}>\n" for name in task.columns.by_modality)
    if isinstance(text, str) and _column(text) is None:
        rest = _PLACEHOLDER.sub("", text)
        if _TEMPLATE.search(rest):
            what = f"has a template that does more than name columns (doc_to_text: {text!r})."
            raise InputError(what, where=where, hint=f"{_BY_HAND}.")
        pieces = _PLACEHOLDER.split(text)
        filled = "".join(_literal(piece) if i % 2 == 0 else f"{{{piece}}}" for i, piece in enumerate(pieces))
        return mark + filled.replace(f"{{{task.columns.question}}}", "{question}")
    if task.columns.question is None:
        return task.prompt
    extra = (config.get("lmms_eval_specific_kwargs") or {}).get("default") or {}
    choices = "\n{choices}" if task.columns.choices is not None else ""
    before, after = (_literal(str(extra.get(key) or "")) for key in ("pre_prompt", "post_prompt"))
    return f"{mark}{before}{{question}}{choices}{after}"


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _metrics(config: Mapping[str, Any]) -> list[str]:
    return [
        _shown(entry.get("metric")) for entry in config.get("metric_list") or [] if isinstance(entry, dict)
    ]


def _scorer(config: Mapping[str, Any]) -> str | None:
    """Scorer for the names of the metrics; None if the data decide."""
    names = " ".join(_metrics(config)).lower()
    return next((scorer for word, scorer in _METRICS if word in names), None)


def _shown(value: Any) -> str:
    return f"!function {value.name}" if isinstance(value, Function) else str(value)


def _notes(config: Mapping[str, Any], task: TaskSpec) -> Iterator[str]:
    """Notes on the differences from the lmms-eval task and their replacements."""
    shown = task.columns.by_modality.values()
    stands = {
        "doc_to_visual": " and ".join(f"column {name!r}" for name in shown) or "nothing",
        "doc_to_text": f"the prompt {task.prompt!r} with lmms-eval's default pre_prompt and post_prompt",
        "doc_to_target": f"column {task.columns.answer!r}",
        "process_results": f"scorer {task.scorer}",
    }
    for key, instead in stands.items():
        if isinstance(config.get(key), Function):
            yield f"{key}: {_shown(config[key])} is code and was not run; instead: {instead}."
    coded = [name for name in _metrics(config) if name not in ("exact_match", "anls")]
    if coded:
        yield f"metrics {', '.join(coded)}: the score is that of {task.scorer}."
    for key in ("num_fewshot", "doc_to_choice"):
        if config.get(key):
            yield f"{key} {_shown(config[key])}: not used."
    if config.get("filter_list"):
        yield "filter_list: answers are not filtered."
    generation = config.get("generation_kwargs") or {}
    if generation.get("until"):
        yield f"generation_kwargs.until {generation['until']!r}: not used."
    if generation.get("do_sample") or float(generation.get("temperature") or 0) > 0:
        yield "generation_kwargs: answers are greedy."
    others = sorted(set(config.get("lmms_eval_specific_kwargs") or {}) - {"default"})
    if others:
        yield f"lmms_eval_specific_kwargs of {', '.join(others)}: only the default is used."
