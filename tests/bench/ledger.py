"""Writes run folders with random answers, without training, in the format of real runs, as data for reports.

    python tests/bench/ledger.py OUT [RUNS] [STAGES] [TEXTS] [ITEMS] [SEEDS]

An answer is right with a probability that depends on method, stage and task; the items, their images and how hard each
item is are the same for all runs, as in a real experiment. The runs are complete: they have every file, size and digest
that a finished run has.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from moextend.bench.run import variants
from moextend.bench.run.complete import LEARNED, STEM
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import ordered
from moextend.bench.run.progress import _write
from moextend.bench.run.records import RoutingReport, StageCost, Status, TaskRouting
from moextend.bench.run.rundir import COST, ROUTING, Cell, RunConfig, RunDir, line_of, signed
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.records import Scores
from moextend.bench.score.vqa import ItemScore, scores_path
from moextend.bench.sequence import SequenceSpec
from moextend.bench.task import TaskSpec
from moextend.util.files import digest, sha256, signature

SCORER = "exact@1"
KINDS = ("color", "count", "shape")
LAYERS = 4
EXPERTS = 4


@dataclass(frozen=True)
class Shape:
    """The size of an experiment."""

    stages: int = 3
    texts: int = 1
    items: int = 60
    an_image: int = 2
    """Questions of one task about one image."""
    shared_images: bool = True
    """Whether all tasks ask about the same images; else each has its own."""
    data: str = "world:x"
    """Path of the data in the task files."""
    transfers: int = 0
    """Number of tasks that are only scored."""

    @property
    def tasks(self) -> list[str]:
        """The learned tasks."""
        return [f"task{i}" for i in range(1, self.stages + 1)]

    @property
    def text(self) -> list[str]:
        """The text tasks."""
        return [f"text{i}" for i in range(1, self.texts + 1)]

    @property
    def transfer(self) -> list[str]:
        """The tasks with images that are only scored."""
        return [f"only{i}" for i in range(1, self.transfers + 1)]


@dataclass(frozen=True)
class Kind:
    """How good a method is, in parts of the answers."""

    base: float = 0.3
    learned: float = 0.7
    keeps: float = 0.5
    """Part of what was learned that is left at the end."""
    future: float = -0.1
    """Change of a task that is not learned yet."""
    text: float = 0.9
    text_lost: float = 0.1
    run_sd: float = 0.0
    """Standard deviation over seeds of all scores after stage 0."""


def config(shape: Shape, method: str, seed: int, order: str = "given", name: str = "ledger") -> RunConfig:
    """The config of a run, with every setting resolved."""
    sequence = SequenceSpec.model_validate(
        {
            "sequence": name, "version": 1, "base": {"model": "tiny"},
            "stages": [{"task": t} for t in ordered(shape.tasks, order)],
            "retention": shape.text, "transfer": shape.transfer,
            "train": {"steps": 4, "batch_size": 2, "learning_rate": 0.1},
        }
    ).model_dump(mode="json")  # fmt: skip
    sequence.pop("protocol")
    image = {"version": 1, "kind": "vqa", "data": {"path": shape.data}}
    text = {"version": 1, "kind": "text", "lm_eval": {"task": "facts"}}
    tasks = {t: {"task": t, **image} for t in [*shape.tasks, *shape.transfer]} | {
        t: {"task": t, **text} for t in shape.text
    }
    resolved = {t: TaskSpec.model_validate(task).model_dump(mode="json") for t, task in tasks.items()}
    return RunConfig(sequence=sequence, tasks=resolved, method=method, seed=seed, order=order)


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
        for place, task in enumerate(run.config.stages, 1):
            part = _part(kind, stage, place, shape.stages) + (shift if stage else 0.0)
            cells.append(_vqa(run, shape, stage, task, _answers(shape, task, part, drawn)))
        for task in shape.text:
            part = kind.text - (kind.text_lost * stage / shape.stages - shift if stage else 0.0)
            cells.append(_text(run, stage, task, _answers(shape, task, part, drawn)))
        for task in shape.transfer:
            part = kind.base + (kind.future + shift if stage else 0.0)
            cells.append(_vqa(run, shape, stage, task, _answers(shape, task, part, drawn)))
    scores = [json.dumps(line_of(cell, run.id), ensure_ascii=False) + "\n" for cell in cells]
    (run.folder / "scores.jsonl").write_text("".join(scores))
    for stage, task in enumerate(run.config.stages, 1):
        _write_stage(run, shape, stage, task)
    known = {
        "task_identity": "none",
        "majority": dict.fromkeys(shape.tasks, 20.0),
        "base_flops": dict.fromkeys(shape.tasks, 1e6),
    }
    run.write_facts(**known, **(facts or {}))
    units = len(cells) + shape.stages
    _write(
        run.folder,
        Status(
            state="done", pid=1, host="host", started=0.0, heartbeat=9.0, elapsed=9.0, stage=shape.stages,
            stages=shape.stages, done=units, units=units, fraction=1.0, left=0.0, run=run.id, config=run.config.digest,
        ),
    )  # fmt: skip
    return run


def rewrite_scores(run: RunDir, **changes: Any) -> None:
    """Changes keys of all cells of a run, as if they had been scored so."""
    path = run.folder / "scores.jsonl"
    lines = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(signed(line)) + "\n" for line in lines))


def sign_predictions(run: RunDir) -> None:
    """Records the predictions as they are now in the cells of a run, as if they had been scored so."""
    path = run.folder / "scores.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        kept = run.folder / str(line["predictions"])
        line |= {"size": kept.stat().st_size, "sha256": sha256(kept)}
    path.write_text("".join(json.dumps(signed(line)) + "\n" for line in lines))


def write_variants(run: RunDir, wanted: Sequence[variants.Variant] | None = None) -> None:
    """Variants of a run that is done: a scaled model answers as after an earlier stage; by default dial and subsets."""
    cells, last = run.cells(), len(run.config.stages)
    wanted = wanted or [*variants.rewound(run.config), *variants.subsets(run.config)]
    for variant in wanted:
        stage = round(sum(strength for _, strength in variant) * last / len(variant))
        for task in variants.tasks_of(run.config):
            own = cells[stage, task].model_dump() | {"stage": last}
            of = variants.row_of(run.config, cells)
            variants.append(run, variants.VariantCell(**own, strengths=dict(variant), of=of))


def write_runs(runs: Path, shape: Shape, methods: Mapping[str, Kind], seeds: Sequence[int]) -> list[RunDir]:
    """The runs of every method and seed."""
    return [write_run(runs, shape, method, seed, kind) for method, kind in methods.items() for seed in seeds]


def _part(kind: Kind, stage: int, place: int, stages: int) -> float:
    if stage == 0:
        return kind.base
    if stage < place:
        return kind.base + kind.future
    left = 1.0 if stages == place else 1 - (1 - kind.keeps) * (stage - place) / (stages - place)
    return kind.base + (kind.learned - kind.base) * left


def _answers(shape: Shape, task: str, part: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    hard = np.random.default_rng(list(task.encode())).uniform(-0.2, 0.2, shape.items)
    return rng.uniform(size=shape.items) < part + hard


def _weights(run: RunDir, stage: int) -> str:
    """The fingerprint of the weights after a stage; the base's is the same for all runs."""
    base = f"{digest('base')}-{digest('tower')}-{digest('projector')}"
    return f"{base}-{digest(run.folder.name, stage)}" if stage else base


