"""Preview of a command: runs, stages, cells, downloads, memory, files, hours, licences.

It opens no weights; of the data only small local files, to count items, and of a base on the hub its config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from moextend.bench.data.source import place
from moextend.bench.methods import Shapes
from moextend.bench.run.complete import planned
from moextend.bench.run.estimate import UPCYCLE, Plan, estimate, skeletons
from moextend.bench.run.opening import scored
from moextend.bench.run.plan import LEFT_OUT, Request
from moextend.bench.run.preflight import missing_files, splits_used
from moextend.bench.run.records import encoder_of
from moextend.bench.run.rundir import RunConfig
from moextend.bench.sequence import Base, SequenceSpec
from moextend.bench.task import HAND, TaskSpec
from moextend.bench.tuned import TEST, VALIDATION
from moextend.data.hub import is_prepared
from moextend.errors import InputError, MoextendError, at, duration
from moextend.model import sources
from moextend.model.encoders import locate
from moextend.util import content, hub_errors
from moextend.util.hub_errors import Kind, of_hub

SHOWN = 3
"""Number of missing files of a split that are listed."""
MB = 1e6
SMALL = 200
"""MB of weights below which runs fit everywhere, and are not estimated."""
UNUSED = (".*", "*.md", "LICENSE*", "*.png", "*.jpg", "*.jpeg", "*.pdf")
OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")
"""The same weights in other formats, which are not downloaded where there are safetensors."""
WEIGHTS = (".safetensors", ".bin", ".gguf")


def preview(
    request: Request,
    configs: Sequence[RunConfig],
    *,
    runs: Path | None = None,
) -> dict[str, Any]:
    """What the command would do, as a JSON record.

    Args:
        runs: folder of the runs, in which some cells may be scored already; None: none are.

    Raises:
        InputError: the request is not possible.
    """
    sequence, tasks, left = request.read
    return {
        "sequence": sequence.sequence,
        "version": sequence.version,
        "base": sequence.base.model_dump(exclude_none=True),
        "runs": [_run(config, len(scored(config, runs)) if runs else 0) for config in configs],
        "tasks": [_task(name, task, sequence) for name, task in tasks.items()],
        "downloads": _downloads(sequence, tasks, request.workspace),
        "to_prepare": _to_prepare(sequence, tasks, request.workspace),
        "left_out": left,
        "device": request.device,
        "estimate": _estimate(request, configs),
    }


def describe(found: dict[str, Any]) -> str:
    """The record of `preview` as text."""
    lines = [
        f"Sequence {found['sequence']} (version {found['version']}), base {Base(**found['base']).words}."
    ]
    for run in found["runs"]:
        stages = ", ".join(f"{task} ({steps} steps)" for task, steps in run["stages"].items())
        how = {"sequence": "", "joint": "all at once: ", "independent": "each alone: "}[run["mode"]]
        left, known = run["cells"] - run["scored"], f" of {run['cells']}" if run["scored"] else ""
        cells = f"{left}{known} cells to score" if left else f"done: all {run['cells']} cells are scored"
        tuned = (run["tuned_on"] or "").startswith((VALIDATION, TEST))
        source = f"; settings from {run['tuned_on']}" if tuned else ""
        lines.append(f"  {run['run']}: {how}{stages}; {cells}{source}")
    lines.append("Tasks:")
    for task in found["tasks"]:
        warning = " (NON-COMMERCIAL USE ONLY)" if task["non_commercial"] else ""
        lines.append(f"  {task['task']}: {task['use']}; licence {task['licence'] or 'not stated'}{warning}")
    lines += [f"  {name}: left out. {LEFT_OUT}" for name in found["left_out"]]
    lines.append("Downloads:" if found["downloads"] else "Downloads: none.")
    for each in found["downloads"]:
        mb, problem = each["mb"], f": {each['problem']}" if each["problem"] else ""
        size = "size not known" if mb is None else f"{mb:,.{0 if mb >= 10 else 1}f} MB"
        lines.append(f"  {each['what']} ({size}){problem}")
    if found["to_prepare"]:
        lines.append("To be provided by hand:")
    for how in dict.fromkeys(need["how"] for need in found["to_prepare"]):
        own = [need for need in found["to_prepare"] if need["how"] == how]
        lines += [f"  {how}", *(f"    {need['where']} (for {', '.join(need['tasks'])})" for need in own)]
    estimate = found["estimate"]
    lines += [f"Memory and hours: {estimate['not']}"] if "not" in estimate else _estimated(estimate)
    return "\n".join(lines)


def _estimate(request: Request, configs: Sequence[RunConfig]) -> dict[str, Any]:
    """Memory, files, operations and hours of the runs, or why they are not known: {"not": why}."""
    sequence, tasks, _ = request.read
    base, found = sequence.base, _place(sequence.base, request.workspace)
    if base.found(request.workspace) in base.by_hand(request.workspace):
        return {"not": "not estimated until the base is available."}
    if isinstance(found, str) and not _has_config(found, base.revision):
        return {"not": "not estimated until the base's config is available."}
    plan = Plan(sequence, tasks, request.workspace, skeletons(base, request.workspace))
    weights = found.rglob("*.safetensors") if isinstance(found, Path) else ()
    size = sum(file.stat().st_size for file in weights) / MB
    fits = {"not": f"a base whose files have {size:,.1f} MB fits any GPU."} if 0 < size < SMALL else {}
    if fits and base.upcycle is None:
        return fits
    try:
        shapes = Shapes(plan.make())
    except InputError as error:
        if error.where == UPCYCLE:
            raise
        return {"not": f"not estimated ({error})"}
    if fits:
        return fits
    for config in configs:
        with at(f"method '{config.method}'"):
            config.method_spec.make().check(shapes)
    return estimate(configs, plan, device=request.device)


def _run(config: RunConfig, known: int) -> dict[str, Any]:
    about = config.method_spec.record()
    return {
        "run": config.slug,
        **{key: getattr(config, key) for key in ("method", "seed", "order", "mode", "tuned_on")},
        "task_identity": about["task_identity"],
        "settings": about["settings"],
        "stages": config.steps,
        "cells": len(planned(config)),
        "scored": known,
    }


def _task(name: str, task: TaskSpec, sequence: SequenceSpec) -> dict[str, Any]:
    learned = name in [stage.task for stage in sequence.stages]
    uses = ["aligns the projector"] * (name in [align.task for align in sequence.align])
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


def _place(base: Base, workspace: Path) -> Path | str | None:
    """Folder, file or name on the hub of a base; None for one of a package, or one that is still missing in data/."""
    name = base.found(workspace)
    return None if name in content.CARRIED or name in base.by_hand(workspace) else sources.find(name)


def _downloads(
    sequence: SequenceSpec, tasks: Mapping[str, TaskSpec], workspace: Path
) -> list[dict[str, Any]]:
    """What is not on this machine yet: {"what", "mb", "problem"}; what is refused comes last."""
    base, found = sequence.base, list[dict[str, Any]]()
    if isinstance(on_hub := _place(base, workspace), str):
        found += _download(on_hub, "model", base.revision)
    for modality, name in base.encoders_in(workspace).items():
        if name not in base.by_hand(workspace) and (source := locate(modality, name)).remote:
            found.append(_record(f"{encoder_of(modality)} {name} of {source.library}"))
    for task in tasks.values():
        if task.lm_eval is not None and task.lm_eval.path is None:
            found.append(_record(f"data of lm-eval's {task.lm_eval.task}, if not there yet"))
        if task.data is None or task.data.path.startswith(("world:", HAND)):
            continue
        if not place(task.data.located, task.folder(), workspace).exists():
            found += _download(task.data.located, "dataset", task.data.revision)
    found.sort(key=lambda each: each["problem"] is not None)  # of equal ones the last is kept
    return list({each["what"]: each for each in found}.values())


def _record(what: str, mb: float | None = None, problem: MoextendError | None = None) -> dict[str, Any]:
    """`mb` is null if the hub does not tell; `problem` is what it refuses, or why it cannot be asked."""
    words = None if problem is None else f"{problem.what} {problem.hint or ''}".strip()
    return {"what": what, "mb": mb, "problem": words}


def _download(name: str, kind: Kind, revision: str | None) -> list[dict[str, Any]]:
    """A download from the hub; none if everything is in the cache."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    what = f"{kind} {name} from the hub"
    if kind == "dataset" and is_prepared(name):
        return []
    try:
        info = hub_errors.ask(name, kind, revision=revision, sizes=True)
        if info.gated:
            HfApi().auth_check(name, repo_type=kind)
    except Exception as error:  # offline, gated, misspelt
        cached = sources.snapshot(name, revision) if kind == "model" else None
        if cached is not None and any(path.suffix in WEIGHTS for path in cached.iterdir()):
            return []
        return [_record(what, problem=of_hub(error, name, kind, revision=revision))]
    files = info.siblings or []
    if kind == "model":
        files = [file for file in files if not any(fnmatch(file.rfilename, other) for other in UNUSED)]
        if any(file.rfilename.endswith(".safetensors") for file in files):
            files = [file for file in files if not any(fnmatch(file.rfilename, other) for other in OTHERS)]
    missing = [
        file
        for file in files
        if not isinstance(
            try_to_load_from_cache(name, file.rfilename, repo_type=kind, revision=info.sha), str
        )
    ]
    if kind == "model" and not any(file.rfilename.endswith(WEIGHTS) for file in missing):
        return []  # small files are not all needed
    return [_record(what, sum(file.size or 0 for file in missing) / MB)]


