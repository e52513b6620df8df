"""Load on a server of its own process: `python -m tests.serving.load --requests 200 --soak 20000`.

Prints JSON: answers lost or wrong, throughput against `generate` on the same prompts, time to the first token, and the
server's memory during a soak. Numbers of seconds are of the wall and of the CPU: the latter do not depend on what else
the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx

import moextend
from tests.serving.living import SKILLS, learn

START = 250
"""Seconds that a server has to start, on a busy machine."""
NAMES = ("anna", "bob", "carl", "dora", "emma", "finn", "gina", "hugo")
ENDS = ("works as", "lives in", "owns a", "likes the", "has a red", "sees a blue", "is a", "and anna")
PROMPTS = [f"{name} {end}" for name, end in product(NAMES, ENDS)]


@dataclass(frozen=True)
class Process:
    """A `moextend serve`."""

    url: str
    pid: int
    process: subprocess.Popen[str]

    def metric(self, name: str) -> float:
        """Value of a number of /metrics."""
        text = httpx.get(f"{self.url}/metrics", timeout=120).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


@contextmanager
def process(skills: Path, *options: str, port: int = 0) -> Iterator[Process]:
    """Context with a server of all skills in a process of its own."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "moextend",
        "serve",
        "tiny",
        "--port",
        str(port),
        *options,
    ]
    for name in SKILLS:
        command += ["-e", str(skills / name)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    too_late = threading.Timer(START, started.kill)  # then there is no line, and the end of a pipe
    too_late.start()
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        too_late.cancel()
        found = re.match(r"(http://\S+)/v1 serves .* \(process ([0-9]+);", line)
        assert found, line or (started.stderr and started.stderr.read())
        yield Process(found[1], int(found[2]), started)
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            started.communicate(timeout=120)
    finally:
        too_late.cancel()
        started.kill()
        started.communicate(timeout=60)


def jobs_of(count: int) -> list[tuple[str, str]]:
    """(skill, prompt) of each request."""
    every = list(product(PROMPTS, SKILLS))
    return [(skill, prompt) for prompt, skill in (every[place % len(every)] for place in range(count))]


def offline(
    skills: Path, jobs: Sequence[tuple[str, str]], tokens: int, batch: int
) -> tuple[dict[Any, str], Any]:
    """Answers of `generate`, skill by skill, and its seconds: wall and CPU."""
    model = moextend.load("tiny")
    for name in SKILLS:
        moextend.load_extension(model, skills / name)
    found: dict[Any, str] = {}
    began = time.perf_counter(), time.process_time()
    for skill in SKILLS:
        own = [prompt for name, prompt in jobs if name == skill]
        moextend.activate(model, [skill])
        asked = [moextend.Prompt(prompt) for prompt in own]
        answers = moextend.generate(model, asked, max_new_tokens=tokens, batch_size=batch)
        found |= {(skill, prompt): answer for prompt, answer in zip(own, answers, strict=True)}
    return found, (time.perf_counter() - began[0], time.process_time() - began[1])


@dataclass
class Outcome:
    """What came back for a list of requests."""

    answers: list[str | None]
    first: list[float]
    """Seconds to the first token of each streamed answer."""
    tokens: int
    wall: float


async def _load(
    url: str, jobs: Sequence[tuple[str, str]], tokens: int, at_once: int, stream: bool
) -> Outcome:
    found = Outcome([None] * len(jobs), [], 0, 0.0)
    places = iter(range(len(jobs)))
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=3600, limits=limits) as client:

        async def work() -> None:
            for place in places:
                skill, prompt = jobs[place]
                body = {
                    "model": skill,
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": tokens,
                }
                await (_streamed if stream else _unstreamed)(client, body, found, place)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(min(at_once, len(jobs)))))
        found.wall = time.perf_counter() - began
    return found


async def _unstreamed(client: httpx.AsyncClient, body: dict[str, Any], found: Outcome, place: int) -> None:
    reply = await client.post("/v1/chat/completions", json=body)
    if reply.status_code == 200:
        value = reply.json()
        found.answers[place] = value["choices"][0]["message"]["content"]
        found.tokens += value["usage"]["completion_tokens"]


