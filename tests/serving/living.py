"""A server in a thread of this process, on a free port, and small skills for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import moextend
from moextend import MultimodalLM
from moextend.serving import server
from moextend.serving.app import Options
from moextend.serving.engine import Engine, Limits
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


@dataclass(frozen=True)
class Living:
    """A running server."""

    url: str
    model: MultimodalLM
    server: server.Server
    engine: Engine
    thread: threading.Thread

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **more)

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.engine._batch.rows)

    @property
    def waiting(self) -> int:
        """Prompts that wait."""
        return len(self.engine._waiting)


@contextmanager
def living(
    model: MultimodalLM,
    *,
    limits: Limits | None = None,
    options: Options | None = None,
    key: str | None = None,
    most: int = 32 << 20,
    grace: float = 5,
) -> Iterator[Living]:
    """Context with a server of the model."""
    place = listen("127.0.0.1", 0)
    made, engine = server.server_of(
        model, place, server.Access("127.0.0.1", key, most), limits or Limits(max_batch=8),
        options or Options(timeout=60, max_new_tokens=64, admin=True), grace=grace,
    )  # fmt: skip
    url = f"http://127.0.0.1:{place.getsockname()[1]}"
    thread = threading.Thread(target=server.serve, args=(made, engine, place))
    thread.start()
    try:
        while not made.started:
            time.sleep(0.01)
        yield Living(url, model, made, engine, thread)
    finally:
        made.stop()
        thread.join(60)
        assert not thread.is_alive()


def in_process(
    model: MultimodalLM, names: Sequence[str] | Mapping[str, float] | str, prompts: Sequence[str], tokens: int
) -> list[str]:
    """Answers of the library."""
    moextend.activate(model, names)
    asked = [moextend.Prompt(prompt) for prompt in prompts]
    return moextend.generate(model, asked, max_new_tokens=tokens, batch_size=len(asked))
