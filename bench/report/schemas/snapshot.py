"""A run after one stage: one model, and one results file in the schemas of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from moextend.bench.report.collect import Experiment, Result, lacking_notes, run_notes
from moextend.bench.report.frame import in_order
from moextend.bench.run.progress import read_status
from moextend.bench.score.kept import ScoreReader, read_predictions
from moextend.bench.score.lines import Words
from moextend.bench.score.predictions import text_item
from moextend.bench.score.records import Cell
from moextend.errors import InputError
from moextend.util.files import read_lines

"""Prefix of the scorer of a text task, before the metric."""


@dataclass(frozen=True)
class Item:
    """One answer."""

    id: str
    question: str | None
    """None: not recorded."""
    references: list[str]
    answer: str
    score: float | None
    """Score by the scorer; None: the item has no score of its own."""
    choices: list[str] | None = None
    likelihoods: list[float] | None = None
    kind: str | None = None
    group: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A run after one stage."""

    result: Result
    stage: int
    cells: list[Cell]
    """In the order of the sequence."""
    notes: list[str] = field(default_factory=list)
    """Those of the tables of the run: what is not finished, damaged or made of something else."""

    @property
    def sequence(self) -> str:
        """Name of the sequence."""
        return str(self.result.config.sequence["sequence"])

    @property
    def name(self) -> str:
        """A name of the model: sequence, run and stage."""
        return f"{self.sequence}/{self.result.name}/stage-{self.stage}"

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """Recorded environments of the run, oldest first; an empty one if there is none."""
        return self.result.run.environments or [{}]

    @property
    def packages(self) -> Mapping[str, str | None]:
        """Package -> its version."""
        return self.environments[-1].get("packages") or {}

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
            hint="Leave this run out, or run it again into another --runs folder.",
        )

    @cached_property
    def ended(self) -> datetime:
        """Time of the last record of the run; its start if that is unknown."""
        beat = read_status(self.result.run.folder).heartbeat
        return max(self.started, datetime.fromtimestamp(beat, UTC)) if beat else self.started

    def task(self, cell: Cell) -> dict[str, Any]:
        """The spec of a cell's task."""
        return self.result.config.tasks[cell.task]

    def revision(self, cell: Cell) -> str | None:
        """Hub revision of a task's data; None: not from the hub, or unknown."""
        data = self.task(cell).get("data") or {}
        return data.get("revision") or self.result.facts.revisions.get(cell.task)

    def record(self) -> dict[str, Any]:
        """Facts about this model from the records of the run; None: unknown."""
        config, facts, stage = self.result.config, self.result.facts, self.stage
        base = config.sequence["base"]
        return {
            "sequence": self.sequence,
            "sequence_version": config.sequence.get("version"),
            "run": self.result.name,
            "run_id": self.result.run.id or None,
            "state": self.result.state,
            "config": config.digest,
            "method": config.method,
            "settings": facts.settings,
            "task_identity": facts.task_identity,
            "seed": config.seed,
            "order": config.order,
            "mode": config.mode,
            "stage": stage,
            "stages": self.result.stage_names,
            "learned": self.result.stage_names[stage - 1] if stage else None,
            "base": without_folders(base["model"]),
            "base_revision": base.get("revision"),
            "dtype": base.get("dtype"),
            "encoder": without_folders(base.get("vision")),
            "protocol": config.protocol,
            "notes": self.notes,
        }

    def items(self, cell: Cell) -> list[Item]:
        """The answers of a cell; empty if they are missing or damaged. Damaged ones are listed in `result.lacks`."""
        if cell.predictions is None:
            return []
        path = self.result.run.folder / cell.predictions
        try:
            found = _text(path) if cell.by_lm_eval else self._asked(path, cell)
            json.dumps([vars(item) for item in found], ensure_ascii=False).encode()  # refuses lone surrogates
            return found
        except Exception as error:  # as if they were not kept: one damaged file hides no other cell
            self.result.note_damage(cell.task, error)
            return []

    def _asked(self, path: Path, cell: Cell) -> list[Item]:
        records = read_predictions(path)
        if not records:
            return []
        ids = Words()
        items, run = ids.numbers(record.id for record in records), self.result.run.folder
        read, workspace = ScoreReader(ids), self.result.config.workspace
        found = read(run, cell, workspace)
        found = found if found.are_of(items) else read.again(run, cell, workspace, records)
        scores = [None if score != score else float(score) for score in found.of(items)]
        return [
            Item(
                record.id, record.question, list(record.answers), record.prediction, score,
                list(record.choices or ()) or None, list(record.likelihoods or ()) or None, record.kind, record.group,
                without_folders(record.image or None),
            )
            for record, score in zip(records, scores, strict=True)
        ]  # fmt: skip


def snapshots(experiments: Sequence[Experiment]) -> Iterator[Snapshot]:
    """Every run after every scored stage."""
    for experiment in experiments:
        notes = [*run_notes(experiment), *lacking_notes(experiment.results)]
        for result in experiment.results:
            keys = in_order(result)
            for stage in dict.fromkeys(stage for stage, _ in keys):
                yield Snapshot(result, stage, [result.cells[key] for key in keys if key[0] == stage], notes)


def without_folders(name: str | None) -> str | None:
    """A name of a model or of data; of an absolute path, only the last part."""
    if name is None or not (PurePath(name).is_absolute() or PureWindowsPath(name).drive or name[:1] == "~"):
        return name
    return PureWindowsPath(name).name


def _text(path: Path) -> list[Item]:
    """The items of a text task."""
    found = []
    for line in read_lines(path):
        if "summary" not in line:
            right = line.get("right")
            found.append(
                Item(
                    text_item(line), line.get("question"), [_words(line.get("gold"))], _words(line.get("prediction")),
                    float(right) if isinstance(right, int | float) else None, None, line.get("loglikelihoods"),
                )
            )  # fmt: skip
    return found


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
