"""The files of lm-evaluation-harness 0.4.13: results_<date>.json and samples_<task>_<date>.jsonl, a folder a model.

Fields as in lm_eval.result_schema and lm_eval.loggers.evaluation_tracker. Scores are fractions, as lm-eval's are. The
key `moextend`, which lm-eval does not have, holds the facts about the model and its cells. Unknown values are null or
left out; prompts are not recorded, so arguments are empty and tasks have no hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from moextend.bench.report.schemas.snapshot import Item, Snapshot, without_folders
from moextend.bench.run.rundir import slug
from moextend.bench.score.records import LM_EVAL, Cell
from moextend.util import files

UNSAFE = re.compile(r"[\"<>:/|\\?*\[\]]+")
"""Characters that lm-eval replaces in the name of a model to get the name of its folder."""
NO_ERROR = "N/A"
"""Value of an unknown standard error in lm-eval."""


def write(snapshot: Snapshot, out: Path, items: bool, _organization: str | None) -> list[Path]:
    """Writes the files of one model and returns their paths."""
    folder = out / UNSAFE.sub("__", snapshot.name)
    date = snapshot.started.replace(tzinfo=None).isoformat().replace(":", "-")
    written = [folder / f"results_{date}.json"]
    files.write_json(written[0], _results(snapshot))
    for cell in snapshot.cells if items else ():
        found = snapshot.items(cell)
        if found:
            path = folder / f"samples_{slug(cell.task)}_{date}.jsonl"
            files.write_lines(path, [_sample(i, item, cell) for i, item in enumerate(found)], synced=False)
            written.append(path)
    return written


def _results(snapshot: Snapshot) -> dict[str, Any]:
    cells = snapshot.cells
    shots = {cell.task: _shots(snapshot.task(cell)) for cell in cells}
    found = {
        "results": {
            cell.task: {"alias": cell.task, **_metrics(cell), "sample_len": cell.n} for cell in cells
        },
        "group_subtasks": {cell.task: [] for cell in cells},
        "configs": {cell.task: _config(snapshot, cell) for cell in cells},
        "versions": {cell.task: snapshot.task(cell).get("version") for cell in cells},
        "n-shot": {task: shot for task, shot in shots.items() if shot is not None},
        "higher_is_better": {cell.task: dict.fromkeys(_names(cell), True) for cell in cells},
        "n-samples": {
            cell.task: {"original": None if _is_limited(snapshot, cell) else cell.n, "effective": cell.n}
            for cell in cells
        },
    }
    return {**found, "config": _execution(snapshot), **_about(snapshot)}


def _metrics(cell: Cell) -> dict[str, float | str]:
    """`metric,filter` -> fraction, each with its standard error: the cell and other readings of the answers."""
    found: dict[str, float | str] = {}
    own = ",".join(metric_of(cell))
    for key, value in {own: cell.value, **_other_readings(cell, own)}.items():
        metric, _, name = key.partition(",")
        error = cell.stderr if key == own else None
        found[key] = value / 100
        found[f"{metric}_stderr,{name}"] = NO_ERROR if error is None else error / 100
    return found


def metric_of(cell: Cell) -> tuple[str, str]:
    """Metric and filter of a cell: those of lm-eval for a text task, else the scorer and "none"."""
    if not cell.by_lm_eval:
        return cell.scorer, "none"
    wanted = cell.scorer.removeprefix(LM_EVAL)
    same = [key for key in cell.readings if wanted in (key, key.partition(",")[0])]
    metric, _, name = (same[0] if same else wanted).partition(",")
    return metric, name or "none"


def _other_readings(cell: Cell, own: str) -> dict[str, float]:
    keys = {name if "," in name else f"{name},none": value for name, value in cell.readings.items()}
    return {key: value for key, value in keys.items() if key != own}


def _names(cell: Cell) -> list[str]:
    keys = [key.partition(",")[0] for key in _metrics(cell)]
    return [name for name in dict.fromkeys(keys) if not name.endswith("_stderr")]


def _shots(task: dict[str, Any]) -> int | None:
    """Examples in the prompt; None: set by lm-eval's task."""
    return (task.get("lm_eval") or {}).get("num_fewshot") if task.get("kind") == "text" else 0


