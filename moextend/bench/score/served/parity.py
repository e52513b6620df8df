"""Parity of a server and the model in this process: the same weights, and the same answers to a sample of items.

A server of the OpenAI protocol can be given one model and answer by another one: an adapter that was not loaded, a
checkpoint of an earlier stage. Few answers show it. The log-likelihoods of random token sequences do: they depend on
all weights, and are compared with those of this process, for these weights and for the base.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moextend.bench.data import Item, open_items
from moextend.bench.score.backend import Backend, InProcess, Served
from moextend.bench.score.records import Weights
from moextend.bench.score.served.client import ServerFailed
from moextend.bench.score.text import sampled_answers
from moextend.bench.score.vqa import predict_batch, rated_texts
from moextend.bench.scoring import Backend as Settings
from moextend.bench.scoring import Scoring
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    from pathlib import Path

    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM

SEQUENCES, TOKENS = 8, 32
"""Number of random sequences, and their length."""
SEED = 20240807
"""Of the sequences: the same for all runs, so that they are compared with the same ones."""
HALF = ("torch.bfloat16", "torch.float16")

Logprobs = list[list[float]]
"""Log-probability of each token of each sequence but its first."""
Value = tuple[str, str | float, int]
"""What a model gave for an item: id of the item; a text, or a log-likelihood in nats; its tokens."""


class ParityRefused(ServerFailed):
    """A server that does not answer as the model in this process."""


@dataclass
class Known:
    """Log-probabilities of the random sequences by the states that a run had so far."""

    base: str = ""
    """Fingerprint of the base."""
    rows: list[list[int]] = field(default_factory=list)
    by_weights: dict[str, Logprobs] = field(default_factory=dict)
    """By fingerprint."""

    def note(self, model: MultimodalLM, weights: str) -> None:
        """Computes those of the model in its current state, which `weights` identifies, once."""
        self.rows = self.rows or sequences(model)
        if weights not in self.by_weights:
            self.by_weights[weights] = token_logprobs(model, self.rows)


def sequences(model: MultimodalLM) -> list[list[int]]:
    """Random rows of ids without special tokens, after the start token if the model has one."""
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)
    usable = [i for i in range(len(tokenizer)) if i not in special]
    length = min(TOKENS, (model.context or TOKENS + 1) - 1)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    draw = random.Random(SEED)
    return [[*start, *(draw.choice(usable) for _ in range(length - len(start)))] for _ in range(SEQUENCES)]


def token_logprobs(model: MultimodalLM, rows: Sequence[Sequence[int]]) -> Logprobs:
    """Log-probability of each token of each row but its first, by the model in its current state; nats."""
    import torch

    found, training = [], model.lm.training
    model.lm.eval()
    try:
        with torch.no_grad():
            for row in rows:
                ids = torch.tensor([row], device=model.device)
                steps = model.lm(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
                found.append(steps.gather(1, ids[0, 1:, None])[:, 0].tolist())
    finally:
        model.lm.train(training)
    return found


def prove(server: ServedModel, known: Known, weights: str, tolerance: float, *, about: str) -> Weights:
    """Proves that a server has `weights`, whose log-probabilities are known.

    A server with a fingerprint (see ServedModel) must give it with every answer.

    Args:
        tolerance: maximum mean difference of a sequence, in nats per token.
        about: the weights in words.

    Raises:
        ParityRefused: it has other weights, or these do not differ enough from the base.
    """
    where, mine = f"{server.client.url}, model {server.name}", known.by_weights[weights]
    theirs = server.token_logprobs(known.rows)
    found = distance(theirs, mine)
    if found > tolerance:
        base = distance(theirs, known.by_weights[known.base]) <= tolerance
        raise ParityRefused(
            f"the server does not have the weights of {about}: log-likelihoods of random texts differ by {found:.2g} "
            f"nats per token, more than {tolerance:g}.{' It serves the base.' if base else ''}",
            where=where,
            hint="Serve the folder of this stage. Where number types differ, set tolerance under scoring.",
        )
    apart = None if weights == known.base else distance(known.by_weights[known.base], mine)
    if apart is not None and apart <= 2 * tolerance and server.fingerprint is None:
        raise ParityRefused(
            f"the weights cannot be proved: on random texts, {about} differs from the base by {apart:.2g} "
            f"nats per token, at most twice the tolerance of {tolerance:g}.",
            where=where,
            hint="Serve with float32 and lower the tolerance, or use moextend serve, which gives a fingerprint.",
        )
    return Weights(
        by="fingerprint" if server.fingerprint else "sequences", fingerprint=server.fingerprint,
        sequences=len(known.rows), tokens=len(known.rows[0]), difference=found, base=apart,
    )  # fmt: skip


def distance(a: Logprobs, b: Logprobs) -> float:
    """Largest mean absolute difference of a row, in nats per token."""
    return max(sum(abs(x - y) for x, y in zip(p, q, strict=True)) / len(p) for p, q in zip(a, b, strict=True))


def tolerance_of(settings: Settings, dtype: Any) -> float:
    """Maximum difference in nats per token: as set, else by the number type of the model."""
    return settings.tolerance or (0.05 if str(dtype) in HALF else 1e-3)


@dataclass(frozen=True)
class Compared:
    """Result of the comparison of a sample."""

    items: list[str]
    answers: int
    likelihoods: int
    difference: float | None
    """Largest difference of log-likelihoods in nats per token; None without any."""


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
        items: number of the items, at most.
        tolerance: maximum difference of log-likelihoods, in nats per token.

    Raises:
        ParityRefused: an answer is another one, or a log-likelihood differs by more than the tolerance.
    """
    where, drawn = f"{server.client.url}, model {server.name}, task {task.task}", f"{seed} {task.task}"
    if task.kind == "text":
        mine, theirs = (
            sampled_answers(
                model, task, batch_size=scoring.batch_size, limit=scoring.limit, items=items, seed=drawn,
                workspace=workspace, served=served,
            )
            for served in (None, server)
        )  # fmt: skip
        return compared(mine, theirs, tolerance, where=where)
    known = open_items(task, "test", workspace, scoring.limit)
    places = sorted(random.Random(drawn).sample(range(len(known)), min(items, len(known))))
    batch = [known[place] for place in places]
    other = _answers(model, task, batch, Served(model, lambda: server))
    mine = _answers(model, task, batch, InProcess(model, scoring.batch_size))
    rated = {
        item for item, value, _ in other if not isinstance(value, str)
    }  # a server rates no prompt with media
    return compared(
        [one for one in mine if isinstance(one[1], str) or one[0] in rated], other, tolerance, where=where
    )


