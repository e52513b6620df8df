"""Text of an answer, as it grows token by token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from moextend.model.chat import without_lead

OPEN = "�"
"""What a tokenizer decodes the first bytes of a character to."""
WINDOW = 8
"""Tokens before a token that its text can depend on: a space between words, or the other bytes of a character."""


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
