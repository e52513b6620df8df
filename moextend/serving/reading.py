"""Texts of requests on their way to ids: one thread reads them, and refuses what cannot fit into the context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from moextend.model.batches import piece_ids
from moextend.serving import errors

T = TypeVar("T")
PER_TOKEN = 32
"""Characters of a text per token of the context, at least, that are read. Tokens are shorter, but white space may be
dropped and a long word may become one unknown token."""
SAMPLE = 16
"""Characters per token of the context in the sample of a longer text."""


class Reader:
    """Calls functions in a thread of its own, one after the other: chat templates and tokenizers have state.

    The end of the process does not wait for it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[Any]] | None] = SimpleQueue()
        self._changed = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Calls a function after those before it. A future that is cancelled before is left out."""
        found: Future[T] = Future()
        with self._changed:
            if not self._open:
                raise errors.stopping()
            self._calls.put((function, found))
        return found

    def stop(self) -> None:
        """Ends the thread after the current call; the other calls fail."""
        with self._changed:
            if self._open:
                self._open = False
                self._calls.put(None)

    def _run(self) -> None:
        while (one := self._calls.get()) is not None:
            function, found = one
            settle(found, function if self._open else raising(errors.stopping()))


class Bound:
    """Refuses texts that cannot fit into a model's context, before all of them is tokenized."""

    def __init__(self, tokenizer: Any, context: int | None) -> None:
        """Args: context: tokens; None: there is no bound."""
        self.context, self._tokenizer = context, tokenizer
        self._longest = max((len(token) for token in tokenizer.get_vocab()), default=1)

    @property
    def characters(self) -> int | None:
        """Characters that are read; None: any number."""
        return None if self.context is None else self.context * max(PER_TOKEN, self._longest)

    def check(self, texts: Sequence[str], param: str) -> None:
        """Raises ApiError 400 if `texts`, which make one prompt, are too long. `param`: their parameter.

        A text of more than `SAMPLE` characters per token of the context is refused as well if its first part alone
        takes twice the context: reading it costs time and memory in proportion to its length.
        """
        if self.context is None or self.characters is None:
            return
        total, part = sum(map(len, texts)) + len(texts) - 1, self.context * SAMPLE
        if total > self.characters:
            raise errors.too_long_text(total, self.context, f"at most {self.characters:,} are read", param)
        if total > part:
            first = "\n".join(texts)[:part]
            tokens = len(piece_ids(self._tokenizer, first, False))
            if tokens > 2 * self.context:
                raise errors.too_long_text(
                    total, self.context, f"the first {part:,} take {tokens} tokens", param
                )


def settle(future: Future[Any], function: Callable[[], object]) -> None:
    """Calls a function for a future, unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)


def raising(error: Exception) -> Callable[[], object]:
    """A function that raises the error."""

    def function() -> object:
        raise error

    return function
