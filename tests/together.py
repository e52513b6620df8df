"""Processes that work together, started as torchrun starts them, but forked."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import preloaded

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}


@dataclass
class Together:
    """Some processes of one launch."""

    clients: list[Any]
    pids: list[int]
    output: Path

    def codes(self, timeout: float = 250) -> list[int]:
        """Exit codes, once all have ended; negative for a signal."""
        for client in self.clients:
            client.settimeout(timeout)
        return [preloaded.status_of(client) for client in self.clients]


def start(
    server: str,
    output: Path,
    script: Path,
    *arguments: str,
    count: int = 2,
    only: dict[int, dict[str, str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Together:
    """Starts `count` processes of a script; `only`: variables of single ones."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    clients = []
    with output.open("wb") as stream:
        for rank in range(count):
            several = {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            }  # fmt: skip
            known = (several if count > 1 else {}) | dict(environment or {}) | (only or {}).get(rank, {})
            order = preloaded.order("script", str(script), *arguments, **known)
            clients.append(preloaded.connect(server, order, (0, stream.fileno(), stream.fileno())))
    for client in clients:
        client.settimeout(250)
    return Together(clients, [preloaded.pid_of(client) for client in clients], output)
