"""One request between the event loop and the engine: its jobs, and the events of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

from starlette.requests import Request

from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Delta, Done, Event, Job

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
        watcher = asyncio.create_task(self._disconnected())
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

    async def _disconnected(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _receive(self, place: int, event: Event) -> None:
        """Called by the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._events.put_nowait, (place, event))