def _answers(model: MultimodalLM, task: TaskSpec, batch: Sequence[Item], backend: Backend) -> list[Value]:
    """What a backend gives for items that are not of lm-eval."""
    found: list[Value] = []
    for line in predict_batch(task, batch, backend):
        found.append((line.id, line.prediction, 1))
        for text, value in zip(rated_texts(task, line.choices or ()), line.likelihoods or (), strict=False):
            ids = model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else ()
            found.append((line.id, value, max(1, len(ids))))
    return found


def compared(mine: Sequence[Value], theirs: Sequence[Value], tolerance: float, *, where: str) -> Compared:
    """Compares what the model in process (`mine`) and a server gave. Raises ParityRefused."""
    largest: float | None = None
    for (item, own, tokens), (_, other, _) in zip(mine, theirs, strict=True):
        if isinstance(own, str) or isinstance(other, str):
            if own != other:
                raise ParityRefused(
                    f"the server answers item {item} by {other!r}, and transformers by {own!r}.",
                    where=where,
                    hint="Greedy answers must be the same: check that the server uses the same prompt format and "
                    "number type.",
                )
            continue
        difference = abs(own - other) / max(1, tokens)
        largest = max(largest or 0.0, difference)
        if not difference <= tolerance:
            raise ParityRefused(
                f"the server gives item {item} a log-likelihood of {other:.5g}, and transformers of {own:.5g}: they "
                f"differ by {difference:.2g} nats per token, more than {tolerance:g}.",
                where=where,
                hint="Serve the same weights with the same number type, or set tolerance under scoring.",
            )
    answers = sum(isinstance(value, str) for _, value, _ in mine)
    return Compared(list(dict.fromkeys(item for item, _, _ in mine)), answers, len(mine) - answers, largest)
