"""Skills of the tiny base, and a server of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import moextend
from moextend import MultimodalLM

if TYPE_CHECKING:
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


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, no next token is computed."""
    from moextend.serving.batch import Batch

    go, step = threading.Event(), Batch.step

    def waiting(self: Batch) -> list[int]:
        go.wait(60)
        return step(self)

    monkeypatch.setattr(Batch, "step", waiting)
    yield go
    go.set()
