"""A toy training: data, settings, a model with a trainable extension, and an interruption."""

from __future__ import annotations

from collections.abc import Callable

import torch

from moextend import Conversation, MultimodalLM, Settings, attach, new_parameters
from tests.toys import picture, toy_model

DATA = [
    Conversation(((f"<image> w{i} w{i + 1}", f"w{i % 3}"), (f"w{i + 2}", f"w{i % 4}")), (picture(i * 20, 9),))
    for i in range(12)
]


UNEVEN = [
    Conversation(((f"<image> w{i}", f"w{i % 3}" + " w9" * (i % 5)),), (picture(i * 20, 9),))
    for i in range(12)
]


SETTINGS = Settings(steps=9, batch_size=4, learning_rate=1e-2, checkpoint_steps=3, seed=3)


def extended() -> MultimodalLM:
    model = toy_model()
    attach(model.lm, "a", {0: [1], 2: [0]})
    return model


def parts(model: MultimodalLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in new_parameters(model.lm, "a").items()}


def stop_at(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def difference(one: MultimodalLM, other: MultimodalLM) -> float:
    return max(
        float((a - b).abs().max()) for a, b in zip(parts(one).values(), parts(other).values(), strict=True)
    )
