"""vLLM in place of the engine: prompts, media and task inference are computed here, and tokens by vLLM."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn

import httpx
import torch

from moextend.model.generation import stop_ids
from moextend.model.modality import gather
from moextend.model.multimodal import MultimodalLM
from moextend.serving import errors
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Answer, Delta, Done, Job, Token

ID = "token_id:"
"""What vLLM writes before the id of a token."""


class VllmEngine:
    """Answers jobs by requests to vLLM, each by its own model."""

    def __init__(self, url: str, catalogue: Any, limits: Any) -> None:
        """Args: url: of vLLM, with /v1."""
        self.catalogue, self.limits, self._url = catalogue, limits, url
        self._model: MultimodalLM = catalogue.model
        self._stop = sorted(stop_ids(self._model))
        self._client = httpx.AsyncClient(
            timeout=None, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        self._reader = ThreadPoolExecutor(1, "media")
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_open = True

    def submit(self, jobs: Sequence[Job]) -> None:
        """Sends the jobs of a request, all or none; raises ApiError as `Engine.submit`."""
        if not self.is_open:
            raise errors.stopping()
        if len(self._tasks) + len(jobs) > self.limits.queue:
            raise errors.busy(429, "the queue is full. Try again in 1 s.", "queue_full", again=1)
        for job in jobs:
            job.names = self.catalogue.known.names_of(job.model)
        for job in jobs:
            task = asyncio.create_task(self._answer(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self, grace: float) -> None:
        """Refuses new jobs."""
        self.is_open = False

    def attach(self, *_: object) -> NoReturn:
        """Raises ApiError: vLLM has the extensions of its folder."""
        raise ApiError(
            400,
            "vLLM has the extensions of its folder: export another one, and start it.",
            code="invalid_input",
        )

    detach = attach

    async def _answer(self, job: Job) -> None:
        try:
            async with asyncio.timeout(max(0.0, job.deadline - asyncio.get_running_loop().time())):
                body = await asyncio.get_running_loop().run_in_executor(self._reader, self._body, job)
                await self._deliver(job, body)
        except TimeoutError:
            seconds = job.deadline - job.arrived
            job.deliver(ApiError(504, f"the request took more than {seconds:g} s.", code="timeout"))
        except httpx.HTTPError as error:
            what = f"vLLM does not answer ({error or type(error).__name__})."
            job.deliver(errors.busy(503, what, "engine_failed"))
        except Exception as error:
            job.deliver(errors.of(error))

    def _body(self, job: Job) -> dict[str, Any]:
        """Body of the request for a job: its media are encoded, and its extensions inferred."""
        known, own = self.catalogue.known, job.settings
        model = job.model
        if job.names is None:
            (job.names,) = known.inference([job.prompt])
            model = known.model_of(job.names)
        job.fingerprint, job.shown = known.fingerprint_of(model), tuple(job.names)
        body: dict[str, Any] = {
            "model": model, "prompt": job.ids, "max_tokens": max(1, own.max_tokens), "temperature": own.temperature,
            "top_p": own.top_p, "seed": own.seed, "logprobs": own.logprobs, "stop_token_ids": self._stop,
            "return_token_ids": True, "return_tokens_as_token_ids": True, "stream": not own.prompt_logprobs,
        }  # fmt: skip
        if own.prompt_logprobs:
            body["prompt_logprobs"] = own.logprobs or 0
        if job.prompt.media:
            body |= {"prompt": None, "prompt_embeds": self._embedded(job)}
        return body

    @torch.no_grad()
    def _embedded(self, job: Job) -> str:
        """Embeddings [T, H] of a prompt with media, in the form that vLLM reads."""
        features = gather(job.prompt.media, self._model.modalities.sources())
        embedded = self._model.embed(torch.tensor([job.ids]), features)[0].contiguous()
        held = io.BytesIO()
        torch.save(embedded, held)
        return base64.b64encode(held.getvalue()).decode()

    async def _deliver(self, job: Job, body: dict[str, Any]) -> None:
        own = job.settings
        answer = Answer(
            self._model.tokenizer, own.stop, stripped=own.stripped, stream=own.stream,
            before=() if own.stripped else job.ids, lead=own.lead,
        )  # fmt: skip
        reason, prompt = "length", tuple[Token, ...]()
        async for choice in self._choices(body):
            reason = "stop" if choice.get("finish_reason") == "stop" else reason
            if choice.get("prompt_logprobs"):
                prompt = _rated_prompt(job.ids, choice["prompt_logprobs"])
            tokens = choice.get("token_ids") or () if own.max_tokens else ()
            logs = _rated(choice["logprobs"]) if choice.get("logprobs") else [()] * len(tokens)
            for token, rated in zip(tokens, logs, strict=False):
                piece = answer.add(token)
                if piece or rated:
                    job.deliver(Delta(piece, rated))
                if answer.stopped:
                    break
            if answer.stopped or job.cancelled:  # vLLM ends what nobody reads
                reason = "stop"
                break
        if piece := answer.end():
            job.deliver(Delta(piece))
        job.deliver(Done(reason, len(answer.ids), prompt))

    async def _choices(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The pieces of an answer."""
        async with self._client.stream("POST", f"{self._url}/completions", json=body) as reply:
            if reply.status_code != 200:
                raise _failed(reply.status_code, await reply.aread())
            if not body["stream"]:
                yield json.loads(await reply.aread())["choices"][0]
                return
            async for line in reply.aiter_lines():
                data = line.removeprefix("data: ")
                if data in ("", "[DONE]"):
                    continue
                found = json.loads(data)
                if "error" in found:
                    raise ApiError(500, f"vLLM failed: {found['error'].get('message', '')}", code="failed")
                for choice in found["choices"]:
                    yield choice


def _failed(status: int, body: bytes) -> ApiError:
    """The error of vLLM as one of this server."""
    message = body.decode(errors="replace")[:600]
    with suppress(ValueError, KeyError, TypeError):
        message = json.loads(body)["error"]["message"]
    return ApiError(
        status if 400 <= status < 500 else 502, f"vLLM refuses the request: {message}", code="failed"
    )


def _rated(logprobs: dict[str, Any]) -> list[tuple[Token, ...]]:
    """Tokens of an answer with their log-likelihoods."""
    found = []
    named = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    for name, value, top in named:
        best = sorted(
            ((int(each.removeprefix(ID)), own) for each, own in top.items()), key=lambda pair: -pair[1]
        )
        found.append((Token(int(name.removeprefix(ID)), value, tuple(best)),))
    return found


def _rated_prompt(ids: Sequence[int], logprobs: Sequence[dict[str, Any] | None]) -> tuple[Token, ...]:
    """Tokens of a prompt with their log-likelihoods."""
    found = []
    for token, own in zip(ids, logprobs, strict=True):
        values = {int(each): float(one["logprob"]) for each, one in (own or {}).items()}
        best = sorted(values.items(), key=lambda pair: -pair[1])
        found.append(Token(token, values.get(token), tuple(best)))
    return tuple(found)
