"""Results as files of lm-evaluation-harness: a model per run and stage, and its scores.

Values are fractions as there. What is unknown is left out or null; the record of the run is under the key "moextend".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from moextend.bench.report.collect import Experiment, Result, lacking_notes, run_notes
from moextend.bench.report.frame import in_order
from moextend.bench.score.records import LM_EVAL, Cell
from moextend.errors import InputError
from moextend.util import files

UNSAFE = re.compile(r"[\"<>:/|\\?*\[\]]+")
"""Characters that lm-eval replaces in the name of a model to get the name of its folder."""
NO_ERROR = "N/A"
"""Value of an unknown standard error in lm-eval."""


def write(experiments: Sequence[Experiment], out: Path) -> list[Path]:
    """Writes a file for every run and stage below `out` and returns their paths; equal runs give equal bytes.

    Raises:
        InputError: two runs have one name; a run has no date.
    """
    results = [
        (result, [*run_notes(each), *lacking_notes(each.results)])
        for each in experiments
        for result in each.results
    ]
    names = Counter(_name(result) for result, _ in results)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{names[twice[0]]} runs have the name '{twice[0]}'.",
            where="RUN",
            hint="Export each into a separate folder.",
        )
    dates = [_started(result) for result, _ in results]
    written = []
    for (result, notes), started in zip(results, dates, strict=True):
        date = started.replace(tzinfo=None).isoformat().replace(":", "-")
        for stage in dict.fromkeys(stage for stage, _ in in_order(result)):
            made = _results(result, stage, started, notes)
            folder = out / made["model_name_sanitized"]
            written.append(folder / f"results_{date}.json")
            files.write_json(written[-1], made)
    return written


def _name(result: Result) -> str:
    return f"{result.config.sequence['sequence']}/{result.name}"


def _cells(result: Result, stage: int) -> list[Cell]:
    """In the order of the sequence."""
    return [result.cells[key] for key in in_order(result) if key[0] == stage]


def _started(result: Result) -> datetime:
    """Start of the run by its records; InputError if they have no date."""
    try:
        return datetime.fromisoformat(result.environments[0]["at"]).astimezone(UTC)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            "the records have no date.",
            where=str(result.run.folder),
            hint="Leave this run out, or remove its folder and run it again.",
        ) from error


def _results(result: Result, stage: int, started: datetime, notes: list[str]) -> dict[str, Any]:
    """The file of scores of one model: a run after one stage."""
    config, cells, made = result.config, _cells(result, stage), result.environments[-1]
    tasks = {cell.task: config.tasks[cell.task] for cell in cells}
    shots = {name: _shots(task) for name, task in tasks.items()}
    base, scoring = config.sequence.get("base") or {}, config.sequence.get("scoring") or {}
    name, packages = f"{_name(result)}/stage-{stage}", made.get("packages") or {}
    limited = {
        name: scoring.get("limit") or (task.get("lm_eval") or {}).get("limit") for name, task in tasks.items()
    }
    return {
        "results": {
            cell.task: {"alias": cell.task, **_metrics(cell), "sample_len": cell.n} for cell in cells
        },
        "group_subtasks": {name: [] for name in tasks},
        "configs": {cell.task: _config(result, cell) for cell in cells},
        "versions": {name: task.get("version") for name, task in tasks.items()},
        "n-shot": {name: shot for name, shot in shots.items() if shot is not None},
        "higher_is_better": {
            cell.task: {key.partition(",")[0]: True for key in _metrics(cell) if "_stderr," not in key}
            for cell in cells
        },
        "n-samples": {
            cell.task: {"original": None if limited[cell.task] else cell.n, "effective": cell.n}
            for cell in cells
        },
        "config": {
            "model": "moextend",
            "model_args": {"run": f"runs/{_name(result)}", "stage": stage},
            "model_dtype": base.get("dtype"),
            "model_revision": base.get("revision"),
            "batch_size": scoring.get("batch_size"),
            "device": made.get("device", config.device),
            "limit": scoring.get("limit"),
        },
        "git_hash": (made.get("commit") or {}).get("commit"),
        "date": started.timestamp(),
        "pretty_env_info": made.get("platform"),
        "transformers_version": packages.get("transformers"),
        "lm_eval_version": packages.get("lm-eval"),
        "model_source": "moextend",
        "model_name": name,
        "model_name_sanitized": UNSAFE.sub("__", name),
        "total_evaluation_time_seconds": str(sum(cell.seconds for cell in cells)),
        "moextend": _record(result, stage, cells, notes),
    }


def _record(result: Result, stage: int, cells: Sequence[Cell], notes: list[str]) -> dict[str, Any]:
    """Facts about a model from the records of the run; None: unknown."""
    config, base = result.config, result.config.sequence.get("base") or {}
    return {
        "sequence": config.sequence["sequence"], "sequence_version": config.sequence.get("version"),
        "run": result.name, "run_id": result.run.id or None, "state": result.state, "config": config.digest,
        **{key: getattr(config, key) for key in ("method", "seed", "order", "mode", "protocol")},
        "settings": result.facts.settings, "task_identity": result.facts.task_identity, "stage": stage,
        "stages": result.stage_names, "learned": result.stage_names[stage - 1] if stage else None,
        "base": without_folders(base.get("model")), "encoder": without_folders(base.get("vision")),
        "base_revision": base.get("revision"), "dtype": base.get("dtype"), "notes": notes,
        "environments": result.environments,
        "cells": {cell.task: cell.model_dump(exclude={"stage", "task", "predictions"}) for cell in cells},
    }  # fmt: skip


def without_folders(name: str | None) -> str | None:
    """A name of a model or of data; of an absolute path, only the last part."""
    if name is None or not (PurePath(name).is_absolute() or PureWindowsPath(name).drive or name[:1] == "~"):
        return name
    return PureWindowsPath(name).name


def _metrics(cell: Cell) -> dict[str, float | str]:
    """`metric,filter` -> fraction, each with its standard error: the cell and other readings of the answers."""
    own = ",".join(metric_of(cell))
    readings = {name if "," in name else f"{name},none": value for name, value in cell.readings.items()}
    found: dict[str, float | str] = {}
    for key, value in ({own: cell.value} | readings | {own: cell.value}).items():
        metric, _, name = key.partition(",")
        error = cell.stderr if key == own else None
        found |= {key: value / 100, f"{metric}_stderr,{name}": NO_ERROR if error is None else error / 100}
    return found


def metric_of(cell: Cell) -> tuple[str, str]:
    """Metric and filter of a cell: those of lm-eval for a text task, else the scorer and "none"."""
    if not cell.by_lm_eval:
        return cell.scorer, "none"
    wanted = cell.scorer.removeprefix(LM_EVAL)
    same = [key for key in cell.readings if wanted in (key, key.partition(",")[0])]
    metric, _, name = (same[0] if same else wanted).partition(",")
    return metric, name or "none"


def _shots(task: dict[str, Any]) -> int | None:
    """Examples in the prompt; None: set by lm-eval's task."""
    return (task.get("lm_eval") or {}).get("num_fewshot") if task.get("kind") == "text" else 0


def _config(result: Result, cell: Cell) -> dict[str, Any]:
    """The task as lm-eval describes one."""
    task, (metric, _) = result.config.tasks[cell.task], metric_of(cell)
    common = {
        "metric_list": [{"metric": metric, "higher_is_better": True}],
        "num_fewshot": _shots(task),
        "metadata": {"version": task.get("version")},
    }
    if task.get("kind") == "text":
        return {"task": task["lm_eval"]["task"], **common}
    data = task.get("data") or {}
    revision = data.get("revision") or result.facts.revisions.get(cell.task)
    return {
        "task": cell.task,
        "dataset_path": without_folders(data.get("path")),
        "dataset_name": data.get("config"),
        "dataset_kwargs": {"revision": revision} if revision else None,
        "test_split": data.get("test"),
        "doc_to_text": task.get("prompt"),
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": task.get("max_new_tokens"), "do_sample": False},
        **common,
    }
