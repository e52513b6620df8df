"""Records of scoring: the lines of scores.jsonl and of parity.jsonl."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moextend.util.spec import Record

LM_EVAL = "lm-eval:"
"""Start of the name of a scorer that is a metric of lm-eval."""


class Cell(Record):
    """A line of `scores.jsonl`: one scored cell of the matrix; the last line of a stage and task counts.

    A line also has `run`, the id of the run, and `digest`, a digest of all other keys of the line; a line without it is
    not a cell.
    """

    model_config = ConfigDict(extra="forbid")

    stage: int
    """Stage after which it was scored; 0 is the base."""
    task: str
    """The task."""
    value: float
    """Score in percent, 0..100."""
    stderr: float | None = None
    """Standard error of `value` over items, in points. null: not known, as for one image."""
    n: int
    """Number of scored items."""
    scorer: str
    """Name and version of the scoring rule."""
    weights: str
    """Fingerprint of the weights that made the predictions."""
    predictions: str | None = None
    """Path of the predictions, relative to the folder of the run. null: not kept."""
    size: int
    """Size of that file in bytes."""
    sha256: str
    """SHA-256 of that file."""
    seconds: float = 0.0
    """Wall-clock time of scoring, in seconds."""
    reused: bool = False
    """Whether all predictions existed before, so that the model computed nothing."""
    batch_size: int | None = None
    """Most rows of a forward pass (MOEXTEND_MICRO_BATCH), on which the last bits of log-likelihoods may depend. Missing
    or null: the sequence's `batch_size`."""
    backend: str | None = None
    """What answered: openai, a server of that protocol. Missing or null: transformers, in the process of the run."""
    parity: str | None = None
    """`digest` of the line of `parity.jsonl` that shows the parity of that server. Missing or null: in process."""
    by_kind: dict[str, float] = Field(default_factory=dict)
    """Kind of question, or task of a group -> score in percent."""
    kind_sizes: dict[str, int] = Field(default_factory=dict)
    """Kind of question, or task of a group -> number of items."""
    readings: dict[str, float] = Field(default_factory=dict)
    """Other readings of the same answers, in percent; see docs/scorers.md."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """What the score was made of, besides the config: part ("test data of task 'vqav2'") -> digest. Tables neither
    average nor compare runs that differ in one. Parts that have a version, such as generated data, are left out."""

    @property
    def by_lm_eval(self) -> bool:
        """Whether lm-eval made the score: its predictions have other lines than those of image tasks."""
        return self.scorer.startswith(LM_EVAL)

    @field_validator("predictions")
    @classmethod
    def _is_inside(cls, path: str | None) -> str | None:
        """Refuses a path outside the folder of the run."""
        if path is not None and not _inside(path):
            raise ValueError("is not a path inside the folder of the run")
        return path


def _inside(path: str) -> bool:
    parts = path.replace(os.sep, "/").split("/")
    outside = parts[0] == "" or ":" in parts[0] or ".." in parts  # absolute, a drive of Windows, or above
    return not outside and any(part not in ("", ".") for part in parts)


@dataclass(frozen=True)
class Scores:
    """Scores of the predictions of one task; all values are in percent."""

    value: float
    stderr: float | None
    """Standard error of the mean, items of one image drawn together (stats.clustered_error); None for one image."""
    n: int
    """Number of items."""
    by_kind: dict[str, float] = field(default_factory=dict)
    """Kind of question, or task of a group of text tasks -> value."""
    kind_sizes: dict[str, int] = field(default_factory=dict)
    """Kind of question, or task of a group -> number of items."""
    readings: dict[str, float] = field(default_factory=dict)
    """strict, normalised, likelihood (if choices have one), and other metrics; for text tasks lm-eval's fractions."""


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
