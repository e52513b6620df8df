"""Requests to a server of the OpenAI protocol: bounded in number, time and attempts, with one clear error."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moextend.errors import InputError, RunFailed, SpecError, counted, masked, short
from moextend.util import files

if TYPE_CHECKING:
    import httpx

KEY = "OPENAI_API_KEY"
"""Variable with the key of a server that wants one."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second attempt, which double, and the most."""
AGAIN = (408, 409, 429)
"""Statuses besides 5xx that may pass."""
Body = dict[str, Any]
Progress = Callable[[], None]
"""Called after each answer."""


class ServerFailed(RunFailed):
    """A server that cannot be asked, or does not answer as the protocol has it."""


@dataclass(frozen=True)
class Client:
    """A server and how it is asked."""

    url: str
    """http://HOST:PORT/v1"""
    concurrency: int = 8
    timeout: float = 600.0
    """Seconds of a request."""
    retries: int = 5

    def post(self, path: str, bodies: Sequence[Body], on_answer: Progress | None = None) -> list[Body]:
        """Answers to requests to `path` ("completions"), in their order; at most `concurrency` at a time.

        Raises:
            ServerFailed: the server cannot be reached, or a request fails `retries` times, or for good.
        """
        return asyncio.run(self._post(path, bodies, on_answer))

    def models(self) -> list[Body]:
        """The entries of /models.

        Raises ServerFailed if there is no server, or another one.
        """
        found = asyncio.run(self._get("models"))
        entries = found.get("data")
        if not isinstance(entries, list) or not all(
            isinstance(one, dict) and isinstance(one.get("id"), str) for one in entries
        ):
            raise self.error("lists no models", found, where=f"{self.url}/models")
        return entries

    def is_ready(self) -> bool:
        """Whether the server answers now."""
        return _now(self.url, "models") is not None

    def version(self) -> str:
        """The version of the server's program, as vLLM and others give it at /version; "" if it gives none."""
        found = (_now(self.url.rpartition("/")[0], "version") or {}).get("version", "")
        return short(found, 40) if isinstance(found, str) else ""

    def error(self, what: str, answer: Any, *, where: str | None = None) -> ServerFailed:
        """The error of an answer that is not as the protocol has it."""
        shown = short(json.dumps(answer, ensure_ascii=False, default=str), 200)
        return ServerFailed(
            f"the server {what}: {shown}.",
            where=where or self.url,
            hint="Check that it is a server of the OpenAI protocol (docs/serving.md).",
        )

    async def _post(self, path: str, bodies: Sequence[Body], on_answer: Progress | None) -> list[Body]:
        free = asyncio.Semaphore(self.concurrency)
        async with self._open(self.timeout) as connection:

            async def one(body: Body) -> Body:
                async with free:
                    answer = await self._ask(connection, "POST", path, body)
                if on_answer:
                    on_answer()
                return answer

            asked = [asyncio.ensure_future(one(body)) for body in bodies]
            try:
                return list(await asyncio.gather(*asked))
            finally:  # the first failure, or an interrupt, stops the others
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _get(self, path: str) -> Body:
        async with self._open(min(self.timeout, 60.0)) as connection:
            return await self._ask(connection, "GET", path, None)

    def _open(self, timeout: float) -> httpx.AsyncClient:
        import httpx

        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        most = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        # The environment's proxies are for other hosts; a scoring server is named by its own address.
        return httpx.AsyncClient(headers=headers, timeout=timeout, limits=most, trust_env=False)

    async def _ask(self, connection: httpx.AsyncClient, verb: str, path: str, body: Body | None) -> Body:
        import httpx

        where, why, pause = f"{self.url}/{path}", "", FIRST_PAUSE
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            try:
                answer = await connection.request(verb, where, json=body)
            except httpx.TimeoutException:
                why = f"no answer within {connection.timeout.read:g} seconds"
                continue
            except httpx.HTTPError as error:
                why = f"no connection ({error or type(error).__name__})"
                continue
            if answer.status_code in AGAIN or answer.status_code >= 500:
                why = f"status {answer.status_code}: {_message(answer)}"
                continue
            if answer.status_code >= 400:
                raise ServerFailed(
                    f"the server refuses the request (status {answer.status_code}: {_message(answer)}).",
                    where=where,
                    hint=f"Set the variable {KEY}." if answer.status_code in (401, 403) else None,
                )
            return self._parsed(answer, where)
        raise ServerFailed(
            f"the server does not answer ({counted(self.retries + 1, 'attempt')}; the last: {why}).",
            where=masked(where),
            hint="Start it, or correct the address; then run the same command again: received answers are kept.",
        )

    def _parsed(self, answer: httpx.Response, where: str) -> Body:
        try:
            found = files.parse_json(answer.content, where=where, hint="Correct the server.")
        except SpecError as error:
            raise self.error(f"gives an answer that is {error.what}", answer.text, where=where) from None
        if not isinstance(found, dict):
            raise self.error("gives an answer that is not an object", found, where=where)
        return found


def _message(answer: httpx.Response) -> str:
    """The message of an error, as the protocol has it, else the start of the text."""
    try:
        found = answer.json()
        error = found.get("error", found)
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = answer.text
    return short(" ".join(str(message).split()), 600) or "no message"


def _now(url: str, path: str) -> Body | None:
    """What a server answers within 5 seconds; None without an answer."""
    with suppress(ServerFailed):
        return asyncio.run(Client(url, timeout=5.0, retries=0)._get(path))
    return None


def check_reachable(client: Client) -> None:
    """InputError if no server answers at the address."""
    try:
        client.models()
    except ServerFailed as error:
        raise InputError(error.what, where="--backend-option server", hint=error.hint) from error