def _is_limited(snapshot: Snapshot, cell: Cell) -> bool:
    parts = (snapshot.result.config.sequence.get("scoring"), snapshot.task(cell).get("lm_eval"))
    return any((part or {}).get("limit") for part in parts)


def _config(snapshot: Snapshot, cell: Cell) -> dict[str, Any]:
    """The task as lm-eval describes one."""
    task = snapshot.task(cell)
    metric, _ = metric_of(cell)
    rated = {"metric_list": [{"metric": metric, "higher_is_better": True}]}
    noted = {"metadata": {"version": task.get("version")}}
    if task.get("kind") == "text":
        return {"task": task["lm_eval"]["task"], **rated, "num_fewshot": _shots(task), **noted}
    data = task.get("data") or {}
    return {
        "task": cell.task,
        "dataset_path": without_folders(data.get("path")),
        "dataset_name": data.get("config"),
        "dataset_kwargs": {"revision": snapshot.revision(cell)} if snapshot.revision(cell) else None,
        "test_split": data.get("test"),
        "doc_to_text": task.get("prompt"),
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": task.get("max_new_tokens"), "do_sample": False},
        **rated,
        "num_fewshot": 0,
        **noted,
    }


def _execution(snapshot: Snapshot) -> dict[str, Any]:
    """The model and its execution. Seeds of lm-eval are unknown; the seed of the run is under `moextend`."""
    config = snapshot.result.config
    base, scoring = config.sequence["base"], config.sequence.get("scoring") or {}
    return {
        "model": "moextend",
        "model_args": {"run": f"runs/{snapshot.sequence}/{snapshot.result.name}", "stage": snapshot.stage},
        "model_dtype": base.get("dtype"),
        "model_revision": base.get("revision"),
        "batch_size": scoring.get("batch_size"),
        "batch_sizes": [],
        "device": snapshot.environments[-1].get("device", config.device),
        "use_cache": None,
        "limit": scoring.get("limit"),
        "bootstrap_iters": None,
        "gen_kwargs": None,
        "random_seed": None,
        "numpy_seed": None,
        "torch_seed": None,
        "fewshot_seed": None,
    }


def _about(snapshot: Snapshot) -> dict[str, Any]:
    """The environment and the model as lm-eval records them, and the record of the run."""
    made = snapshot.environments[-1]
    cells = {cell.task: cell.model_dump(exclude={"stage", "task", "predictions"}) for cell in snapshot.cells}
    return {
        "git_hash": (made.get("commit") or {}).get("commit"),
        "date": snapshot.started.timestamp(),
        "pretty_env_info": made.get("platform"),
        "transformers_version": snapshot.packages.get("transformers"),
        "lm_eval_version": snapshot.packages.get("lm-eval"),
        "upper_git_hash": None,
        "task_hashes": {},
        "model_source": "moextend",
        "model_name": snapshot.name,
        "model_name_sanitized": UNSAFE.sub("__", snapshot.name),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(sum(cell.seconds for cell in snapshot.cells)),
        "moextend": {**snapshot.record(), "environments": snapshot.environments, "cells": cells},
    }


def _sample(number: int, item: Item, cell: Cell) -> dict[str, Any]:
    """One answer. Of the document of a text task only the id is recorded, so it has no hash."""
    metric, name = metric_of(cell)
    doc: dict[str, Any] = {"id": item.id}
    if item.question is not None:
        asked = {"question": item.question, "answers": item.references, "choices": item.choices}
        doc |= {**asked, "kind": item.kind, "group": item.group, "image": item.image}
    target = item.references[0] if len(item.references) == 1 else str(item.references)
    values = None if item.likelihoods is None else [str(value) for value in item.likelihoods]
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {},
        "resps": [[item.answer]],
        "filtered_resps": [item.answer],
        "filter": name,
        "metrics": [metric],
        "doc_hash": None if item.question is None else _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": None,
        "target_hash": _hash(target),
        metric: item.score,
        "loglikelihoods": values,
    }


def _hash(text: str) -> str:
    """As lm-eval hashes."""
    return hashlib.sha256(text.encode()).hexdigest()
