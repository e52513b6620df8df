"""Results as files of lm-evaluation-harness: a model per run and stage, its scores and the answers to single items.

Values are fractions as there. What is unknown is left out or null; the record of the run is under the key "moextend".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from moextend.bench.report.collect import Experiment, Result, lacking_notes, run_notes
from moextend.bench.report.frame import in_order
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import slug
from moextend.bench.score.kept import ScoreReader, read_predictions
from moextend.bench.score.lines import Words, text_item
from moextend.bench.score.records import LM_EVAL, Cell
from moextend.errors import InputError
from moextend.util import files

UNSAFE = re.compile(r"[\"<>:/|\\?*\[\]]+")
"""Characters that lm-eval replaces in the name of a model to get the name of its folder."""
NO_ERROR = "N/A"
"""Value of an unknown standard error in lm-eval."""


def write(experiments: Sequence[Experiment], out: Path, *, items: bool = False) -> list[Path]:
    """Writes the files of every run and stage below `out` and returns their paths; equal runs give equal bytes.

    Args:
        items: whether to write the single answers. Cells with missing or damaged predictions have none; damaged ones
            are listed in `Result.lacks`.

    Raises:
        InputError: two runs have one name; a run has no date.
    """
    found = list(_snapshots(experiments))
    name, count = Counter(snapshot.name for snapshot in found).most_common(1)[0] if found else ("", 0)
    if count > 1:
        raise InputError(
            f"{count} runs have the name '{name.rpartition('/')[0]}'.",
            where="RUN",
            hint="Export each into a separate folder.",
        )
    return [path for snapshot in found for path in _write(snapshot, out, items)]


@dataclass(frozen=True)
class _Snapshot:
    """A run after one stage, which is one model."""

    result: Result
    stage: int
    cells: list[Cell]
    """In the order of the sequence."""
    notes: list[str]
    """Those of the tables of the run: what is not finished, damaged or made of something else."""

    @property
    def name(self) -> str:
        """A name of the model: sequence, run and stage."""
        return f"{self.result.config.sequence['sequence']}/{self.result.name}/stage-{self.stage}"

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """Recorded environments of the run, oldest first; an empty one if there is none."""
        return self.result.run.environments or [{}]

    @cached_property
    def started(self) -> datetime:
        """Start of the run by its records; InputError if they have no date."""
        noted, started = self.environments[0].get("at"), read_status(self.result.run.folder).started
        try:
            if noted or started:
                known = datetime.fromisoformat(noted) if noted else datetime.fromtimestamp(started or 0, UTC)
                return known.astimezone(UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            pass
        raise InputError(
            "the records have no date.",
            where=str(self.result.run.folder),
            hint="Leave this run out, or remove its folder and run it again.",
        )

    def task(self, cell: Cell) -> dict[str, Any]:
        """The spec of a cell's task."""
        return self.result.config.tasks[cell.task]

    def record(self) -> dict[str, Any]:
        """Facts about this model from the records of the run; None: unknown."""
        result, config, facts, stage = self.result, self.result.config, self.result.facts, self.stage
        base = config.sequence["base"]
        return {
            "sequence": config.sequence["sequence"], "sequence_version": config.sequence.get("version"),
            "run": result.name, "run_id": result.run.id or None, "state": result.state, "config": config.digest,
            **{key: getattr(config, key) for key in ("method", "seed", "order", "mode", "protocol")},
            "settings": facts.settings, "task_identity": facts.task_identity, "stage": stage,
            "stages": result.stage_names, "learned": result.stage_names[stage - 1] if stage else None,
            **{name: without_folders(base.get(key)) for name, key in (("base", "model"), ("encoder", "vision"))},
            "base_revision": base.get("revision"), "dtype": base.get("dtype"), "notes": self.notes,
            "environments": self.environments,
            "cells": {cell.task: cell.model_dump(exclude={"stage", "task", "predictions"}) for cell in self.cells},
        }  # fmt: skip


def _snapshots(experiments: Sequence[Experiment]) -> Iterator[_Snapshot]:
    """Every run after every scored stage."""
    for experiment in experiments:
        notes = [*run_notes(experiment), *lacking_notes(experiment.results)]
        for result in experiment.results:
            keys = in_order(result)
            for stage in dict.fromkeys(stage for stage, _ in keys):
                yield _Snapshot(result, stage, [result.cells[key] for key in keys if key[0] == stage], notes)


def without_folders(name: str | None) -> str | None:
    """A name of a model or of data; of an absolute path, only the last part."""
    if name is None or not (PurePath(name).is_absolute() or PureWindowsPath(name).drive or name[:1] == "~"):
        return name
    return PureWindowsPath(name).name


def _write(snapshot: _Snapshot, out: Path, items: bool) -> list[Path]:
    """Writes the files of one model and returns their paths."""
    folder = out / UNSAFE.sub("__", snapshot.name)
    date = snapshot.started.replace(tzinfo=None).isoformat().replace(":", "-")
    written = [folder / f"results_{date}.json"]
    files.write_json(written[0], _results(snapshot))
    for cell in snapshot.cells if items else ():
        if found := _samples(snapshot.result, cell):
            written.append(folder / f"samples_{slug(cell.task)}_{date}.jsonl")
            files.write_lines(written[-1], found, synced=False)
    return written


