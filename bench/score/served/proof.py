"""Proof that a server has the weights of the model in this process, and not those of another one, such as the base.

A server of the OpenAI protocol can be given one model and answer by another one: an adapter that was not loaded, a
checkpoint of an earlier stage. Few answers show it. The log-likelihoods of random token sequences do: they depend on
all weights, and are compared with those of this process, for these weights and for the base.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moextend.bench.score.served.client import ServerFailed
from moextend.bench.score.served.records import Weights

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM

SEQUENCES, TOKENS = 8, 32
"""Number of random sequences, and their length."""
SEED = 20240807
"""Of the sequences: the same for all runs, so that they are compared with the same ones."""
BASE = "the base"

Logprobs = list[list[float]]
"""Log-probability of each token of each sequence but its first."""


class ParityRefused(ServerFailed):
    """A server that does not answer as the model in this process."""


@dataclass
class Known:
    """Log-probabilities of the random sequences by the states that a run had so far."""

    base: str = ""
    """Fingerprint of the base."""
    rows: list[list[int]] = field(default_factory=list)
    by_weights: dict[str, tuple[str, Logprobs]] = field(default_factory=dict)
    """Fingerprint of weights -> what they are in words, and their log-probabilities."""

    def note(self, model: MultimodalLM, weights: str, about: str) -> Logprobs:
        """Log-probabilities by the model in its current state, which `weights` identifies; computed once."""
        if not self.rows:
            self.rows = sequences(model)
        if weights not in self.by_weights:
            self.by_weights[weights] = (about, token_logprobs(model, self.rows))
        return self.by_weights[weights][1]


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


def prove(server: ServedModel, known: Known, weights: str, tolerance: float) -> Weights:
    """Proves that a server has `weights`, whose log-probabilities are known.

    A server with a fingerprint (see ServedModel) must give it with every answer.

    Args:
        tolerance: maximum mean difference of a sequence, in nats per token.

    Raises:
        ParityRefused: it has other weights, or these do not differ enough from the base.
    """
    where = f"{server.client.url}, model {server.name}"
    about, mine = known.by_weights[weights]
    theirs = server.token_logprobs(known.rows)
    found = distance(theirs, mine)
    if found > tolerance:
        near = min(known.by_weights, key=lambda name: distance(theirs, known.by_weights[name][1]))
        own = distance(theirs, known.by_weights[near][1])
        guess = f" It serves {known.by_weights[near][0]} (differs by {own:.2g})." if own <= tolerance else ""
        raise ParityRefused(
            f"the server does not have the weights of {about}: log-likelihoods of random texts differ by {found:.2g} "
            f"nats per token, more than {tolerance:g}.{guess}",
            where=where,
            hint="Serve the folder of this stage. Where number types differ, set tolerance under scoring.",
        )
    base = None if weights == known.base else distance(known.by_weights[known.base][1], mine)
    if base is not None and base <= 2 * tolerance and server.fingerprint is None:
        raise ParityRefused(
            f"the weights cannot be proved: on random texts, {about} differs from the base by {base:.2g} "
            f"nats per token, at most twice the tolerance of {tolerance:g}.",
            where=where,
            hint="Serve with float32 and lower the tolerance, or use moextend serve, which gives a fingerprint.",
        )
    return Weights(
        by="fingerprint" if server.fingerprint else "sequences", fingerprint=server.fingerprint,
        sequences=len(known.rows), tokens=len(known.rows[0]), difference=found, base=base,
    )  # fmt: skip


def distance(a: Logprobs, b: Logprobs) -> float:
    """Largest mean absolute difference of a row, in nats per token."""
    return max(sum(abs(x - y) for x, y in zip(p, q, strict=True)) / len(p) for p, q in zip(a, b, strict=True))
