"""The gate for an extension in a folder: its base with and without it, on the same items, without a sequence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import moextend
from moextend.bench import methods, scorers
from moextend.bench.report.collect import Result
from moextend.bench.report.items import ItemReader
from moextend.bench.report.views.comparison import check_margin
from moextend.bench.report.views.gate import Gate, compare, explained, verdicts
from moextend.bench.run.records import RunFacts
from moextend.bench.run.rundir import Key, RunConfig, RunDir
from moextend.bench.score import evaluate
from moextend.bench.score.records import Cell
from moextend.bench.score.shared import SharedPredictions
from moextend.bench.scoring import Scoring
from moextend.bench.store import Store
from moextend.certificate.certify import trained_scope
from moextend.errors import RunFailed
from moextend.extension import task_inference
from moextend.extension.card import read_extension
from moextend.extension.tensor_files import read_card
from moextend.util import files, lease

if TYPE_CHECKING:
    from moextend.bench.task import TaskSpec
    from moextend.model.multimodal import MultimodalLM
    from moextend.moe.recipe import Scope

Follow = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Name of what is scored -> context with a receiver of (items done, all items)."""
USED = {
    "own": "scope own: the extension is active for every item, as if each were of its task",
    "auto": "scope auto: the extension or the base answers, as inferred from each item",
    "all": "scope all: the extension is active for every item",
}
ROUTED = (
    "; in tasks of lm-eval, whose requests are not routed one by one, the extension is active for every item"
)
SEEDS = (
    "No seeds: only the items vary in this test. The verdict is about these weights on items like these, not about "
    "training such an extension again."
)


def gate_extension(
    model: MultimodalLM,
    folders: Sequence[Path],
    tasks: Sequence[TaskSpec],
    *,
    base: str,
    margin: float,
    workspace: Path,
    limit: int | None,
    follow: Follow,
) -> Gate:
    """A verdict for every task: the score with the extension less that without it.

    Answers are kept in the store of the workspace, where runs find those of the base: a call that was interrupted goes
    on, and another one asks only what is new. A task that cannot be scored is undecided.

    Args:
        model: the base, with encoders and projectors.
        folders: of extensions, oldest first; the last one is tested on the base with the others.
        base: name of the base. limit: maximum number of items per task; None: all.

    Raises:
        InputError: a wrong margin, or a folder, a task or its data are wrong.
    """
    check_margin(margin)
    scorers.search(workspace)
    *others, folder = folders
    card = read_extension(folder)
    scope, before = trained_scope(card, folder), [moextend.load_extension(model, one).name for one in others]
    moextend.load_extension(model, folder)  # what is wrong with it is known before anything is scored
    moextend.unload(model, card.name)
    media = scope == "auto" and bool(task_inference.read(folder).kind)
    key = files.digest(model.base_fingerprint(), [read_card(one)["sha256"] for one in folders])
    place, cells, failures = workspace / ".cache" / "gate" / key, dict[Key, Cell](), list[str]()
    with lease.first(place):
        for stage, names in enumerate((before, [*before, card.name])):
            if stage:
                moextend.load_extension(model, folder)
            for task in tasks:
                weights = _select(model, names, scope, media=media, routed=task.kind != "text")
                share = SharedPredictions.of(
                    model, weights, Store(workspace / ".cache"), about=names[-1] if names else "the base"
                )
                try:
                    with follow(f"{task.task}, {f'with {card.name}' if stage else 'before'}") as on_items:
                        cells[stage, task.task] = evaluate.score_cell(
                            model, task, weights=weights, folder=place, scoring=Scoring(limit=limit),
                            workspace=workspace, stage=stage, on_items=on_items, share=share,
                        )  # fmt: skip
                except RunFailed as error:
                    failures.append(f"{task.task} is not scored: {error}")
        result = Result(
            RunDir(place), _config(card.name, tasks, workspace), "done", cells, RunFacts(text_untouched=False)
        )
        reader = ItemReader()
        found = [
            compare(reader, card.name, result, 1, task.task, [(result, 1, result, 0, task.task)])
            for task in tasks
        ]
        shutil.rmtree(place, ignore_errors=True)  # complete answers are in the store
    checks = verdicts(found, margin)
    reference = f"reference: {' with '.join([base, *([', '.join(before)] if before else [])])}"
    mixed = scope == "auto" and not media and any(task.kind == "text" for task in tasks)
    used = f"{USED[scope]}{ROUTED if mixed else ''}."
    notes = [*explained(reference, checks, margin), used, SEEDS, *failures, *result.lacks]
    label = f"{card.name} on {base}"
    return Gate(card.name, key[:8], label, methods.named("base"), margin, checks, [], notes)


def _select(model: MultimodalLM, names: Sequence[str], scope: Scope, *, media: bool, routed: bool) -> str:
    """Activates extensions as their scope does; returns the fingerprint of what answers.

    Args:
        media: whether the last one is inferred for inputs with media alone. routed: whether items are routed.
    """
    infers = scope == "auto" and bool(names)
    if infers and not routed and media:  # texts never reach it
        names = []
    moextend.activate(model, list(names))
    weights = moextend.active_fingerprint(model)
    if not (infers and routed):
        return weights
    moextend.activate(model, "auto")
    assert isinstance(model.choose, task_inference.TaskInference), "activate sets it"
    return f"{weights}-{model.choose.fingerprint()}"


def _config(name: str, tasks: Sequence[TaskSpec], workspace: Path) -> RunConfig:
    """The config of a run that would have learned the extension in one stage, and scored the tasks."""
    kinds = {kind: [task.task for task in tasks if (task.kind == "text") == kind] for kind in (True, False)}
    sequence = {
        "sequence": name,
        "stages": [{"task": name}],
        "retention": kinds[True],
        "transfer": kinds[False],
    }
    return RunConfig(sequence=sequence, tasks={}, method=name, places={"workspace": str(workspace)})