async def _streamed(client: httpx.AsyncClient, body: dict[str, Any], found: Outcome, place: int) -> None:
    began, text, first = time.perf_counter(), "", None
    more = {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/chat/completions", json=body | more) as reply:
        async for line in reply.aiter_lines():
            if not line or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            first = time.perf_counter() - began if first is None else first
            text += "".join(choice["delta"].get("content", "") for choice in chunk.get("choices", ()))
            found.tokens += (chunk.get("usage") or {}).get("completion_tokens", 0)
    if first is not None:
        found.answers[place] = text
        found.first.append(first)


def load(
    url: str, jobs: Sequence[tuple[str, str]], tokens: int, at_once: int, *, stream: bool = False
) -> Outcome:
    """Sends all requests, `at_once` at a time."""
    return asyncio.run(_load(url, jobs, tokens, at_once, stream))


def wrong(outcome: Outcome, jobs: Sequence[tuple[str, str]], wanted: dict[Any, str]) -> int:
    """Number of answers that are lost or not those of `generate`."""
    return sum(answer != wanted[job] for answer, job in zip(outcome.answers, jobs, strict=True))


def measured(skills: Path, requests: int, tokens: int, batch: int, soak: int) -> dict[str, Any]:
    """All measurements."""
    jobs = jobs_of(requests)
    offline(skills, jobs[: 3 * batch], tokens, batch)  # the first batch is slow
    wanted, (wall, cpu) = offline(skills, jobs, tokens, batch)
    found: dict[str, Any] = {
        "requests": requests,
        "batch": batch,
        "max_tokens": tokens,
        "cores": os.cpu_count(),
    }
    with process(skills, "--max-batch", str(batch)) as server:
        load(server.url, jobs[: 3 * batch], tokens, 3 * batch)
        before = server.metric("process_cpu_seconds_total")
        served = load(server.url, jobs, tokens, requests)
        used = server.metric("process_cpu_seconds_total") - before
        found["wrong or lost"] = wrong(served, jobs, wanted)
        found |= {
            "offline": {"wall s": wall, "cpu s": cpu, "tokens/s": served.tokens / wall},
            "server": {"wall s": served.wall, "cpu s": used, "tokens/s": served.tokens / served.wall},
            "throughput by wall": wall / served.wall,
            "throughput by cpu": cpu / used,
        }
        streamed = load(server.url, jobs, tokens, requests, stream=True)
        few = load(server.url, jobs[: 4 * batch], tokens, batch, stream=True)
        found["wrong or lost, streamed"] = wrong(streamed, jobs, wanted)
        found["first token s"] = {
            f"{requests} at once": percentiles(streamed.first), f"{batch} at once": percentiles(few.first)
        }  # fmt: skip
        if soak:
            found["soak"] = soaked(server, soak, wanted)
        found["killed and started again"] = restarted(server, skills, jobs, tokens, wanted)
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    every = statistics.quantiles(values, n=100)
    return {"p50": every[49], "p99": every[98], "max": max(values)}


def soaked(server: Process, count: int, wanted: dict[Any, str], parts: int = 10) -> dict[str, Any]:
    """Memory of the server over many requests of 4 tokens, with errors, streams and closed connections among them."""
    each, lost, memory, began = max(1, count // parts), 0, [], time.perf_counter()
    for part in range(parts):
        outcome = load(server.url, jobs_of(each), 4, 32, stream=part % 2 == 1)
        lost += sum(
            answer is None or not wanted[job].startswith(answer)
            for answer, job in zip(outcome.answers, jobs_of(each), strict=True)
        )
        for body in (b"{", json.dumps({"model": "nothing", "prompt": "x"}).encode()):
            assert httpx.post(f"{server.url}/v1/completions", content=body, timeout=60).status_code in (
                400,
                404,
            )
        memory.append(server.metric("process_resident_memory_bytes") / 2**20)
    return {"requests": each * parts, "lost": lost, "MiB": memory, "s": time.perf_counter() - began}


def restarted(
    server: Process, skills: Path, jobs: Sequence[tuple[str, str]], tokens: int, wanted: dict[Any, str]
) -> dict[str, Any]:
    """Kills a server under load, and starts another on its port."""
    port = int(server.url.rpartition(":")[2])

    async def killed() -> int:
        many = [*jobs] * 10  # more than are answered before the kill
        task = asyncio.create_task(_load(server.url, many, 64, len(many), stream=False))
        await asyncio.sleep(0.2)
        os.kill(server.pid, signal.SIGKILL)
        try:
            await task
        except httpx.HTTPError:
            return 1
        return 0

    broken = asyncio.run(killed())
    server.process.wait(60)
    with process(skills, port=port) as again:
        few = list(jobs[:6])
        return {
            "connections broke": bool(broken),
            "wrong": wrong(load(again.url, few, tokens, 6), few, wanted),
        }


def make_skills(folder: Path) -> Path:
    """The folder, with the skills."""
    model = moextend.load("tiny")
    for name in SKILLS:
        learn(model, name, folder / name)
    return folder


def main() -> None:
    """Measures, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--soak", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(make_skills(Path(folder)), asked.requests, asked.tokens, asked.batch, asked.soak)
    print(json.dumps(found, indent=2, default=str))


if __name__ == "__main__":
    main()
