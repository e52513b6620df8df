"""Servers over plain transformers that serve the tiny base, and the base with an extension."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

import moextend
from moextend import MultimodalLM
from moextend.bench.score.served.client import Client
from moextend.bench.score.served.parity import Known
from moextend.export.writing import save_stock
from moextend.util.children import stop
from moextend.util.listening import free_port
from tests import preloaded

ROOT = Path(__file__).parents[4]
SKILL = "skill"
SERVER = Path(__file__).with_name("stock_server.py")


@pytest.fixture(scope="session")
def stock_command(fork_server: str) -> tuple[str, ...]:
    """Starts a server of FOLDER PORT [FAULT], in a forked process: a new one would import for seconds."""
    return preloaded.client_command(fork_server, str(SERVER))


@contextmanager
def serving(command: Sequence[str], folder: Path | str, *fault: str) -> Iterator[Client]:
    port = free_port()
    process = subprocess.Popen(
        [*command, str(folder), str(port), *fault], cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        client = Client(f"http://127.0.0.1:{port}/v1", concurrency=2, timeout=120, retries=2)
        end = time.monotonic() + 300
        while not client.is_ready():
            assert process.poll() is None, "the test's server ended"
            assert time.monotonic() < end, "the test's server does not start"
            time.sleep(0.3)
        yield client
    finally:
        stop(process, 10)


@pytest.fixture(scope="session")
def base_folder() -> Path:
    return ROOT / "registry" / "models" / "tiny" / "lm"


@pytest.fixture(scope="session")
def skilled() -> MultimodalLM:
    """The tiny base with an active extension of random weights, as a stock checkpoint can hold it."""
    model = moextend.load("tiny")
    moextend.attach(model.lm, SKILL, {block: [0] for block in range(4)}, mode="paper", calibrate=False)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, SKILL).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    moextend.activate(model, SKILL)
    return model


@pytest.fixture(scope="session")
def stock_folder(skilled: MultimodalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stock") / SKILL
    save_stock(skilled, out)
    return out


@pytest.fixture(scope="session")
def serve(stock_command: tuple[str, ...]) -> Iterator[Callable[..., Client]]:
    """Starts a server of a folder, once for all tests."""
    with ExitStack() as stack:
        known: dict[Path, Client] = {}

        def get(folder: Path) -> Client:
            if folder not in known:
                known[folder] = stack.enter_context(serving(stock_command, folder))
            return known[folder]

        yield get


@pytest.fixture(scope="session")
def known(skilled: MultimodalLM) -> Known:
    """What the base and the base with the extension compute."""
    found = Known(skilled.base_fingerprint())
    moextend.activate(skilled, [])
    found.note(skilled, found.base)
    moextend.activate(skilled, SKILL)
    found.note(skilled, moextend.active_fingerprint(skilled))
    return found
