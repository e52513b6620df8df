"""Generation against the full forward pass."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from moextend import MultimodalLM, Prompt, attach, generate, new_parameters
from moextend.batches import encode_prompt, piece_ids
from moextend.multimodal import IMAGE

from .conftest import TOKENS, picture, toy_model

PROMPTS = [
    Prompt("<image> w1 w2", (picture(250),)),
    Prompt("w3 w4 w5 w6 w7 w8 w9"),
    Prompt("<image> w1 <image> w2", (picture(0, 250), picture(0, 0, 250))),
    Prompt("w3"),
]


def one_by_one(model: MultimodalLM, prompt: Prompt, steps: int) -> str:
    """Greedy answers without cache, batch or padding."""
    ids = encode_prompt(partial(piece_ids, model.tokenizer), prompt.text, TOKENS)
    features = model.vision(prompt.images) if prompt.images else None
    said: list[int] = []
    for _ in range(steps):
        row = torch.tensor([ids + said])
        with torch.no_grad():
            logits = model(row, torch.ones_like(row), features=features)["logits"]
        said.append(int(logits[0, -1].argmax()))
        if said[-1] == model.tokenizer.eos_token_id:
            break
    return model.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.mark.parametrize("mode", [None, "exact", "paper"])
def test_batched_cached_generation_equals_the_full_forward_pass(mode: str | None) -> None:
    model = toy_model()
    if mode:
        attach(model.lm, "a", {0: [1], 1: [0], 2: [2]}, mode=mode)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in new_parameters(model.lm, "a").values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    expected = [one_by_one(model, prompt, 4) for prompt in PROMPTS]
    assert len(set(expected)) > 1
    for batch in (1, 3, 4):
        assert generate(model, PROMPTS, max_new_tokens=4, batch_size=batch) == expected


def test_as_many_holes_as_visual_tokens(model: MultimodalLM) -> None:
    ids = torch.tensor([[1, IMAGE, IMAGE]])
    with pytest.raises(AssertionError):
        model.embed(ids, model.vision([picture(3)]))
