"""The parity check of a cell: a server and the model in this process answer the same sample of items."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.data import open_items
from moextend.bench.score.backend import Backend, InProcess, Served
from moextend.bench.score.served.proof import ParityRefused
from moextend.bench.scoring import Backend as Settings
from moextend.bench.scoring import Scoring
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM

HALF = ("torch.bfloat16", "torch.float16")


@dataclass(frozen=True)
class Value:
    """One thing that a model gave for an item: a text, or a log-likelihood."""

    item: str
    value: str | float
    tokens: int = 1
    """Tokens of what has the log-likelihood."""


@dataclass(frozen=True)
class Compared:
    """Result of the comparison of a sample."""

    items: list[str]
    answers: int
    likelihoods: int
    difference: float | None
    """Largest difference of log-likelihoods in nats per token; None without any."""


def tolerance_of(settings: Settings, dtype: Any) -> float:
    """Maximum difference in nats per token: as set, else by the number type of the model."""
    return settings.tolerance or (0.05 if str(dtype) in HALF else 1e-3)


def compare_task(
    model: MultimodalLM,
    server: ServedModel,
    task: TaskSpec,
    scoring: Scoring,
    workspace: Path,
    *,
    items: int,
    tolerance: float,
    seed: int,
) -> Compared:
    """Compares a sample of the items of a task, chosen by `seed`.

    Args:
        items: number of the items.
        tolerance: maximum difference of log-likelihoods, in nats per token.

    Raises:
        ParityRefused: an answer is another one, or a log-likelihood differs by more than the tolerance.
    """
    where = f"{server.client.url}, model {server.name}, task {task.task}"
    sample = _Sample(task, scoring, workspace, items, f"{seed} {task.task}")
    answered = _text_answers if task.kind == "text" else _answers
    mine, theirs = answered(model, server, sample)
    return compared(mine, theirs, tolerance, where=where)


def compared(mine: Sequence[Value], theirs: Sequence[Value], tolerance: float, *, where: str) -> Compared:
    """Compares what the model in process (`mine`) and a server gave. Raises ParityRefused."""
    largest: float | None = None
    answers = 0
    for own, other in zip(mine, theirs, strict=True):
        if isinstance(own.value, str):
            answers += 1
            if own.value != other.value:
                raise ParityRefused(
                    f"the server answers item {own.item} by {other.value!r}, and transformers by {own.value!r}.",
                    where=where,
                    hint="Greedy answers must be the same: check that the server uses the same prompt "
                    "format and number type.",
                )
            continue
        assert isinstance(other.value, float)
        difference = abs(own.value - other.value) / max(1, own.tokens)
        largest = max(largest or 0.0, difference)
        if not difference <= tolerance:
            raise ParityRefused(
                f"the server gives item {own.item} a log-likelihood of {other.value:.5g}, and transformers of "
                f"{own.value:.5g}: they differ by {difference:.2g} nats per token, more than {tolerance:g}.",
                where=where,
                hint="Serve the same weights with the same number type, or set tolerance under scoring.",
            )
    items = list(dict.fromkeys(value.item for value in mine))
    return Compared(items, answers, len(mine) - answers, largest)


@dataclass(frozen=True)
class _Sample:
    """Some items of a task."""

    task: TaskSpec
    scoring: Scoring
    workspace: Path
    items: int
    """Their number at most."""
    seed: str


def _answers(model: MultimodalLM, server: ServedModel, sample: _Sample) -> tuple[list[Value], list[Value]]:
    """What the model and the server give for a sample of items with media."""
    from moextend.bench.score.vqa import predict_batch, rated_texts

    task = sample.task
    items = open_items(task, "test", sample.workspace, sample.scoring.limit)
    places = sorted(random.Random(sample.seed).sample(range(len(items)), min(sample.items, len(items))))
    batch = [items[place] for place in places]
    found = []
    for backend in (InProcess(model, sample.scoring.batch_size), Served(model, lambda: server)):
        found.append(predict_batch(task, batch, _generates(backend, task.max_new_tokens), backend.rate))
    mine: list[Value] = []
    theirs: list[Value] = []
    for own, other in zip(*found, strict=True):
        mine.append(Value(own.id, own.prediction))
        theirs.append(Value(other.id, other.prediction))
        if other.likelihoods and own.likelihoods:
            rated = rated_texts(task, own.choices or ())
            for choice, a, b in zip(rated, own.likelihoods, other.likelihoods, strict=False):
                tokens = len(model.tokenizer(choice, add_special_tokens=False)["input_ids"]) if choice else 1
                mine.append(Value(own.id, a, tokens))
                theirs.append(Value(own.id, b, tokens))
    return mine, theirs


def _generates(backend: Backend, most: int) -> Any:
    return lambda prompts: backend.generate(prompts, most)


def _text_answers(
    model: MultimodalLM, server: ServedModel, sample: _Sample
) -> tuple[list[Value], list[Value]]:
    """The same for a sample of a text task."""
    from moextend.bench.score.text import sampled_answers

    scoring = sample.scoring
    found = [
        sampled_answers(
            model, sample.task, batch_size=scoring.batch_size, limit=scoring.limit, items=sample.items,
            seed=sample.seed, workspace=sample.workspace, served=served,
        )
        for served in (None, server)
    ]  # fmt: skip
    mine, theirs = ([Value(*one) for one in each] for each in found)
    return mine, theirs