def _results(snapshot: _Snapshot) -> dict[str, Any]:
    cells, config, made = snapshot.cells, snapshot.result.config, snapshot.environments[-1]
    shots = {cell.task: _shots(snapshot.task(cell)) for cell in cells}
    base, scoring = config.sequence["base"], config.sequence.get("scoring") or {}
    packages = made.get("packages") or {}
    run = snapshot.name.rpartition("/")[0]
    return {
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
        "config": {
            "model": "moextend",
            "model_args": {"run": f"runs/{run}", "stage": snapshot.stage},
            "model_dtype": base.get("dtype"),
            "model_revision": base.get("revision"),
            "batch_size": scoring.get("batch_size"),
            "device": made.get("device", config.device),
            "limit": scoring.get("limit"),
        },
        "git_hash": (made.get("commit") or {}).get("commit"),
        "date": snapshot.started.timestamp(),
        "pretty_env_info": made.get("platform"),
        "transformers_version": packages.get("transformers"),
        "lm_eval_version": packages.get("lm-eval"),
        "model_source": "moextend",
        "model_name": snapshot.name,
        "model_name_sanitized": UNSAFE.sub("__", snapshot.name),
        "total_evaluation_time_seconds": str(sum(cell.seconds for cell in cells)),
        "moextend": snapshot.record(),
    }


def _metrics(cell: Cell) -> dict[str, float | str]:
    """`metric,filter` -> fraction, each with its standard error: the cell and other readings of the answers."""
    own = ",".join(metric_of(cell))
    readings = {name if "," in name else f"{name},none": value for name, value in cell.readings.items()}
    found: dict[str, float | str] = {}
    for key, value in ({own: cell.value} | {key: one for key, one in readings.items() if key != own}).items():
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


def _names(cell: Cell) -> list[str]:
    keys = [key.partition(",")[0] for key in _metrics(cell)]
    return [name for name in dict.fromkeys(keys) if not name.endswith("_stderr")]


def _shots(task: dict[str, Any]) -> int | None:
    """Examples in the prompt; None: set by lm-eval's task."""
    return (task.get("lm_eval") or {}).get("num_fewshot") if task.get("kind") == "text" else 0


def _is_limited(snapshot: _Snapshot, cell: Cell) -> bool:
    parts = (snapshot.result.config.sequence.get("scoring"), snapshot.task(cell).get("lm_eval"))
    return any((part or {}).get("limit") for part in parts)


def _config(snapshot: _Snapshot, cell: Cell) -> dict[str, Any]:
    """The task as lm-eval describes one."""
    task, (metric, _) = snapshot.task(cell), metric_of(cell)
    common = {
        "metric_list": [{"metric": metric, "higher_is_better": True}],
        "num_fewshot": _shots(task),
        "metadata": {"version": task.get("version")},
    }
    if task.get("kind") == "text":
        return {"task": task["lm_eval"]["task"], **common}
    data = task.get("data") or {}
    revision = data.get("revision") or snapshot.result.facts.revisions.get(cell.task)
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


def _samples(result: Result, cell: Cell) -> list[dict[str, Any]]:
    """The answers of a cell; empty if they are missing or damaged. Damaged ones are listed in `result.lacks`."""
    if cell.predictions is None:
        return []
    path = result.run.folder / cell.predictions
    try:
        rows = _of_text(path, cell) if cell.by_lm_eval else _asked(result, path, cell)
        found = [{"doc_id": number, **row} for number, row in enumerate(rows)]
        json.dumps(found, ensure_ascii=False).encode()  # refuses lone surrogates
        return found
    except Exception as error:  # as if they were not kept: one damaged file hides no other cell
        result.note_damage(cell.task, error)
        return []


def _asked(result: Result, path: Path, cell: Cell) -> Iterator[dict[str, Any]]:
    """The answers of a task that this package scores."""
    records = read_predictions(path, cell.sha256)
    if not records:
        return
    ids = Words()
    items, run = ids.numbers(record.id for record in records), result.run.folder
    read, workspace = ScoreReader(ids), result.config.workspace
    scores = read(run, cell, workspace)
    scores = scores if scores.are_of(items) else read.again(run, cell, workspace, records)
    for record, score in zip(records, scores.of(items), strict=True):
        answers = list(record.answers)
        doc = {
            "id": record.id, "question": record.question, "answers": answers,
            "choices": list(record.choices or ()) or None, "kind": record.kind, "group": record.group,
            "image": without_folders(record.image or None),
        }  # fmt: skip
        own = None if score != score else float(score)
        yield _sample(cell, doc, answers, record.prediction, own, record.likelihoods or None)


def _of_text(path: Path, cell: Cell) -> Iterator[dict[str, Any]]:
    """The answers of a text task. Of a document only the id is recorded."""
    for line in files.read_lines(path, cell.sha256):
        if "summary" not in line:
            right = line.get("right")
            score = float(right) if isinstance(right, int | float) else None
            answers = [_words(line.get("gold"))], _words(line.get("prediction"))
            yield _sample(cell, {"id": text_item(line)}, *answers, score, line.get("loglikelihoods"))


def _sample(
    cell: Cell, doc: dict[str, Any], references: list[str], answer: str, score: float | None,
    likelihoods: Sequence[float] | None,
) -> dict[str, Any]:  # fmt: skip
    """One answer. A document of which only the id is recorded has no hash."""
    metric, name = metric_of(cell)
    target = references[0] if len(references) == 1 else str(references)
    return {
        "doc": doc,
        "target": target,
        "arguments": {},
        "resps": [[answer]],
        "filtered_resps": [answer],
        "filter": name,
        "metrics": [metric],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)) if "question" in doc else None,
        "prompt_hash": None,
        "target_hash": _hash(target),
        metric: score,
        "loglikelihoods": None if likelihoods is None else [str(value) for value in likelihoods],
    }


def _hash(text: str) -> str:
    """As lm-eval hashes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
