"""Extensions of toy models in folders, and their certificates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import moextend
from moextend.certificate import inputs
from moextend.certificate.record import Certificate, Claim
from moextend.extension import task_inference
from moextend.moe.recipe import Mode
from tests.toys import picture, toy_model

WRONG = 0.3


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of two tokens, which is enough to see a change."""
    monkeypatch.setattr(inputs, "NEW_TOKENS", 2)


def made(
    folder: Path, family: str = "mixtral", mode: Mode = "exact", *, noise: float = WRONG, name: str = "skill"
) -> moextend.MultimodalLM:
    """A model, and the folder of an extension with random weights that is not attached any more."""
    model = toy_model(family)
    moextend.attach(model.lm, name, {0: [1], 2: [0]}, mode=mode, calibrate=False)
    with torch.no_grad():
        for key, new in moextend.new_parameters(model.lm, name).items():
            new.add_(torch.randn(new.shape, generator=torch.Generator().manual_seed(3)) * noise)
            if key.endswith("bias") and mode == "exact":
                new.add_(noise * 2)  # opens gates
    moextend.save_extension(model, name, folder=folder)
    moextend.unload(model, name)
    return model


def seen(count: int = 90) -> list[moextend.Conversation]:
    """Questions about images."""
    drawn = random.Random(1)
    return [
        moextend.Conversation(
            ((f"<image> w1 w2 w{drawn.randrange(10, 20)} w3", "w4"),), (picture(drawn.randrange(256)),)
        )
        for _ in range(count)
    ]


def asked(count: int = 90, words: Sequence[int] = range(10, 20)) -> list[moextend.Conversation]:
    """Questions in text, of few words."""
    drawn = random.Random(2)
    return [
        moextend.Conversation(((" ".join(f"w{drawn.choice(list(words))}" for _ in range(6)), "w4"),))
        for _ in range(count)
    ]


def infers(
    model: moextend.MultimodalLM, folder: Path, conversations: Sequence[moextend.Conversation]
) -> None:
    """Gives the folder task statistics of these inputs."""
    prompts = task_inference.prompts_of(conversations)
    task_inference.write(task_inference.collect(model, prompts), folder)


def claim(certificate: Certificate, name: str) -> Claim:
    """The claim of this name."""
    return next(one for one in certificate.claims if one.name == name)


def statuses(certificate: Certificate) -> dict[str, str]:
    """Claim -> status."""
    return {one.name: one.status for one in certificate.claims}
