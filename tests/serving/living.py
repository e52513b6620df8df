"""A server in a thread of this process, on a free port, and small skills for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

import moextend
from moextend import MultimodalLM
from moextend.serving.catalogue import Catalogue
from moextend.serving.engine import Engine, Options
from moextend.serving.server import Server
from moextend.util.listening import listen

SKILLS = {
    "work": {"carl works as": "poet", "anna works as": "baker"},
    "home": {"anna lives in": "oslo", "carl lives in": "paris"},
    "pets": {"bob owns a": "goat", "carl works as": "cook"},
}
"""Skill -> what it knows; two of them know different answers to one prompt."""
PROMPTS = [
    *dict.fromkeys(prompt for facts in SKILLS.values() for prompt in facts),
    "dora owns a",
    "bob lives in",
]
QUICK = moextend.Settings(steps=25, batch_size=4, learning_rate=5e-3)


def learn(model: MultimodalLM, name: str, folder: Path, **recipe: Any) -> Path:
    """Makes a skill of `SKILLS`."""
    rows = [moextend.Conversation(((asked, answer),)) for asked, answer in SKILLS[name].items()] * 2
    made = moextend.Recipe(layers=[0, 3], **recipe)
    moextend.extend(model, name, rows, held_out=rows, folder=folder, settings=QUICK, recipe=made)
    return folder


OPTIONS = Options(admin=True, max_batch=8, max_new_tokens=64, timeout=60, grace=5)


@dataclass(frozen=True)
class Living:
    """A running server."""

    url: str
    server: Server
    engine: Engine
    thread: threading.Thread

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **more)

    @property
    def waiting(self) -> int:
        """Prompts that wait."""
        return len(self.engine._waiting)

    def stop(self) -> None:
        """What a signal does."""
        self.server.handle_exit(signal.SIGTERM, None)


@contextmanager
def living(model: MultimodalLM, **options: Any) -> Iterator[Living]:
    """Context with a server of the model; `options`: those that differ from `OPTIONS`."""
    place = listen("127.0.0.1", 0)
    engine = Engine(Catalogue(model), replace(OPTIONS, **options))
    server = Server(engine, place)
    url = f"http://127.0.0.1:{place.getsockname()[1]}"
    ready, found = (
        threading.Event(),
        Living(url, server, engine, threading.Thread(target=server.run, args=([place],))),
    )
    server.ready = ready.set
    found.thread.start()
    try:
        assert ready.wait(60)
        yield found
    finally:
        found.stop()
        found.thread.join(60)
        assert not found.thread.is_alive()


def in_process(
    model: MultimodalLM, names: Sequence[str] | Mapping[str, float] | str, prompts: Sequence[str], tokens: int
) -> list[str]:
    """Answers of the library."""
    moextend.activate(model, names)
    asked = [moextend.Prompt(prompt) for prompt in prompts]
    return moextend.generate(model, asked, max_new_tokens=tokens, batch_size=len(asked))
