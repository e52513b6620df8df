"""Preview of a command: runs, stages, cells, downloads, memory, files, hours, licences.

It opens no weights. Of the data it opens small local files only, to find words that the base does not know and to count
items, and of a base on the hub its config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moextend.bench.data import unknown_notes
from moextend.bench.data.source import parse_split, place
from moextend.bench.methods import Shapes
from moextend.bench.run import matching
from moextend.bench.run.complete import planned
from moextend.bench.run.data_size import stated_splits
from moextend.bench.run.downloads import MB, download, has_config, local_bytes, name_on_hub
from moextend.bench.run.opening import scored
from moextend.bench.run.plan import LEFT_OUT, Request, all_tasks, chosen_sequence, left_out, stage_steps
from moextend.bench.run.preflight import missing_files, readable, splits_used
from moextend.bench.run.records import encoder_of
from moextend.bench.run.rundir import RunConfig
from moextend.bench.sequence import SequenceSpec
from moextend.bench.task import HAND, Data, TaskSpec
from moextend.errors import InputError, at, counted, duration
from moextend.model.located import locate

SHOWN = 3
"""Number of missing files of a split that are listed."""
SMALL = 200
"""MB of weights below which runs are not estimated."""
PARTS = {
    "frozen": "frozen weights",
    "weights": "weights",
    "encoder": "image encoder",
    "learning": "trained parameters with gradients and AdamW's moments",
    "copies": "copies of trained parameters",
    "working": "activations and temporary tensors",
}
"""Parts of a peak of memory -> their names."""


def preview(
    request: Request,
    configs: Sequence[RunConfig],
    *,
    runs: Path | None = None,
    small: bool = False,
) -> dict[str, Any]:
    """What the command would do, as a JSON record.

    Args:
        runs: folder of the runs, in which some cells may be scored already; None: none are.
        small: whether the runs of a small base are estimated, too.

    Raises:
        InputError: the request is not possible.
    """
    sequence = chosen_sequence(request)
    tasks = all_tasks(sequence, request.workspace)
    return {
        "sequence": sequence.sequence,
        "version": sequence.version,
        "base": sequence.base.model_dump(exclude_none=True),
        "runs": [_run(config, len(scored(config, runs)) if runs else 0) for config in configs],
        "tasks": [_task(name, task, sequence) for name, task in tasks.items()],
        "downloads": [
            *_model_downloads(sequence, request.workspace),
            *_data_downloads(tasks.values(), request.workspace),
        ],
        "to_prepare": _to_prepare(sequence, tasks, request.workspace),
        "unknown": _unknown(sequence, tasks, request.workspace),
        "left_out": left_out(request),
        "device": request.device,
        "estimate": _estimate(request, configs, sequence, tasks, small),
    }


def describe(found: dict[str, Any]) -> str:
    """The record of `preview` as text."""
    lines = [f"Sequence {found['sequence']} (version {found['version']}), base {found['base']['model']}."]
    for run in found["runs"]:
        stages = ", ".join(f"{task} ({steps} steps)" for task, steps in run["stages"].items())
        how = {"sequence": "", "joint": "all at once: ", "independent": "each alone: "}[run["mode"]]
        lines.append(f"  {run['run']}: {how}{stages}; {_cells(run)}")
    lines.append("Tasks:")
    lines += [f"  {task['task']}: {task['use']}; {_licence(task)}" for task in found["tasks"]]
    lines += [f"  note on {name}: {note}" for name, notes in found["unknown"].items() for note in notes]
    lines += [f"  {name}: left out. {LEFT_OUT}" for name in found["left_out"]]
    lines.append("Downloads:" if found["downloads"] else "Downloads: none.")
    lines += [f"  {_download(each)}" for each in found["downloads"]]
    if found["to_prepare"]:
        lines.append("To be provided by hand:")
        for how in dict.fromkeys(need["how"] for need in found["to_prepare"]):
            lines.append(f"  {how}")
            for need in (need for need in found["to_prepare"] if need["how"] == how):
                lines.append(f"    {need['where']} (for {', '.join(need['tasks'])})")
    estimate = found["estimate"]
    lines += [f"Memory and hours: {estimate['not']}"] if "not" in estimate else _estimated(estimate)
    return "\n".join(lines)


def _estimate(
    request: Request,
    configs: Sequence[RunConfig],
    sequence: SequenceSpec,
    tasks: dict[str, TaskSpec],
    small: bool,
) -> dict[str, Any]:
    """Memory, files, operations and hours of the runs, or why they are not known: {"not": why}."""
    base = sequence.base
    size = (local_bytes(base, request.workspace) or 0) / MB
    make = matching.skeletons(base, request.workspace)
    if 0 < size < SMALL and not small:
        named = [config for config in configs if _names_layers(config.parsed_method().config)]
        if named:
            _check(named, make)  # takes seconds
        return {"not": f"a base of {size:,.1f} MB fits any GPU."}
    if base.found(request.workspace) in base.by_hand(request.workspace):
        return {"not": "not estimated until the base is available."}
    name = name_on_hub(base, request.workspace)
    if name and not has_config(name, base.revision):
        return {"not": "not estimated until the base's config is available."}
    _check(configs, make)
    from moextend.bench.run.estimate import Plan, estimate  # torch

    plan = Plan(sequence, tasks, request.workspace, make)
    try:
        return estimate(configs, plan, device=request.device)
    except InputError as error:
        return {"not": f"not estimated ({error})"}


def _check(configs: Sequence[RunConfig], make: Callable[[], Any]) -> None:
    """Raises InputError if a method cannot learn with the base."""
    try:
        shapes = Shapes(make())
    except InputError:  # `estimate` says why
        return
    for config in configs:
        with at(f"method '{config.method}'"):
            config.parsed_method().make().check(shapes)


def _names_layers(settings: Any) -> bool:
    """Whether a method's settings may not fit the base: named layers, or paper routing."""
    return isinstance(getattr(settings, "layers", None), list) or getattr(settings, "routing", "") == "paper"


