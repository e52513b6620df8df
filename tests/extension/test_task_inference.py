"""Task inference finds the extension that an input belongs to."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from moextend import ImageRef, MultimodalLM, Prompt, activate, attach, generate, new_parameters
from moextend.extension import task_inference, task_rule
from moextend.extension.task_inference import IMAGES
from moextend.model.generation import choice_likelihoods
from tests.extension.prompts import COLOUR, COUNT, TEXT
from tests.toys import features_of, picture


def test_image_tasks_are_distinguished_by_their_questions(model: MultimodalLM) -> None:
    statistics = {
        "colour": task_inference.collect(model, COLOUR),
        "count": task_inference.collect(model, COUNT),
    }
    assert task_inference.accuracy(statistics) == {"colour": 1.0, "count": 1.0}
    choose = task_inference.TaskInference(model, statistics)
    assert choose([COLOUR[3], COUNT[5], TEXT[1]]) == [("colour",), ("count",), ()]


def test_an_extension_of_one_input_has_no_share_of_held_out_ones(model: MultimodalLM) -> None:
    statistics = {
        "colour": task_inference.collect(model, COLOUR),
        "one": task_inference.collect(model, COUNT[:1]),
    }
    assert task_inference.accuracy(statistics) == {"colour": 1.0}


def test_images_of_large_numbers_do_not_drown_the_question(model: MultimodalLM) -> None:
    drawn = random.Random(0)
    model.modalities["image"].features = lambda images: 1000 * features_of(model, images)
    with torch.no_grad():
        model.lm.get_input_embeddings().weight.mul_(0.1)
    statistics = {}
    for name, prompts in (("colour", COLOUR), ("count", COUNT)):
        seen = [(picture(*(drawn.randrange(256) for _ in range(3))),) for _ in prompts]
        mixed = [Prompt(prompt.text, images) for prompt, images in zip(prompts, seen, strict=True)]
        statistics[name] = task_inference.collect(model, mixed)
    assert task_inference.accuracy(statistics) == {"colour": 1.0, "count": 1.0}


def test_generation_reaches_the_chosen_extension_only(model: MultimodalLM) -> None:
    statistics = {
        "colour": task_inference.collect(model, COLOUR),
        "count": task_inference.collect(model, COUNT),
    }
    for name in statistics:
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
    model.choose = task_inference.TaskInference(model, statistics)
    assert generate(model, prompts, max_new_tokens=3, batch_size=4) == expected


def drawn(count: int, at: float, seed: int, width: int = 12) -> torch.Tensor:
    """Correlated features around `at`."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, width, generator=generator) @ mix + at


def of_features(x: torch.Tensor, tested: int = 256) -> task_inference.TaskStatistics:
    sample, rest = x[:tested], x[tested:].double()
    deviation = rest - rest.mean(0)
    scatter = (deviation.T @ deviation).float()
    return task_inference.TaskStatistics(rest.mean(0).float(), scatter, len(rest), sample, IMAGES)


def solved(statistics: dict[str, task_inference.TaskStatistics], x: torch.Tensor) -> list[str]:
    """The rule without thresholds, as it reads: one linear system for all means and inputs."""
    means = torch.stack([p.mean for p in statistics.values()]).double()
    pooled = torch.stack([p.scatter for p in statistics.values()]).double().sum(0)
    pooled = pooled / sum(p.count for p in statistics.values())
    scale = (pooled.diagonal() + means.var(0, correction=0)).sqrt()
    within = pooled / scale / scale[:, None] + 0.01 * torch.eye(len(pooled))
    deviation = (x.double()[:, None] - means) / scale
    distance = (deviation * torch.linalg.solve(within, deviation.mT).mT).sum(-1)
    return [list(statistics)[i] for i in distance.argmin(1).tolist()]


def test_the_nearest_extension_is_that_of_the_linear_system() -> None:
    known = {f"e{i}": of_features(drawn(400, 0.3 * i, i)) for i in range(4)}
    x = torch.cat([drawn(200, 0.3 * i, 10 + i) for i in range(4)])
    found = task_rule.Rule(known, 5).nearest(x, IMAGES)
    assert found == solved(known, x) and set(found) == set(known)


