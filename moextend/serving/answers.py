"""Text of an answer, as it grows token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OPEN = "�"
"""What a tokenizer decodes the first bytes of a character to."""


class Answer:
    """Decodes an answer, ends it at a stop text, and hands out pieces that later tokens do not change."""

    def __init__(
        self, tokenizer: Any, stop: Sequence[str] = (), *, stripped: bool = False, stream: bool = False
    ) -> None:
        """Args: stripped: without outer spaces. stream: pieces before the end."""
        self.tokenizer, self.stop, self.stripped, self.stream = tokenizer, tuple(stop), stripped, stream
        self.ids: list[int] = []
        self.stopped = False
        """Whether a stop text was found."""
        self._given = 0

    def add(self, token: int) -> str:
        """The next piece, often empty."""
        self.ids.append(token)
        if not (self.stream or self.stop):
            return ""
        text = self._text()
        return self._next(text) if self.stream and not self.stopped else ""

    def end(self) -> str:
        """The last piece; without `stream` the whole text."""
        text = self._text()
        text = text.strip() if self.stripped else text
        piece, self._given = text[self._given :], len(text)
        return piece

    def _text(self) -> str:
        """Text so far, up to a stop text."""
        text: str = self.tokenizer.decode(self.ids, skip_special_tokens=True)
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
