"""The training loop: order, resume, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moextend import Conversation, MultimodalLM, Settings, attach, new_parameters, train
from moextend.training import draw_order

from .conftest import picture, toy_model

DATA = [
    Conversation(((f"<image> w{i} w{i + 1}", f"w{i % 3}"), (f"w{i + 2}", f"w{i % 4}")), (picture(i * 20, 9),))
    for i in range(12)
]
SETTINGS = Settings(steps=9, batch_size=4, learning_rate=1e-2, checkpoint_steps=3, seed=3)


def extended() -> MultimodalLM:
    model = toy_model()
    attach(model.lm, "a", {0: [1], 2: [0]})
    return model


def parts(model: MultimodalLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in new_parameters(model.lm, "a").items()}


def stop_at(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def test_training_learns_and_touches_new_parts_only(tmp_path: Path) -> None:
    model = extended()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    seen: list[int] = []
    report = train(
        model, DATA, Settings(steps=60, batch_size=12, learning_rate=1e-2), folder=tmp_path / "t",
        on_step=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert report.loss_last < report.loss_first - 0.5
    assert seen == list(range(1, 61))
    assert report.trained_parameters == sum(p.numel() for p in parts(model).values())
    assert all(torch.equal(model.get_parameter(n), value) for n, value in frozen.items())
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("stopped_at", [2, 3, 5, 8])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, stopped_at: int
) -> None:
    whole = extended()
    train(whole, DATA, SETTINGS, folder=tmp_path / "whole")
    broken = extended()
    with pytest.raises(KeyboardInterrupt):
        train(broken, DATA, SETTINGS, folder=tmp_path / "broken", on_step=stop_at(stopped_at))
    again = extended()
    seen: list[int] = []
    train(again, DATA, SETTINGS, folder=tmp_path / "broken", on_step=lambda done, total: seen.append(done))
    assert seen[0] == stopped_at - stopped_at % 3 + 1 or (stopped_at % 3 == 0 and seen[0] == stopped_at - 2)
    for name, value in parts(whole).items():
        assert torch.equal(parts(again)[name], value), name


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = extended()
    train(whole, DATA, SETTINGS, folder=tmp_path / "whole")
    broken = extended()
    with pytest.raises(KeyboardInterrupt):
        train(broken, DATA, SETTINGS, folder=tmp_path / "b", on_step=stop_at(8))
    newest = tmp_path / "b" / "checkpoint-6"
    (newest / "trainer_state.json").write_text('{"global_st')
    again = extended()
    train(again, DATA, SETTINGS, folder=tmp_path / "b")
    for name, value in parts(whole).items():
        assert torch.equal(parts(again)[name], value), name


def test_the_order_depends_on_seed_and_data_alone() -> None:
    order = draw_order(5, 12, seed=1)
    assert order == draw_order(5, 12, seed=1) != draw_order(5, 12, seed=2)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert draw_order(5, 7, seed=1) == order[:7]


def test_the_extra_loss_and_the_rates_are_used(tmp_path: Path) -> None:
    model = extended()
    before = parts(model)
    name = next(n for n in before if n.endswith(".bias"))
    train(
        model, DATA, Settings(steps=3, batch_size=4, learning_rate=1e-2), folder=tmp_path / "t",
        extra_loss=lambda batch, out: 100 * new_parameters(model.lm, "a")[name].sum(), rates={".rows": 0.0},
    )  # fmt: skip
    after = parts(model)
    assert float((after[name] - before[name]).max()) < 0
    assert all(torch.equal(after[n], before[n]) for n in after if n.endswith(".rows"))
