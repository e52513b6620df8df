"""The training loop: order, resume, precision, accumulation, and unchanged parts of the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from moextend import MultimodalLM, Settings, attach, new_parameters, retention_loss, train
from moextend.errors import InputError, RunFailed
from moextend.extension import router_memory
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from moextend.training import loop
from moextend.training.loop import draw_order
from moextend.training.trainer import TokenTrainer
from tests.toys import toy_model
from tests.training.toy_training import DATA, SETTINGS, UNEVEN, difference, extended, parts, stop_at


def test_training_learns_and_touches_new_parts_only(tmp_path: Path) -> None:
    model = extended()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    seen: list[int] = []
    report = train(
        model, DATA, Settings(steps=40, batch_size=12, learning_rate=1e-2), folder=tmp_path / "t",
        on_step=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert report.loss_last < report.loss_first - 0.5
    assert seen == list(range(1, 41))
    assert report.trained_parameters == sum(p.numel() for p in parts(model).values())
    assert all(torch.equal(model.get_parameter(n), value) for n, value in frozen.items())
    assert not (tmp_path / "t").exists()


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
        model, DATA, SETTINGS.having(steps=3), folder=tmp_path / "t", rates={".rows": 0.0},
        extra_loss=lambda batch, out: 100 * new_parameters(model.lm, "a")[name].sum(),
    )  # fmt: skip
    after = parts(model)
    assert float((after[name] - before[name]).max()) < 0
    assert all(torch.equal(after[n], before[n]) for n in after if n.endswith(".rows"))


def layers(model: MultimodalLM) -> list[nn.Module]:
    return list(model.lm.model.layers)


class Seen(TokenTrainer):
    """Keeps the trainers that are made."""

    made: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Seen.made.append(self)


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    Seen.made = []
    monkeypatch.setattr(loop, "TokenTrainer", Seen)
    return Seen.made


def test_an_accumulated_step_is_one_big_batch(tmp_path: Path) -> None:
    whole, cut = extended(), extended()
    settings = Settings(steps=4, batch_size=12, learning_rate=1e-2)
    labelled: list[int] = []
    big = train(whole, UNEVEN, settings, folder=tmp_path / "a")

    def count(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        labelled.append(len(out["logits"]))
        return torch.zeros(())

    small = train(
        cut, UNEVEN, settings.having(batch_size=3, gradient_accumulation=4), folder=tmp_path / "b",
        extra_loss=count,
    )  # fmt: skip
    assert len(set(labelled)) > 1, "else a mean of means would do"
    assert small.loss_first == pytest.approx(big.loss_first, rel=1e-6)
    assert small.loss_last == pytest.approx(big.loss_last, rel=1e-5)
    assert difference(whole, cut) < 1e-5


def test_a_batch_that_does_not_fit_names_the_setting_with_which_the_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = extended(), extended()
    train(whole, UNEVEN, SETTINGS, folder=tmp_path / "a")

    def short(module: nn.Module, args: Any, out: Any) -> None:
        if len(args[0]) > 2 and seen[-1:] == [4]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB.")

    seen: list[int] = []
    more: dict[str, Any] = {"folder": tmp_path / "b", "on_step": lambda done, total: seen.append(done)}
    hook = layers(cut)[1].register_forward_hook(short)
    message = (
        r"^training: out of memory with 4 rows .*Tried to allocate 4.*Set MOEXTEND_MICRO_BATCH=2, and run"
    )
    with pytest.raises(InputError, match=message):
        train(cut, UNEVEN, SETTINGS, **more)
    hook.remove()
    with pytest.raises(InputError, match="MOEXTEND_MICRO_BATCH: '0' is not a number from 1"):
        monkeypatch.setenv("MOEXTEND_MICRO_BATCH", "0")
        train(cut, UNEVEN, SETTINGS, **more)
    monkeypatch.setenv("MOEXTEND_MICRO_BATCH", "3")
    train(again := extended(), UNEVEN, SETTINGS, **more)
    assert seen == [*range(1, 5), *range(4, 10)], "from the checkpoint of step 3"
    assert difference(whole, again) < 1e-4


def test_resume_is_exact_with_accumulation_and_a_random_loss(tmp_path: Path) -> None:
    settings = SETTINGS.having(steps=7, batch_size=2, gradient_accumulation=3, schedule="linear", balance=0.1)

    def run(name: str, stop: int | None) -> MultimodalLM:
        model = toy_model()
        old = router_memory.collect(model, UNEVEN, tokens=40, seed=0).router_inputs
        attach(model.lm, "a", {0: [1, 1], 2: [0]})
        loss = retention_loss(model, "a", old, margin=0.1, weight=1.0, sample=5, seed=0)
        on_step = stop_at(stop) if stop else None
        train(model, UNEVEN, settings, folder=tmp_path / name, extra_loss=loss, on_step=on_step)
        return model

    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("broken", 5)
    assert difference(whole, run("broken", None)) == 0


class Noisy:
    """A step hook with random gradients and a running sum of weights."""

    def __init__(self, model: MultimodalLM, scale: float = 1.0) -> None:
        self.weights, self.scale = list(new_parameters(model.lm, "a").values()), scale
        self.generator, self.sum = torch.Generator().manual_seed(5), torch.zeros(1, dtype=torch.float64)
        self.calls: list[str] = []

    def before_step(self) -> None:
        self.calls.append("before")
        for weight in self.weights:
            assert weight.grad is not None
            weight.grad.add_(torch.randn(weight.shape, generator=self.generator), alpha=self.scale)

    @torch.no_grad()
    def after_step(self) -> None:
        self.calls.append("after")
        self.sum = self.sum + sum(float(weight.sum()) for weight in self.weights)
        self.weights[0].add_(1e-3 * float(self.sum))

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "sum": self.sum}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.sum = state["sum"]


def test_resume_is_exact_with_a_step_hook_whose_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    settings = SETTINGS.having(steps=7, batch_size=2, gradient_accumulation=2)

    def run(name: str, stop: int | None) -> tuple[MultimodalLM, Noisy]:
        model = extended()
        hook = Noisy(model)
        on_step = stop_at(stop) if stop else None
        train(model, UNEVEN, settings, folder=tmp_path / name, step_hook=hook, on_step=on_step)
        return model, hook

    whole, hook = run("whole", None)
    assert hook.calls == ["before", "after"] * 7, "once a step, not once a batch"
    with pytest.raises(KeyboardInterrupt):
        run("broken", 5)
    again, resumed = run("broken", None)
    assert difference(whole, again) == 0
    assert torch.equal(hook.sum, resumed.sum) and resumed.calls == ["before", "after"] * 4


def test_gradients_of_a_step_hook_are_clipped_and_logged(tmp_path: Path, trainers: list[Any]) -> None:
    model, applied = extended(), list[float]()
    hook = Noisy(model, scale=1000.0)

    def measure(*args: Any) -> None:
        applied.append(
            float(torch.cat([w.grad.flatten() for w in hook.weights if w.grad is not None]).norm())
        )

    watching = register_optimizer_step_pre_hook(measure)
    train(model, DATA, SETTINGS.having(steps=1), folder=tmp_path / "t", step_hook=hook)
    watching.remove()
    assert applied == [pytest.approx(1.0, rel=1e-4)], "max_grad_norm"
    assert [one["grad_norm"] > 1000 for one in trainers[-1].state.log_history if "grad_norm" in one] == [True]


def test_a_step_hook_without_a_method_of_its_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step_hook: object has neither before_step\(\) nor after_step\(\)"):
        train(extended(), DATA, SETTINGS, folder=tmp_path / "t", step_hook=object())  # type: ignore[arg-type]


def test_operations_of_a_step_hook_are_counted(tmp_path: Path) -> None:
    model = extended()

    class Multiplies:
        def before_step(self) -> None:
            torch.ones(20, 30) @ torch.ones(30, 40)

    settings = SETTINGS.having(steps=3, batch_size=2, gradient_accumulation=2)
    plain = train(model, DATA, settings, folder=tmp_path / "a").flops
    hooked = train(extended(), DATA, settings, folder=tmp_path / "b", step_hook=Multiplies()).flops
    assert plain is not None and hooked == plain + 3 * 2 * 20 * 30 * 40


def test_schedule_and_adamw_get_their_settings(tmp_path: Path, trainers: list[Any]) -> None:
    given: dict[str, Any] = {"betas": (0.8, 0.9), "epsilon": 1e-6, "weight_decay": 0.1}
    usual = {"betas": (0.9, 0.98), "epsilon": 1e-8, "weight_decay": 0.0}
    for schedule, last, more in (("cosine", 0.0302, {}), ("linear", 0.1111, given), ("constant", 1.0, {})):
        settings = Settings(steps=10, batch_size=2, learning_rate=1e-2, schedule=schedule, warmup=0.1, **more)
        train(extended(), DATA, settings, folder=tmp_path / "t")
        (group,) = trainers[-1].optimizer.optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == tuple((more or usual).values())
        rates = [
            entry["learning_rate"] for entry in trainers[-1].state.log_history if "learning_rate" in entry
        ]
        assert rates[0] == 0 and rates[1] == pytest.approx(1e-2), "the warm-up"
        assert rates[-1] == pytest.approx(1e-2 * last, abs=1e-6)


def test_bfloat16_parameters_are_float32_during_training(tmp_path: Path) -> None:
    model = toy_model()
    model.lm.to(torch.bfloat16)
    names = [f"lm.{site.name}.gate.weight" for site in find_sites(model.lm)]
    model.learn_only(names)
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    settings = Settings(steps=3, batch_size=4, learning_rate=1e-4)
    with pytest.raises(InputError, match=r"gate\.weight' is trained, but is torch\.bfloat16.*bf16: true"):
        train(model, DATA, settings, folder=tmp_path / "t")
    kinds: set[torch.dtype] = set()
    train(
        model, DATA, settings.having(bf16=True), folder=tmp_path / "t",
        on_step=lambda done, total: kinds.update(model.get_parameter(name).dtype for name in names),
    )  # fmt: skip
    assert kinds == {torch.float32}
    for name in names:
        assert model.get_parameter(name).dtype == torch.bfloat16
        assert not torch.equal(model.get_parameter(name), before[name])


@pytest.mark.parametrize("mode", ["exact", "slot"])
def test_checkpointed_layers_are_those_that_learn(tmp_path: Path, mode: Mode) -> None:
    def run(again: bool) -> tuple[MultimodalLM, list[int], set[int]]:
        model = toy_model()
        attach(model.lm, "a", {1: [1, 0], 2: [0]}, mode=mode)
        runs, reached = [0, 0, 0], set()
        for i, layer in enumerate(layers(model)):
            layer.get_submodule("self_attn").register_forward_hook(
                lambda m, a, out, i=i: runs.__setitem__(i, runs[i] + 1)
            )
            layer.register_forward_hook(lambda m, a, out, i=i: reached.add(i) if out.requires_grad else None)
        settings = Settings(
            steps=3, batch_size=4, learning_rate=1e-2, gradient_checkpointing=again, balance=0.5
        )
        train(model, DATA, settings, folder=tmp_path / "t")
        return model, runs, reached

    plain, once, reached = run(again=False)
    saving, twice, reached_again = run(again=True)
    assert reached == reached_again == {1, 2}, "no backward below the lowest extended layer"
    assert once == [3, 3, 3] and twice == [3, 6, 6]
    assert difference(plain, saving) == 0
    assert not any(layer.gradient_checkpointing for layer in layers(saving))


@pytest.mark.long
def test_compiled_layers_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    plain, compiled = extended(), extended()
    train(plain, DATA, SETTINGS.having(steps=3), folder=tmp_path / "a")
    train(compiled, DATA, SETTINGS.having(steps=3, compile=True), folder=tmp_path / "b")
    assert difference(plain, compiled) < 1e-5
    assert all(layer._compiled_call_impl is None for layer in layers(compiled))


def test_a_tracker_gets_the_losses_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str | None, float]] = []

    class Tracker(TrainerCallback):
        logging_dir: str | None = None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                logged.append((self.logging_dir, logs["loss"]))

    monkeypatch.setattr(
        "transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"]
    )
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    report = train(extended(), DATA, SETTINGS.having(report_to="tensorboard"), folder=tmp_path / "t")
    assert len(logged) == 9 and logged[0][1] == report.loss_first
    assert logged[0][0] == str(tmp_path / "logs"), "what a tracker writes outlives the training's folder"


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


@pytest.mark.parametrize(
    ("where", "step", "at_once"),
    [("loss", 5, True), ("gradient", 5, False), ("weight", 6, True), ("weight", 9, False)],
)
def test_a_training_that_diverges_fails_with_its_step(
    tmp_path: Path, where: str, step: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:  # as on a GPU
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
