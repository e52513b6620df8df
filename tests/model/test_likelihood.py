"""Log-likelihoods of choices against the full forward pass, one choice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest
import torch

from moextend import MultimodalLM, Prompt
from moextend.model.generation import choice_likelihoods, prompt_ids
from moextend.moe import attach as expand
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


def test_each_prompt_reaches_what_it_chooses() -> None:
    from moextend import attach, new_parameters
    from moextend.moe.attach import activate, scope_of

    class ByLength:
        def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
            return expand.reaching(model.lm, names)

        def __call__(self, prompts: Sequence[Prompt], sources: object = None) -> list[tuple[str, ...]]:
            return [("a",) if len(prompt.text) > 14 else () for prompt in prompts]

        def fingerprint(self) -> str:
            return "length"

    model = toy_model()
    attach(model.lm, "a", {0: [1], 1: [0], 2: [2]}, mode="paper")
    with torch.no_grad():
        for parameter in new_parameters(model.lm, "a").values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.5)
    apart: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
    for active in ((), ("a",)):
        activate(model.lm, active)
        apart[active] = choice_likelihoods(model, PROMPTS, CHOICES, batch_size=4)
    activate(model.lm, ())
    model.choose = choose = ByLength()
    mixed = choice_likelihoods(model, PROMPTS, CHOICES, batch_size=4)
    assert scope_of(model.lm).active == (), "what was active is active again"
    for i, names in enumerate(choose(PROMPTS)):
        assert mixed[i] == pytest.approx(apart[names][i], abs=1e-4)
    assert apart[()] != apart[("a",)]
