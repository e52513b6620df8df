"""Choices that share a context, against lm-eval's own way of rating them."""

import random
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

import moextend
from moextend.bench.score.text import choices
from moextend.bench.score.text.choices import SharedContext
from moextend.bench.score.text.lm import Request
from moextend.model.multimodal import MultimodalLM


@pytest.fixture(scope="module")
def model() -> MultimodalLM:
    return moextend.load("tiny")


def requests(seed: int, longest: int = 40) -> list[Request]:
    """Contexts of 1 to `longest` tokens, each with 1 to 5 choices of 1 to 6 tokens."""
    draw, found = random.Random(seed), []

    def ids(n: int) -> list[int]:
        return [draw.randrange(5, 180) for _ in range(n)]

    for _ in range(12):
        context = ids(draw.randint(1, longest))
        found += [(("", ""), context, ids(draw.randint(1, 6))) for _ in range(draw.randint(1, 5))]
    draw.shuffle(found)
    return found


@pytest.mark.parametrize(
    ("seed", "longest", "more"),
    [(0, 40, {"batch_size": 1}), (1, 40, {"batch_size": 7}), (2, 60, {"batch_size": 4, "max_length": 30})],
)
def test_the_numbers_are_those_of_lm_eval(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch, seed: int, longest: int, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(choices, "_LOGITS", 1000)  # in pieces
    theirs = HFLM(pretrained=model.lm, tokenizer=model.tokenizer, backend="causal", device="cpu", **more)
    asked = requests(seed, longest)
    with torch.no_grad():
        mine = SharedContext(model, **more)._loglikelihood_tokens(asked)
        for (value, greedy), (expected, most_likely) in zip(
            mine, theirs._loglikelihood_tokens(asked), strict=True
        ):
            assert value == pytest.approx(expected, abs=1e-4) and greedy == most_likely


def test_a_context_is_computed_once(model: MultimodalLM) -> None:
    seen = 0

    def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
        nonlocal seen
        seen += kwargs["input_ids"].numel()

    asked = [(("", ""), list(range(10, 60)), [choice, 7]) for choice in (5, 6, 7, 8)]
    hook = model.lm.model.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        SharedContext(model, batch_size=8)._loglikelihood_tokens(asked)
    hook.remove()
    assert seen == 50 + 4, "the context, and the first token of each choice"
