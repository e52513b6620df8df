"""Text of an answer, as it grows token by token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from moextend.model.chat import without_lead
from moextend.serving.jobs import Job

OPEN = "�"
"""What a tokenizer decodes the first bytes of a character to."""
WINDOW = 8
"""Tokens before a token that its text can depend on: a space between words, or the other bytes of a character."""


class Grown:
    """Length of the text of tokens, as it grows token by token after the tokens `before`."""

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = _latest(tokenizer, before)
        self._base, self._start = _decoded(tokenizer, self._ids), 0
        self._length = 0

    def add(self, token: int) -> int:
        """Number of characters before the text of the next token."""
        begin = self._length
        self._ids.append(token)
        text = _decoded(self._tokenizer, self._ids)
        closed = text.rstrip(OPEN)
        self._length = max(begin, self._start + len(_after(self._base, closed)))
        if len(self._ids) > 2 * WINDOW and closed == text:
            self._ids = _latest(self._tokenizer, self._ids)
            self._base, self._start = _decoded(self._tokenizer, self._ids), self._length
        return begin


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
        """Args: stripped: without outer spaces. stream: pieces before the end. before: ids that the text continues.

        lead: ids before the text of an answer, which are not part of it.
        """
        self._lead = lead
        self._before = _latest(tokenizer, before)
        self._base = _decoded(tokenizer, self._before)
        self.tokenizer, self.stop, self.stripped, self.stream = tokenizer, tuple(stop), stripped, stream
        self.ids: list[int] = []
        self.stopped = False
        """Whether a stop text was found."""
        self._given = 0

    @classmethod
    def of(cls, tokenizer: Any, job: Job) -> Answer:
        """The answer to a job: the text that follows its prompt, or, if it is stripped, a text of its own."""
        own = job.settings
        before = () if own.stripped else job.ids
        return cls(
            tokenizer, own.stop, stripped=own.stripped, stream=own.stream, before=before, lead=own.lead
        )

    def add(self, token: int) -> str:
        """The next piece, often empty."""
        self.ids.append(token)
        if not (self.stream or self.stop):
            return ""
        text = self._text()
        return self._next(text) if self.stream and not self.stopped else ""

    def end(self) -> str:
        """The last piece; without `stream` the complete text."""
        text = self._text()
        text = text.strip() if self.stripped else text
        piece, self._given = text[self._given :], len(text)
        return piece

    def _text(self) -> str:
        """Text so far, up to a stop text."""
        ids = without_lead(self.ids, self._lead)
        text = _after(self._base, _decoded(self.tokenizer, [*self._before, *ids]))
        found = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        return text

    def _next(self, text: str) -> str:
        text = text.rstrip(OPEN)
        text = text[: len(text) - self._held(text)]
        text = text.strip() if self.stripped else text
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece

    def _held(self, text: str) -> int:
        """Length of the end of `text` that may be the start of a stop text."""
        longest = 0
        for stop in self.stop:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


def _latest(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The latest ids that have a text."""
    if not ids:
        return []
    special = set(tokenizer.all_special_ids)
    return [*islice((token for token in reversed(ids) if token not in special), WINDOW)][::-1]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text


def _after(base: str, text: str) -> str:
    """What `text` has after `base`, which may end within a character that is complete in `text`."""
    if text.startswith(base):
        return text[len(base) :]
    pairs = enumerate(zip(base, text, strict=False))
    return text[next((place for place, (old, new) in pairs if old != new), len(text)) :]
