"""Selection shares, the probe and the choice of layers."""

from __future__ import annotations

import pytest
import torch

from moextend import (
    Conversation,
    MultimodalLM,
    Probe,
    choose_layers,
    parents,
    probe_layers,
    selection_shares,
)
from moextend.extension.probe import watched
from moextend.moe.recipe import LayerChoice, count_layers
from moextend.moe.sites import find_sites
from tests.toys import picture

DATA = [
    Conversation((("<image> w1 w2", "w3"),), (picture(200),)),
    Conversation((("w4 w5 w6 w7 w8 w9", "w1"),)),
    Conversation((("w4", "w1"), ("w9", "w2"))),
]


def test_shares_are_of_the_most_preferred_experts(model: MultimodalLM) -> None:
    """The public code counts the least preferred ones."""
    sites, inputs = find_sites(model.lm), list[torch.Tensor]()
    for mask in watched(
        model, DATA, sites, lambda site, x, out: inputs.append(x.flatten(0, -2)), batch_size=3
    ):
        real = mask.flatten()
    inputs = [x[real] for x in inputs]
    for site, x, shares in zip(sites, inputs, selection_shares(model, DATA), strict=True):
        counts = [0, 0, 0, 0]
        weight = site.router.get_parameter("weight")
        for token in x:
            ranked = (weight @ token).argsort(descending=True).tolist()
            for expert in ranked[:2]:
                counts[expert] += 1
        assert shares == pytest.approx([count / sum(counts) for count in counts])


def test_the_probe_leaves_the_model_as_it_was(model: MultimodalLM) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def tune() -> None:
        assert all("gate.weight" in name for name in model.trainable()) and len(model.trainable()) == 3
        with torch.no_grad():
            find_sites(model.lm)[1].router.get_parameter("weight").mul_(-1)

    probe = probe_layers(model, DATA, tune)
    assert probe.change[1] > 0 and probe.change[0] == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not model.trainable()


PROBE = Probe([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]], [0.1, 0.5, 0.2, 0.4])


@pytest.mark.parametrize(
    ("how", "share", "chosen"),
    [
        ("probe", 0.5, [1, 3]),
        ("probe", 0.1, [1]),  # at least one
        ("all", 0.5, [0, 1, 2, 3]),
        ("first", 0.5, [0, 1]),
        ("last", 0.75, [1, 2, 3]),
    ],
)
def test_choice_of_layers(how: LayerChoice, share: float, chosen: list[int]) -> None:
    assert choose_layers(how, share, PROBE) == chosen


def test_parents_are_the_most_chosen_experts() -> None:
    assert parents(PROBE, [0, 1]) == {0: [0], 1: [1]}
    assert parents(PROBE, [2], 2) == {2: [2, 1]}
    assert parents(PROBE, [2], 4) == {2: [2, 1, 0, 2]}


@pytest.mark.parametrize(
    ("share", "total", "layers"),
    [(0.58, 50, 29), (0.579, 50, 28), (0.01, 9, 1)],
)
def test_a_share_of_layers_is_floored_as_it_is_written(share: float, total: int, layers: int) -> None:
    assert count_layers("probe", share, total) == layers
    drawn = Probe([[0.5, 0.5]] * total, [0.1 * i for i in range(total)])
    assert len(choose_layers("probe", share, drawn)) == layers
