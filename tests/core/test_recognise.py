"""Inputs are taken for the extension that they belong to."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from moextend import MultimodalLM, Prompt, activate, attach, generate, new_parameters, recognise

from .conftest import picture

COLOUR = [Prompt(f"<image> w1 w2 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
COUNT = [Prompt(f"<image> w30 w31 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
TEXT = [Prompt(f"w1 w2 w{i % 5 + 3}") for i in range(40)]


def test_image_tasks_are_told_apart_by_their_questions(model: MultimodalLM) -> None:
    portraits = {"colour": recognise.portray(model, COLOUR), "count": recognise.portray(model, COUNT)}
    assert recognise.accuracy(portraits) == {"colour": 1.0, "count": 1.0}
    choose = recognise.Recogniser(model, portraits)
    assert choose([COLOUR[3], COUNT[5], TEXT[1]]) == [("colour",), ("count",), ()]


def test_images_of_large_numbers_do_not_drown_the_question(model: MultimodalLM) -> None:
    drawn = random.Random(0)
    model.features = lambda images: 1000 * model.vision(images)  # type: ignore[misc]
    with torch.no_grad():
        model.lm.get_input_embeddings().weight.mul_(0.1)
    portraits = {}
    for name, prompts in (("colour", COLOUR), ("count", COUNT)):
        seen = [(picture(*(drawn.randrange(256) for _ in range(3))),) for _ in prompts]
        mixed = [Prompt(prompt.text, images) for prompt, images in zip(prompts, seen, strict=True)]
        portraits[name] = recognise.portray(model, mixed)
    assert recognise.accuracy(portraits) == {"colour": 1.0, "count": 1.0}


def test_a_later_extension_leaves_earlier_portraits_alone(model: MultimodalLM, tmp_path: Path) -> None:
    portrait = recognise.portray(model, COLOUR)
    recognise.write(portrait, tmp_path)
    attach(model.lm, "count", {0: [1]})
    again = recognise.portray(model, COLOUR)
    kept = recognise.read(tmp_path)
    for one in (again, kept):
        assert torch.equal(one.mean, portrait.mean) and torch.equal(one.scatter, portrait.scatter)
        assert (one.count, one.sees) == (portrait.count, portrait.sees)


def test_generation_reaches_the_chosen_extension_only(model: MultimodalLM) -> None:
    portraits = {"colour": recognise.portray(model, COLOUR), "count": recognise.portray(model, COUNT)}
    for name in portraits:
        activate(model.lm, [])
        attach(model.lm, name, {0: [1], 1: [1], 2: [1]})
        with torch.no_grad():
            for i, parameter in enumerate(new_parameters(model.lm, name).values()):
                drawn = torch.Generator().manual_seed(i + 10 * len(name))
                parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.4)
    prompts = [COLOUR[0], COUNT[1], TEXT[2], COLOUR[4]]
    expected = []
    for prompt, reach in zip(prompts, (["colour"], ["count"], [], ["colour"]), strict=True):
        activate(model.lm, reach)
        expected += generate(model, [prompt], max_new_tokens=3, batch_size=1)
    activate(model.lm, [])
    model.choose = recognise.Recogniser(model, portraits)
    assert generate(model, prompts, max_new_tokens=3, batch_size=4) == expected
