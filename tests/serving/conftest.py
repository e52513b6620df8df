"""Skills of the tiny base, and a server of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import moextend
from moextend import MultimodalLM

if TYPE_CHECKING:
    from moextend.serving.batch import Job
    from tests.serving.living import Living


@pytest.fixture(scope="session")
def skills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the skills' folders."""
    from tests.serving.living import SKILLS, learn

    folder, model = tmp_path_factory.mktemp("skills"), moextend.load("tiny")
    for name in SKILLS:
        learn(model, name, folder / name)
    return folder


def loaded(skills: Path, *names: str) -> MultimodalLM:
    """The tiny base with these skills."""
    model = moextend.load("tiny")
    for name in names:
        moextend.load_extension(model, skills / name)
    return model


@pytest.fixture(scope="module")
def alone(skills: Path) -> MultimodalLM:
    """The model in this process, which no server uses."""
    from tests.serving.living import SKILLS

    return loaded(skills, *SKILLS)


@pytest.fixture(scope="module")
def served(skills: Path) -> Iterator[Living]:
    """A server of the base and all skills."""
    from tests.serving.living import SKILLS, living

    with living(loaded(skills, *SKILLS)) as found:
        yield found


class Held(threading.Event):
    """While it is not set, no next token is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[Job]] = []
        """Jobs of the batches that were started."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Holds the batches of this test's servers."""
    from moextend.serving.batch import Batch

    go, start, step = Held(), Batch.start, Batch.step

    def noted(self: Batch, *more: Any) -> None:
        go.batches.append([answer.job for answer in self._answers])
        start(self, *more)

    def waiting(self: Batch) -> None:
        go.wait(60)
        step(self)

    monkeypatch.setattr(Batch, "start", noted)
    monkeypatch.setattr(Batch, "step", waiting)
    yield go
    go.set()