def _vqa(run: RunDir, shape: Shape, stage: int, task: str, right: np.ndarray[Any, Any]) -> Cell:
    items, good = _vqa_items(shape, task), right.astype(int)
    path = run.predictions / _weights(run, stage) / f"{task}-{digest(task)}.jsonl"
    kept = _put(path, [item.predictions[good[place]] for place, item in _longest_first(items)])
    scores = [item.scores[good[place]] for place, item in _longest_first(items)]
    place = scores_path(path, SCORER)
    _put(place, [*scores, signature(place, [line[:-1] for line in scores]) + b"\n"])
    value, by_kind = 100 * float(right.mean()), {}
    for number, kind in enumerate(KINDS):
        by_kind[kind] = 100 * fmean(good[number :: len(KINDS)])
    readings = {"strict": value, "normalised": value}
    return _cell(run, stage, task, right, SCORER, path, kept, by_kind, readings)


def _text(run: RunDir, stage: int, task: str, right: np.ndarray[Any, Any]) -> Cell:
    value = 100 * float(right.mean())
    summary = {"summary": asdict(Scores(value, 1.0, len(right), readings={"acc": value}))}
    path = run.predictions / _weights(run, stage) / f"{task}-{digest(task)}.jsonl"
    lines = [pair[g] for pair, g in zip(_text_items(len(right), task), right.astype(int), strict=True)]
    kept = _put(path, [*lines, _line(summary)])
    return _cell(run, stage, task, right, "lm-eval:acc", path, kept, {}, {"acc": value})


