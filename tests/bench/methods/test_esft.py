"""ESFT: which experts it trains, by the equations of its paper, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from moextend.bench import methods
from moextend.bench.methods.esft import most
from moextend.model.batches import Collator
from moextend.training.settings import Settings
from tests.bench.methods.short import TASKS, ShortLoop, World, learn, loaded


@torch.no_grad()
def gates(model: Any, rows: Any) -> list[Tensor]:
    """g of the paper, [tokens, experts] for each layer of a Mixtral: the softmax of the logits, renormalised over the
    two largest, else 0.
    """
    batch = Collator.of(model)(list(rows))
    real, found = batch["attention_mask"].bool().flatten(), []

    def see(module: Any, args: Any, out: Any) -> None:
        soft = torch.nn.functional.linear(args[0].reshape(-1, args[0].shape[-1]), module.weight).softmax(-1)
        kept = soft.where(soft >= soft.sort(-1).values[:, -2:-1], 0.0)
        found.append((kept / kept.sum(-1, keepdim=True))[real])

    hooks = [layer.mlp.gate.register_forward_hook(see) for layer in model.lm.model.layers]
    batch.pop("labels")
    model.hidden(**batch)
    for hook in hooks:
        hook.remove()
    return found


def by_the_papers_equations(scores: Tensor, p: float) -> set[int]:
    """The smallest set of the highest scores that sums to p or more."""
    ranked = scores.argsort(descending=True).tolist()
    sets = [set(ranked[:n]) for n in range(1, len(ranked) + 1)]
    return next((chosen for chosen in sets if sum(float(scores[i]) for i in chosen) >= p), sets[-1])


@pytest.mark.parametrize("select", ["gate", "token"])
def test_the_chosen_experts_are_those_of_the_papers_equations(world: World, select: str) -> None:
    for p in (0.2, 0.45, 0.7):
        method, model = methods.parse(f"esft:select={select},threshold={p},items=48").make(), loaded()
        method.start(model, 0)
        stage = world.stage(1)
        wanted = []
        for g in gates(model, stage.data):
            scores = g.mean(0) if select == "gate" else (g > 0).double().mean(0) / 2  # k = 2
            wanted.append(by_the_papers_equations(scores, p))
        facts = method.learn(model, stage, ShortLoop(model, stage, steps=1))
        assert [set(own) for own in facts["experts"].values()] == wanted
        assert facts["trained_parameters"] == sum(map(len, wanted)) * 3 * 96 * 128


def test_experts_are_taken_until_their_scores_sum_to_the_threshold() -> None:
    """As the authors' code: the expert that reaches the threshold is the last one."""
    assert most([0.1, 0.4, 0.3, 0.2], 0.4) == [1]
    assert most([0.1, 0.4, 0.3, 0.2], 0.41) == [1, 2]
    assert most([0.1, 0.2], 1.0) == [0, 1], "gates that are not renormalised sum to less than one"


def test_all_but_the_chosen_experts_stay_as_they_are_bit_for_bit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with weight decay, which AdamW applies to whole stacks. Gradients of the others are zero, so that clipping
    leaves them out.
    """
    seen = dict[int, list[bool]]()

    def look(optimizer: Any, *_: Any) -> None:
        for stack in optimizer.param_groups[0]["params"]:
            seen[id(stack)] = [bool(part.any()) for part in stack.grad]

    decaying = Settings(steps=3, batch_size=8, learning_rate=5e-3, weight_decay=0.5)
    monkeypatch.setattr("tests.bench.methods.short.Settings", lambda **_: decaying)
    with register_optimizer_step_pre_hook(look):
        model, _ = learn(world, "esft", steps=3, stages=1)
    monkeypatch.undo()
    method = methods.parse("esft").make()
    method.start(restored := loaded(), 0)
    method.restore(restored, world.stage(1))
    chosen = method._tuned  # type: ignore[attr-defined]
    base, moved = dict(loaded().lm.named_parameters()), 0
    for name, parameter in model.lm.named_parameters():
        assert torch.equal(parameter, restored.lm.get_parameter(name))
        block, _, part = name.partition(".experts.")
        own = chosen[block] if part else []
        for expert in range(len(parameter)) if part else [slice(None)]:
            same = torch.equal(parameter[expert], base[name][expert])
            assert same == (expert not in own), (name, expert)
            assert not part or seen[id(parameter)][expert] == (not same)
            moved += not same
    assert moved
    assert not any(p._backward_hooks for p in model.lm.parameters())


def test_later_stages_keep_what_earlier_ones_trained(world: World) -> None:
    """The files of the last stage hold the experts that any stage has trained."""
    model, _ = learn(world, "esft")
    method = methods.parse("esft").make()
    method.start(fresh := loaded(), 0)
    method.restore(fresh, world.stage(2))
    assert method.select(fresh, TASKS[0], TASKS) == methods.parse("esft").make().select(
        model, TASKS[0], TASKS
    )
    assert (world.folder / TASKS[1] / "extension.safetensors").stat().st_size < 0.8 * sum(
        4 * p.numel() for p in method.trainable(fresh).values()
    )
