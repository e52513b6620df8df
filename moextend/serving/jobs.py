"""What the engine answers: a prompt with its extensions and settings, the text of its answer, and its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from moextend.model.chat import without_lead
from moextend.model.generation import Prompt
from moextend.serving.errors import ApiError

OPEN = "�"
"""What a tokenizer decodes the first bytes of a character to."""
WINDOW = 8
"""Tokens before a token that its text can depend on: a space between words, or the other bytes of a character."""


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


class Answer:
    """Decodes an answer, ends it at a stop text, and hands out pieces that later tokens do not change."""

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str] = (),
        *,
        stripped: bool = False,
        stream: bool = False,
        before: Sequence[int] = (),
        lead: Sequence[int] = (),
    ) -> None:
        """
        Args:
            stripped: without outer spaces.
            stream: pieces before the end.
            before: ids that the text continues.
            lead: ids before the text of an answer, which are not part of it.
        """
        special = set(tokenizer.all_special_ids) if before else set()
        latest = islice((token for token in reversed(before) if token not in special), WINDOW)
        self._tokenizer, self._before, self._lead = tokenizer, [*latest][::-1], lead
        self._base = self._decoded(self._before)
        self.stop, self.stripped, self.stream = tuple(stop), stripped, stream
        self.ids: list[int] = []
        self.stopped = False
        """Whether a stop text was found."""
        self._given = 0

    def add(self, token: int) -> str:
        """The next piece, often empty."""
        self.ids.append(token)
        if not (self.stream or self.stop):
            return ""
        text = self._text().rstrip(OPEN)
        if self.stopped or not self.stream:
            return ""
        return self._next(text[: len(text) - self._held(text)])

    def end(self) -> str:
        """The last piece; without `stream` the complete text."""
        return self._next(self._text())

    def _next(self, text: str) -> str:
        text = text.strip() if self.stripped else text
        piece, self._given = text[self._given :], max(self._given, len(text))
        return piece

    def _text(self) -> str:
        """Text so far, up to a stop text."""
        text = self._decoded([*self._before, *without_lead(self.ids, self._lead)])
        # The text before may end within a character that is complete now.
        pairs = enumerate(zip(self._base, text, strict=False))
        same = min(len(self._base), len(text))
        text = text[next((place for place, (old, new) in pairs if old != new), same) :]
        found = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        self.stopped = bool(found)
        return text[: min(found)] if found else text

    def _held(self, text: str) -> int:
        """Length of the end of `text` that may be the start of a stop text."""
        starts = (stop[:length] for stop in self.stop for length in range(1, len(stop)))
        return max((len(start) for start in starts if text.endswith(start)), default=0)

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text
