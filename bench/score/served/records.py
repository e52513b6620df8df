"""The record of a parity check: a line of `parity.jsonl`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from moextend.util.spec import Record


class Weights(BaseModel):
    """Proof that a server has the weights of the model in the process of the run."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    by: Literal["fingerprint", "sequences"]
    """fingerprint: the server gives a fingerprint of its weights, which is that of the run; sequences: only their
    log-likelihoods tell the weights."""
    fingerprint: str | None = None
    """`system_fingerprint` of the server. null: it gives none that moextend knows."""
    sequences: int
    """Number of random token sequences whose log-likelihoods were compared."""
    tokens: int
    """Tokens of each."""
    difference: float
    """Largest mean difference of a sequence to the model in process, in nats per token."""
    base: float | None = None
    """The same between the model in process and the base. null: the model is the base."""


class Parity(Record):
    """A line of `parity.jsonl`: a server and the model in process were compared before a cell was scored.

    A line also has `run`, the id of the run, and `digest`, a digest of all other keys. A cell names the digest.
    """

    model_config = ConfigDict(extra="forbid")

    stage: int
    """Stage after which it was made; 0 is the base."""
    task: str
    """The task."""
    weights_id: str
    """Fingerprint of the weights, as in the cells."""
    backend: str
    """openai."""
    server: str
    """Address of the server, or the command that started it."""
    engine: str
    """What the server says that it is: owner of the model, and version. "" if it says nothing."""
    model: str
    """Name of the model in the requests."""
    at: str
    """Date and time, ISO 8601."""
    tolerance: float
    """Maximum difference of log-likelihoods, in nats per token."""
    weights: Weights
    """Proof that the server has the weights."""
    items: list[str]
    """Ids of the compared items."""
    answers: int = 0
    """Number of compared greedy answers; all were the same."""
    likelihoods: int = 0
    """Number of compared log-likelihoods of choices or texts."""
    difference: float | None = None
    """Largest difference between them, in nats per token. null: none was compared."""
