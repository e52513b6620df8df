"""Imports a task of lmms-eval from its YAML. Python code that the YAML names is never run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
_KEY = re.compile(r"""^(["']?)(?:task|group|tag)\1[ \t]*:.*(?:\n(?:[ \t]+.*|-[ \t].*|#.*|))*""", re.MULTILINE)
"""Lines with the names of a task and its groups; only these lines are parsed until the task is found."""


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
    names: list[str] = []
    members: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        own = _names(path.read_text(encoding="utf-8", errors="replace"))
        if own.task == task:
            return path, _read(path)
        names += [own.task] if own.task else []
        for group in own.groups:
            members.setdefault(group, []).extend(own.parts or ([own.task] if own.task else []))
    if task in members:
        raise _is_group(members[task], f"{PREFIX}{task} ({folder})")
    raise UnknownName("lmms-eval task", task, [*names, *members], where=f"{PREFIX}{task}")


@dataclass(frozen=True)
class _Names:
    """Names in a YAML of lmms-eval."""

    task: str | None
    parts: tuple[str, ...]
    """Tasks of a group."""
    groups: tuple[str, ...]
    """Groups and tags that it defines or belongs to."""


def _names(text: str) -> _Names:
    """Names in a YAML, without parsing its other keys; empty if these lines are not valid YAML."""
    found: dict[str, list[str]] = {"task": [], "group": [], "tag": []}
    single = False
    for match in _KEY.finditer(text):
        try:
            value = bounded_yaml.load(match[0], where="", loader=_Loader)
        except InputError:
            continue
        if not isinstance(value, dict):
            continue
        for key, entry in value.items():
            single = single or (key == "task" and not isinstance(entry, list))
            parts = entry if isinstance(entry, list) else [entry]
            found[key] += [str(_part(part)) for part in parts if isinstance(part, str | int | Mapping)]
    tasks = tuple(found["task"])
    groups = (*found["group"], *found["tag"])
    return _Names(tasks[0], (), groups) if single and tasks else _Names(None, tasks, groups)


def _part(part: Any) -> Any:
    """Name of a member of a group."""
    return part.get("task", part.get("group")) if isinstance(part, Mapping) else part


def _is_group(parts: Iterable[Any], where: str) -> InputError:
    named = ", ".join(str(_part(part)) for part in parts)
    return InputError(f"is a group of tasks: {named}.", where=where, hint="Import them one by one.")


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
        raise InputError(
            "includes several files or code; only one file is supported.", where=str(path), hint=_MERGED
        )
    template = path.parent / shared
    if template.resolve() in (path.resolve(), *within):
        raise InputError(f"includes itself (through {shared}).", where=str(path), hint="Remove the include.")
    if not template.is_file():
        raise InputError(f"includes {shared}, which does not exist.", where=str(path), hint="Add the file.")
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


def _refuse(config: Mapping[str, Any], where: str) -> None:
    """Raises InputError if the task cannot be imported."""
    for key in ("lmms_eval_specific_kwargs", "generation_kwargs", "dataset_kwargs", "metric_list"):
        if isinstance(config.get(key), Function):
            raise InputError(
                f"sets {key} by code ({_shown(config[key])}), which is not run.",
                where=where,
                hint="Write the task's YAML by hand (docs/adding.md).",
            )
    if "process_docs" in config:
        raise InputError(
            f"changes its rows by code (process_docs: {_shown(config['process_docs'])}), which is not run.",
            where=where,
            hint="Write the task's YAML by hand (docs/adding.md), or prepare its rows and add them with --data.",
        )
    judged = [name for name in _metrics(config) if re.search(r"gpt|judge|llm", name)]
    if judged:
        raise InputError(
            f"needs a judge (a language model that grades free text) for {', '.join(judged)}, and moextend has none.",
            where=where,
            hint="Score a run's model in lmms-eval: --model moextend --model_args run=FOLDER.",
        )
    kind = config.get("output_type", "generate_until")
    if kind != "generate_until":
        raise InputError(
            f"has output_type {kind}: only generated answers are imported.",
            where=where,
            hint="Choose the task's variant that generates.",
        )


def _data(config: Mapping[str, Any], where: str) -> Data:
    path, more = config.get("dataset_path"), dict(config.get("dataset_kwargs") or {})
    if not isinstance(path, str) or "data_files" in more or path in ("json", "parquet", "csv"):
        raise InputError("names no data set of the hub.", where=where, hint="Add its data with --data.")
    if more.get("video") or more.get("From_YouTube"):
        raise InputError("is a video task.", where=where, hint="Only images and text are supported.")
    test = config.get("test_split") or config.get("validation_split")
    if not isinstance(test, str):
        raise InputError("names no test_split.", where=where, hint="Write the task's YAML by hand.")
    return Data(
        path=path, config=config.get("dataset_name"), revision=more.get("revision"),
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
            raise InputError(
                f"has a template that does more than name columns (doc_to_text: {text!r}).",
                where=where,
                hint="Write the task's YAML by hand.",
            )
        pieces = _PLACEHOLDER.split(text)
        filled = "".join(_literal(piece) if i % 2 == 0 else f"{{{piece}}}" for i, piece in enumerate(pieces))
        return mark + filled.replace(f"{{{task.columns.question}}}", "{question}")
    if task.columns.question is None:
        return task.prompt
    extra = _default(config)
    choices = "\n{choices}" if task.columns.choices is not None else ""
    before, after = (_literal(str(extra.get(key) or "")) for key in ("pre_prompt", "post_prompt"))
    return f"{mark}{before}{{question}}{choices}{after}"


def _default(config: Mapping[str, Any]) -> dict[str, Any]:
    """lmms-eval's default settings, which apply to all models."""
    extra = config.get("lmms_eval_specific_kwargs") or {}
    return dict(extra.get("default") or {}) if isinstance(extra, dict) else {}


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
