"""A task of lmms-eval as one of this package, from its YAML; the Python code that its YAML names is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from moextend import bounded_yaml
from moextend.bench.data.guess import guess_columns
from moextend.bench.data.open import open_table
from moextend.bench.task import Data, TaskSpec
from moextend.errors import InputError, UnknownName

PREFIX = "lmms:"
"""Before the name of a task of lmms-eval."""
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_NAME = re.compile(r"""^(?:task|group)\s*:[ \t]*["']?([\w.+-]+)["']?[ \t]*$""", re.MULTILINE)
"""The name of a task or group in its YAML; only the one that is asked for is parsed."""
_TEMPLATE = re.compile(r"\{[{%]")
_METRICS = (("anls", "anls@1"), ("relaxed", "relaxed@1"), ("cider", "cider@1"))
"""Words in the names of metrics, and the scorer of that rule."""
_TOKENS = 16


@dataclass(frozen=True)
class Function:
    """`!function module.name`: Python code of lmms-eval."""

    name: str


@dataclass(frozen=True)
class Imported:
    """A task, and what of lmms-eval's it does not have."""

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
    """The lmms-eval task called `task` (in the folder `include`, else in the installed lmms-eval).

    Raises:
        UnknownName: there is no such task.
        InputError: it is a group, needs a judge, or changes its rows by code; or its data cannot be opened.
    """
    path, config = _find(task, include)
    where = f"{PREFIX}{task} ({path})"
    _refuse(config, where)
    data, at = _data(config, where), workspace.resolve() / "tasks" / f"{name}.yaml"
    draft = TaskSpec(task=name, version=1, kind="vqa", data=data, path=at)
    there = open_table(draft, "test", workspace).table.columns
    # lmms-eval never reads doc_to_target where code scores: it may name a column that is not there.
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


def _find(task: str, include: Path | None) -> tuple[Path, dict[str, Any]]:
    """The task's YAML with all that it includes."""
    folder = include or _installed()
    if not folder.is_dir():
        raise InputError("no such folder.", where=f"--include-path {folder}", mend="Name a folder of YAMLs.")
    names: list[str] = []
    for path in sorted(folder.rglob("*.yaml")):
        own = _NAME.findall(path.read_text(encoding="utf-8", errors="replace"))
        if task in own:
            return path, _read(path)
        names += own
    raise UnknownName("lmms-eval task", task, names, where=f"{PREFIX}{task}")


def _installed() -> Path:
    found = find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "lmms-eval is not installed.",
            where=PREFIX,
            mend="Install it (pip install lmms-eval), or name a folder of its YAMLs: --include-path FOLDER.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


class _Loader(bounded_yaml.Loader):
    """YAML in which `!function` is a name and no code."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
    return Function(str(loader.construct_scalar(node)))


_Loader.add_constructor("!function", _function)


def _read(path: Path, by: tuple[Path, ...] = ()) -> dict[str, Any]:
    config = bounded_yaml.load(bounded_yaml.read_text(path), where=str(path), loader=_Loader)
    if not isinstance(config, dict):
        return {}
    shared = config.pop("include", None)
    if shared is None:
        return config
    template = path.parent / str(shared)
    if not template.is_file():
        raise InputError(f"includes {shared}, which is not there.", where=str(path), mend="Add the file.")
    if template.resolve() in (path.resolve(), *by):
        raise InputError(f"includes {shared}, which includes it.", where=str(path), mend="Take one out.")
    return {**_read(template, (path.resolve(), *by)), **config}


def _refuse(config: Mapping[str, Any], where: str) -> None:
    """InputError for what cannot be a task here."""
    parts = config.get("task")
    if isinstance(parts, list):
        named = ", ".join(part if isinstance(part, str) else str(part.get("task")) for part in parts)
        raise InputError(f"is a group of tasks: {named}.", where=where, mend="Import them one by one.")
    if "process_docs" in config:
        raise InputError(
            f"changes its rows by code (process_docs: {_said(config['process_docs'])}), which is not run.",
            where=where,
            mend="Write the task's YAML by hand (docs/adding.md), or prepare its rows and add them with --data.",
        )
    judged = [name for name in _metrics(config) if re.search(r"gpt|judge|llm", name)]
    if judged:
        raise InputError(
            f"needs a judge (a language model that grades free text) for {', '.join(judged)}, and there is none here.",
            where=where,
            mend="Score a run's model in lmms-eval: --model moextend --model_args run=FOLDER.",
        )
    kind = config.get("output_type", "generate_until")
    if kind != "generate_until":
        raise InputError(
            f"has output_type {kind}: only generated answers are imported.",
            where=where,
            mend="Choose the task's variant that generates.",
        )


def _data(config: Mapping[str, Any], where: str) -> Data:
    path, more = config.get("dataset_path"), dict(config.get("dataset_kwargs") or {})
    if not isinstance(path, str) or "data_files" in more or path in ("json", "parquet", "csv"):
        raise InputError("names no data set of the hub.", where=where, mend="Add its data with --data.")
    if more.get("video") or more.get("From_YouTube"):
        raise InputError("is a task of videos.", where=where, mend="Only images and text can be shown here.")
    test = config.get("test_split") or config.get("validation_split")
    if not isinstance(test, str):
        raise InputError("names no test_split.", where=where, mend="Write the task's YAML by hand.")
    return Data(
        path=path, config=config.get("dataset_name"), revision=more.get("revision"),
        train=config.get("training_split"), test=test,
    )  # fmt: skip


def _column(value: Any) -> str | None:
    """The column that `doc_to_text` or `doc_to_target` is, if it is one and nothing else."""
    if not isinstance(value, str):
        return None
    match = _PLACEHOLDER.fullmatch(value.strip())
    return match[1] if match else value if value.isidentifier() else None


def _prompt(config: Mapping[str, Any], task: TaskSpec, where: str) -> str:
    """The prompt: a template as it is, else the question between lmms-eval's default pre_prompt and post_prompt."""
    text = config.get("doc_to_text")
    mark = "<image>\n" if task.columns.image is not None else ""
    if isinstance(text, str) and _column(text) is None:
        rest = _PLACEHOLDER.sub("", text)
        if _TEMPLATE.search(rest):
            raise InputError(
                f"has a template that is more than columns (doc_to_text: {text!r}).",
                where=where,
                mend="Write the task's YAML by hand.",
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
    """lmms-eval's settings of no particular model."""
    extra = config.get("lmms_eval_specific_kwargs") or {}
    return dict(extra.get("default") or {}) if isinstance(extra, dict) else {}


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _metrics(config: Mapping[str, Any]) -> list[str]:
    return [
        _said(entry.get("metric")) for entry in config.get("metric_list") or [] if isinstance(entry, dict)
    ]


def _scorer(config: Mapping[str, Any]) -> str | None:
    """The scorer with the rule of the metrics' name; None where the data decide."""
    names = " ".join(_metrics(config)).lower()
    return next((scorer for word, scorer in _METRICS if word in names), None)


def _said(value: Any) -> str:
    return f"!function {value.name}" if isinstance(value, Function) else str(value)


def _notes(config: Mapping[str, Any], task: TaskSpec) -> Iterator[str]:
    """What is not lmms-eval's own, each with what stands for it."""
    stands = {
        "doc_to_visual": f"column {task.columns.image!r}",
        "doc_to_text": f"the prompt {task.prompt!r} with lmms-eval's default pre_prompt and post_prompt",
        "doc_to_target": f"column {task.columns.answer!r}",
        "process_results": f"scorer {task.scorer}",
    }
    for key, instead in stands.items():
        if isinstance(config.get(key), Function):
            yield f"{key}: {_said(config[key])} is code and was not run; instead: {instead}."
    coded = [name for name in _metrics(config) if name not in ("exact_match", "anls")]
    if coded:
        yield f"metrics {', '.join(coded)}: the score is that of {task.scorer}."
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
