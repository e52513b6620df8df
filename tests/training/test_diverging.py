"""A diverging training fails and names the step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moextend import MultimodalLM, train
from moextend.errors import RunFailed
from moextend.training.trainer import TokenTrainer
from tests.toys import toy_model
from tests.training.toy_training import DATA, SETTINGS, extended


def not_finite(at: int, where: str, model: MultimodalLM) -> Any:
    """An extra loss whose value, or whose gradient alone, is not finite in step `at`."""
    steps = iter(range(1, 100))

    def loss(batch: Mapping[str, torch.Tensor], out: Mapping[str, torch.Tensor]) -> torch.Tensor:
        zero = (next(iter(model.trainable().values())) * 0).sum()
        if next(steps) != at:
            return zero
        # The slope of the root is infinite at zero, and infinity times zero is no number.
        return zero + torch.nan if where == "loss" else zero.sqrt() * 0

    return loss


@pytest.mark.parametrize(("where", "step"), [("loss", 5), ("gradient", 5), ("weight", 6), ("weight", 9)])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "as on a GPU"])
def test_a_training_that_diverges_fails_with_its_step(
    tmp_path: Path, where: str, step: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr(TokenTrainer, "read_at_once", ())
    model = extended()

    def spoil(done: int, total: int) -> None:
        if (where, done) == ("weight", step):
            with torch.no_grad():
                next(iter(model.trainable().values())).view(-1)[0] = torch.inf

    spoiled = None if where == "weight" else not_finite(step, where, model)
    with pytest.raises(RunFailed, match=f"the training diverged: the {where}") as error:
        train(model, DATA, SETTINGS, folder=tmp_path / "t", extra_loss=spoiled, on_step=spoil)
    assert error.value.where == f"step {step}"
    assert "Use a lower learning rate" in str(error.value)
    for checkpoint in (tmp_path / "t").glob("checkpoint-*/trained.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(checkpoint).values())


def test_a_learning_rate_that_is_too_high_fails(tmp_path: Path) -> None:
    model = toy_model()
    model.learn_only([name for name, _ in model.named_parameters() if name.startswith("lm.")])
    with pytest.raises(RunFailed, match="the training diverged"):
        train(model, DATA, SETTINGS.having(learning_rate=1e30), folder=tmp_path / "t")
