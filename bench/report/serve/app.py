"""The routes of the page. Each is a look-up in memory: no path of a request reaches the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from moextend.bench.report.page.document import TEMPLATE, asset
from moextend.bench.report.serve.build import Content
from moextend.bench.report.serve.watcher import Watcher

READERS = 64
"""Maximum number of tabs that are sent news at a time; a tab in the background asks for none."""


def application(watcher: Watcher) -> Starlette:
    """The page of the runs that are watched."""
    fixed = _fixed()

    async def content(request: Request) -> Response:
        path = str(request.path_params["path"])
        version = request.query_params.get("v", watcher.version)
        found = fixed.get(path) or (watcher.build.contents.get(path) if version == watcher.version else None)
        return _answer(request, found)

    async def events(request: Request) -> Response:
        if watcher.readers >= READERS:
            return PlainTextResponse("Too many tabs are open.\n", 503, {"Retry-After": "10"})
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return StreamingResponse(_events(watcher), media_type="text/event-stream")

    @asynccontextmanager
    async def watched(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(watcher.watch())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = Starlette(routes=[Route("/events", events), Route("/{path:path}", content)], lifespan=watched)
    app.router.redirect_slashes = False
    return app


async def _events(watcher: Watcher) -> AsyncIterator[str]:
    """Server-sent events; a browser asks again two seconds after a lost connection."""
    if watcher.readers >= READERS:  # many came at once
        yield "retry: 10000\n\n"
        return
    yield "retry: 2000\n\n"
    async for message in watcher.news():
        yield f"data: {message}\n\n" if message else ":\n\n"


def _fixed() -> dict[str, Content]:
    """The files that do not depend on runs."""
    index = TEMPLATE.format(
        policy="",
        title="moextend: runs",
        style='<link rel="stylesheet" href="page.css">',
        scripts='<script type="application/json" id="part-live">true</script>\n<script src="page.js"></script>',
    )
    return {
        "": Content.of(index, "text/html"),
        "page.js": Content.of(asset("page.js"), "text/javascript"),
        "page.css": Content.of(asset("page.css"), "text/css"),
    }


def _answer(request: Request, found: Content | None) -> Response:
    if found is None:
        return PlainTextResponse("This file does not exist.\n", 404)
    zipped = found.compressed and "gzip" in request.headers.get("accept-encoding", "")
    headers = {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if zipped else {})
    return Response(found.data if zipped else found.plain(), headers=headers, media_type=found.media_type)
