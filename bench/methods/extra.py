"""What a stage of a method takes besides the training of its parameters, for the estimates of `--dry-run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pass:
    """Conversations that are computed once more in a stage."""

    over: Literal["items", "held-out", "generic"]
    """Training items of the stage, its held-out items, or the generic text."""
    most: int | None = None
    """At most so many of them; None: all."""
    times: int = 1
    backward: bool = False
    """Whether gradients of what the stage trained are computed, of one conversation at a time."""


@dataclass(frozen=True)
class Extra:
    """Costs of a stage besides the training of its parameters."""

    passes: tuple[Pass, ...] = ()
    teacher: bool = False
    """Whether each step, from the second stage on, computes its batch once more without gradients."""
    copies: int = 0
    """Float32 copies of the trained parameters that a training holds, from the second stage on."""
    adds: bool = False
    """Whether each stage adds parameters, and those of earlier ones stay in memory."""
    together: bool = False
    """Whether parameters of earlier stages compute too, in training and in scoring."""
    sampled: int = 0
    """Tokens of a memory that the new experts of every layer compute in each step, where there is a memory."""
    replayed: int = 0
    """Tokens of a memory that every step computes a whole pass of, with gradients, where there is a memory."""
    stored_copies: int = 1
    """Tensors of the size of the trained parameters that a stage writes."""
    stored: int = 0
    """Bytes of other files of a stage."""
    share: float = 1.0
    """Share of the tokens that new experts compute, where not all do: assumed to be that of an average expert."""
