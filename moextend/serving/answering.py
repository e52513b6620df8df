"""Requests for completions: from a body to an answer in OpenAI's shape, complete or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from moextend.model.generation import Prompt
from moextend.serving import protocol
from moextend.serving.batch import Job, Piece, Token
from moextend.serving.engine import Answers
from moextend.serving.protocol import ApiError, Asked, ChatCompletion, Completion

EVENTS = "text/event-stream"
Read = tuple[Prompt, list[int]]
"""A prompt and its ids."""
Pieces = AsyncGenerator[tuple[int, Piece]]
"""Index of a prompt, and a piece of its answer."""


@dataclass(frozen=True)
class Reply:
    """The form of all answers to one request."""

    chat: bool
    tokenizer: Any
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, job: Job, *choices: dict[str, Any], part: bool) -> dict[str, Any]:
        """An answer, or a part of a streamed one."""
        assert job.known is not None
        kind = ("chat.completion.chunk" if part else "chat.completion") if self.chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": job.asked.model,
            "system_fingerprint": job.known.fingerprint(job.names),
            "extensions": job.known.shown(job.names),
            "choices": choices,
        }

    def choice(self, job: Job, place: int, piece: Piece, *, part: bool, first: bool = True) -> dict[str, Any]:
        """The answer to one prompt, or a part of a streamed one."""
        role = {"role": "assistant"} if first else {}
        message = {**role, "content": piece.text, **({} if part else {"refusal": None})}
        return {
            "index": place,
            "finish_reason": piece.reason,
            "logprobs": None if job.logprobs is None else self._logprobs(piece.tokens),
            **({"delta" if part else "message": message} if self.chat else {"text": piece.text}),
        }

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        named = [(self._names(token), token) for token in tokens]
        return {
            "tokens": [names[token.id] for names, token in named],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else {names[each]: value for each, value in token.top}
                for names, token in named
            ],
        }

    def _names(self, token: Token) -> dict[int, str]:
        """Token, and the most likely ones in its place -> text; the number of those with the same text."""
        texts = {each: self.tokenizer.decode([each]) for each in (token.id, *(each for each, _ in token.top))}
        count = Counter(texts.values())
        return {each: text if count[text] == 1 else f"token:{each}" for each, text in texts.items()}


class Answering:
    """Answers requests for completions with an engine."""

    def __init__(self, engine: Answers) -> None:
        self.engine, self.options, self.model = engine, engine.options, engine.catalogue.model
        self._reader = ThreadPoolExecutor(1, "reader")
        """Reads prompts one after the other: chat templates and tokenizers have state."""

    async def completion(self, body: Completion, request: Request) -> Response:
        """Answer to POST /v1/completions."""
        asked, most = body.prompts, self.options.queue
        if not 0 < len(asked) <= most:
            raise ApiError(400, f"prompt has {len(asked)} prompts; give 1 to {most}.", param="prompt")
        if body.echo and body.stream:
            raise ApiError(400, "echo cannot be combined with stream.", param="echo")
        read = await self._read(body, request, protocol.of_completion, asked)
        jobs = [Job(ids, prompt, body, body.max_tokens, body.logprobs) for prompt, ids in read]
        for job in jobs if body.echo else ():
            job.echo = job.prompt.text
        return await self._answer(body, request, jobs)

    async def chat(self, body: ChatCompletion, request: Request) -> Response:
        """Answer to POST /v1/chat/completions."""
        [(prompt, ids)] = await self._read(body, request, protocol.of_chat, [body.messages])
        free, context = self.options.max_new_tokens, self.model.context
        if context is not None:
            free = max(1, min(free, context - len(ids)))
        tokens = body.max_completion_tokens or body.max_tokens or free
        lead = tuple(self.model.chat.lead) if self.model.chat else ()
        return await self._answer(body, request, [Job(ids, prompt, body, tokens, lead=lead)])

    async def _read(
        self, body: Asked, request: Request, read: Callable[..., Read], asked: Sequence[Any]
    ) -> list[Read]:
        """Prompts and ids, made in another thread: pictures have to be opened, and texts may be long.

        Each prompt takes its turn among those of other requests.
        """
        request.state.model = body.model  # for the log
        self.engine.catalogue.known.names_of(body.model)  # an unknown one is refused before anything is read
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._reader, read, self.model, each) for each in asked]

    async def _answer(self, body: Asked, request: Request, jobs: Sequence[Job]) -> Response:
        self._check(jobs)
        request.state.jobs = jobs  # whose places the end of the request frees
        reply = Reply(isinstance(body, ChatCompletion), self.model.tokenizer)
        pieces = self._pieces(jobs)
        if body.stream:
            parts = _parts(reply, jobs, await anext(pieces), pieces)
            return StreamingResponse(parts, headers={"Cache-Control": "no-cache"}, media_type=EVENTS)
        found = {place: piece async for place, piece in pieces}  # each answer is one piece
        choices = [reply.choice(job, place, found[place], part=False) for place, job in enumerate(jobs)]
        return JSONResponse(reply.body(jobs[0], *choices, part=False) | _usage(jobs))

    def _check(self, jobs: Sequence[Job]) -> None:
        """Raises ApiError 400 for jobs that take too many tokens."""
        context, most = self.model.context, self.options.max_new_tokens
        for job in jobs:
            asked, tokens = len(job.ids), job.max_tokens
            if tokens > most:
                what = f"this server gives at most {most} tokens, not {tokens}."
                raise ApiError(400, what, param="max_tokens")
            if context is not None and asked + tokens > context:
                raise ApiError(
                    400,
                    f"this model's context length is {context} tokens, and the request takes {asked} of the prompt "
                    f"and {tokens} of the answer. Shorten the prompt, or lower max_tokens.",
                    code="context_length_exceeded",
                    param="max_tokens" if asked < context else "prompt" if job.lead is None else "messages",
                )

    async def _pieces(self, jobs: Sequence[Job]) -> Pieces:
        """Queues jobs, and yields the pieces of their answers. Raises ApiError if one cannot be answered."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece | ApiError]]()
        left, deadline = len(jobs), loop.time() + self.options.timeout

        def deliver(place: int, event: Piece | ApiError) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(queue.put_nowait, (place, event))

        for place, job in enumerate(jobs):
            job.deliver = partial(deliver, place)
        self.engine.submit(jobs)
        while left:
            try:
                async with asyncio.timeout_at(deadline):
                    place, event = await queue.get()
            except TimeoutError as error:
                what = f"the request took more than {self.options.timeout:g} s."
                raise ApiError(504, what, code="timeout") from error
            if isinstance(event, ApiError):
                raise event
            left -= event.reason is not None
            yield place, event


async def _parts(
    reply: Reply, jobs: Sequence[Job], answered: tuple[int, Piece] | None, pieces: Pieces
) -> AsyncIterator[str]:
    """Server-sent events of a stream."""
    first = True
    try:
        while answered is not None:
            place, piece = answered
            choice = reply.choice(jobs[place], place, piece, part=True, first=first)
            yield event_of(reply.body(jobs[place], choice, part=True))
            answered, first = await anext(pieces, None), False
    except ApiError as error:
        yield event_of(error.body)
        return
    if jobs[0].asked.stream_options.get("include_usage"):
        yield event_of(reply.body(jobs[0], part=True) | _usage(jobs))
    yield "data: [DONE]\n\n"


def _usage(jobs: Sequence[Job]) -> dict[str, Any]:
    asked, made = sum(len(job.ids) for job in jobs), sum(job.made for job in jobs)
    return {"usage": {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}}


def event_of(value: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