def _unknown(sequence: SequenceSpec, tasks: Mapping[str, TaskSpec], workspace: Path) -> dict[str, list[str]]:
    """Task -> words that the base's tokenizer does not know; tasks without such words are left out."""
    base = sequence.base.found(workspace)
    found = {}
    for name, task in tasks.items():
        if task.data is None or not task.data.path or task.data.path.startswith("world:"):
            continue
        try:
            if readable(task, "test", workspace):
                found[name] = unknown_notes(task, workspace, base)
        except InputError:
            continue  # a run tells what is wrong with the data
    return {name: notes for name, notes in found.items() if notes}


def _cells(run: dict[str, Any]) -> str:
    """How many cells of a run are to be scored."""
    if run["scored"] == run["cells"]:
        return f"done: all {run['cells']} cells are scored"
    left = run["cells"] - run["scored"]
    return f"{left} of {run['cells']} cells to score" if run["scored"] else f"{left} cells to score"


def _run(config: RunConfig, known: int) -> dict[str, Any]:
    about = config.parsed_method().record()
    return {
        "run": config.slug,
        **{key: getattr(config, key) for key in ("method", "seed", "order", "mode")},
        "task_identity": about["task_identity"],
        "settings": about["settings"],
        "stages": dict(stage_steps(config)),
        "cells": len(planned(config)),
        "scored": known,
    }


def _task(name: str, task: TaskSpec, sequence: SequenceSpec) -> dict[str, Any]:
    learned = name in [stage.task for stage in sequence.stages]
    uses = ["aligns the projector"] * (name in [align.task for align in sequence.alignments])
    if not uses or name in sequence.transfer:
        uses.append("scored")
    return {
        "task": name,
        "version": task.version,
        "kind": task.kind,
        "use": "learned and scored" if learned else " and is ".join(uses),
        "licence": task.licence,
        "non_commercial": task.non_commercial,
        "source": task.source,
    }


def _licence(task: dict[str, Any]) -> str:
    warning = " (NON-COMMERCIAL USE ONLY)" if task["non_commercial"] else ""
    return f"licence {task['licence'] or 'not stated'}{warning}"


def _model_downloads(sequence: SequenceSpec, workspace: Path) -> list[dict[str, Any]]:
    found = []
    base = sequence.base
    if on_hub := name_on_hub(base, workspace):
        found += download(on_hub, "model", base.revision)
    for modality, name in base.encoders_in(workspace).items():
        if name not in base.by_hand(workspace) and (source := locate(modality, name)).remote:
            found.append({"what": f"{encoder_of(modality)} {name} of {source.library}", "mb": None})
    return found


def _to_prepare(
    sequence: SequenceSpec, tasks: Mapping[str, TaskSpec], workspace: Path
) -> list[dict[str, Any]]:
    """Files and folders that the user has to provide, for which tasks, and how."""
    needs: dict[str, dict[str, Any]] = {}

    def need(where: Path | str, how: str, task: str) -> None:
        made: dict[str, Any] = {"where": str(where), "how": how, "tasks": []}
        found = needs.setdefault(str(where), made)
        if task not in found["tasks"]:
            found["tasks"].append(task)

    for name in sorted(sequence.base.by_hand(workspace)):
        need(name, "Copy the folder of the model or encoder there.", "the base")
    for task in tasks.values():
        if task.lm_eval is not None and (task.lm_eval.data or "").startswith(HAND):
            folder = place(task.lm_eval.data or "", task.folder(), workspace)
            if not folder.exists():
                need(folder, task.lm_eval.prepare or "see the task's source", task.task)
    for task, split in splits_used(sequence, tasks):
        assert task.data is not None, "only these have splits"
        try:
            gone = missing_files(task, split, workspace)
        except InputError as error:
            need(error.where or task.task, f"{error.what} {error.hint or ''}".strip(), task.task)
            continue
        for path in list(gone)[:SHOWN]:
            need(path, task.data.prepare or "Put it there, or correct its path.", task.task)
    return list(needs.values())


