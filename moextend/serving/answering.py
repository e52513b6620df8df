"""Requests for completions: from a body to an answer in OpenAI's shape, complete or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from moextend.model.generation import Prompt
from moextend.serving import prompts
from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Delta, Done, Event, Job, Settings, Token
from moextend.serving.protocol import MOST_PROMPTS, Asked, ChatCompletion, Completion

CHAT, TEXT = "chat.completion", "text_completion"
TOKENS = 16
"""Tokens of a completion if the request names no number, as OpenAI's."""
Read = tuple[Prompt, list[int]]
T = TypeVar("T")


@dataclass
class Choice:
    """The answer to one prompt, as far as it has come."""

    index: int
    echo: str = ""
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None

    def add(self, event: Delta | Done) -> None:
        """Adds an event."""
        if isinstance(event, Done):
            self.done = event
        else:
            self.text += event.text
            self.tokens += event.tokens


@dataclass(frozen=True)
class Reply:
    """The envelope of all answers to one request."""

    kind: str
    """chat.completion or text_completion."""
    model: str
    """Name in the request."""
    tokenizer: Any
    logprobs: int | None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def complete(self, jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer without streaming."""
        return {
            **self._head(self.kind, jobs[0]),
            "choices": [self._choice(choice) for choice in choices],
            "usage": usage(jobs, choices),
        }

    def chunk(self, job: Job, choice: Choice, event: Delta | Done, *, first: bool) -> dict[str, Any]:
        """A piece of a streamed answer, which `choice` has already."""
        delta = event if isinstance(event, Delta) else Delta("")
        found: dict[str, Any] = {
            "index": choice.index,
            "finish_reason": event.reason if isinstance(event, Done) else None,
            "logprobs": self._logprobs(delta.tokens) if delta.tokens else None,
        }
        if self.kind == CHAT:
            content = {"content": delta.text} if event is delta else {}
            found["delta"] = {**({"role": "assistant"} if first else {}), **content}
        else:
            found["text"] = delta.text
        return {**self._head(self._piece, job), "choices": [found]}

    def last(self, jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk with the number of tokens."""
        return {**self._head(self._piece, jobs[0]), "choices": [], "usage": usage(jobs, choices)}

    @property
    def _piece(self) -> str:
        return "chat.completion.chunk" if self.kind == CHAT else self.kind

    def _head(self, kind: str, job: Job) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.kind == CHAT else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": job.fingerprint,
            "extensions": list(job.shown),
        }

    def _choice(self, choice: Choice) -> dict[str, Any]:
        done = choice.done
        assert done is not None
        found: dict[str, Any] = {"index": choice.index, "finish_reason": done.reason, "logprobs": None}
        if self.logprobs is not None:
            found["logprobs"] = self._logprobs([*done.prompt, *choice.tokens])
        if self.kind == CHAT:
            found["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        else:
            found["text"] = choice.echo + choice.text
        return found

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        named = [self._names(token) for token in tokens]
        return {
            "tokens": [names[token.id] for names, token in zip(named, tokens, strict=True)],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else {names[each]: value for each, value in token.top}
                for names, token in zip(named, tokens, strict=True)
            ],
        }

    def _names(self, token: Token) -> dict[int, str]:
        """Token, and the most likely ones in its place -> text; the number of those with the same text."""
        texts = {each: self.tokenizer.decode([each]) for each in (token.id, *(each for each, _ in token.top))}
        count = Counter(texts.values())
        return {each: text if count[text] == 1 else f"token:{each}" for each, text in texts.items()}


def usage(jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, int]:
    """Numbers of tokens."""
    asked = sum(len(job.ids) for job in jobs)
    made = sum(choice.done.generated for choice in choices if choice.done)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


class Gone(Exception):
    """The client closed the connection."""


