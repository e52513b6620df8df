"""Questions about images, scored in two stages: predictions, kept line by line, and scores made of them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from moextend.bench.data import Item, data_digest, open_items, render_prompt
from moextend.bench.scorers import own_answer, readings, score, set_metrics
from moextend.bench.sequence import Scoring
from moextend.bench.stats import clustered_error
from moextend.bench.task import TaskSpec
from moextend.errors import RunFailed
from moextend.files import append_lines, digest, mend_lines, write_lines

if TYPE_CHECKING:
    from moextend.generation import Prompt

Answer = Callable[[Sequence["Prompt"]], list[str]]
"""Answers of a model to one batch of prompts."""
Progress = Callable[[int, int], None]
"""Called with the items done and the items in all."""

_KEPT_EVERY = 2.0
"""Seconds between two writes: what an interruption costs at the most."""


@dataclass(frozen=True)
class Record:
    """One line of predictions: what was answered, and all that a scorer needs."""

    id: str
    prediction: str
    answers: tuple[str, ...]
    question: str = ""
    choices: tuple[str, ...] | None = None
    kind: str | None = None
    group: str | None = None
    """What the items of one image share."""

    @staticmethod
    def of(item: Item, prediction: str) -> Record:
        """The record of an answered item."""
        group = item.group or "+".join(image.digest for image in item.images) or None
        return Record(item.id, prediction, item.answers, item.question, item.choices, item.kind, group)

    @staticmethod
    def read(line: dict[str, Any]) -> Record:
        """The record in a line of a file."""
        choices = line.get("choices")
        return Record(
            line["id"],
            line["prediction"],
            tuple(line["answers"]),
            line.get("question", ""),
            None if choices is None else tuple(choices),
            line.get("kind"),
            line.get("group"),
        )


@dataclass(frozen=True)
class Scores:
    """What a scorer makes of predictions; all values are percent."""

    value: float
    stderr: float | None
    """Standard error of the mean, items of one image drawn together (stats.clustered_error); None for one image."""
    n: int
    by_kind: dict[str, float]
    """kind of question -> value."""
    kind_sizes: dict[str, int]
    """kind of question -> items."""
    readings: dict[str, float]


def prediction_key(
    task: TaskSpec, data: str, scoring: Scoring, *, tokenizer: str, dtype: str, split: str = "test"
) -> str:
    """Names all that predictions depend on but the weights: another key, other predictions."""
    return digest(
        {
            "format": 2,
            "data": data,
            "split": split,
            "columns": task.columns.model_dump(),
            "prompt": task.prompt,
            "decoding": {"greedy": True, "max_new_tokens": task.max_new_tokens},
            "tokenizer": tokenizer,
            "dtype": dtype,
            "batch_size": scoring.batch_size,
            "limit": scoring.limit,
        }
    )


def test_key(task: TaskSpec, workspace: Path, scoring: Scoring, *, tokenizer: str, dtype: str) -> str:
    """The prediction key of a task's test split."""
    data = data_digest(task, "test", workspace)
    return prediction_key(task, data, scoring, tokenizer=tokenizer, dtype=dtype)


def predict(
    task: TaskSpec,
    items: Sequence[Item],
    answer: Answer,
    path: Path,
    *,
    batch_size: int,
    on_items: Progress | None = None,
) -> tuple[list[Record], int]:
    """The predictions of all items, in order, and how many of them were made now.

    `path` keeps them as they come. Batches are cut by position, and one that an interruption left incomplete
    is made again whole: the answers do not depend on where the work was interrupted.
    """
    records = _kept(path, items, batch_size)
    before, unsaved = len(records), len(records)
    saved_at = time.monotonic()
    for start in range(before, len(items), batch_size):
        batch = [items[i] for i in range(start, min(start + batch_size, len(items)))]
        answers = answer([render_prompt(task, item) for item in batch])
        if len(answers) != len(batch):
            raise RunFailed(f"{len(answers)} answers to {len(batch)} prompts.", where=task.task)
        records += [Record.of(item, text) for item, text in zip(batch, answers, strict=True)]
        if time.monotonic() - saved_at > _KEPT_EVERY or len(records) == len(items):
            append_lines(path, [asdict(record) for record in records[unsaved:]])
            unsaved, saved_at = len(records), time.monotonic()
        if on_items:
            on_items(len(records), len(items))
    return records, len(records) - before


def _kept(path: Path, items: Sequence[Item], batch_size: int) -> list[Record]:
    """The predictions of whole batches that `path` holds already; the file is cut to them."""
    records = [Record.read(line) for line in mend_lines(path)]
    good = 0
    for record, item in zip(records, items, strict=False):
        if record.id != item.id:
            break
        good += 1
    if good < len(items):
        good -= good % batch_size
    if good < len(records):
        write_lines(path, [asdict(record) for record in records[:good]])
    return records[:good]


def score_records(records: Sequence[Record], scorer: str) -> Scores:
    """Mean score of predictions, over all and by kind, with two more readings of the same answers."""
    values = [score(scorer, record.prediction, record) for record in records]
    by_kind: dict[str, list[float]] = defaultdict(list)
    for record, value in zip(records, values, strict=True):
        if record.kind is not None:
            by_kind[record.kind].append(value)
    read = [readings(record.prediction, record) for record in records]
    mean_readings = {key: 100 * fmean(one[key] for one in read) for key in read[0]}
    return Scores(
        value=100 * fmean(values),
        stderr=_standard_error(values, records),
        n=len(values),
        by_kind={kind: 100 * fmean(own) for kind, own in sorted(by_kind.items())},
        kind_sizes={kind: len(own) for kind, own in sorted(by_kind.items())},
        readings=mean_readings | set_metrics(scorer, ((record.prediction, record) for record in records)),
    )


def _standard_error(values: Sequence[float], records: Sequence[Record]) -> float | None:
    error = clustered_error(values, [record.group or record.id for record in records])
    return None if error is None else 100 * error


def blind_level(task: TaskSpec, workspace: Path, limit: int | None = None) -> float | None:
    """Percent reached without the image: the training items' most common answer to the same kind of question.

    None for a task without training items.
    """
    if task.data is None or task.data.train is None:
        return None
    train = open_items(task, "train", workspace, images=False)
    answers = _majorities((item.kind, own_answer(task.scorer, item)) for item in train)
    test = open_items(task, "test", workspace, limit, images=False)
    return 100 * fmean(score(task.scorer, answers.get(item.kind, answers[None]), item) for item in test)


def _majorities(said: Iterable[tuple[str | None, str]]) -> dict[str | None, str]:
    """kind -> its most common answer; None -> the most common answer of all."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for kind, answer in said:
        counts[None][answer] += 1
        if kind is not None:
            counts[kind][answer] += 1
    return {kind: counter.most_common(1)[0][0] for kind, counter in counts.items()}
