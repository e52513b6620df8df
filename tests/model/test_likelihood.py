"""Log-likelihoods of choices against the full forward pass, one choice at a time."""

from __future__ import annotations

import pytest
import torch

from moextend import MultimodalLM, Prompt
from moextend.model.generation import choice_likelihoods, prompt_ids
from tests.toys import picture, shown, toy_model

PROMPTS = [
    Prompt("<image> w1 w2", (picture(250),)),
    Prompt("w3 w4 w5 w6 w7 w8 w9"),
    Prompt("<image> w1 <image> w2", (picture(0, 250), picture(0, 0, 250))),
]
CHOICES = [("w1", "w2 w3 w4"), ("w9", "w8", "w7"), ("w5 w6",)]


def by_hand(model: MultimodalLM, prompt: Prompt, choice: str) -> float:
    ids = prompt_ids(model, Prompt(f"{prompt.text} {choice}", prompt.media))
    row = torch.tensor([ids])
    features = shown(model, prompt.media)
    with torch.no_grad():
        steps = model(row, torch.ones_like(row), features=features)["logits"][0].log_softmax(-1)
    output = len(choice.split())
    return sum(float(steps[i - 1, ids[i]]) for i in range(len(ids) - output, len(ids)))


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_equals_the_full_forward_pass(batch_size: int) -> None:
    model = toy_model()
    found = choice_likelihoods(model, PROMPTS, CHOICES, batch_size=batch_size)
    for prompt, choices, values in zip(PROMPTS, CHOICES, found, strict=True):
        assert values == pytest.approx([by_hand(model, prompt, choice) for choice in choices], abs=1e-4)
