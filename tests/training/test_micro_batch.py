"""A training whose batches do not fit into memory: smaller forward passes, and the same steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from moextend import MultimodalLM, Settings, retention_loss, train
from moextend.errors import RunFailed
from moextend.extension import router_memory
from moextend.training import micro_batch
from moextend.training.loop import Report
from moextend.training.trainer import TokenTrainer
from tests.training.short_memory import Memory, holding
from tests.training.toy_training import UNEVEN, difference, extended

SETTINGS = Settings(
    steps=4, batch_size=6, learning_rate=1e-2, gradient_accumulation=2, seed=3, checkpoint_steps=2
)
SAME = 1e-5


def trained(
    folder: Path, settings: Settings = SETTINGS, **more: Any
) -> tuple[MultimodalLM, Report, list[float]]:
    """A model, its report, and the loss of every step."""
    model, losses = extended(), list[float]()
    if more.pop("memory", False):
        kept = router_memory.collect(model, UNEVEN[:6], tokens=30, seed=0).router_inputs
        more["extra_loss"] = retention_loss(model, "a", kept, margin=0.1, weight=1.0, sample=10, seed=0)
    report = train(
        model, UNEVEN, settings, folder=folder, on_log=lambda entry: losses.append(entry["loss"]), **more
    )
    return model, report, losses


def layer(model: MultimodalLM, place: int = 1) -> Any:
    lm: Any = model.lm
    return lm.model.layers[place]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "more",
    [{}, {"memory": True}, {"settings": {"cache_prefix": True, "steps": 5}}, {"settings": {"balance": 0.1}}],
    ids=["plain", "drawn", "prefix", "balance"],
)
def test_a_short_memory_halves_the_micro_batch_and_changes_nothing(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    backward: bool,
    more: dict[str, Any],
) -> None:
    settings = SETTINGS.having(**more.get("settings", {}))
    given = {"memory": True} if more.get("memory") else {}
    whole, report, losses = trained(tmp_path / "whole", settings, **given)
    assert report.micro_batch is None
    steps, memory = list[int](), list[Memory]()
    prepared = TokenTrainer.training_step

    def short(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # From the second batch of the second step on, so that earlier batches of the step count again.
        steps.append(trainer.state.global_step)
        if steps.count(1) < 2:
            return prepared(trainer, model, inputs, *args, **kwargs)
        with holding(layer(trainer.model, 2), 2, backward=backward) as now:
            memory.append(now)
            return prepared(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(TokenTrainer, "training_step", short)
    with caplog.at_level(logging.WARNING):
        parts, short_report, short_losses = trained(tmp_path / "parts", settings, **given)
    assert short_report.micro_batch == 2 and short_report.steps == settings.steps
    assert short_report.tokens == report.tokens
    assert short_losses == pytest.approx(losses, rel=SAME)
    assert difference(whole, parts) < 1e-4
    assert [rows for rows in memory[0].seen if rows > 2] == [6, 3], "each size is tried once"
    assert all(rows <= 2 for later in memory[1:] for rows in later.seen)
    sent = [record.getMessage() for record in caplog.records if "no memory" in record.getMessage()]
    assert sent == [
        f"step 2: no memory for {rows} conversations at a time (CUDA out of memory. "
        f"Tried to allocate {rows}.00 GiB); continuing with {less}."
        for rows, less in ((6, 3), (3, 2))
    ]


def test_one_conversation_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    model = extended()
    with holding(layer(model), 0), pytest.raises(RunFailed) as caught:
        train(model, UNEVEN, SETTINGS, folder=tmp_path / "t")
    assert (
        "out of memory with one conversation at a time (CUDA out of memory. Tried to allocate 1.00 GiB)"
        in str(caught.value)
    )
    assert "frozen weights" in str(caught.value) and "gradient_checkpointing: true" in str(caught.value)


def test_with_several_processes_the_training_stops_and_notes_the_smaller_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(trainer: TokenTrainer, inputs: Any, problem: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(type(trainer.args), "world_size", 2)
            own(trainer, inputs, problem)

    own = TokenTrainer._use_less
    monkeypatch.setattr(TokenTrainer, "_use_less", two)
    model = extended()
    with (
        holding(layer(model), 3),
        pytest.raises(RunFailed, match=r"Run the same command again: .* with 3 at a"),
    ):
        train(model, UNEVEN, SETTINGS, folder=tmp_path / "t")
    assert micro_batch.read(tmp_path / "t") == 3
