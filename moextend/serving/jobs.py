"""What the engine answers: a prompt with its extensions and settings, and the events of its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moextend.model.generation import Prompt
from moextend.serving.errors import ApiError


@dataclass(frozen=True)
class Settings:
    """How an answer is generated."""

    max_tokens: int
    """0: only the prompt is scored."""
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """Number of most likely tokens that are named at each position; None: no log-likelihoods."""
    prompt_logprobs: bool = False
    """Whether the tokens of the prompt have log-likelihoods, too."""
    stripped: bool = False
    """Answer without outer spaces, as that of `moextend.generate`; else a text that goes on after its prompt."""
    lead: tuple[int, ...] = ()
    """Tokens before the text of an answer, which are not part of it."""
    stream: bool = False


@dataclass(frozen=True)
class Token:
    """A token with its log-likelihood (nats) and the most likely ones; without the latter for a first token."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    """Ids and log-likelihoods, the most likely first; the token itself is always among them."""


@dataclass(frozen=True)
class Delta:
    """The next piece of an answer."""

    text: str
    tokens: tuple[Token, ...] = ()
    """Its tokens, if log-likelihoods were asked for."""


@dataclass(frozen=True)
class Done:
    """The end of an answer."""

    reason: str
    """stop: an end token or a stop text; length: max_tokens."""
    generated: int
    """Number of tokens, with an end token."""
    prompt: tuple[Token, ...] = ()
    """Tokens of the prompt, if their log-likelihoods were asked for."""


Event = Delta | Done | ApiError


@dataclass(eq=False)
class Job:
    """One prompt on its way through the engine."""

    ids: list[int]
    model: str
    """Name of the model that is asked."""
    settings: Settings
    prompt: Prompt
    """For its media, and for the inference of extensions."""
    deadline: float = float("inf")
    """Time (time.monotonic) at which it is given up."""
    arrived: float = field(default_factory=time.monotonic)
    deliver: Callable[[Event], None] = lambda event: None
    """Called by the engine's thread."""
    names: tuple[str, ...] | None = ()
    """Its extensions when the job was queued; None: inferred from the prompt."""
    cancelled: bool = False
    """Nobody waits for the answer any more."""
    fingerprint: str = ""
    """Of the weights that answer."""
    shown: tuple[str, ...] = ()
    """Extensions that answer, with their strengths."""

    @property
    def reached(self) -> tuple[str, ...]:
        """Extensions, after their inference."""
        assert self.names is not None
        return self.names
