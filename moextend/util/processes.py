"""Data-parallel processes: who is first, what the first one says, and what all of them found.

A single process is the first of one: every function here then calls its argument and does nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from moextend.errors import InputError, MoextendError, RunFailed
from moextend.util.foreign import explained

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""Time-out of an exchange. One process may work alone for long; `bench.run.together` notices one that is gone."""


def launched() -> int:
    """Number of processes that a launcher started together; `count` is 1 until they have joined."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def count() -> int:
    """Number of processes that work together; 1 for a single one."""
    if "torch" not in sys.modules:  # slow to import, and not needed by who has no processes
        return 1
    import torch

    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def rank() -> int:
    """Number of this process, from 0."""
    if count() == 1:
        return 0
    import torch

    return torch.distributed.get_rank()


def is_first() -> bool:
    """Whether this process is the first one, which alone writes results."""
    return rank() == 0


def share(values: Sequence[T]) -> Sequence[T]:
    """The part of this process in work that is shared: each process takes its turn."""
    return values[rank() :: count()]


@contextmanager
def first_writes() -> Iterator[bool]:
    """Context that yields whether this process is the first one; all processes leave it together."""
    yield is_first()
    wait()


def wait() -> None:
    """Returns once all processes have called it."""
    if count() > 1:
        import torch

        torch.distributed.barrier(group=_group())


def first_says(ask: Callable[[], T]) -> T:
    """What `ask` returns, or raises, in the first process; only that one calls it."""
    if count() == 1:
        return ask()
    own = _Outcome.of(ask) if is_first() else None
    sent: list[Any] = [own and own.sent()]
    _broadcast(sent)
    found: T = (own or _Outcome(*sent[0])).value()
    return found


def in_turn(work: Callable[[], T]) -> T:
    """What `work` returns in this process: the first one calls it before the others, which may read its files."""
    if count() == 1:
        return work()
    own: list[T] = []
    first_says(lambda: own.append(work()))
    return own[0] if own else work()


@contextmanager
def first_enters(context: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Context that only the first process enters, before the others go on; an error there is everybody's."""
    with ExitStack() as entered:

        def enter() -> None:
            entered.enter_context(context())

        first_says(enter)
        yield


def gathered(work: Callable[[], T]) -> list[T]:
    """What `work` returns in each process, in their order; the error of the first that fails is raised in all."""
    if count() == 1:
        return [work()]
    import torch

    own = _Outcome.of(work)
    sent: list[Any] = [None] * count()
    torch.distributed.all_gather_object(sent, own.sent(), group=_group())
    return [(own if place == rank() else _Outcome(*each)).value() for place, each in enumerate(sent)]


@dataclass(frozen=True)
class _Outcome:
    """What a call returned, or its error."""

    found: Any
    error: Exception | None = None

    @staticmethod
    def of(work: Callable[[], Any]) -> _Outcome:
        try:
            return _Outcome(work())
        except Exception as error:
            return _Outcome(None, error)

    def value(self) -> Any:
        """What was returned; raises the error."""
        if self.error is not None:
            raise self.error
        return self.found

    def sent(self) -> tuple[Any, MoextendError | None]:
        """The outcome for other processes: an error of a kind that can be sent, without its traceback."""
        if self.error is None:
            return self.found, None

        error = explained(self.error)
        kind = InputError if isinstance(error, InputError) else RunFailed
        return None, kind(error.what, where=error.where, hint=error.hint)


def _broadcast(values: list[Any]) -> None:
    import torch

    torch.distributed.broadcast_object_list(values, src=0, group=_group())


_OWN: list[Any] = []
"""The group of all processes, and that of the exchanges here, which is made for it."""


def _group() -> Any:
    """A group over the network of the host: objects need no accelerator, and its time-out is long."""
    import torch

    world = torch.distributed.group.WORLD
    if not _OWN or _OWN[0] is not world:
        _OWN[:] = [world, torch.distributed.new_group(backend="gloo", timeout=PATIENCE)]
    return _OWN[1]
