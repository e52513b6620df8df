"""Choices that share a context, against lm-eval's own way of scoring them."""

import random
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

import moextend
from moextend.bench.score.text import choices as room
from moextend.bench.score.text.choices import Answer, Request, SharedContext
from moextend.model.multimodal import MultimodalLM


@pytest.fixture(scope="module")
def model() -> MultimodalLM:
    return moextend.load("tiny", vision="tiny")


def both(model: MultimodalLM, **more: Any) -> tuple[HFLM, SharedContext]:
    def make(kind: Any) -> Any:
        return kind(pretrained=model.lm, tokenizer=model.tokenizer, backend="causal", device="cpu", **more)

    return make(HFLM), make(SharedContext)


def requests(questions: int = 12, seed: int = 0, longest: int = 40) -> list[Request]:
    """Contexts of 1 to `longest` tokens, each with 1 to 5 choices of 1 to 6 tokens."""
    draw = random.Random(seed)

    def ids(n: int) -> list[int]:
        return [draw.randrange(5, 180) for _ in range(n)]

    found = []
    for _ in range(questions):
        context = ids(draw.randint(1, longest))
        found += [(("", ""), context, ids(draw.randint(1, 6))) for _ in range(draw.randint(1, 5))]
    draw.shuffle(found)
    return found


def agree(mine: list[Answer], theirs: list[Answer]) -> None:
    assert len(mine) == len(theirs)
    for (a, greedy_a), (b, greedy_b) in zip(mine, theirs, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
        assert greedy_a == greedy_b


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_numbers_are_those_of_lm_eval(model: MultimodalLM, batch_size: int) -> None:
    theirs, mine = both(model, batch_size=batch_size)
    asked = requests()
    with torch.no_grad():
        agree(mine._loglikelihood_tokens(asked), theirs._loglikelihood_tokens(asked))


def test_greedy_answers_are_known(model: MultimodalLM) -> None:
    theirs, mine = both(model, batch_size=4)
    with torch.no_grad():
        output = model.lm.generate(torch.tensor([[5, 9, 12]]), max_new_tokens=4, do_sample=False)[
            0, 3:
        ].tolist()
        asked = [(("", ""), [5, 9, 12], output), (("", ""), [5, 9, 12], [output[0], 7])]
        found = mine._loglikelihood_tokens(asked)
        agree(found, theirs._loglikelihood_tokens(asked))
    assert [greedy for _, greedy in found] == [True, False]


def test_a_context_is_computed_once(model: MultimodalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mine = both(model, batch_size=8)
    seen = 0

    def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
        nonlocal seen
        seen += kwargs["attention_mask"].shape[0] * kwargs["input_ids"].shape[1]

    asked = [(("", ""), list(range(10, 60)), [choice, 7]) for choice in (5, 6, 7, 8)]
    hook = model.lm.model.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        mine._loglikelihood_tokens(asked)
    hook.remove()
    assert seen == 50 + 4, "the context, and the first token of each choice"


def test_contexts_that_are_too_long_are_left_to_lm_eval(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, mine = both(model, batch_size=4, max_length=30)
    asked = requests(longest=60, seed=3)
    with torch.no_grad():
        agree(mine._loglikelihood_tokens(asked), theirs._loglikelihood_tokens(asked))


def test_scores_are_taken_in_pieces(model: MultimodalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = both(model, batch_size=64)
    monkeypatch.setattr(room, "_LOGITS", 1000)
    asked = requests(seed=5)
    with torch.no_grad():
        agree(mine._loglikelihood_tokens(asked), theirs._loglikelihood_tokens(asked))


def test_an_extension_is_scored_as_it_is(model: MultimodalLM) -> None:
    """The new experts take part, and padding changes nothing."""
    moextend.attach(model.lm, "more", {1: [0], 2: [3]}, mode="exact")
    try:
        with torch.no_grad():
            for name, parameter in moextend.new_parameters(model.lm, "more").items():
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                )
            _, mine = both(model, batch_size=8)
            one, _ = both(model, batch_size=1)
            asked = requests(seed=9)
            alone = one._loglikelihood_tokens(asked)
            agree(mine._loglikelihood_tokens(asked), alone)
    finally:
        moextend.detach(model.lm, "more")