def _has_config(name: str, revision: str | None) -> bool:
    """Whether the config of a model of the hub is in the cache, or could be downloaded into it now."""
    if sources.snapshot(name, revision) is not None:
        return True
    try:
        hub_errors.ask(name, "model", revision=revision)  # once: the download tries for half a minute
        return sources.commit(name, revision) is not None
    except Exception:  # offline, gated, misspelt: a run says which
        return False


def _estimated(found: Mapping[str, Any]) -> list[str]:
    """Lines on memory, files, operations and hours."""
    asked, on = found["scoring"], {True: "on", False: "off"}
    lines = [
        f"Estimated from shapes, not measured; memory to about 15%. Base: {found['parameters']:,} parameters, "
        f"{found['active_parameters']:,} of them per token, in {found['base_dtype']}; bf16 {on[found['bf16']]}, "
        f"gradient checkpointing {on[found['gradient_checkpointing']]}.",
        f"Assumed: conversations of {found['tokens']} tokens, {found['labelled']} of them learned, "
        f"{found['rows']} at a time; answers of {asked['new']} tokens to prompts of {asked['tokens']}, "
        f"{asked['rows']} at a time; {found['throughput']:.3g} TFLOP/s ({found['throughput_of']}).",
    ]
    for slug, run in found["runs"].items():
        work = ", ".join(f"{key} {_size(value)}" for key, value in run["teraflop"].items() if value)
        memory = ", ".join(f"{key} {size:.1f} GB" for key, size in run["memory_gb"].items() if size)
        lines += [
            f"  {slug}: trains {run['trained']:,} parameters per stage, stores {run['stored_mb']:,.1f} MB in all",
            f"    memory: {memory}; operations: {work}; {duration(3600 * run['hours'])}",
        ]
    unknown = sorted({name for run in found["runs"].values() for name in run["without_scoring_of"]})
    if unknown:
        lines.append(f"Scoring of {', '.join(unknown)} is not included: the number of items is not known.")
    hours = sum(run["hours"] for run in found["runs"].values())
    return [
        *lines,
        f"{hours:,.3g} {found['unit']} in all. On top: about {found['overhead_gb']:.0f} GB of a GPU for its context "
        "and kernels.",
    ]


def _size(teraflop: float) -> str:
    return f"{teraflop / 1e3:,.1f} PFLOP" if teraflop >= 1e3 else f"{teraflop:.3g} TFLOP"
