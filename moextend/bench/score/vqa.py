"""Scores questions about images in two steps: predictions, saved line by line, and their scores."""

from __future__ import annotations

import glob
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from moextend.bench.data import Item, prompt_text
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.records import Scores
from moextend.bench.scorers import find_scorer, readings, score_set
from moextend.bench.scoring import Scoring
from moextend.bench.task import TaskSpec
from moextend.data.examples import LETTERS
from moextend.errors import MoextendError, RunFailed
from moextend.util import processes
from moextend.util.files import append_lines, digest, remove, repair_lines, write_lines

if TYPE_CHECKING:
    from moextend.bench.score.backend import Backend
    from moextend.model.generation import Prompt


log = logging.getLogger(__name__)

KEPT_EVERY = 2.0
"""Seconds between two writes: the maximum loss at an interrupt."""

Lines = list[PredictionLine]


Progress = Callable[[int, int], None]
"""Called with (items done, all items)."""
READINGS = ("strict", "normalised", "likelihood")
"""Names of the readings of an answer besides its score; see docs/scorers.md."""
_SCORES_FORMAT = 3
"""Incremented with every change of the readings or of the lines of scores: older files are computed again."""


class Parts:
    """Answered batches of one file of predictions: in a file of each process, until all of them make the file."""

    def __init__(self, path: Path, items: Sequence[Item], batches: Sequence[Sequence[int]]) -> None:
        """Args: batches: the indices of the items of each batch."""
        self.path, self.items, self.batches = path, items, batches
        self._known: dict[int, Lines] = {}
        self._in_file = 0
        """Number of batches that the file itself has."""
        self._unsaved: dict[int, Lines] = {}
        self._saved_at = time.monotonic()

    def batch(self, number: int) -> list[Item]:
        """Items of a batch, created now: with the bytes of all their media they may not fit into memory."""
        return [self.items[place] for place in self.batches[number]]

    def start(self) -> set[int]:
        """Reads what is there; the batches that have answers. The first process calls it."""
        self._known = {}
        for path in (self.path, *self._files()):
            for number, lines in self._read(path).items():
                asked = [(item.id, item.position) for item in self.batch(number)]
                if [(one.id, one.position) for one in lines] == asked:
                    self._known[number] = lines
            self._in_file = len(self._known) if path == self.path else self._in_file
        return set(self._known)

    def add(self, number: int, lines: Lines) -> None:
        """Adds the answers of a batch; they are on disk a little later, at the latest after `save`."""
        self._unsaved[number] = lines
        if time.monotonic() - self._saved_at > KEPT_EVERY:
            self.save()

    def save(self) -> None:
        """Writes what was added since the last time."""
        if self._unsaved:
            part = self.path.with_name(f"{self.path.stem}.part-{processes.rank()}.jsonl")
            rows = [{"batch": n, "lines": [one.line() for one in own]} for n, own in self._unsaved.items()]
            append_lines(part, rows)
        self._unsaved, self._saved_at = {}, time.monotonic()

    def finish(self) -> Lines:
        """Makes the file of all batches, and removes the others; the predictions in the order of the batches.

        The first process calls it, after all have saved.
        """
        if self._in_file < len(self.batches):
            self.start()
        found = [line for number in sorted(self._known) for line in self._known[number]]
        if self._in_file < len(self.batches) == len(self._known):
            write_lines(self.path, [line.line() for line in found])
            for path in self._files():
                remove(path)
        return found

    def _read(self, path: Path) -> dict[int, Lines]:
        """Batches in a file; a damaged one is removed."""
        try:
            rows = repair_lines(path)
            if path == self.path:  # its batches follow each other
                lines, ends = list(map(PredictionLine.read, rows)), [*accumulate(map(len, self.batches))]
                if len(lines) > len(self.items):
                    raise TypeError("it has other items")
                return {n: lines[end - len(self.batches[n]) : end] for n, end in enumerate(ends)}
            return {
                row["batch"]: [PredictionLine.read(line) for line in row["lines"]]
                for row in rows
                if row["batch"] in range(len(self.batches))
            }
        except (MoextendError, ValidationError, KeyError, TypeError) as error:
            log.warning("%s: is damaged (%s); it is made again.", path, error)
            remove(path)
            return {}

    def _files(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.part-*.jsonl"))


@dataclass(frozen=True)
class ItemScore:
    """One line of scores: the score and the three readings of one prediction."""

    id: str
    score: float | None
    """Score of the scorer, 0..1 for most; None if the item counts only together with another one."""
    strict: float | None = None
    normalised: float | None = None
    likelihood: float | None = None
    """1 if the right choice has the highest log-likelihood, else 0; None without log-likelihoods."""
    weight: float | None = None
    """Weight of the item in the mean, such as its number of words; None: all items count the same."""

    def line(self) -> dict[str, Any]:
        """The line; `weight` only if the scorer has weights."""
        return {name: value for name, value in vars(self).items() if name != "weight" or value is not None}


def prediction_key(
    task: TaskSpec,
    data: str,
    scoring: Scoring,
    *,
    tokenizer: str,
    dtype: str,
    backend: str | None = None,
) -> str:
    """Digest of everything that predictions of the test split depend on except the weights.

    Args:
        data: digest of the data.
        backend: None for transformers.
    """
    return digest(
        {
            "format": 3,
            "data": data,
            "split": "test",
            "columns": task.columns.model_dump(),
            "prompt": task.prompt,
            **task.reading(),
            "decoding": {"greedy": True, "max_new_tokens": task.max_new_tokens},
            "tokenizer": tokenizer,
            "dtype": dtype,
            "batch_size": scoring.batch_size,
            "limit": scoring.limit,
            **({} if backend is None else {"backend": backend}),
        }
    )


def predict(
    task: TaskSpec,
    items: Sequence[Item],
    backend: Backend,
    path: Path,
    *,
    batch_size: int,
    on_items: Progress | None = None,
) -> tuple[list[PredictionLine], int]:
    """Predictions of all items, in order, and the number of new ones.

    Choices get log-likelihoods: as letters if the prompt lists them, else as texts. Batches take
    long questions first, to reduce padding. After an interrupt, an incomplete batch is computed again completely,
    so the answers do not depend on interrupts.

    Several processes share the batches and get the same predictions as a single one; they are returned in all of them.
    """
    order = answer_order(items)
    batches = [order[at : at + batch_size] for at in range(0, len(items), batch_size)]
    parts = Parts(path, items, batches)
    known = processes.first_says(parts.start)
    done = sum(len(batches[number]) for number in known)
    new = len(items) - done

    def answer_mine() -> None:
        nonlocal done
        for number in processes.share([number for number in range(len(batches)) if number not in known]):
            parts.add(number, predict_batch(task, parts.batch(number), backend))
            done = min(done + len(batches[number]) * processes.count(), len(items))
            if on_items:
                on_items(done, len(items))
        parts.save()

    processes.gathered(answer_mine)
    records = processes.first_says(parts.finish)
    if len(records) != len(items):
        raise RunFailed(f"{len(records)} predictions of {len(items)} items.", where=str(path))
    answered = dict(zip(order, records, strict=True))
    return [answered[place] for place in range(len(items))], new


def predict_batch(task: TaskSpec, batch: Sequence[Item], backend: Backend) -> list[PredictionLine]:
    """Predictions of one batch of items (see `predict`)."""
    from moextend.model.generation import Prompt

    prompts = [Prompt(prompt_text(task, item), item.media, system=item.system) for item in batch]
    answers = backend.generate(prompts, task.max_new_tokens)
    if len(answers) != len(batch):
        raise RunFailed(f"{len(answers)} answers to {len(batch)} prompts.", where=task.task)
    rated = _rated(task, batch, prompts, backend)
    return [PredictionLine.of(*one) for one in zip(batch, answers, rated, strict=True)]


def answer_order(items: Sequence[Item]) -> list[int]:
    """Indices of the items in the order of their batches: by the length of question and choices, longest first."""
    lengths = [len(item.question) + sum(map(len, item.choices or ())) for item in items]
    return sorted(range(len(lengths)), key=lambda place: -lengths[place])


def rated_texts(task: TaskSpec, choices: Sequence[str]) -> Sequence[str]:
    """The texts whose likelihoods are computed: the choices, or their letters if the prompt lists them."""
    return LETTERS[: len(choices)] if "choices" in task.layout.placeholders() else choices


def _rated(
    task: TaskSpec, batch: Sequence[Item], prompts: Sequence[Prompt], backend: Backend
) -> list[tuple[float, ...] | None]:
    """Log-likelihoods of the choices of each item; None for an item without choices."""
    found: list[tuple[float, ...] | None] = [None] * len(batch)
    lettered = "choices" in task.layout.placeholders()
    # The text of a choice that is not there cannot be rated; its letter can.
    asked = [i for i, item in enumerate(batch) if item.choices and (lettered or all(item.choices))]
    if not asked:
        return found
    options = [rated_texts(task, batch[i].choices or ()) for i in asked]
    for i, values in zip(asked, backend.rate([prompts[i] for i in asked], options), strict=True):
        found[i] = values
    return found


def score_items(records: Sequence[PredictionLine], scorer: str) -> tuple[Scores, list[ItemScore]]:
    """Mean score of predictions, over all and by kind, and the score of each prediction."""
    clusters = [record.group or record.id for record in records]
    found, top = score_set(scorer, records, clusters=clusters), find_scorer(scorer).top
    weights = found.weights or [None] * len(records)
    items = []
    for record, value, weight in zip(records, found.items, weights, strict=True):
        full = value is not None and value >= top
        read = readings(record.prediction, record, right=full, likelihoods=record.likelihoods)
        items.append(ItemScore(record.id, value, **read, weight=weight))
    by_kind: dict[str, list[int]] = defaultdict(list)
    for place, (record, item) in enumerate(zip(records, items, strict=True)):
        if record.kind is not None and item.score is not None:
            by_kind[record.kind].append(place)
    scores = Scores(
        value=100 * found.value,
        stderr=None if found.stderr is None else 100 * found.stderr,
        n=found.n,
        by_kind={kind: 100 * found.mean(own) for kind, own in sorted(by_kind.items())},
        kind_sizes={kind: len(own) for kind, own in sorted(by_kind.items())},
        readings=_mean_readings(items) | found.metrics,
    )
    return scores, items


def _mean_readings(items: Sequence[ItemScore]) -> dict[str, float]:
    """Reading -> mean in percent over the items that have it; readings without items are left out."""
    values = {name: [getattr(item, name) for item in items] for name in READINGS}
    known = {name: [value for value in own if value is not None] for name, own in values.items()}
    return {name: 100 * fmean(own) for name, own in known.items() if own}


def scores_path(predictions: Path, scorer: str) -> Path:
    """File of the item scores of a file of predictions with `scorer`, one line per item."""
    return predictions.with_name(f"{predictions.stem}.{scorer}.scores{_SCORES_FORMAT}.jsonl")


def write_scores(predictions: Path, scorer: str, items: Sequence[ItemScore]) -> None:
    """Writes the items' scores next to their predictions; not synced, as damaged ones are computed again."""
    write_lines(scores_path(predictions, scorer), [item.line() for item in items], synced=False, signed=True)
