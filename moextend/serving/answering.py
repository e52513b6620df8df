"""Requests for completions: from a body to an answer, complete or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from moextend.model.generation import Prompt
from moextend.serving import errors, prompts
from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.exchange import Exchange, Gone, unless_gone
from moextend.serving.jobs import Delta, Done, Event, Job, Settings
from moextend.serving.protocol import MOST_PROMPTS, Asked, ChatCompletion, Completion
from moextend.serving.reading import Bound
from moextend.serving.replies import CHAT, TEXT, Choice, Reply, Tokens

TOKENS = 16
"""Tokens of a completion if the request names no number, as OpenAI's."""
Read = tuple[Prompt, list[int]]


class Answering:
    """Answers requests for completions with an engine."""

    def __init__(self, engine: Engine, timeout: float, most: int) -> None:
        """Args: timeout: seconds for a request. most: tokens of an answer."""
        self.engine, self.timeout, self.most = engine, timeout, most
        self.model = engine.catalogue.model
        self.vocabulary = int(self.model.lm.get_input_embeddings().weight.shape[0])
        self.names = Tokens(self.model.tokenizer)
        self.bound = Bound(self.model.tokenizer, self.model.context)

    async def completion(self, body: Completion, request: Request) -> Response:
        """Answer to POST /v1/completions."""
        request.state.model = body.model
        self.engine.catalogue.known.names_of(body.model)  # an unknown one is refused before anything is read
        asked = body.prompts
        if not 0 < len(asked) <= min(MOST_PROMPTS, self.engine.limits.queue):
            most = min(MOST_PROMPTS, self.engine.limits.queue)
            raise ApiError(400, f"prompt has {len(asked)} prompts; give 1 to {most}.", param="prompt")
        if body.echo and body.stream:
            raise ApiError(400, "echo cannot be combined with stream.", param="echo")
        read = await self._read(
            request,
            [partial(prompts.of_completion, self.model, each, self.vocabulary, self.bound) for each in asked],
            named=body.logprobs is not None,
        )
        tokens = TOKENS if body.max_tokens is None else body.max_tokens
        settings = self._settings(
            body,
            tokens,
            logprobs=body.logprobs,
            prompt_logprobs=bool(body.echo) and body.logprobs is not None,
        )
        echoes = [
            (each if isinstance(each, str) else prompt.text) if body.echo else ""
            for each, (prompt, _) in zip(asked, read, strict=True)
        ]
        reply = Reply(TEXT, body.model, self.names, body.logprobs)
        return await self._answer(body, request, reply, read, settings, echoes)

    async def chat(self, body: ChatCompletion, request: Request) -> Response:
        """Answer to POST /v1/chat/completions."""
        request.state.model = body.model
        self.engine.catalogue.known.names_of(body.model)  # an unknown one is refused before anything is read
        if body.top_logprobs and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
        read = await self._read(
            request,
            [partial(prompts.of_chat, self.model, body.messages, self.bound)],
            named=bool(body.logprobs),
        )
        tokens = body.max_completion_tokens or body.max_tokens
        if tokens is None:
            context = self.model.context
            free = self.most if context is None else context - len(read[0][1])
            tokens = max(1, min(self.most, free))
        most = (body.top_logprobs or 0) if body.logprobs else None
        lead = tuple(self.model.chat.lead) if self.model.chat else ()
        settings = self._settings(body, tokens, logprobs=most, stripped=True, lead=lead)
        reply = Reply(CHAT, body.model, self.names, most)
        return await self._answer(body, request, reply, read, settings, [""])

    async def _read(
        self, request: Request, reads: Sequence[Callable[[], Read]], *, named: bool
    ) -> list[Read]:
        """Prompts and ids, made in another thread: pictures have to be opened, and texts may be long.

        Each prompt takes its turn among those of other requests. `named`: names of tokens are needed, too. Raises Gone.
        """
        reader = self.engine.reader

        async def work() -> list[Read]:
            if named:
                await asyncio.wrap_future(reader.call(lambda: self.names.all))
            return [await asyncio.wrap_future(reader.call(read)) for read in reads]

        return await unless_gone(request, work())

    def _settings(self, body: Asked, tokens: int, **more: Any) -> Settings:
        if tokens > self.most:
            raise ApiError(
                400, f"this server gives at most {self.most} tokens, not {tokens}.", param="max_tokens"
            )
        return Settings(
            tokens,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            stop=body.stops,
            stream=bool(body.stream),
            **more,
        )

    async def _answer(
        self,
        body: Asked,
        request: Request,
        reply: Reply,
        read: Sequence[Read],
        settings: Settings,
        echoes: Sequence[str],
    ) -> Response:
        context, arrived = self.model.context, time.monotonic()
        for _, ids in read:
            if context is not None and len(ids) + settings.max_tokens > context:
                param = "messages" if reply.kind == CHAT else "prompt"
                raise errors.too_long(len(ids) + settings.max_tokens, len(ids), context, param)

        def job(place: int, deliver: Callable[[Event], None]) -> Job:
            prompt, ids = read[place]
            return Job(
                ids,
                body.model,
                settings,
                deliver,
                prompt.media,
                prompt,
                deadline=arrived + self.timeout,
                arrived=arrived,
            )

        choices = [Choice(place, echo) for place, echo in enumerate(echoes)]
        if reply.kind == TEXT and reply.logprobs is not None:
            for choice, (_, ids) in zip(choices, read, strict=True):
                choice.grown = self.names.grown(ids)
        exchange = Exchange(self.engine, request, len(read), job)
        with exchange:
            events = exchange.events()
            if body.stream:
                return await _streamed(exchange, events, reply, choices, usage=body.with_usage)
            async for place, event in events:
                choices[place].add(event)
            return JSONResponse(reply.complete(exchange.jobs, choices))


async def _streamed(
    exchange: Exchange,
    events: AsyncIterator[tuple[int, Delta | Done]],
    reply: Reply,
    choices: Sequence[Choice],
    *,
    usage: bool,
) -> Response:
    """A stream of chunks. An error before the first one is an answer of its own."""
    first = await anext(events)

    async def chunks() -> AsyncIterator[str]:
        started: set[int] = set()
        try:
            yield chunk(first, started)
            async for one in events:
                yield chunk(one, started)
            if usage:
                yield _event(reply.last(exchange.jobs, choices))
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield _event(error.body)
        except Gone:
            return

    def chunk(one: tuple[int, Delta | Done], started: set[int]) -> str:
        place, event = one
        choices[place].add(event)
        found = reply.chunk(exchange.jobs[place], choices[place], event, first=place not in started)
        started.add(place)
        return _event(found)

    return _Stream(exchange, chunks())


class _Stream(StreamingResponse):
    """Server-sent events. Its end, also by a closed connection, frees the places of the request."""

    def __init__(self, exchange: Exchange, chunks: AsyncIterator[str]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        exchange.hand_over()
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._exchange.cancel()


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