def _cell(
    run: RunDir, stage: int, task: str, right: np.ndarray[Any, Any], scorer: str, path: Path, kept: bytes,
    by_kind: dict[str, float], readings: dict[str, float],
) -> Cell:  # fmt: skip
    return Cell(
        stage=stage, task=task, value=100 * float(right.mean()), stderr=1.0, n=len(right), scorer=scorer,
        weights=_weights(run, stage), predictions=path.relative_to(run.folder).as_posix(), seconds=1.25,
        size=len(kept), sha256=hashlib.sha256(kept).hexdigest(), by_kind=by_kind,
        readings=readings,
    )  # fmt: skip


@dataclass(frozen=True)
class Lines:
    """The lines that an item of an image task may have, each for a wrong answer and for a right one."""

    question: str
    predictions: tuple[bytes, bytes]
    scores: tuple[bytes, bytes]


@cache
def _vqa_items(shape: Shape, task: str) -> list[Lines]:
    found = []
    for i in range(shape.items):
        name, kind = f"{task}-test-{i:05d}-{i % shape.an_image}", KINDS[i % len(KINDS)]
        image = f"{'world' if shape.shared_images else task}-test-{i // shape.an_image:05d}"
        question = f"what {kind} is object {i} at {'middle-left' if i % 2 else 'top'}"
        records = [
            PredictionLine(name, output, ("a",), question=question, kind=kind, group=image).line()
            for output in "ba"
        ]
        scores = [ItemScore(name, value, value, value).line() for value in (0.0, 1.0)]
        found.append(Lines(question, _pair(records), _pair(scores)))
    return found


@cache
def _text_items(items: int, task: str) -> list[tuple[bytes, bytes]]:
    likelihoods = [
        [-11.896429061889648, -4.7727203369140625 - i / 7, -11.061279296875, -0.0149] for i in range(items)
    ]
    return [
        _pair(
            {
                "task": task, "id": i, "gold": "a", "prediction": output, "loglikelihoods": likelihoods[i],
                "right": value,
            }
            for output, value in (("b", 0.0), ("a", 1.0))
        )
        for i in range(items)
    ]  # fmt: skip


def _longest_first(items: Sequence[Lines]) -> list[tuple[int, Lines]]:
    """In the order in which a run answers."""
    return sorted(enumerate(items), key=lambda item: -len(item[1].question))


def _write_stage(run: RunDir, shape: Shape, stage: int, task: str) -> None:
    """What a stage keeps: weights with their card, costs and routing."""
    folder = run.stage_folder(stage, task)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    weights = (
        len(header).to_bytes(8, "little") + header + np.array([stage, run.config.seed], np.float32).tobytes()
    )
    (folder / f"{STEM}.safetensors").write_bytes(weights)
    learned = StageCost(
        run=run.id, trained_parameters=98304, tokens=4682 + stage, flops=1.3e10, seconds=10.0, peak_rss_mb=814.0,
        notes={"loss": 2.5},
    )  # fmt: skip
    routing = TaskRouting(
        tokens=1169,
        experts=[{"": [500 + expert for expert in range(EXPERTS)]}] * LAYERS,
        reached=[{}] * LAYERS,
        drift=[0.01 * stage] * LAYERS,
    )
    digest_of_weights = hashlib.sha256(weights).hexdigest()
    card = {"format": 1, "sha256": digest_of_weights, "task": task, "base": _weights(run, 0)}
    (folder / f"{STEM}.json").write_text(json.dumps(card, indent=2) + "\n")
    learned.write(folder / LEARNED)
    learned.model_copy(update={"forward_flops": 1.1e6, "stored_mb": 0.4, "kept_mb": 0.4 * stage}).write(
        folder / COST
    )
    report = RoutingReport(run=run.id, tasks=dict.fromkeys([*shape.tasks, "(text)"], routing))
    report.write(folder / ROUTING)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _pair(records: Iterable[Mapping[str, Any]]) -> tuple[bytes, bytes]:
    wrong, right = map(_line, records)
    return wrong, right


def _put(path: Path, lines: Sequence[bytes]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(lines)
    path.write_bytes(content)
    return content


if __name__ == "__main__":
    out, *numbers = sys.argv[1:]
    count, stages, texts, items, seeds = [*map(int, numbers), *(12, 3, 1, 60, 3)[len(numbers) :]]
    seeds = min(count, seeds)
    methods = {("lora" if i == 0 else f"lora:rank={i}"): Kind(run_sd=0.02) for i in range(count // seeds)}
    made = write_runs(Path(out), Shape(stages, texts, items, shared_images=False), methods, range(seeds))
    print(f"wrote {len(made)} runs to {out}")