def _data_downloads(tasks: Iterable[TaskSpec], workspace: Path) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        if task.lm_eval is not None and task.lm_eval.path is None:
            found.append({"what": f"data of lm-eval's {task.lm_eval.task}, if not there yet", "mb": None})
        if task.data is None or task.data.path.startswith(("world:", HAND)):
            continue
        if not place(task.data.path, task.folder(), workspace).exists():
            found += [
                {**each, "problem": each["problem"] or _no_split(task.data)}
                for each in download(task.data.path, "dataset", task.data.revision)
            ]
    found.sort(key=lambda each: each.get("problem") is not None)  # of equal ones the last is kept
    return list({each["what"]: each for each in found}.values())


def _no_split(data: Data) -> str | None:
    """What the card of a hub data set lacks of the splits of a task; None if it has them, or states none."""
    stated = stated_splits(data.path, data.config, data.revision)
    wanted = [parse_split(name, where=data.path).split for name in (data.train, data.test) if name]
    lacks = [name for name in wanted if stated and name not in stated]
    return f"it has no split '{lacks[0]}', but {', '.join(stated)}." if lacks else None


def _download(found: dict[str, Any]) -> str:
    size = "size not known" if found["mb"] is None else f"{found['mb']:,.{0 if found['mb'] >= 10 else 1}f} MB"
    return f"{found['what']} ({size})" + (f": {found['problem']}" if found.get("problem") else "")


def _estimated(found: Mapping[str, Any]) -> list[str]:
    """Lines on memory, files, operations and hours."""
    asked, on = found["scoring"], {True: "on", False: "off"}
    lines = [
        f"Estimated from shapes, not measured; memory to about 15%. Base: {found['parameters']:,} parameters, "
        f"{found['active_parameters']:,} of them per token, in {found['base_dtype']}; bf16 {on[found['bf16']]}, "
        f"gradient checkpointing {on[found['gradient_checkpointing']]}.",
        f"Assumed: conversations of {found['tokens']} tokens, {found['labelled']} of them learned, "
        f"{found['rows']} at a time; answers of {asked['new']} tokens to prompts of {asked['tokens']}, "
        f"{asked['rows']} at a time; {_speed(found)}.",
    ]
    for slug, run in found["runs"].items():
        each = run["stored_mb"] / max(1, len(run["stages"]))
        work = ", ".join(f"{key} {_size(value)}" for key, value in run["teraflop"].items() if value)
        lines += [
            f"  {slug}: trains {run['parameters']['trained']:,} parameters per stage; stores {each:,.1f} MB per stage, "
            f"{run['stored_mb']:,.1f} MB in all",
            f"    memory: {'; '.join(_peak(*part) for part in run['memory'].items() if part[1]['peak_gb'])}",
            f"    operations: {_size(run['teraflop_in_all'])} ({work}); {duration(3600 * run['hours'])}",
        ]
    unknown = sorted({name for run in found["runs"].values() for name in run["without_scoring_of"]})
    if unknown:
        lines.append(f"Scoring of {', '.join(unknown)} is not included: the number of items is not known.")
    return [
        *lines,
        f"On top: about {found['overhead_gb']:.0f} GB of a GPU for its context and kernels. Keys and values take "
        f"{found['cache_mb_a_token']:.3g} MB per token in scoring, which is included.",
    ]


def in_all(found: Mapping[str, Any]) -> str:
    """Hours of one run and of all; or why they are not known."""
    if "not" in found:
        return f"Hours: {found['not']}"
    hours = {slug: run["hours"] for slug, run in found["runs"].items()}
    longest = max(hours, key=lambda slug: hours[slug])
    return (
        f"Estimated: one run takes at most {duration(math.ceil(3600 * hours[longest]))} ({longest}), "
        f"{counted(len(hours), 'run')} {sum(hours.values()):,.3g} {found['unit']}, at {_speed(found)}."
    )


def _speed(found: Mapping[str, Any]) -> str:
    return f"{found['throughput']:.3g} TFLOP/s ({found['throughput_of']})"


def _peak(name: str, peak: Mapping[str, float]) -> str:
    parts = [f"{PARTS[key]} {peak[f'{key}_gb']:.1f}" for key in PARTS if peak.get(f"{key}_gb", 0) >= 0.05]
    return f"{name} {peak['peak_gb']:.1f} GB ({', '.join(parts)})"


def _size(teraflop: float) -> str:
    return f"{teraflop / 1e3:,.1f} PFLOP" if teraflop >= 1e3 else f"{teraflop:.3g} TFLOP"