def test_of_its_own_inputs_an_extension_rejects_what_it_states_and_of_others_all() -> None:
    known = {"a": of_features(drawn(800, 0.0, 0)), "b": of_features(drawn(800, 12.0, 1))}
    rule = task_rule.Rule(known, 5)
    stated = 2 * (1 - 256 / 257)
    assert {name: t.rejected for name, t in rule.thresholds.items()} == pytest.approx(
        {"a": stated, "b": stated}
    )
    for name, at in (("a", 0.0), ("b", 12.0)):
        own = rule.choose(drawn(4000, at, 7), IMAGES)
        assert 0 < own.count(None) / 4000 < 0.02 and set(own) == {name, None}
    assert set(rule.choose(drawn(500, 100.0, 8), IMAGES)) == {None}
    assert set(rule.nearest(drawn(500, 100.0, 8), IMAGES)) == {"b"}, (
        "without a threshold the nearest takes it"
    )
    other_image, other_text = drawn(500, 0.0, 9), drawn(500, 0.0, 9)
    other_image[:, 5:] += 60
    other_text[:, :5] += 60
    for x in (other_image, other_text):
        assert rule.choose(x, IMAGES).count(None) > 490, "a usual part does not make up for the other"


def test_a_threshold_is_an_order_statistic() -> None:
    distances = torch.arange(1.0, 1000.0)[torch.randperm(999, generator=torch.Generator().manual_seed(0))]
    one = task_rule.threshold([distances])
    assert one.distances == (990.0,) and one.rejected == pytest.approx(0.01)
    both = task_rule.threshold([distances, distances])
    assert both.distances == (995.0, 995.0) and both.rejected == pytest.approx(0.01)
    few = task_rule.threshold([distances[:40]])
    assert few.distances == (float(distances[:40].max()),) and few.rejected == pytest.approx(1 / 41)
    assert task_rule.threshold([distances[: task_rule.FEWEST - 1]]).distances == (math.inf,)


def test_thresholds_follow_the_covariance_that_later_extensions_change() -> None:
    first, second = of_features(drawn(800, 0.0, 0)), of_features(5 * drawn(800, 0.0, 1) + 1)
    alone = task_rule.Rule({"a": first}, 5).thresholds["a"]
    together = task_rule.Rule({"a": first, "b": second}, 5)
    assert together.thresholds["a"].distances[0] < 0.5 * alone.distances[0]
    assert "a" in together.choose(drawn(2000, 0.0, 3), IMAGES)