class Answering:
    """Answers requests for completions with an engine."""

    def __init__(self, engine: Engine, timeout: float, most: int) -> None:
        """Args: timeout: seconds for a request. most: tokens of an answer."""
        self.engine, self.timeout, self.most = engine, timeout, most
        self.model = engine.catalogue.model
        self._reader = ThreadPoolExecutor(1, "reader")
        """Reads prompts one after the other: chat templates and tokenizers have state."""

    async def completion(self, body: Completion, request: Request) -> Response:
        """Answer to POST /v1/completions."""
        asked, most = body.prompts, min(MOST_PROMPTS, self.engine.limits.queue)
        if not 0 < len(asked) <= most:
            raise ApiError(400, f"prompt has {len(asked)} prompts; give 1 to {most}.", param="prompt")
        if body.echo and body.stream:
            raise ApiError(400, "echo cannot be combined with stream.", param="echo")
        read = await self._read(
            body, request, [partial(prompts.of_completion, self.model, each) for each in asked]
        )
        settings = self._settings(
            body,
            TOKENS if body.max_tokens is None else body.max_tokens,
            logprobs=body.logprobs,
            prompt_logprobs=bool(body.echo) and body.logprobs is not None,
        )
        echoes = [
            (each if isinstance(each, str) else prompt.text) if body.echo else ""
            for each, (prompt, _) in zip(asked, read, strict=True)
        ]
        return await self._answer(body, request, TEXT, read, settings, echoes)

    async def chat(self, body: ChatCompletion, request: Request) -> Response:
        """Answer to POST /v1/chat/completions."""
        read = await self._read(body, request, [partial(prompts.of_chat, self.model, body.messages)])
        tokens, context = body.max_completion_tokens or body.max_tokens, self.model.context
        if tokens is None:
            free = self.most if context is None else context - len(read[0][1])
            tokens = max(1, min(self.most, free))
        lead = tuple(self.model.chat.lead) if self.model.chat else ()
        settings = self._settings(body, tokens, stripped=True, lead=lead)
        return await self._answer(body, request, CHAT, read, settings, [""])

    async def _read(self, body: Asked, request: Request, reads: Sequence[Callable[[], Read]]) -> list[Read]:
        """Prompts and ids, made in another thread: pictures have to be opened, and texts may be long.

        Each prompt takes its turn among those of other requests.
        """
        request.state.model = body.model  # for the log
        self.engine.catalogue.known.names_of(body.model)  # an unknown one is refused before anything is read
        loop = asyncio.get_running_loop()

        async def work() -> list[Read]:
            return [await loop.run_in_executor(self._reader, read) for read in reads]

        return await _unless_gone(request, work())

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
        kind: str,
        read: Sequence[Read],
        settings: Settings,
        echoes: Sequence[str],
    ) -> Response:
        context = self.model.context
        for _, ids in read:
            if context is not None and len(ids) + settings.max_tokens > context:
                raise ApiError(
                    400,
                    f"this model's context length is {context} tokens, and the request takes {len(ids)} of the prompt "
                    f"and {settings.max_tokens} of the answer. Shorten the prompt, or lower max_tokens.",
                    code="context_length_exceeded",
                    param="max_tokens" if len(ids) < context else "messages" if kind == CHAT else "prompt",
                )
        reply = Reply(kind, body.model, self.model.tokenizer, settings.logprobs)
        deadline = time.monotonic() + self.timeout
        jobs = [Job(ids, body.model, settings, prompt, deadline) for prompt, ids in read]
        choices = [Choice(place, echo) for place, echo in enumerate(echoes)]
        events = _events(self.engine, jobs)

        async def complete() -> Response:
            async for place, event in events:
                choices[place].add(event)
            return JSONResponse(reply.complete(jobs, choices))

        async def streamed() -> Response:
            first = await anext(events)  # an error before it is an answer of its own
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return _Stream(jobs, _chunks(first, events, reply, jobs, choices, usage=usage))

        try:
            return await _unless_gone(request, streamed() if body.stream else complete())
        except BaseException:
            _cancel(jobs)
            raise


async def _events(engine: Engine, jobs: Sequence[Job]) -> AsyncIterator[tuple[int, Delta | Done]]:
    """Queues jobs: index of a job and an event of its answer, until all are answered.

    Raises ApiError if a job cannot be answered.
    """
    queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def deliver(place: int, event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(queue.put_nowait, (place, event))

    for place, job in enumerate(jobs):
        job.deliver = partial(deliver, place)
    engine.submit(jobs)
    left = len(jobs)
    while left:
        place, event = await queue.get()
        if isinstance(event, ApiError):
            raise event
        left -= isinstance(event, Done)
        yield place, event


async def _chunks(
    first: tuple[int, Delta | Done],
    events: AsyncIterator[tuple[int, Delta | Done]],
    reply: Reply,
    jobs: Sequence[Job],
    choices: Sequence[Choice],
    *,
    usage: bool,
) -> AsyncIterator[str]:
    """Server-sent events of a stream."""
    started: set[int] = set()

    def chunk(place: int, event: Delta | Done) -> str:
        choices[place].add(event)
        found = reply.chunk(jobs[place], choices[place], event, first=place not in started)
        started.add(place)
        return _event(found)

    try:
        yield chunk(*first)
        async for place, event in events:
            yield chunk(place, event)
        if usage:
            yield _event(reply.last(jobs, choices))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event(error.body)


class _Stream(StreamingResponse):
    """Server-sent events. Its end, also by a closed connection, frees the places of the request."""

    def __init__(self, jobs: Sequence[Job], chunks: AsyncIterator[str]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._jobs = jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _cancel(self._jobs)


def _cancel(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.cancelled = True


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection. Raises Gone."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watcher = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait({working, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for task in (working, watcher):
            task.cancel()
        await asyncio.gather(working, watcher, return_exceptions=True)
