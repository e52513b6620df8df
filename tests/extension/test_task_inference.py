"""Task inference finds the extension that an input belongs to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import sklearn.covariance
import torch

from moextend import Conversation, MultimodalLM, Prompt, activate, attach, generate, new_parameters
from moextend.extension import task_inference, task_rule
from tests.toys import ToyEncoder, curve, picture, series, toy_lm, toy_tokenizer

IMAGES = ("image",)
COLOUR = [Prompt(f"<image> w1 w2 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
COUNT = [Prompt(f"<image> w30 w31 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
TEXT = [Prompt(f"w1 w2 w{i % 5 + 3}") for i in range(40)]


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
    assert task_inference.accuracy(statistics) == {"colour": 1.0, "count": 1.0}
    model.choose = task_inference.TaskInference(model, statistics)
    assert model.choose(prompts) == [("colour",), ("count",), (), ("colour",)]
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
    """The rule without thresholds, as it reads: the Gaussian density of each extension."""
    means = torch.stack([p.mean for p in statistics.values()]).double()
    pooled = torch.stack([p.scatter for p in statistics.values()]).double().sum(0)
    pooled = pooled / sum(p.count for p in statistics.values())
    scale = (pooled.diagonal() + means.var(0, correction=0)).sqrt()
    shared = task_rule.shrunk(pooled / scale / scale[:, None], sum(p.count for p in statistics.values()))
    densities = []
    for task, mean in zip(statistics.values(), means, strict=True):
        own = task.scatter.double() / task.count / scale / scale[:, None]
        within = 0.9 * (shared + 1e-6 * torch.eye(len(shared))) + 0.1 * own
        gaussian = torch.distributions.MultivariateNormal(mean / scale, within)
        densities.append(gaussian.log_prob(x.double() / scale))
    return [list(statistics)[i] for i in torch.stack(densities, 1).argmax(1).tolist()]


def test_covariances_are_shrunk_as_scikit_learn_does() -> None:
    for count in (8, 40, 4000):
        x = drawn(count, 0.0, count).double()
        expected, _ = sklearn.covariance.oas(x.numpy(), assume_centered=True)
        assert task_rule.shrunk(x.T @ x / count, count).numpy() == pytest.approx(expected)


def test_the_nearest_extension_has_the_highest_density() -> None:
    known = {f"e{i}": of_features(drawn(400, 0.3 * i, i) * (1 + i % 2)) for i in range(4)}
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


def test_a_later_extension_leaves_earlier_statistics_alone(model: MultimodalLM, tmp_path: Path) -> None:
    statistics = task_inference.collect(model, COLOUR)
    task_inference.write(statistics, tmp_path)
    attach(model.lm, "count", {0: [1]})
    again = task_inference.collect(model, COLOUR)
    kept = task_inference.read(tmp_path)
    for one in (again, kept):
        assert torch.equal(one.mean, statistics.mean) and torch.equal(one.scatter, statistics.scatter)
        assert (one.count, one.kind) == (statistics.count, statistics.kind)


def mixed_model() -> MultimodalLM:
    torch.manual_seed(1)
    return MultimodalLM(toy_lm(), toy_tokenizer(), {"image": ToyEncoder(), "series": series().Fourier()})


def test_each_modality_has_a_part_and_a_threshold(tmp_path: Path) -> None:
    model = mixed_model()
    both = [
        Prompt(f"<series> w1 <image> w{i % 5 + 3}", (curve(1 + i / 200, 2), picture(i))) for i in range(120)
    ]
    task_inference.write(task_inference.collect(model, both), tmp_path)
    kept = task_inference.read(tmp_path)
    assert kept.kind == ("image", "series") and kept.mean.shape == (32 + 4 * (8 + 8),)
    choose = task_inference.TaskInference(
        model, {"both": kept, "colour": task_inference.collect(model, COLOUR)}
    )
    assert len(choose.rule.thresholds["both"].distances) == 3
    own = Prompt("w1 <image> <series> w4", (picture(55), curve(1.2, 2)))
    other_series = Prompt("w1 <image> <series> w4", (picture(55), curve(40, 2, 7)))
    other_image = Prompt("w1 <image> <series> w4", (picture(0, 250, 250), curve(1.2, 2)))
    assert choose([own, other_series, other_image, COLOUR[3], TEXT[1]]) == [
        ("both",), (), (), ("colour",), (),
    ]  # fmt: skip
    assert choose([Prompt("<series> w1", (curve(1.2, 2),))]) == [()]
    other = task_inference.TaskInference(
        model, {"both": replace(kept, kind=("image", "touch")), "colour": choose.statistics["colour"]}
    )
    assert other.fingerprint() != choose.fingerprint()


def test_statistics_of_text_fit_models_with_and_without_images(model: MultimodalLM) -> None:
    bare = MultimodalLM(model.lm, model.tokenizer)
    tasks = {"text": TEXT, "more": [Prompt(f"w30 w31 w{i % 5 + 3}") for i in range(40)]}
    by_bare = {name: task_inference.collect(bare, prompts) for name, prompts in tasks.items()}
    by_seeing = {name: task_inference.collect(model, prompts) for name, prompts in tasks.items()}
    asked = [TEXT[3], tasks["more"][4]]
    for statistics in (by_bare, by_seeing, {"text": by_bare["text"], "more": by_seeing["more"]}):
        for own in (bare, model):
            assert task_inference.TaskInference(own, statistics)(asked) == [("text",), ("more",)]
        assert task_inference.accuracy(statistics) == {"text": 1.0, "more": 1.0}


def test_statistics_are_of_held_out_inputs_and_of_training_data_at_even_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows(count: int, first: int) -> list[Conversation]:
        return [Conversation(turns=((f"w{first + i}", "w1"),)) for i in range(count)]

    monkeypatch.setattr(task_inference, "INPUTS", 5)
    found = [prompt.text for prompt in task_inference.inputs_of(rows(2, 0), rows(9, 10))]
    assert found == ["w0", "w1", "w10", "w13", "w16"]
    assert len(task_inference.inputs_of(rows(7, 0), rows(1, 10))) == 5
    assert task_inference.places(2, 9) == [0, 3, 6] and task_inference.places(7, 9) == []
