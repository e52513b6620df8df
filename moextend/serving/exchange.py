"""One request between the event loop and the engine: its jobs, and the events of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Delta, Done, Event, Job

T = TypeVar("T")
Make = Callable[[int, Callable[[Event], None]], Job]
"""(index of a prompt, receiver of its events) -> its job."""


class Gone(Exception):
    """The client closed the connection."""


class Exchange:
    """The jobs of one request. Leaving its context frees their places, except after `hand_over`."""

    def __init__(self, engine: Engine, request: Request, count: int, make: Make) -> None:
        self._engine, self._request = engine, request
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._handed_over = False
        self._loop = asyncio.get_running_loop()
        self.jobs = [make(place, partial(self._receive, place)) for place in range(count)]

    def __enter__(self) -> Exchange:
        self._engine.submit(self.jobs)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._handed_over:
            self.cancel()

    def hand_over(self) -> None:
        """Makes the caller responsible for `cancel`."""
        self._handed_over = True

    def cancel(self) -> None:
        """Frees the places of jobs that are not answered."""
        for job in self.jobs:
            job.cancelled = True

    async def events(self) -> AsyncIterator[tuple[int, Delta | Done]]:
        """Index of a prompt and an event of its answer, until all are answered.

        Raises:
            ApiError: a prompt could not be answered.
            Gone: the client does not wait any longer.
        """
        left = len(self.jobs)
        watcher = asyncio.create_task(_disconnected(self._request))
        try:
            while left:
                place, event = await self._next(watcher)
                if isinstance(event, ApiError):
                    raise event
                left -= isinstance(event, Done)
                yield place, event
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher

    async def _next(self, watcher: asyncio.Task[None]) -> tuple[int, Event]:
        if not self._events.empty():
            return self._events.get_nowait()
        getter = asyncio.create_task(self._events.get())
        try:
            await asyncio.wait({getter, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not getter.done():
                raise Gone
            return getter.result()
        finally:
            getter.cancel()

    def _receive(self, place: int, event: Event) -> None:
        """Called by the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._events.put_nowait, (place, event))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection. Raises Gone."""
    working, watcher = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for task in (working, watcher):
            task.cancel()
        await asyncio.gather(working, watcher, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
