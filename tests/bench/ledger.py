"""Run folders without training: answers drawn at random, written as a run writes them, so that reports have data.

    python tests/bench/ledger.py OUT [RUNS] [STAGES] [TEXTS] [ITEMS]

An answer is right with a probability that depends on method, stage and task; the items, their images and how hard each
item is are the same for all runs, as in a real experiment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moextend.bench.progress import Status, _write
from moextend.bench.rundir import Cell, RunConfig, RunDir, open_run
from moextend.bench.vqa import ItemScore, Record, scores_path

SCORER = "exact@1"
ID, IMAGE = "<id>", "<image>"
ANSWERS = (("b", 0.0), ("a", 1.0))
"""A wrong answer, a right one."""


@dataclass(frozen=True)
class Shape:
    """The size of an experiment."""

    stages: int = 3
    texts: int = 1
    items: int = 60
    an_image: int = 2
    """Questions of one task about one image; all tasks ask about the same images."""

    @property
    def tasks(self) -> list[str]:
        """The learnt tasks."""
        return [f"task{i}" for i in range(1, self.stages + 1)]

    @property
    def text(self) -> list[str]:
        """The text tasks."""
        return [f"text{i}" for i in range(1, self.texts + 1)]


@dataclass(frozen=True)
class Kind:
    """How good a method is, in parts of the answers."""

    base: float = 0.3
    learnt: float = 0.7
    keeps: float = 0.5
    """Part of what was learnt that is left at the end."""
    future: float = -0.1
    """Change of a task that is not learnt yet."""
    text: float = 0.9
    text_lost: float = 0.1
    run_sd: float = 0.0
    """Standard deviation over seeds of all scores after stage 0."""


def config(shape: Shape, method: str, seed: int, order: str = "given", name: str = "ledger") -> RunConfig:
    """The config of a run."""
    task = {"version": 1, "kind": "vqa", "data": {"path": "world:x"}}
    text = {"version": 1, "kind": "text", "lm_eval": {"task": "facts"}}
    sequence: dict[str, Any] = {
        "sequence": name, "version": 1, "base": {"model": "tiny"}, "stages": [{"task": t} for t in shape.tasks],
        "retention": shape.text, "train": {"steps": 4, "batch_size": 2, "learning_rate": 0.1},
    }  # fmt: skip
    tasks = {t: {"task": t, **task} for t in shape.tasks} | {t: {"task": t, **text} for t in shape.text}
    return RunConfig(sequence=sequence, tasks=tasks, method=method, seed=seed, order=order)


def write_run(
    runs: Path, shape: Shape, method: str, seed: int, kind: Kind, *, order: str = "given",
    facts: Mapping[str, Any] | None = None,
) -> RunDir:  # fmt: skip
    """A run that is done, with predictions and scores of every cell."""
    run = open_run(config(shape, method, seed, order), runs)
    rng = np.random.default_rng([seed, *method.encode(), *order.encode()])
    shift = kind.run_sd * rng.standard_normal()
    cells = []
    for stage in range(shape.stages + 1):
        # row 0 is the same for all methods of a seed
        drawn = rng if stage else np.random.default_rng([seed, 7])
        for place, task in enumerate(shape.tasks, 1):
            part = _part(kind, stage, place, shape.stages) + (shift if stage else 0.0)
            cells.append(_vqa(run, shape, stage, task, _answers(shape, task, part, drawn)))
        for task in shape.text:
            part = kind.text - (kind.text_lost * stage / shape.stages - shift if stage else 0.0)
            cells.append(_text(run, stage, task, _answers(shape, task, part, drawn)))
    _lines(run.folder / "scores.jsonl", [json.dumps(asdict(cell)) for cell in cells])
    run.write_facts({"task_identity": "none", **(facts or {})})
    _write(run.folder, Status(state="done"))
    return run


def write_runs(runs: Path, shape: Shape, methods: Mapping[str, Kind], seeds: Sequence[int]) -> list[RunDir]:
    """The runs of every method and seed."""
    return [write_run(runs, shape, method, seed, kind) for method, kind in methods.items() for seed in seeds]


def _part(kind: Kind, stage: int, place: int, stages: int) -> float:
    if stage == 0:
        return kind.base
    if stage < place:
        return kind.base + kind.future
    left = 1.0 if stages == place else 1 - (1 - kind.keeps) * (stage - place) / (stages - place)
    return kind.base + (kind.learnt - kind.base) * left


def _answers(shape: Shape, task: str, part: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    hard = np.random.default_rng(list(task.encode())).uniform(-0.2, 0.2, shape.items)
    return rng.uniform(size=shape.items) < part + hard


def _vqa(run: RunDir, shape: Shape, stage: int, task: str, right: np.ndarray[Any, Any]) -> Cell:
    kinds = [(_record(answer), json.dumps(vars(ItemScore(ID, good, good)))) for answer, good in ANSWERS]
    path = run.predictions / f"w{stage}" / f"{task}.jsonl"
    named = [
        (f"{task}-{i}", f"image{i // shape.an_image}", kinds[good])
        for i, good in enumerate(right.astype(int))
    ]
    _lines(path, [kind[0].replace(ID, name).replace(IMAGE, image) for name, image, kind in named])
    _lines(scores_path(path, SCORER), [kind[1].replace(ID, name) for name, _, kind in named])
    value = 100 * float(right.mean())
    return Cell(
        stage, task, value, 1.0, len(right), SCORER, f"w{stage}", f"predictions/w{stage}/{task}.jsonl",
        extra={"readings": {"strict": value, "normalised": value}},
    )  # fmt: skip


def _text(run: RunDir, stage: int, task: str, right: np.ndarray[Any, Any]) -> Cell:
    kinds = [json.dumps({"task": task, "id": ID, "right": good}) for _, good in ANSWERS]
    lines = [kinds[good].replace(f'"{ID}"', str(i)) for i, good in enumerate(right.astype(int))]
    _lines(run.predictions / f"w{stage}" / f"{task}.jsonl", [*lines, '{"summary": {}}'])
    value, path = 100 * float(right.mean()), f"predictions/w{stage}/{task}.jsonl"
    return Cell(stage, task, value, 1.0, len(right), "lm-eval:acc", f"w{stage}", path)


def _record(answer: str) -> str:
    return json.dumps(Record(ID, answer, ("a",), group=IMAGE).line())


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    out, *numbers = sys.argv[1:]
    count, stages, texts, items = [*map(int, numbers), *(12, 3, 1, 60)[len(numbers) :]]
    seeds = min(count, 3)
    methods = {("lora" if i == 0 else f"lora:rank={i}"): Kind(run_sd=0.02) for i in range(count // seeds)}
    made = write_runs(Path(out), Shape(stages, texts, items), methods, range(seeds))
    print(f"wrote {len(made)} runs to {out}")