def test_too_few_inputs_make_no_threshold_and_a_warning(
    model: MultimodalLM, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    task_inference.write(task_inference.collect(model, COLOUR), tmp_path)
    choose = task_inference.TaskInference(model, {"colour": task_inference.read(tmp_path)})
    assert "'colour' has 20 held-out inputs, too few for a threshold" in caplog.text
    far = [Prompt("<image> w59 w58 w57", (picture(255, 255, 255),))]
    assert choose(far) == [("colour",)] and choose.rule.thresholds["colour"].rejected == 0


def test_an_unrelated_image_or_question_reaches_the_base(model: MultimodalLM) -> None:
    many = [Prompt(f"<image> w1 w2 w{i % 5 + 3}", (picture(i),)) for i in range(120)]
    choose = task_inference.TaskInference(model, {"colour": task_inference.collect(model, many)})
    own = Prompt("<image> w1 w2 w4", (picture(55),))
    image = Prompt("<image> w1 w2 w4", (picture(0, 250, 250),))
    question = Prompt("<image> w30 w31 w32", (picture(55),))
    assert choose([own, image, question, TEXT[0]]) == [("colour",), (), (), ()]
    shares = choose.shares([own, image, question, own])
    assert shares == {"": 0.5, "colour": 0.5}


class Counting:
    """Image features from the model's encoder; how many images each call encoded."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model, self.calls = model, list[int]()

    def __call__(self, images: Sequence[ImageRef]) -> torch.Tensor:
        self.calls.append(len(images))
        return features_of(self.model, images)


def test_a_covariance_is_factorised_once_and_an_image_encoded_once(
    model: MultimodalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    factorise = Mock(wraps=torch.linalg.cholesky)
    monkeypatch.setattr(torch.linalg, "cholesky", factorise)
    monkeypatch.setattr(torch.linalg, "solve", None)
    for name in ("colour", "count"):
        activate(model.lm, [])
        attach(model.lm, name, {0: [1]})
    activate(model.lm, [])
    statistics = {
        "colour": task_inference.collect(model, COLOUR),
        "count": task_inference.collect(model, COUNT),
    }
    model.choose = choose = task_inference.TaskInference(model, statistics)
    see = model.modalities["image"].features = Counting(model)
    generate(model, [COLOUR[1], COUNT[2], COLOUR[3], COLOUR[1], TEXT[0]], max_new_tokens=1, batch_size=5)
    assert see.calls == [3], "three images, for the choice and for the answers"
    for _ in range(3):
        choice_likelihoods(model, [COLOUR[1], COUNT[2]], [["w3", "w4"]] * 2, batch_size=4)
    assert see.calls == [3, 2, 2, 2]
    sizes = [len(call.args[0]) for call in factorise.call_args_list]
    assert sizes == [32 + 8 + 8, 8 + 8], "all features, and the images'; the text's is a part of the first"
    del choose.statistics["count"]
    assert choose([COLOUR[1], COUNT[2]]) == [("colour",)] * 2 and factorise.call_count == 4
    given = Counting(model)
    generate(model, [COLOUR[5]], max_new_tokens=1, batch_size=1, features={"image": given})
    assert given.calls == [1] and len(see.calls) == 5, "the choice uses the source that it is given"


def test_inputs_that_share_a_question_are_accepted_alone_as_in_a_batch() -> None:
    draw = torch.Generator().manual_seed(4)
    wordings, statistics, own = torch.randn(3, 16, generator=draw), {}, {}
    for place, name in enumerate(("one", "several")):
        texts = wordings[torch.randint(0, 3, (400,), generator=draw) if place else torch.zeros(400).long()]
        x = torch.cat([texts + place, torch.randn(400, 8, generator=draw)], 1)
        rest = x[128:].double()
        deviation = rest - rest.mean(0)
        scatter = (deviation.T @ deviation).float()
        statistics[name] = task_inference.TaskStatistics(
            rest.mean(0).float(), scatter, len(rest), x[:128], IMAGES
        )
        own[name] = x[:128]
    rule = task_rule.Rule(statistics, 16)
    for name, x in own.items():
        together = rule.choose(x, IMAGES)
        assert together.count(name) >= 126, "all but the share that may be rejected"
        for size in (1, 2, 3, 7):
            pieces = [rule.choose(x[i : i + size], IMAGES) for i in range(0, len(x), size)]
            assert [each for piece in pieces for each in piece] == together, (name, size)
    assert rule.choose(own["one"] - 2, IMAGES) == [None] * 128


class Noisy:
    """Image features [tokens, 8] whose mean is the same for all images, and whose deviation is that of the image."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model

    def __call__(self, images: Sequence[ImageRef]) -> list[torch.Tensor]:
        drawn = torch.Generator().manual_seed(0)
        x = torch.randn(16, 8, generator=drawn)
        x = (x - x.mean(0)) / x.std(0)
        return [x * (0.5 + features.mean(0)) for features in features_of(self.model, images)]


def test_images_of_the_same_mean_are_separated_by_their_deviation(model: MultimodalLM) -> None:
    model.modalities["image"].features = Noisy(model)
    dark = [Prompt("<image> w1", (picture(i, i, i),)) for i in range(40)]
    light = [Prompt("<image> w1", (picture(200 + i, 200 + i, 200 + i),)) for i in range(40)]
    statistics = {"dark": task_inference.collect(model, dark), "light": task_inference.collect(model, light)}
    assert task_inference.accuracy(statistics) == {"dark": 1.0, "light": 1.0}
    x = task_inference.features(model, dark[:3], IMAGES)
    tokens = Noisy(model)([picture(2, 2, 2)])[0]
    assert torch.allclose(x[2, 32:40], tokens.mean(0), atol=1e-6)
    assert torch.allclose(x[2, 40:], tokens.var(0, correction=0).sqrt())


def test_thresholds_hold_for_data_that_are_sorted(model: MultimodalLM) -> None:
    shades = [Prompt(f"<image> w1 w{i % 5 + 3}", (picture(i // 2, i // 3, i // 4),)) for i in range(500)]
    task = task_inference.collect(model, shades, tested=120)
    again = task_inference.collect(model, shades, tested=120)
    assert torch.equal(task.sample, again.sample)
    every = task_inference.features(model, shades, IMAGES)[:, 32]
    drawn = task.sample[:, 32].sort().values
    assert float((drawn.quantile(0.25) - every.quantile(0.25)).abs()) < 0.2 * float(every.max() - every.min())
    assert float((drawn.quantile(0.75) - every.quantile(0.75)).abs()) < 0.2 * float(every.max() - every.min())
