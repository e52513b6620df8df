"""A hub with a model and two data sets, and users of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import contents
from tests.hub.commands import Server, User, forking
from tests.hub.server import Hub, serving

MODEL = "org/olmoe"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the repositories, by a short name."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "model": contents.olmoe(folder / "olmoe"),
        "vqa": contents.visual_questions(folder / "vqa"),
        "arc": contents.science_questions(folder / "arc"),
    }


@pytest.fixture(scope="session")
def _hub(served: dict[str, Path]) -> Iterator[Hub]:
    with serving() as hub:
        hub.add("models", MODEL).push(served["model"])
        hub.add("models", "org/gated", gated=True).push(served["model"])
        hub.add("datasets", contents.VQA).push(served["vqa"])
        hub.add("datasets", "org/gated-vqa", gated=True).push(served["vqa"])
        hub.add("datasets", contents.ARC).push(served["arc"])
        yield hub


@pytest.fixture
def hub(_hub: Hub) -> Iterator[Hub]:
    """The hub, with nothing asked of it yet and without faults."""
    _hub.recover()
    yield _hub
    _hub.recover()


@pytest.fixture(scope="session")
def _server(_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forking(_hub, tmp_path_factory.mktemp("forks")) as server:
        yield server


@pytest.fixture
def user(hub: Hub, _server: Server, tmp_path: Path) -> User:
    """A user with an empty workspace and an empty cache."""
    return User(hub, _server, tmp_path)
