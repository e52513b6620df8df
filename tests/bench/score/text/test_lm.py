"""Requests of lm-eval to a model of this project: its own numbers in its own batches, bit for bit."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import moextend
from moextend.bench.score.text.lm import HarnessLM, Request
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach


@pytest.fixture(scope="module")
def model() -> MultimodalLM:
    return moextend.load("tiny", vision="tiny")


def both(model: MultimodalLM, **more: Any) -> tuple[HFLM, HarnessLM]:
    theirs = HFLM(pretrained=model.lm, tokenizer=model.tokenizer, backend="causal", device="cpu", **more)
    return theirs, HarnessLM(model, **more)


class ByWord:
    """A choice of extensions: texts with a word reach one."""

    def __init__(self, model: MultimodalLM, word: str, name: str) -> None:
        self.model, self.word, self.name = model, word, name

    def __call__(self, prompts: Sequence[moextend.Prompt], sources: object = None) -> list[tuple[str, ...]]:
        return [(self.name,) if self.word in prompt.text else () for prompt in prompts]

    def reaching(self, names: Sequence[str]) -> Any:
        return attach.reaching(self.model.lm, names)


def test_a_model_that_infers_the_task_does_so_for_each_request(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rated(kind: str, texts: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked = [Instance(kind, {}, arguments, place) for place, arguments in enumerate(texts)]
        with torch.no_grad():
            return list(getattr(mine, kind)(asked))

    _, mine = both(model, batch_size=4)
    pairs: list[tuple[Any, ...]] = [
        (f"the {word} is", choice) for word in ("car", "sky", "car") for choice in (" red", " blue")
    ]
    asked: dict[str, list[tuple[Any, ...]]] = {
        "loglikelihood": pairs,
        "loglikelihood_rolling": [(text,) for text, _ in pairs],
        "generate_until": [(text, {"max_gen_toks": 4}) for text, _ in pairs],
    }
    base = {kind: rated(kind, texts) for kind, texts in asked.items()}
    moextend.attach(model.lm, "more", {1: [0, 1, 2, 3]}, mode="exact")
    try:
        with torch.no_grad():
            for parameter in moextend.new_parameters(model.lm, "more").values():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
        extended = {kind: rated(kind, texts) for kind, texts in asked.items()}
        monkeypatch.setattr(model, "choose", ByWord(model, "car", "more"))
        for kind, texts in asked.items():
            expected = [
                (extended if "car" in text[0] else base)[kind][place] for place, text in enumerate(texts)
            ]
            assert base[kind] != extended[kind]
            if kind == "generate_until":
                assert rated(kind, texts) == expected
            else:
                for one, other in zip(rated(kind, texts), expected, strict=True):
                    assert one == pytest.approx(other, abs=1e-4)
    finally:
        moextend.detach(model.lm, "more")


class Shapes:
    """Shapes of the ids of every forward pass of a model's decoder."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model, self.seen = model, list[tuple[int, ...]]()

    def __enter__(self) -> list[tuple[int, ...]]:
        def note(module: object, args: Any, kwargs: dict[str, Any]) -> None:
            ids = args[0] if args else kwargs["input_ids"]
            self.seen.append(tuple(ids.shape))

        self.hook = self.model.lm.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
        return self.seen

    def __exit__(self, *error: object) -> None:
        self.hook.remove()


def requests(seed: int) -> list[Request]:
    """Contexts with one continuation or two, which lm-eval computes once where only the last id differs.

    (Of two that are divided at another place lm-eval 0.4.13 rates one at a wrong position, unless they are apart.)
    """
    draw, found = random.Random(seed), list[Request]()
    for _ in range(11):
        ids = [draw.randrange(5, 180) for _ in range(draw.randint(3, 12))]
        found.append((("", ""), ids[:-2], ids[-2:]))
        if draw.random() < 0.5:
            found.append((("", ""), ids[:-1], [draw.randrange(5, 180)]))
    draw.shuffle(found)
    return found


def test_log_likelihoods_are_those_of_lm_eval_in_its_batches(model: MultimodalLM) -> None:
    theirs, mine = both(model, batch_size=4)
    asked = requests(seed=1)
    with torch.no_grad(), Shapes(model) as wanted:
        expected = theirs._loglikelihood_tokens(asked)
    with torch.no_grad(), Shapes(model) as seen:
        assert mine._loglikelihood_tokens(asked) == expected
    assert seen == wanted and len(seen) > 2


def generated(settings: Sequence[dict[str, Any]]) -> list[Instance]:
    texts = [
        "the sky is",
        "the car",
        "two plus two is",
        "anna lives in",
        "Q what color is the sky A:",
        "one two three",
    ]
    return [
        Instance("generate_until", {}, (text, settings[place % len(settings)]), place)
        for place, text in enumerate(texts * 2)
    ]


def test_generated_answers_are_in_the_batches_of_lm_eval(model: MultimodalLM) -> None:
    theirs, mine = both(model, batch_size=4)
    settings = [
        {"until": ["."], "max_gen_toks": 3},
        {"until": ["the"], "max_gen_toks": 2, "do_sample": False},
    ]
    asked = generated(settings)
    with torch.no_grad(), Shapes(model) as wanted:
        expected = theirs.generate_until(asked)
    with torch.no_grad(), Shapes(model) as seen:
        assert mine.generate_until(asked) == expected
    assert seen == wanted
